//! The client's side of a response: a poller by hand, and a reader.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use http::{Response, StatusCode};
use http_body::Body as _;
use tower_wsgi::{Body, Input};

use super::shared::Shared;
use crate::harness::PATIENCE;

/// A response's future, then its body.
pub(super) struct Client<'a, F> {
    stage: Stage<F>,
    shared: &'a Shared,
    /// Set by the waker of the last poll, if that was not ready.
    wake: Option<Arc<Flag>>,
    status: StatusCode,
    received: Vec<u8>,
}

enum Stage<F> {
    Future(Pin<Box<F>>),
    Body(Body),
    Over,
}

/// Each poll has a waker of its own: to wake an older one is to wake nobody.
struct Flag {
    woken: AtomicBool,
    thread: Thread,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl<'a, F> Client<'a, F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    pub(super) fn new(future: F, shared: &'a Shared) -> Self {
        let status = StatusCode::OK;
        Self { stage: Stage::Future(Box::pin(future)), shared, wake: None, status, received: Vec::new() }
    }

    /// Polls whatever there is, once.
    pub(super) fn poll(&mut self) {
        let flag = Arc::new(Flag { woken: AtomicBool::new(false), thread: thread::current() });
        let waker = Waker::from(flag.clone());
        let mut cx = Context::from_waker(&waker);
        self.wake = None;
        let over = match &mut self.stage {
            Stage::Over => return,
            Stage::Future(future) => match future.as_mut().poll(&mut cx) {
                Poll::Pending => {
                    self.wake = Some(flag);
                    return;
                }
                Poll::Ready(Ok(response)) => {
                    self.status = response.status();
                    self.stage = Stage::Body(response.into_body());
                    return;
                }
            },
            Stage::Body(body) => {
                let said_over = body.is_end_stream();
                let polled = Pin::new(body).poll_frame(&mut cx);
                let has_more = matches!(polled, Poll::Ready(Some(Ok(_))) | Poll::Pending);
                assert!(!said_over || !has_more, "a body that says that it is over goes on");
                match polled {
                    Poll::Pending => {
                        self.wake = Some(flag);
                        return;
                    }
                    Poll::Ready(Some(Ok(frame))) => {
                        self.received.extend(frame.into_data().unwrap_or_default());
                        return;
                    }
                    Poll::Ready(Some(Err(_))) => false,
                    Poll::Ready(None) => true,
                }
            }
        };
        self.stage = Stage::Over;
        self.shared.check_response(self.status.as_u16(), &self.received, over);
    }

    /// Gives the others a moment, or less if a wake comes.
    pub(super) fn wait_a_moment(&self) {
        if self.wake.as_ref().is_some_and(|flag| !flag.woken.load(Ordering::SeqCst)) {
            thread::park_timeout(Duration::from_micros(100));
        }
    }

    /// Drops whatever there is.
    pub(super) fn leave(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if !matches!(stage, Stage::Over) {
            self.shared.leave(|| drop(stage));
        }
    }

    pub(super) fn has_left(&self) -> bool {
        self.shared.has_left()
    }

    /// Goes on to the end, and polls only where it was woken.
    pub(super) fn finish(&mut self) {
        while !matches!(self.stage, Stage::Over) {
            if let Some(flag) = &self.wake {
                let start = std::time::Instant::now();
                while !flag.woken.load(Ordering::SeqCst) {
                    assert!(start.elapsed() < PATIENCE, "nobody wakes the client");
                    thread::park_timeout(PATIENCE);
                }
            }
            self.poll();
        }
    }
}

/// Reads a response as a synchronous host does: to its end, or so many chunks.
pub(super) fn read(response: Response<Input>, chunks: Option<usize>, shared: &Shared) {
    let (head, mut body) = response.into_parts();
    let mut received = Vec::new();
    for _ in 0..chunks.unwrap_or(usize::MAX) {
        match body.chunk() {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk),
            end => return shared.check_response(head.status.as_u16(), &received, end.is_ok()),
        }
    }
    shared.leave(|| drop(body));
}
