//! Keeping a response to the length that its application declared.
//!
//! hyper trusts an application's `Content-Length`: what goes over would be read by the client as the start of the next
//! response, and what falls short would leave it waiting.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::SizeHint;

use crate::body::{Body, Pause, PollFrame};
use crate::error::{BoxError, Error, Kind};
use crate::input::EXCESS;

/// Counts a body's bytes against its declared length.
pub(super) struct Meter {
    declared: Option<u64>,
    sent: u64,
    /// Whether an excess was reported.
    reported: bool,
}

/// An async body that is kept to its declared length.
pub(super) struct Measured {
    body: Body,
    meter: Meter,
    pause: Pause,
}

impl Meter {
    pub(super) fn new(declared: Option<u64>) -> Self {
        Self { declared, sent: 0, reported: false }
    }

    pub(super) fn declared(&self) -> Option<u64> {
        self.declared
    }

    /// What of `chunk` may be sent. What goes over is cut off and reported, once.
    pub(super) fn admit(&mut self, mut chunk: Bytes) -> Bytes {
        if let Some(declared) = self.declared {
            let room = declared - self.sent;
            if chunk.len() as u64 > room {
                if !self.reported {
                    self.reported = true;
                    tracing::error!(declared, "{EXCESS}");
                }
                chunk.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            }
        }
        self.sent += chunk.len() as u64;
        chunk
    }

    /// Whether something was cut off.
    pub(super) fn is_exceeded(&self) -> bool {
        self.reported
    }

    /// How many bytes there were; an error if the body is shorter than declared.
    pub(super) fn finish(&self) -> Result<u64, Error> {
        match self.declared {
            Some(declared) if self.sent < declared => {
                let sent = self.sent;
                let message = format!(
                    "the response's body is shorter than its Content-Length: {sent} of {declared} bytes"
                );
                Err(Error::new(Kind::Length, message))
            }
            _ => Ok(self.sent),
        }
    }
}

impl Measured {
    pub(super) fn new(body: Body, meter: Meter) -> Self {
        Self { body, meter, pause: Pause::default() }
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        if let Some(failure) = self.pause.take_failure() {
            return Poll::Ready(Some(Err(failure)));
        }
        if self.meter.is_exceeded() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let measured = match frame {
            Some(Ok(frame)) => Some(Ok(frame.map_data(|data| self.meter.admit(data)))),
            Some(Err(error)) => Some(Err(error)),
            None => {
                let short = self.meter.finish().err();
                // Told once: after it the body has ended.
                self.meter.declared = None;
                short.map(|error| Err(error.into()))
            }
        };
        self.pause.pass(cx, Poll::Ready(measured))
    }

    fn is_end_stream(&self) -> bool {
        !self.pause.is_failing() && self.meter.finish().is_ok() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.meter.declared.map(|declared| declared - self.meter.sent);
        left.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}
