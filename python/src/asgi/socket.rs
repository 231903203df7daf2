//! A WebSocket as the application sees it: its `receive` and its `send`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderValue, Response, StatusCode};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::awaits::{Pending, Target, Want};
use super::desk::{Desk, Waiters, resolve};
use super::exchange::{Answer, Gone, Producer};
use super::head;
use super::http::{Http, gone};
use super::link::{Link, Received};
use super::pump::ABNORMAL;
use super::request::Incoming;
use crate::error::traceback;

/// How many bytes a close frame's reason may have: a control frame holds 125, two of them are the code (RFC 6455, section 5.5).
const MAX_REASON: usize = 123;

/// The loop's side of a WebSocket: one for its handshake, one for its messages.
pub(super) struct SocketEnd {
    pub(super) producer: Producer,
    pub(super) link: Arc<Link>,
    pub(super) subprotocols: Vec<String>,
}

impl SocketEnd {
    pub(super) fn request(&self) -> &Incoming {
        &self.producer.0.request
    }
}

impl Drop for SocketEnd {
    fn drop(&mut self) {
        // Whoever accepted it closes it; it does nothing after that.
        self.link.close(Some(frame(CloseCode::Error, "")));
    }
}

/// One WebSocket on the loop's thread.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct WebSocket {
    end: SocketEnd,
    desk: Arc<Desk>,
    local: Mutex<Local>,
}

struct Local {
    phase: Phase,
    receivers: Waiters,
    senders: Waiters,
    /// The application was told that its client has left, before it has closed the socket itself.
    told: bool,
}

enum Phase {
    /// The application has not heard of it.
    New,
    /// The application has to decide.
    Connecting,
    Accepted,
    /// An HTTP response is sent in its place.
    Denied(Py<Http>),
    Closed,
}

/// A message from the application, read.
enum Sent {
    Accept(Response<()>),
    Message(Message),
    Close(CloseFrame),
}

impl WebSocket {
    pub(super) fn new(end: SocketEnd, desk: Arc<Desk>) -> Self {
        let local = Local {
            phase: Phase::New,
            receivers: Waiters::default(),
            senders: Waiters::default(),
            told: false,
        };
        Self { end, desk, local: Mutex::new(local) }
    }

    fn lock(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn key(&self) -> usize {
        self.end.producer.0.key()
    }

    /// What the awaitable gives, if it need not wait.
    pub(super) fn poll(&self, py: Python<'_>, want: Want) -> PyResult<Option<Py<PyAny>>> {
        match want {
            Want::Message => self.poll_message(py),
            Want::Room => match self.end.link.has_room() {
                Ok(true) => Ok(Some(py.None())),
                Ok(false) => Ok(None),
                Err(Gone) => Err(self.lock().gone()),
            },
        }
    }

    fn poll_message(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut local = self.lock();
        match &local.phase {
            Phase::New => {
                local.phase = Phase::Connecting;
                drop(local);
                let message = PyDict::new(py);
                message.set_item(intern!(py, "type"), intern!(py, "websocket.connect"))?;
                return Ok(Some(message.into_any().unbind()));
            }
            Phase::Denied(_) => {
                let ended = self.end.producer.0.watch();
                drop(local);
                return if ended { disconnect(py, ABNORMAL, "").map(Some) } else { Ok(None) };
            }
            Phase::Connecting if self.end.producer.0.watch() => {
                local.tell();
                drop(local);
                return disconnect(py, ABNORMAL, "").map(Some);
            }
            Phase::Connecting | Phase::Accepted | Phase::Closed => drop(local),
        }
        match self.end.link.receive() {
            Received::Message(message) => received(py, message).map(Some),
            Received::Disconnect(code, reason) => {
                self.lock().tell();
                disconnect(py, code, &reason).map(Some)
            }
            Received::Wait => Ok(None),
        }
    }

    /// A future that is resolved when it is worth looking again.
    pub(super) fn wait<'py>(slf: &Bound<'py, Self>, want: Want) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let future = this.desk.future(slf.py())?;
        this.lock().waiters(want).push(future.clone().unbind());
        this.desk.register(this.key(), Target::WebSocket(slf.clone().unbind()));
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
            self.desk.unregister(self.key());
        }
    }

    /// Lets those go on who need not wait any more. The others are woken by the next event.
    pub(super) fn settle(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (receives, sends) = {
            let local = this.lock();
            (!local.receivers.is_empty(), !local.senders.is_empty())
        };
        if sends && !matches!(this.end.link.has_room(), Ok(false)) {
            while let Some(future) = { this.lock().senders.pop() } {
                resolve(py, future)?;
            }
        }
        let exchange = &this.end.producer.0;
        let ended = exchange.is_closed() || this.end.link.is_lost();
        if receives && (ended || this.end.link.is_receivable()) {
            while let Some(future) = { this.lock().receivers.pop() } {
                resolve(py, future)?;
                if !ended {
                    break;
                }
            }
        }
        let waits = {
            let local = this.lock();
            !(local.receivers.is_empty() && local.senders.is_empty())
        };
        if waits {
            this.desk.register(this.key(), Target::WebSocket(slf.clone().unbind()));
        }
        Ok(())
    }

    /// The application has returned.
    pub(super) fn returned(&self, py: Python<'_>) {
        self.desk.close_socket(self.key());
        let phase = std::mem::replace(&mut self.lock().phase, Phase::Closed);
        match phase {
            Phase::New | Phase::Connecting => {
                if !self.end.producer.0.is_closed() {
                    let what =
                        format_args!("the application returned without a word to the WebSocket's client");
                    self.end.request().failed(what);
                }
                self.end.producer.0.fail();
            }
            Phase::Accepted => self.end.link.close(Some(frame(CloseCode::Normal, ""))),
            Phase::Denied(http) => http.bind(py).get().returned(),
            Phase::Closed => {}
        }
    }

    /// The application has raised something.
    pub(super) fn raised(&self, py: Python<'_>, error: &PyErr) {
        self.desk.close_socket(self.key());
        let told = self.lock().is_told();
        let request = self.end.request();
        if told {
            let _span = request.span.enter();
            let path = &request.path;
            tracing::debug!(path, "the application ended: its client has left\n{}", traceback(py, error));
        } else {
            request.failed(format_args!("the application failed on a WebSocket\n{}", traceback(py, error)));
        }
        self.end.producer.0.fail();
        self.end.link.close(Some(frame(CloseCode::Error, "")));
        self.lock().phase = Phase::Closed;
    }

    /// The server ends.
    pub(super) fn go_away(&self) {
        self.end.link.close(Some(frame(CloseCode::Restart, "")));
    }

    fn read(message: &Bound<'_, PyDict>, kind: &str) -> PyResult<Sent> {
        let py = message.py();
        match kind {
            "websocket.accept" => {
                let mut head = Response::new(());
                if let Some(headers) = present(message, intern!(py, "headers"))? {
                    *head.headers_mut() = head::headers(&headers)?;
                }
                if let Some(subprotocol) = present(message, intern!(py, "subprotocol"))? {
                    let subprotocol = subprotocol.extract::<String>()?;
                    let value = HeaderValue::from_str(&subprotocol)
                        .map_err(|_| PyValueError::new_err(format!("invalid subprotocol {subprotocol:?}")))?;
                    head.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
                }
                Ok(Sent::Accept(head))
            }
            "websocket.send" => {
                let bytes = present(message, intern!(py, "bytes"))?;
                let text = present(message, intern!(py, "text"))?;
                match (bytes, text) {
                    (Some(bytes), None) => Ok(Sent::Message(Message::Binary(head::bytes(&bytes)?))),
                    (None, Some(text)) => {
                        let text = text.cast::<PyString>().map_err(|_| {
                            let kind = head::type_name(&text);
                            PyTypeError::new_err(format!("the text of websocket.send is a str, not {kind}"))
                        })?;
                        Ok(Sent::Message(Message::text(text.to_str()?)))
                    }
                    _ => Err(PyValueError::new_err("websocket.send has either bytes or text")),
                }
            }
            "websocket.close" => {
                let code = match present(message, intern!(py, "code"))? {
                    Some(code) => code.extract::<u16>()?,
                    None => 1000,
                };
                let code = CloseCode::from(code);
                if !code.is_allowed() {
                    return Err(PyValueError::new_err(format!("a WebSocket cannot be closed with {code}")));
                }
                let reason = match present(message, intern!(py, "reason"))? {
                    Some(reason) => reason.extract::<String>()?,
                    None => String::new(),
                };
                if reason.len() > MAX_REASON {
                    let message = format!("the reason of a close has at most {MAX_REASON} bytes");
                    return Err(PyValueError::new_err(message));
                }
                Ok(Sent::Close(frame(code, &reason)))
            }
            other => Err(PyRuntimeError::new_err(format!("unexpected message {other:?}"))),
        }
    }

    /// Passes a message on. True if there is room for another one.
    fn apply(&self, sent: Sent) -> PyResult<bool> {
        let mut local = self.lock();
        let exchange = &self.end.producer.0;
        let connecting = matches!(local.phase, Phase::New | Phase::Connecting);
        let accepted = matches!(local.phase, Phase::Accepted);
        match sent {
            Sent::Accept(head) if connecting => {
                exchange.answer(Answer::Upgrade(head), None).map_err(|Gone| local.gone())?;
                local.phase = Phase::Accepted;
                Ok(true)
            }
            Sent::Close(_) if connecting => {
                self.end.link.lose(ABNORMAL, "");
                let mut head = Response::new(());
                *head.status_mut() = StatusCode::FORBIDDEN;
                let answer = Answer::Full(head, Bytes::new());
                let answered = exchange.answer(answer, None).map_err(|Gone| local.gone());
                local.phase = Phase::Closed;
                answered
            }
            Sent::Message(message) if accepted => self.end.link.push(message).map_err(|Gone| local.gone()),
            Sent::Close(frame) if accepted => {
                let lost = self.end.link.is_lost().then(|| local.gone());
                local.phase = Phase::Closed;
                if let Some(gone) = lost {
                    return Err(gone);
                }
                self.end.link.close(Some(frame));
                Ok(true)
            }
            sent => {
                let what = match sent {
                    Sent::Accept(_) => "websocket.accept",
                    Sent::Message(_) => "websocket.send",
                    Sent::Close(_) => "websocket.close",
                };
                let when = match &local.phase {
                    Phase::New | Phase::Connecting => "before websocket.accept",
                    Phase::Accepted => "after websocket.accept",
                    Phase::Denied(_) => "after websocket.http.response.start",
                    Phase::Closed => "after websocket.close",
                };
                Err(PyRuntimeError::new_err(format!("{what} {when}")))
            }
        }
    }

    /// The HTTP response that is sent in place of an upgrade.
    fn denial<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Http>> {
        let mut local = self.lock();
        match &local.phase {
            Phase::Denied(http) => Ok(http.bind(py).clone()),
            Phase::New | Phase::Connecting => {
                let producer = Producer(self.end.producer.0.clone());
                let http = Bound::new(py, Http::new(producer, self.desk.clone()))?;
                local.phase = Phase::Denied(http.clone().unbind());
                Ok(http)
            }
            Phase::Accepted | Phase::Closed => {
                Err(PyRuntimeError::new_err("websocket.http.response after the handshake was over"))
            }
        }
    }
}

impl Local {
    fn waiters(&mut self, want: Want) -> &mut Waiters {
        match want {
            Want::Message => &mut self.receivers,
            Want::Room => &mut self.senders,
        }
    }

    fn gone(&mut self) -> PyErr {
        self.tell();
        gone()
    }

    /// A socket that the application has closed itself is gone for that reason.
    fn tell(&mut self) {
        self.told |= !matches!(self.phase, Phase::Closed);
    }

    fn is_told(&self) -> bool {
        match &self.phase {
            Phase::Denied(http) => http.get().is_told(),
            _ => self.told,
        }
    }
}

#[pymethods]
impl WebSocket {
    fn receive(slf: &Bound<'_, Self>) -> Pending {
        Pending::new(Target::WebSocket(slf.clone().unbind()), Want::Message)
    }

    fn send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let message = head::message(message)?;
        let kind = head::kind(message)?;
        let kind = kind.to_str()?;
        if let Some(kind) = kind.strip_prefix("websocket.").filter(|kind| kind.starts_with("http.response."))
        {
            return Http::pass(&this.denial(py)?, message, kind);
        }
        let sent = Self::read(message, kind)?;
        let accepts = matches!(sent, Sent::Accept(_));
        let room = this.apply(sent)?;
        if accepts {
            this.desk.open_socket(this.key(), slf.clone().unbind());
        }
        // Those who wait for the handshake to be over wait for messages now.
        Self::settle(slf)?;
        if room {
            return Ok(this.desk.done(py));
        }
        let pending = Pending::new(Target::WebSocket(slf.clone().unbind()), Want::Room);
        Ok(Py::new(py, pending)?.into_any())
    }
}

/// What is under `name`, if it is not `None`.
fn present<'py>(
    message: &Bound<'py, PyDict>,
    name: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(message.get_item(name)?.filter(|value| !value.is_none()))
}

fn frame(code: CloseCode, reason: &str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}

fn received(py: Python<'_>, received: Message) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.receive"))?;
    match received {
        Message::Text(text) => message.set_item(intern!(py, "text"), text.as_str())?,
        other => message.set_item(intern!(py, "bytes"), PyBytes::new(py, &other.into_data()))?,
    }
    Ok(message.into_any().unbind())
}

fn disconnect(py: Python<'_>, code: u16, reason: &str) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), intern!(py, "websocket.disconnect"))?;
    message.set_item(intern!(py, "code"), code)?;
    message.set_item(intern!(py, "reason"), reason)?;
    Ok(message.into_any().unbind())
}
