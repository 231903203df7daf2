//! A response's body that still needs its runtime, or whose end waits for background tasks.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::background::BackgroundTasks;
use crate::body::{Body, PollFrame};
use crate::error::BoxError;

/// Where the body is.
enum Stage {
    Body(Body),
    /// The body has ended, but for its trailers; tasks run.
    Tasks(Option<HeaderMap>, Option<Pin<Box<Sleep>>>),
    Over,
}

/// A body inside the runtime that its service ran in, with the end held back until the request's background tasks are done.
pub(super) struct Backed {
    stage: Stage,
    tasks: BackgroundTasks,
}

impl Backed {
    pub(super) fn new(body: Body, tasks: BackgroundTasks) -> Self {
        Self { stage: Stage::Body(body), tasks }
    }

    /// Ready when the end may be told.
    fn poll_tasks(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Tasks(_, timer) = &mut self.stage else {
            return Poll::Ready(());
        };
        if self.tasks.poll_done(cx).is_ready() {
            self.tasks.release();
            return Poll::Ready(());
        }
        let Some(wait_time) = self.tasks.wait_time() else {
            return Poll::Pending;
        };
        if !wait_time.is_zero() {
            let timer = timer.get_or_insert_with(|| Box::pin(sleep(wait_time)));
            ready!(timer.as_mut().poll(cx));
        }
        self.tasks.cancel();
        Poll::Ready(())
    }
}

impl http_body::Body for Backed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        let runtime = self.tasks.runtime().clone();
        let _runtime = runtime.enter();
        if let Stage::Body(body) = &mut self.stage {
            let trailers = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_trailers() {
                    Ok(trailers) => Some(trailers),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            // What the body held is free before its end is told.
            self.stage = Stage::Tasks(trailers, None);
        }
        ready!(self.poll_tasks(cx));
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Tasks(Some(trailers), _) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.stage {
            Stage::Body(body) => body.is_end_stream() && !self.tasks.may_run(),
            Stage::Tasks(..) => false,
            Stage::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.stage {
            Stage::Body(body) => body.size_hint(),
            Stage::Tasks(..) | Stage::Over => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Backed {
    fn drop(&mut self) {
        let runtime = self.tasks.runtime().clone();
        let _runtime = runtime.enter();
        // First, since the body's drop is a user's code and may panic.
        self.tasks.release();
        self.stage = Stage::Over;
    }
}
