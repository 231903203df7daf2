//! Responses that begin before their handler returns.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::call::{Answer, Call};
use super::deliver::{CallSink, answer, deliver_full, finish};
use super::meter::Meter;
use crate::body::Body;
use crate::early::{Begin, BegunSink};
use crate::error::{Error, Kind};
use crate::handler::SyncHandler;
use crate::parker::Watch;
use crate::response::{check_head, drop_hop_by_hop, is_bodiless};
use crate::source::broken_pipe;
use crate::sync::{AtomicU8, Ordering};
use crate::writer::Sink;

/// Whether a call's response begins, or began, before its handler returns.
#[derive(Default)]
pub(super) struct EarlyState(AtomicU8);

impl EarlyState {
    const NONE: u8 = 0;
    const BEGUN: u8 = 1;
    const HEAD_SENT: u8 = 2;
    const ENDED: u8 = 3;

    fn advance(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is_sent(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::HEAD_SENT
    }

    /// The handler is over. True if a head is out.
    pub(super) fn end(&self) -> bool {
        self.0.swap(Self::ENDED, Ordering::AcqRel) == Self::HEAD_SENT
    }
}

/// Where a response goes that begins before its handler returns.
struct EarlySink<H: SyncHandler> {
    sink: CallSink<H>,
    /// Whether what is sent is thrown away: for HEAD, 204 and 304.
    is_bodiless: bool,
}

impl<H: SyncHandler> Begin for Call<H> {
    fn into_watch(self: Arc<Self>) -> Arc<dyn Watch> {
        self
    }

    fn begin(self: Arc<Self>, mut head: Response<()>) -> Result<Box<dyn BegunSink>, Error> {
        drop_hop_by_hop(&mut head);
        let meter = Meter::new(check_head(&head)?);
        if !self.early.advance(EarlyState::NONE, EarlyState::BEGUN) {
            return Err(Error::new(Kind::Response, "the response was begun before"));
        }
        let is_bodiless = is_bodiless(&self.method, head.status());
        let sink = CallSink { call: self, head: Some(head), meter };
        Ok(Box::new(EarlySink { sink, is_bodiless }))
    }
}

impl<H: SyncHandler> Sink for EarlySink<H> {
    fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        let early = &self.sink.call.early;
        if !early.advance(EarlyState::BEGUN, EarlyState::HEAD_SENT) && !early.is_sent() {
            // The handler is over.
            return Err(broken_pipe());
        }
        if self.is_bodiless {
            return self.check();
        }
        self.sink.send(chunk)
    }

    fn check(&self) -> io::Result<()> {
        self.sink.check()
    }
}

impl<H: SyncHandler> BegunSink for EarlySink<H> {
    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let CallSink { call, head, meter } = &mut self.sink;
        match head.take() {
            // Nothing went out yet: it is a response as any other.
            Some(head) if self.is_bodiless => {
                answer(call, Answer::Response(head.map(|()| Body::empty())));
                Ok(())
            }
            Some(head) => deliver_full(call, head, Meter::new(meter.declared()), Bytes::new(), None),
            None => {
                finish(call, meter.finish());
                Ok(())
            }
        }
    }
}
