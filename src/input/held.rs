//! An input on its way back to async code, where the body alone does not know what it is held to.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{Fill, Input, State};
use crate::body::{PollFrame, behind};
use crate::error::{BoxError, Error};
use crate::wait::Ended;

/// An input as an async body, held to what was declared and to the time it has.
pub(super) struct Held {
    input: Input,
    /// Runs while the next frame is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Held {
    pub(super) fn new(input: Input) -> Self {
        Self { input, timer: None }
    }

    /// Polls for one frame, as long as there is time.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        if let Poll::Ready(filled) = self.input.poll_fill(cx) {
            self.timer = None;
            return Poll::Ready(filled);
        }
        let Some(timeout) = self.input.read_timeout else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        let late = Error::from(Ended::TimedOut);
        Poll::Ready(self.input.take_in(Some(Err(late.into_io(io::ErrorKind::TimedOut).into()))))
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        loop {
            let input = &mut self.input;
            let data = if input.current.is_empty() {
                input.ready.pop_front()
            } else {
                Some(std::mem::take(&mut input.current))
            };
            if let Some(data) = data {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match &input.state {
                State::Open => {
                    let filled = ready!(self.poll_fill(cx));
                    if let Err(error) = filled {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                }
                State::End => {
                    return Poll::Ready(input.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
                }
                State::Failed(..) => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let input = &self.input;
        match &input.state {
            // So that whoever sends it on need not send an empty frame to end it.
            State::Open => input.is_drained() && input.body.is_end_stream() && input.left().unwrap_or(0) == 0,
            // What came before the end, or with it, was given before or with it.
            State::End | State::Failed(..) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let input = &self.input;
        let here =
            input.current.len() as u64 + input.ready.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        match input.left() {
            Some(left) => SizeHint::with_exact(here + left),
            None => behind(here, &input.body.size_hint()),
        }
    }
}
