//! A response's body that still needs its runtime, or whose end waits for background tasks.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::SizeHint;
use tokio::time::{Sleep, sleep};

use super::background::BackgroundTasks;
use crate::body::{Body, PollFrame};
use crate::error::BoxError;

/// Where the body is.
enum Stage {
    Body(Body),
    /// The body has ended; tasks run.
    Tasks(Option<Pin<Box<Sleep>>>),
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

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Tasks(timer) = &mut self.stage else {
            return Poll::Ready(());
        };
        if self.tasks.poll_done(cx).is_ready() {
            self.tasks.release();
        } else if let Some(wait_time) = self.tasks.wait_time() {
            if !wait_time.is_zero() {
                let timer = timer.get_or_insert_with(|| Box::pin(sleep(wait_time)));
                ready!(timer.as_mut().poll(cx));
            }
            self.tasks.cancel();
        } else {
            return Poll::Pending;
        }
        self.stage = Stage::Over;
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
            if let Some(frame) = ready!(Pin::new(body).poll_frame(cx)) {
                return Poll::Ready(Some(frame));
            }
            // What the body held is free before its end is told.
            self.stage = Stage::Tasks(None);
        }
        ready!(self.poll_end(cx));
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        match &self.stage {
            Stage::Body(body) => body.is_end_stream() && !self.tasks.may_run(),
            Stage::Tasks(_) => false,
            Stage::Over => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.stage {
            Stage::Body(body) => body.size_hint(),
            Stage::Tasks(_) | Stage::Over => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Backed {
    fn drop(&mut self) {
        let runtime = self.tasks.runtime().clone();
        let _runtime = runtime.enter();
        self.stage = Stage::Over;
        self.tasks.release();
    }
}
