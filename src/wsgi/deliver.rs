//! From what a handler returned to what the async side gets.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Frame;

use super::call::{Answer, Call};
use super::meter::{Measured, Meter};
use super::produce::{Producer, produce};
use crate::body::Body;
use crate::error::{Error, Kind, drop_quietly, guard};
use crate::exchange::Room;
use crate::handler::SyncHandler;
use crate::output::{Output, OutputKind};
use crate::response::{check_head, drop_hop_by_hop, error_response, fit_length, is_bodiless, report};
use crate::source::{Trailers, Write, broken_pipe};
use crate::trailed::Trailed;
use crate::writer::{Sink, Writer};

/// Delivers a handler's response.
pub(super) fn deliver<H: SyncHandler>(call: &Arc<Call<H>>, response: Response<Output>) {
    if matches!(response.body().kind, OutputKind::Begun(_)) {
        if let OutputKind::Begun(sink) = response.into_body().kind {
            if let Err(error) = sink.finish() {
                fail(call, &error);
            }
        }
        return;
    }
    if call.early.end() {
        drop_quietly(response);
        let message = "the handler returned another response than the one that it had begun";
        return finish(call, Err(Error::new(Kind::Response, message)));
    }
    if let Err(error) = try_deliver(call, response, None) {
        fail(call, &error);
    }
}

/// Answers with the response for `error`: the one that `on_error` makes, or else a plain one.
pub(super) fn fail<H: SyncHandler>(call: &Arc<Call<H>>, error: &Error) {
    log(call, error);
    if call.exchange.is_closed() {
        return;
    }
    if call.early.end() {
        call.events.failed(call.span(), error);
        return call.exchange.finish(Err(error.clone()));
    }
    if let Some(on_error) = &call.shared.settings.on_error {
        let delivered = guard(|| on_error(error)).and_then(|mut response| {
            response.extensions_mut().insert(error.clone());
            try_deliver(call, response, Some(error))
        });
        if let Err(second) = delivered {
            fail_plainly(call, error, &second);
        }
        return;
    }
    answer(call, Answer::Response(error_response(&call.method, error)));
}

/// Answers with the plain response for `error`, since the one that `on_error` made failed too. To ask `on_error` again could go on for ever.
pub(super) fn fail_plainly<H: SyncHandler>(call: &Arc<Call<H>>, error: &Error, second: &Error) {
    log(call, second);
    answer(call, Answer::Response(error_response(&call.method, error)));
}

/// Reports what went wrong to the log. What fails because of the client is no fault of the server's.
pub(super) fn log<H: SyncHandler>(call: &Arc<Call<H>>, error: &Error) {
    if call.exchange.is_closed() && !error.is_panic() {
        tracing::debug!(%error, "the client is gone");
        return;
    }
    report(error);
}

/// Gives the answer; one that nobody waits for is dropped here, on the worker.
pub(super) fn answer<H: SyncHandler>(call: &Arc<Call<H>>, answer: Answer) {
    drop(call.exchange.answer(answer));
}

/// Delivers a response; `cause` is the error that it stands for.
///
/// # Errors
/// What came up before anything was sent, so that another response can still be made.
fn try_deliver<H: SyncHandler>(
    call: &Arc<Call<H>>,
    response: Response<Output>,
    cause: Option<&Error>,
) -> Result<(), Error> {
    let (parts, output) = response.into_parts();
    let mut head = Response::from_parts(parts, ());
    drop_hop_by_hop(&mut head);
    if let OutputKind::Forward(forward) = output.kind {
        // The inner service's body has its own length.
        head.headers_mut().remove(CONTENT_LENGTH);
        answer(call, Answer::Forward(head, forward));
        return Ok(());
    }
    let declared = check_head(&head)?;
    if is_bodiless(&call.method, head.status()) {
        return deliver_bodiless(call, head, output);
    }
    let Output { kind, trailers, .. } = output;
    match kind {
        OutputKind::Full(bytes) => deliver_full(call, head, Meter::new(declared), bytes, trailers),
        OutputKind::Source(source) => {
            let meter = Meter::new(declared);
            produce(call, Box::new(Producer::new(source, trailers, meter, head, cause.cloned())));
            Ok(())
        }
        OutputKind::Write(write) => deliver_written(call, head, Meter::new(declared), write, trailers),
        OutputKind::Body(body) => {
            let mut body = match declared {
                Some(length) if http_body::Body::size_hint(&body).exact() != Some(length) => {
                    Body::new(Measured::new(body, Meter::new(declared)))
                }
                _ => body,
            };
            if let Some(trailers) = trailers {
                body = Body::new(Trailed::new(body, trailers));
            }
            answer(call, Answer::Response(head.map(|()| body)));
            Ok(())
        }
        OutputKind::Forward(_) | OutputKind::Begun(_) => unreachable!("delivered above"),
    }
}

/// A response that must not have a body: the producer is dropped without being run.
fn deliver_bodiless<H: SyncHandler>(
    call: &Arc<Call<H>>,
    mut head: Response<()>,
    output: Output,
) -> Result<(), Error> {
    fit_length(&call.method, &mut head, &output);
    guard(|| drop(output))?;
    answer(call, Answer::Response(head.map(|()| Body::empty())));
    Ok(())
}

/// A response whose body is all here: head and body go over in one step.
pub(super) fn deliver_full<H: SyncHandler>(
    call: &Arc<Call<H>>,
    head: Response<()>,
    mut meter: Meter,
    bytes: Bytes,
    trailers: Option<Trailers>,
) -> Result<(), Error> {
    let bytes = meter.admit(bytes);
    meter.finish()?;
    let body = match trailers {
        None => Body::from(bytes),
        Some(trailers) => {
            let trailers = guard(trailers)?;
            let chunks = (!bytes.is_empty()).then_some(bytes).into_iter().collect();
            Body::ahead(chunks, Body::last(Ok(trailers)))
        }
    };
    answer(call, Answer::Response(head.map(|()| body)));
    Ok(())
}

/// A response that a function writes.
fn deliver_written<H: SyncHandler>(
    call: &Arc<Call<H>>,
    head: Response<()>,
    meter: Meter,
    write: Write,
    trailers: Option<Trailers>,
) -> Result<(), Error> {
    let mut sink = CallSink { call: call.clone(), head: Some(head), meter };
    let written = guard(|| {
        let mut writer = Writer::new(&mut sink);
        let result = write(&mut writer);
        let (rest, own_trailers) = writer.into_rest();
        result.map(|()| (rest, own_trailers.or_else(|| trailers.map(|trailers| trailers()))))
    });
    let written = written.and_then(|result| result.map_err(|error| Error::handler(error.into())));
    let CallSink { head, mut meter, .. } = sink;
    match (head, written) {
        // Nothing went out yet: the whole body may still fit into one step, and an error is still a clean one.
        (Some(head), Ok((rest, trailers))) => {
            let trailers = trailers.map(|trailers| Box::new(|| trailers) as Trailers);
            deliver_full(call, head, meter, rest, trailers)
        }
        (Some(_), Err(error)) => Err(error),
        (None, Ok((rest, trailers))) => {
            let rest = meter.admit(rest);
            if !rest.is_empty() && call.wait_room() {
                call.exchange.push(Frame::data(rest));
            }
            if let Some(trailers) = trailers {
                call.exchange.push(Frame::trailers(trailers));
            }
            finish(call, meter.finish());
            Ok(())
        }
        (None, Err(error)) => {
            finish(call, Err(error));
            Ok(())
        }
    }
}

/// Ends a body of so many bytes, whose head is out. A failure cuts it off.
pub(super) fn finish<H: SyncHandler>(call: &Arc<Call<H>>, end: Result<u64, Error>) {
    match &end {
        Ok(bytes) => call.events.streamed(call.span(), *bytes),
        Err(error) => {
            log(call, error);
            call.events.failed(call.span(), error);
        }
    }
    call.exchange.finish(end.map(drop));
}

/// Sends a writer's chunks through the exchange.
pub(super) struct CallSink<H> {
    pub(super) call: Arc<Call<H>>,
    /// Goes out with the first chunk.
    pub(super) head: Option<Response<()>>,
    pub(super) meter: Meter,
}

impl<H: SyncHandler> Sink for CallSink<H> {
    fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        self.check()?;
        let length = chunk.len();
        let chunk = self.meter.admit(chunk);
        let cut = chunk.len() < length;
        if !chunk.is_empty() {
            self.push(chunk)?;
        }
        if cut {
            let message = "the response's body goes over its Content-Length";
            return Err(Error::new(Kind::Length, message).into_io(io::ErrorKind::InvalidInput));
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.call.exchange.is_closed() {
            return Err(broken_pipe());
        }
        Ok(())
    }
}

impl<H: SyncHandler> CallSink<H> {
    fn push(&mut self, chunk: Bytes) -> io::Result<()> {
        let exchange = &self.call.exchange;
        let frame = Frame::data(chunk);
        if let Some(head) = self.head.take() {
            let stream = Answer::Stream(head, self.meter.declared());
            return exchange.answer_with(stream, frame).map_err(|_| broken_pipe());
        }
        if !self.call.wait_room() || exchange.push(frame) == Room::Closed {
            return Err(broken_pipe());
        }
        Ok(())
    }
}
