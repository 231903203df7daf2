//! An HTTP request as the application sees it: its `receive` and its `send`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::awaits::{Pending, Target, Want};
use super::desk::{Desk, Waiters, resolve};
use super::exchange::{Answer, Gone, Producer, Received};
use super::head;
use super::request::Incoming;
use crate::error::traceback;

/// One request on the loop's thread.
#[pyclass(frozen, freelist = 64, module = "tower_wsgi")]
pub(super) struct Http {
    producer: Producer,
    desk: Arc<Desk>,
    local: Mutex<Local>,
}

struct Local {
    phase: Phase,
    receivers: Waiters,
    senders: Waiters,
    declared: Option<u64>,
    sent: u64,
    /// Whether an excess was reported.
    exceeded: bool,
    /// The response has no body, whatever is sent.
    bodiless: bool,
    trailers: bool,
    /// The application was told that its client has left, while it still had something to send.
    told: bool,
}

enum Phase {
    /// Nothing was sent.
    Start,
    /// The head was sent, and waits for the first of the body to go with it.
    Head(Response<()>),
    Body,
    Trailers(HeaderMap),
    Complete,
    /// The client has left.
    Gone,
}

/// A message from the application, read.
enum Message {
    Start { head: Response<()>, declared: Option<u64>, trailers: bool },
    Body { body: Bytes, more: bool },
    Trailers { headers: HeaderMap, more: bool },
}

impl Http {
    pub(super) fn new(producer: Producer, desk: Arc<Desk>) -> Self {
        let local = Local {
            phase: Phase::Start,
            receivers: Waiters::default(),
            senders: Waiters::default(),
            declared: None,
            sent: 0,
            exceeded: false,
            bodiless: false,
            trailers: false,
            told: false,
        };
        Self { producer, desk, local: Mutex::new(local) }
    }

    fn lock(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the awaitable gives, if it need not wait.
    pub(super) fn poll(&self, py: Python<'_>, want: Want) -> PyResult<Option<Py<PyAny>>> {
        let exchange = &self.producer.0;
        match want {
            Want::Message => match exchange.receive() {
                Received::Chunk(body, more) => request_message(py, &body, more).map(Some),
                Received::Disconnect => {
                    // After a complete response this says nothing of the client.
                    self.lock().told |= !exchange.is_ended();
                    disconnect(py).map(Some)
                }
                Received::Wait => Ok(None),
            },
            Want::Room => match exchange.has_room() {
                Ok(true) => Ok(Some(py.None())),
                Ok(false) => Ok(None),
                Err(left) => Err(self.lock().gone(left)),
            },
        }
    }

    /// A future that is resolved when it is worth looking again.
    pub(super) fn wait<'py>(slf: &Bound<'py, Self>, want: Want) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let future = this.desk.future(slf.py())?;
        let mut local = this.lock();
        local.waiters(want).push(future.clone().unbind());
        drop(local);
        this.desk.register(this.producer.0.key(), Target::Http(slf.clone().unbind()));
        Ok(future)
    }

    /// Whether one who comes now need not queue.
    pub(super) fn is_free(&self, want: Want) -> bool {
        self.lock().waiters(want).is_free()
    }

    /// A future is waited for no more.
    pub(super) fn forget(&self, future: &Bound<'_, PyAny>, want: Want) {
        let mut local = self.lock();
        let removed = local.waiters(want).remove(future);
        let idle = removed.is_some() && local.receivers.is_empty() && local.senders.is_empty();
        drop(local);
        if idle {
            self.desk.unregister(self.producer.0.key());
        }
    }

    /// Lets those go on who need not wait any more. The others are woken by the next event.
    pub(super) fn settle(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let exchange = &this.producer.0;
        let sends = !this.lock().senders.is_empty();
        if sends && !matches!(exchange.has_room(), Ok(false)) {
            while let Some(future) = { this.lock().senders.pop() } {
                resolve(py, future)?;
            }
        }
        let receives = !this.lock().receivers.is_empty();
        if receives && exchange.is_receivable() {
            let all = exchange.is_ended() || exchange.is_closed();
            while let Some(future) = { this.lock().receivers.pop() } {
                resolve(py, future)?;
                if !all {
                    break;
                }
            }
        }
        let waits = {
            let local = this.lock();
            !(local.receivers.is_empty() && local.senders.is_empty())
        };
        if waits {
            this.desk.register(exchange.key(), Target::Http(slf.clone().unbind()));
        }
        Ok(())
    }

    /// Sends a head that waits for its body: the application does something else first.
    pub(super) fn release_head(&self) {
        let mut local = self.lock();
        if let Phase::Head(_) = &local.phase
            && let Phase::Head(head) = std::mem::replace(&mut local.phase, Phase::Body)
        {
            let _ = self.stream(&mut local, head, None);
        }
    }

    /// The application has returned.
    pub(super) fn returned(&self) {
        let local = self.lock();
        let what = match &local.phase {
            Phase::Complete | Phase::Gone => return,
            Phase::Start => "without a response",
            Phase::Head(_) => "after the head of its response",
            Phase::Body => "before the end of its response's body",
            Phase::Trailers(_) => "before its response's trailers",
        };
        let told = local.told;
        drop(local);
        let exchange = &self.producer.0;
        if told || exchange.is_closed() {
            let _span = exchange.request.span.enter();
            tracing::debug!("the application returned {what}; its client has left");
        } else {
            exchange.request.failed(format_args!("the application returned {what}"));
        }
        exchange.fail();
    }

    /// The application has raised something.
    pub(super) fn raised(&self, py: Python<'_>, error: &PyErr) {
        let told = self.is_told();
        let exchange = &self.producer.0;
        if told {
            let Incoming { method, path, span, .. } = &exchange.request;
            let _span = span.enter();
            // Frameworks make exceptions of their own of it.
            tracing::debug!(%method, path, "the application ended: its client has left\n{}", traceback(py, error));
        } else {
            exchange.request.failed(format_args!("the application failed\n{}", traceback(py, error)));
        }
        exchange.fail();
    }

    pub(super) fn is_told(&self) -> bool {
        self.lock().told
    }

    fn read(message: &Bound<'_, PyDict>, kind: &str) -> PyResult<Message> {
        let py = message.py();
        match kind {
            "http.response.start" => {
                let head = head::head(message)?;
                let declared = head::declared_length(head.headers())?;
                let trailers = head::flag(message, intern!(py, "trailers"))?;
                Ok(Message::Start { head, declared, trailers })
            }
            "http.response.body" => {
                let body = head::body(message, intern!(py, "body"))?;
                let more = head::flag(message, intern!(py, "more_body"))?;
                Ok(Message::Body { body, more })
            }
            "http.response.trailers" => {
                let headers = message.get_item(intern!(py, "headers"))?;
                let headers = headers.as_ref().map(head::headers).transpose()?.unwrap_or_default();
                let more = head::flag(message, intern!(py, "more_trailers"))?;
                Ok(Message::Trailers { headers, more })
            }
            other => Err(PyRuntimeError::new_err(format!("unexpected message {other:?}"))),
        }
    }

    /// Passes a message on. True if there is room for another one.
    fn apply(&self, message: Message) -> PyResult<bool> {
        let mut local = self.lock();
        let exchange = &self.producer.0;
        match (std::mem::replace(&mut local.phase, Phase::Complete), message) {
            (Phase::Start, Message::Start { head, declared, trailers }) => {
                if exchange.is_closed() {
                    return Err(local.gone(Gone));
                }
                local.bodiless = head::is_bodiless(&exchange.request.method, head.status());
                local.declared = declared;
                local.trailers = trailers;
                local.phase = Phase::Head(head);
                Ok(true)
            }
            (Phase::Head(head), Message::Body { body, more }) => self.begin(&mut local, head, body, more),
            (Phase::Body, Message::Body { body, more }) => self.go_on(&mut local, body, more),
            (Phase::Trailers(mut all), Message::Trailers { headers, more }) => {
                all.extend(headers);
                if more {
                    local.phase = Phase::Trailers(all);
                    return Ok(true);
                }
                if local.bodiless {
                    return Ok(true);
                }
                exchange.complete(None, Some(all)).map(|()| true).map_err(|left| local.gone(left))
            }
            (Phase::Gone, _) => Err(local.gone(Gone)),
            (phase, message) => {
                let after = match &phase {
                    Phase::Start => "before http.response.start",
                    Phase::Head(_) | Phase::Body => "before the end of the body",
                    Phase::Trailers(_) => "after the end of the body",
                    Phase::Complete | Phase::Gone => "after the response was complete",
                };
                let what = match message {
                    Message::Start { .. } => "http.response.start",
                    Message::Body { .. } => "http.response.body",
                    Message::Trailers { .. } => "http.response.trailers",
                };
                local.phase = phase;
                Err(PyRuntimeError::new_err(format!("{what} {after}")))
            }
        }
    }

    /// The first of the body: the head goes out with it.
    fn begin(&self, local: &mut Local, mut head: Response<()>, body: Bytes, more: bool) -> PyResult<bool> {
        let exchange = &self.producer.0;
        let whole = !more && !local.trailers;
        if local.bodiless {
            let length = whole.then_some(body.len());
            head::fit_length(&exchange.request.method, &mut head, length);
            local.after_body(more);
            let answer = Answer::Full(head, Bytes::new());
            return exchange.answer(answer, None).map(|_| true).map_err(|left| local.gone(left));
        }
        if !whole {
            let body = local.admit(body);
            local.after_body(more);
            let room = self.stream(local, head, Some(body).filter(|body| !body.is_empty()))?;
            return self.check_length(local, more).map(|()| room);
        }
        let body = local.admit(body);
        // Nothing was sent: this can still become a clean failure.
        if local.is_short() {
            local.phase = Phase::Head(head);
            return Err(local.short());
        }
        exchange.answer(Answer::Full(head, body), None).map(|_| true).map_err(|left| local.gone(left))
    }

    fn go_on(&self, local: &mut Local, body: Bytes, more: bool) -> PyResult<bool> {
        let exchange = &self.producer.0;
        if local.bodiless {
            local.after_body(more);
            return Ok(true);
        }
        let body = local.admit(body);
        local.after_body(more);
        self.check_length(local, more)?;
        let body = Some(body).filter(|body| !body.is_empty());
        let sent = match (local.is_complete(), body) {
            (true, last) => exchange.complete(last, None).map(|()| true),
            (false, Some(body)) => exchange.push(Frame::data(body)),
            (false, None) => exchange.has_room(),
        };
        sent.map_err(|left| local.gone(left))
    }

    fn stream(&self, local: &mut Local, mut head: Response<()>, first: Option<Bytes>) -> PyResult<bool> {
        let exchange = &self.producer.0;
        let answer = if local.bodiless {
            head::fit_length(&exchange.request.method, &mut head, None);
            Answer::Full(head, Bytes::new())
        } else {
            Answer::Stream(head, local.declared)
        };
        exchange.answer(answer, first).map_err(|left| local.gone(left))
    }

    /// A body that ends before its declared length fails: its client would wait for the rest.
    fn check_length(&self, local: &mut Local, more: bool) -> PyResult<()> {
        if more || !local.is_short() {
            return Ok(());
        }
        self.producer.0.fail();
        Err(local.short())
    }
}

impl Local {
    fn waiters(&mut self, want: Want) -> &mut Waiters {
        match want {
            Want::Message => &mut self.receivers,
            Want::Room => &mut self.senders,
        }
    }

    fn after_body(&mut self, more: bool) {
        self.phase = match (more, self.trailers) {
            (true, _) => Phase::Body,
            (false, true) => Phase::Trailers(HeaderMap::new()),
            (false, false) => Phase::Complete,
        };
    }

    fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Complete)
    }

    /// What of `body` may be sent. What goes over the declared length is cut off and reported, once.
    fn admit(&mut self, mut body: Bytes) -> Bytes {
        if let Some(declared) = self.declared {
            let room = declared - self.sent;
            if body.len() as u64 > room {
                if !self.exceeded {
                    self.exceeded = true;
                    tracing::error!(
                        declared,
                        "the response's body is longer than its Content-Length; the rest is cut off"
                    );
                }
                body.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            }
        }
        self.sent += body.len() as u64;
        body
    }

    fn gone(&mut self, _: Gone) -> PyErr {
        self.phase = Phase::Gone;
        self.told = true;
        gone()
    }

    fn is_short(&self) -> bool {
        self.declared.is_some_and(|declared| self.sent < declared)
    }

    fn short(&self) -> PyErr {
        let (sent, declared) = (self.sent, self.declared.unwrap_or_default());
        PyValueError::new_err(format!(
            "the response's body is shorter than its Content-Length: {sent} of {declared} bytes"
        ))
    }
}

#[pymethods]
impl Http {
    fn receive(slf: &Bound<'_, Self>) -> Pending {
        Pending::new(Target::Http(slf.clone().unbind()), Want::Message)
    }

    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let message = head::message(message)?;
        let kind = head::kind(message)?;
        Self::pass(slf, message, kind.to_str()?)
    }
}

impl Http {
    /// Takes a message of the kind.
    pub(super) fn pass(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyDict>,
        kind: &str,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let message = Self::read(message, kind)?;
        let starts = matches!(message, Message::Start { .. });
        let room = this.apply(message)?;
        if starts {
            if this.desk.hold(this.producer.0.key(), slf.clone().unbind()) {
                // By then it has gone with its body, unless the application has something else to do first.
                let flush = Py::new(py, ReleaseHeads { desk: this.desk.clone() })?;
                this.desk.event_loop.bind(py).call_method1(intern!(py, "call_soon"), (flush,))?;
            }
            return Ok(this.desk.done(py));
        }
        let woken = {
            let local = this.lock();
            local.is_complete() && !local.receivers.is_empty()
        };
        if woken {
            // Whoever waits for the client to leave need not wait any longer.
            Self::settle(slf)?;
        }
        if room {
            return Ok(this.desk.done(py));
        }
        let pending = Pending::new(Target::Http(slf.clone().unbind()), Want::Room);
        Ok(Py::new(py, pending)?.into_any())
    }
}

/// A callback of the loop: heads that were held back for their bodies go out.
#[pyclass(frozen, module = "tower_wsgi")]
struct ReleaseHeads {
    desk: Arc<Desk>,
}

#[pymethods]
impl ReleaseHeads {
    fn __call__(&self) {
        for http in self.desk.take_held() {
            http.get().release_head();
        }
    }
}

fn request_message(py: Python<'_>, body: &Bytes, more: bool) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
    message.set_item(intern!(py, "body"), PyBytes::new(py, body))?;
    message.set_item(intern!(py, "more_body"), more)?;
    Ok(message.into_any().unbind())
}

fn disconnect(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
    Ok(message.into_any().unbind())
}

pub(super) fn gone() -> PyErr {
    PyOSError::new_err("the client has left")
}
