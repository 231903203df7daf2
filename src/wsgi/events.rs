//! What `tracing` is told of a request on its way through the crossing. Names, levels and fields are documented with [`WsgiLayer`](crate::WsgiLayer#events), and stay.
//!
//! Whether anybody listens is asked once, when the request is handed to the pool: for all others there is no clock to read.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::StatusCode;
use tracing::{Level, Span};

use crate::error::Error;

/// The events of one request.
#[derive(Default)]
pub(super) struct Events {
    /// When it was handed to the pool, if somebody listens and its end was not told yet; else 0. (An `Option<Instant>` would make a call larger than what glibc's allocator keeps for each thread: up to 1,200 instructions more a request.)
    dispatched: AtomicU64,
}

/// Where a request was when nobody waited for it any more.
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
            self.dispatched.store(now(), Ordering::Relaxed);
        }
    }

    /// For how long it has been on its way, in microseconds, if somebody listens.
    fn elapsed(&self) -> Option<u64> {
        let dispatched = self.dispatched.load(Ordering::Relaxed);
        (dispatched > 0).then(|| now().saturating_sub(dispatched))
    }

    /// The same, once: a response has one end, whoever comes to it next.
    fn end(&self) -> Option<u64> {
        let elapsed = self.elapsed()?;
        (self.dispatched.swap(0, Ordering::Relaxed) > 0).then_some(elapsed)
    }

    /// A worker runs the handler now. Gives the time, if somebody listens.
    pub(super) fn started(&self, span: Option<&Span>) -> Option<u64> {
        let queue_wait_us = self.elapsed()?;
        event!(span, queue_wait_us, "started");
        Some(now())
    }

    /// The handler, which was started then, returned a response of this status, or an error that stands for it.
    pub(super) fn returned(span: Option<&Span>, started: Option<u64>, status: StatusCode) {
        if let Some(started) = started {
            event!(span, run_us = now().saturating_sub(started), status = status.as_u16(), "returned");
        }
    }

    /// The last of a body's `bytes` was handed to the client's side.
    pub(super) fn streamed(&self, span: Option<&Span>, bytes: u64) {
        if let Some(elapsed_us) = self.end() {
            event!(span, elapsed_us, bytes, "streamed");
        }
    }

    /// The response was cut off behind its head, since the application failed.
    pub(super) fn failed(&self, span: Option<&Span>, error: &Error) {
        if let Some(elapsed_us) = self.end() {
            event!(span, elapsed_us, at = At::Body.as_str(), by = "handler", %error, "aborted");
        }
    }

    /// Nobody waits for the response any more.
    pub(super) fn left(&self, span: Option<&Span>, at: At) {
        if let Some(elapsed_us) = self.end() {
            event!(span, elapsed_us, at = at.as_str(), by = "caller", "aborted");
        }
    }

    /// No worker took the request.
    pub(super) fn refused(&self, span: Option<&Span>, error: &Error) {
        event!(span, queue_wait_us = self.elapsed(), %error, "refused");
    }
}

/// Microseconds since this was first asked, and one: never 0.
fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_micros()).map_or(u64::MAX, |micros| micros.saturating_add(1))
}
