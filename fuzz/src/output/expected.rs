//! What a response should come to.

use http::StatusCode;
use http::header::ETAG;

use super::producer::{Act, Kind};
use super::{Case, Got, Through};
use crate::script::End;

/// What is gathered before it is sent without a flush.
const GATHERED: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Expected {
    status: StatusCode,
    is_bodiless: bool,
    is_head: bool,
    kind: Kind,
    end: End,
    is_service: bool,
    is_passed: bool,
    /// All that is produced.
    bytes: Vec<u8>,
    /// How many of the bytes have gone out for certain when the producer fails.
    sent: usize,
    declared: Option<usize>,
}

impl Expected {
    pub(super) fn new(case: &Case) -> Self {
        let mut bytes = Vec::new();
        let mut sent = 0;
        for act in &case.acts {
            bytes.extend(case.text.bytes(bytes.len(), act.size()));
            if !matches!((case.kind, act), (Kind::Writer, Act::Write(_))) {
                sent = bytes.len();
            }
        }
        Self {
            status: case.status(),
            is_bodiless: case.is_bodiless(),
            is_head: case.head,
            kind: case.kind,
            end: case.end,
            is_service: matches!(case.through, Through::Service(_)),
            is_passed: matches!(case.through, Through::Passed(1.., _)),
            bytes,
            sent,
            declared: case.declared().map(|length| usize::try_from(length).unwrap_or(usize::MAX)),
        }
    }

    /// Somebody has taken bytes off the front.
    pub(super) fn skip(&mut self, taken: usize) {
        self.bytes.drain(..taken);
        self.sent = self.sent.saturating_sub(taken);
    }

    fn fails(&self) -> bool {
        matches!(self.end, End::Failure | End::Interrupted | End::Panic)
    }

    /// Whether it goes over its length before it ends in any way.
    fn exceeds(&self) -> bool {
        self.declared.is_some_and(|declared| self.bytes.len() > declared)
    }

    /// Whether whoever pushes too much is told, and fails with that.
    fn is_told(&self) -> bool {
        self.is_service && matches!(self.kind, Kind::Writer | Kind::Early) && self.exceeds()
    }

    fn falls_short(&self) -> bool {
        self.declared.is_some_and(|declared| self.bytes.len() < declared)
    }

    pub(super) fn check(&self, got: &Got) {
        if got.error.is_some() {
            return self.check_error(got);
        }
        assert_eq!(got.status, self.status);
        if self.is_bodiless {
            assert!(got.body.bytes.is_empty(), "there is no body");
            // What begins early, or was read before, may have failed by then.
            assert!(got.body.whole || got.dropped || self.fails() || self.falls_short(), "it ends");
            return;
        }
        let most = self.declared.unwrap_or(usize::MAX).min(self.bytes.len());
        let bytes = &got.body.bytes;
        assert!(bytes.len() <= most && *bytes == self.bytes[..bytes.len()], "other bytes: {self:?}");
        if got.dropped {
            return;
        }
        if got.body.whole {
            let may_end = self.exceeds() || !self.fails() && !self.falls_short();
            assert!(may_end, "a false end: {self:?}");
            assert_eq!(bytes.len(), most, "a false end");
            if !self.exceeds() {
                let etag = got.body.trailers.as_ref().map(|trailers| trailers.contains_key(ETAG));
                assert_eq!(etag, (self.end == End::Trailers).then_some(true), "its trailers");
            }
            assert!(got.length.is_none_or(|length| length == bytes.len() as u64), "a false length");
        } else {
            let may_fail = self.is_told() || !self.exceeds() && (self.fails() || self.falls_short());
            assert!(
                may_fail || self.exceeds() && self.fails() && self.kind == Kind::Writer,
                "no reason to fail: {self:?}"
            );
            assert!(bytes.len() >= most.min(self.sent), "bytes were lost that had been sent: {self:?}");
        }
    }

    /// A plain response in place of the producer's: only where none of its bytes had gone out.
    fn check_error(&self, got: &Got) {
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR, "{:?}", got.error);
        let text = if self.is_head { "" } else { "Internal Server Error\n" };
        assert!(got.dropped || got.body.whole && got.body.bytes == text.as_bytes());
        assert!(self.fails() || self.falls_short() || self.is_told(), "no reason for an error: {self:?}");
        if self.is_passed {
            // The middleware has read it.
            return;
        }
        let first = self.declared.unwrap_or(usize::MAX).min(self.bytes.len());
        let is_clean = match self.kind {
            Kind::Full | Kind::Early => true,
            // One that is empty for certain is known to be too short.
            Kind::Async => self.bytes.is_empty() && !self.is_service,
            Kind::Iterator | Kind::Reader => first == 0,
            Kind::Writer => first == 0 || self.sent == 0 && self.bytes.len() < GATHERED || !self.is_service,
        };
        assert!(is_clean, "the head was out: {self:?}");
    }
}
