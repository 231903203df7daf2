//! What `tracing` is told of a request on its way through the crossing. Names, levels and fields are documented with [`WsgiLayer`](crate::WsgiLayer#events), and stay.
//!
//! Whether anybody listens is asked once, when the request is handed to the pool: for all others there is no clock to read.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::StatusCode;
use tracing::{Level, Span};

use crate::error::Error;

/// The events of one request.
#[derive(Default)]
pub(super) struct Events {
    /// When it was handed to the pool, if somebody listens.
    dispatched: OnceLock<Instant>,
}

/// Where a request was when its client left.
#[derive(Clone, Copy)]
pub(super) enum At {
    Queue,
    Handler,
    Body,
}

impl At {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Handler => "handler",
            Self::Body => "body",
        }
    }
}

/// An event inside `span`, whichever thread it comes up on.
macro_rules! event {
    ($span:expr, $($fields:tt)+) => {
        tracing::debug!(target: "tower_wsgi", parent: $span.and_then(Span::id), $($fields)+)
    };
}

impl Events {
    /// The request is handed to the pool, where `queued` others wait.
    pub(super) fn dispatched(&self, span: Option<&Span>, queued: impl FnOnce() -> usize) {
        if tracing::enabled!(target: "tower_wsgi", Level::DEBUG) {
            event!(span, queued = queued(), "dispatched");
            self.dispatched.get_or_init(Instant::now);
        }
    }

    /// A worker runs the handler now. Gives the time, if somebody listens.
    pub(super) fn started(&self, span: Option<&Span>) -> Option<Instant> {
        let dispatched = self.dispatched.get()?;
        event!(span, queue_wait_us = micros(dispatched.elapsed()), "started");
        Some(Instant::now())
    }

    /// The handler, which was started then, returned a response of this status, or an error that stands for it.
    pub(super) fn returned(span: Option<&Span>, started: Option<Instant>, status: StatusCode) {
        if let Some(started) = started {
            event!(span, run_us = micros(started.elapsed()), status = status.as_u16(), "returned");
        }
    }

    /// The last of a body's `bytes` was handed to the client's side.
    pub(super) fn streamed(&self, span: Option<&Span>, bytes: u64) {
        if let Some(dispatched) = self.dispatched.get() {
            event!(span, elapsed_us = micros(dispatched.elapsed()), bytes, "streamed");
        }
    }

    /// The response was cut off behind its head, since the application failed.
    pub(super) fn failed(&self, span: Option<&Span>, error: &Error) {
        if let Some(dispatched) = self.dispatched.get() {
            let elapsed_us = micros(dispatched.elapsed());
            event!(span, elapsed_us, at = At::Body.as_str(), by = "handler", %error, "aborted");
        }
    }

    /// Nobody waits for the response any more.
    pub(super) fn left(&self, span: Option<&Span>, at: At) {
        if let Some(dispatched) = self.dispatched.get() {
            event!(
                span,
                elapsed_us = micros(dispatched.elapsed()),
                at = at.as_str(),
                by = "client",
                "aborted"
            );
        }
    }

    /// No worker took the request.
    pub(super) fn refused(&self, span: Option<&Span>, error: &Error) {
        let queue_wait_us = self.dispatched.get().map(|dispatched| micros(dispatched.elapsed()));
        event!(span, queue_wait_us, %error, "refused");
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
