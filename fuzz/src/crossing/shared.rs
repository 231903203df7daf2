//! What both sides of a crossing tell each other behind its back: what was fed, read and sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use tower_wsgi::{BoxError, WorkerPool};

use crate::harness::{Ledger, Token, eventually, lock};
use crate::script::{End, Text, failure, trailers};

/// What the application came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Completed,
    Failed,
    /// It passed its input on as the response: the rest is the request's.
    Passed,
}

/// All that is known of one request.
pub(super) struct Shared {
    log: Mutex<Log>,
    /// The client is about to leave, and has left.
    leaving: AtomicBool,
    gone: AtomicBool,
    declared: Option<u64>,
    /// Whether nothing lies between the client and the application.
    is_direct: bool,
}

#[derive(Debug, Default)]
struct Log {
    fed: Vec<u8>,
    frames: VecDeque<Bytes>,
    end: Option<End>,
    waker: Option<Waker>,
    read: Vec<u8>,
    sent: Vec<u8>,
    outcome: Option<Outcome>,
    started: bool,
    must_not_start: bool,
    /// How often an iterator was asked after the client had gone.
    late: usize,
    /// What should not have happened.
    broken: Vec<String>,
}

impl Shared {
    pub(super) fn new(declared: Option<u64>, is_direct: bool) -> Self {
        let (leaving, gone) = Default::default();
        Self { log: Mutex::default(), leaving, gone, declared, is_direct }
    }

    // The client's side.

    pub(super) fn feed(&self, length: usize) {
        let mut log = lock(&self.log);
        if log.end.is_some() {
            return;
        }
        let data = Text::Binary.bytes(log.fed.len(), length);
        log.fed.extend_from_slice(&data);
        log.frames.push_back(data);
        let waker = log.waker.take();
        drop(log);
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn end(&self, end: End) {
        let mut log = lock(&self.log);
        log.end.get_or_insert(end);
        let waker = log.waker.take();
        drop(log);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The client leaves, by dropping something.
    pub(super) fn leave(&self, what: impl FnOnce()) {
        self.leaving.store(true, Ordering::SeqCst);
        what();
        self.gone.store(true, Ordering::SeqCst);
    }

    /// A request that was still queued when its client left is never run.
    pub(super) fn must_not_start(&self) {
        lock(&self.log).must_not_start = true;
    }

    // The application's side.

    pub(super) fn start(&self) {
        lock(&self.log).started = true;
    }

    /// Gives the client a moment to leave.
    pub(super) fn linger(&self) {
        let start = Instant::now();
        while !self.has_left() && start.elapsed() < Duration::from_micros(300) {
            thread::yield_now();
        }
    }

    pub(super) fn has_left(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_direct && self.has_left()
    }

    /// An iterator is asked for its next chunk.
    pub(super) fn ask(&self) {
        if self.is_gone() {
            lock(&self.log).late += 1;
        }
    }

    /// Bytes were given to whoever asked.
    pub(super) fn sent(&self, data: &[u8]) {
        lock(&self.log).sent.extend_from_slice(data);
    }

    /// A write was tried; `after` says whether the client had gone before.
    pub(super) fn wrote<E: std::fmt::Debug>(
        &self,
        data: &[u8],
        after: bool,
        result: Result<(), E>,
    ) -> Result<(), E> {
        let mut log = lock(&self.log);
        match &result {
            Ok(()) if after => log.broken.push(format!("{} bytes were written for nobody", data.len())),
            Ok(()) => log.sent.extend_from_slice(data),
            Err(_) if self.leaving.load(Ordering::SeqCst) => {}
            Err(error) => log.broken.push(format!("a write failed without a reason: {error:?}")),
        }
        result
    }

    /// A read gave bytes, the end (with trailers or not) or an error.
    pub(super) fn read<E: std::fmt::Debug>(
        &self,
        result: &Result<&[u8], &E>,
        has_trailers: bool,
        after: bool,
    ) {
        let mut log = lock(&self.log);
        match result {
            Ok(_) if after => log.broken.push("a read for nobody did not fail".to_owned()),
            Ok([]) => {
                let read = log.read.len();
                if !self.ends(&log) || read != log.fed.len() {
                    log.broken.push(format!("a false end after {read} bytes"));
                }
                if has_trailers != (log.end == Some(End::Trailers)) {
                    log.broken.push(format!("trailers: {has_trailers}"));
                }
            }
            Ok(bytes) => log.read.extend_from_slice(bytes),
            Err(error) => {
                if !self.may_fail(&log) {
                    log.broken.push(format!("a read failed without a reason: {error:?}"));
                }
            }
        }
    }

    /// Whether the request has ended as it should.
    fn ends(&self, log: &Log) -> bool {
        let is_whole = self.declared.is_none_or(|declared| declared == log.fed.len() as u64);
        is_whole && matches!(log.end, Some(End::Clean | End::Trailers))
    }

    /// Whether the request's body has a reason to fail.
    fn may_fail(&self, log: &Log) -> bool {
        let fed = log.fed.len() as u64;
        let is_short = log.end.is_some() && self.declared.is_some_and(|declared| fed < declared);
        let is_long = self.declared.is_some_and(|declared| fed > declared);
        self.leaving.load(Ordering::SeqCst) || log.end == Some(End::Failure) || is_short || is_long
    }

    /// The application is done, or on its way out.
    pub(super) fn come_to(&self, outcome: Outcome) {
        let mut log = lock(&self.log);
        log.outcome.get_or_insert(outcome);
    }

    // What came of it.

    /// The response is here whole or it has failed: that has to be what the application made of it.
    pub(super) fn check_response(&self, status: u16, body: &[u8], is_whole: bool) {
        let log = lock(&self.log);
        let outcome = log.outcome;
        if status != 200 {
            assert_eq!(outcome, Some(Outcome::Failed), "a status {status} for no reason: {log:?}");
            assert!(is_whole && matches!(status, 400 | 500), "{status}");
            return;
        }
        let expected =
            if outcome == Some(Outcome::Passed) { &log.fed[log.read.len()..] } else { &log.sent[..] };
        assert!(expected.starts_with(body), "{} bytes came, other than were sent: {log:?}", body.len());
        let may_be_whole = match outcome {
            Some(Outcome::Completed) => true,
            Some(Outcome::Passed) => self.ends(&log),
            Some(Outcome::Failed) | None => false,
        };
        if is_whole {
            assert!(
                may_be_whole && body.len() == expected.len(),
                "a false end after {}: {log:?}",
                body.len()
            );
        } else {
            assert!(!may_be_whole, "a failure for no reason: {log:?}");
            assert!(outcome.is_some(), "it fails before its application does");
        }
    }

    /// When all is over.
    pub(super) fn check_whole(&self) {
        let log = lock(&self.log);
        assert!(log.broken.is_empty(), "{log:?}");
        assert!(log.fed.starts_with(&log.read), "other bytes were read: {log:?}");
        assert!(!(log.must_not_start && log.started), "it ran for nobody: {log:?}");
        assert!(log.late <= 1, "asked {} times for nobody", log.late);
    }
}

/// The request's body: what the client's side feeds.
pub(super) struct Fed {
    shared: Arc<Shared>,
    is_over: bool,
    _token: Token,
}

impl Fed {
    pub(super) fn new(shared: &Arc<Shared>, token: Token) -> Self {
        Self { shared: shared.clone(), is_over: false, _token: token }
    }
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let shared = self.shared.clone();
        let mut log = lock(&shared.log);
        if let Some(data) = log.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(end) = log.end else {
            log.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if std::mem::replace(&mut self.is_over, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(match end {
            End::Trailers => Some(Ok(Frame::trailers(trailers()))),
            End::Clean => None,
            end => Some(Err(failure(end))),
        })
    }
}

/// Keeps all workers of a pool busy until it opens.
#[derive(Clone)]
pub(super) struct Gate(Arc<(Mutex<bool>, Condvar)>);

/// A gate, and who waits at it.
pub(super) struct Occupied {
    gate: Gate,
    clients: Vec<JoinHandle<()>>,
}

impl Gate {
    pub(super) fn pass(&self) {
        let open = lock(&self.0.0);
        drop(self.0.1.wait_while(open, |open| !*open));
    }
}

impl Occupied {
    /// Has every worker wait.
    pub(super) fn of(pool: &WorkerPool, ledger: &Ledger) -> Self {
        let gate = Gate(Arc::default());
        let occupy = |_| super::occupy(pool, ledger.token("gate"), &gate);
        let clients = (0..pool.workers()).map(occupy).collect();
        eventually("all workers are busy", || pool.stats().busy == pool.workers());
        Self { gate, clients }
    }

    pub(super) fn is_shut(&self) -> bool {
        !*lock(&self.gate.0.0)
    }

    pub(super) fn open(&self) {
        *lock(&self.gate.0.0) = true;
        self.gate.0.1.notify_all();
    }

    /// Opens it, and waits until all are gone.
    pub(super) fn end(self) {
        self.open();
        for client in self.clients {
            client.join().expect("no panic");
        }
    }
}
