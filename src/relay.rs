//! A request's body on its way to the thread that runs the handler, relayed by the task that awaits the response.
//!
//! A thread that polls a connection's body itself needs two wakes for each chunk: its poll wakes the connection's task, which reads from the socket and wakes the thread. The task that awaits the response
//! is in HTTP/1 the connection's own. It wakes nobody to read on, does so while the thread is busy with what came before, and wakes it for several chunks at once.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, PollFrame};
use crate::error::{BoxError, drop_quietly, guard};
use crate::exchange::{Errand, Exchange};
use crate::nesting::Behalf;
use crate::sync::{Mutex, MutexGuard, lock};

/// How many bytes the task may be ahead of the thread; the last chunk may go beyond. From 64 to 512 KiB it makes no difference that could be measured on an upload of a gibibyte; with 2 MiB it is slower.
pub(crate) const AHEAD: usize = 256 * 1024;

/// What a frame counts at least, so that small ones do not pile up.
const LEAST: usize = 1024;

/// What the task and the thread share.
struct Relay {
    behalf: Behalf,
    state: Mutex<State>,
}

struct State {
    /// Whether the task reads. Otherwise the thread does, and has read all if there is no body.
    is_running: bool,
    /// Out while it is polled.
    body: Option<Body>,
    /// Those of a body that ended close with `None` or an error.
    frames: VecDeque<Option<Result<Frame<Bytes>, BoxError>>>,
    /// How much all in `frames` counts.
    ahead: usize,
    /// How many bytes the thread has yet to take, where the body knew.
    left: Option<u64>,
    /// The thread wants no more.
    is_closed: bool,
    /// The thread that waits for a frame.
    reader: Option<Waker>,
    /// The task that waits for room.
    task: Option<Waker>,
}

/// The body that the thread gets.
struct Relayed(Arc<Relay>);

/// Has the task that awaits the answer of `exchange` relay a body, if one still does.
pub(crate) fn relay<W, A, F, E>(body: Body, exchange: &Exchange<W, A, F, E>) -> Body {
    let relay = Arc::new(Relay::new(body));
    if !exchange.entrust(relay.clone()) {
        relay.stop();
    }
    Body::new(Relayed(relay))
}

impl Relay {
    fn new(body: Body) -> Self {
        let state = State {
            is_running: true,
            left: body.size_hint().exact(),
            body: Some(body),
            frames: VecDeque::new(),
            ahead: 0,
            is_closed: false,
            reader: None,
            task: None,
        };
        Self { behalf: Behalf::current(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The next frame, for the thread.
    fn poll_frame(&self, cx: &mut Context<'_>) -> PollFrame {
        let mut state = self.state();
        let frame = if let Some(frame) = state.frames.pop_front() {
            state.ahead -= length(&frame).max(LEAST);
            frame
        } else if state.is_running {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        } else if let Some(mut body) = state.body.take() {
            drop(state);
            let polled = poll(&mut body, cx);
            state = self.state();
            state.body = Some(body);
            ready!(polled)
        } else {
            None
        };
        state.left = state.left.map(|left| left.saturating_sub(length(&frame) as u64));
        // With half of it the task is back before the thread has nothing left.
        let task = if state.ahead <= AHEAD / 2 { state.task.take() } else { None };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Poll::Ready(frame)
    }
}

impl Errand for Relay {
    /// Reads ahead.
    fn run(&self, cx: &mut Context<'_>) {
        let mut came = false;
        loop {
            let mut state = self.state();
            if !state.is_running {
                return;
            }
            if state.ahead >= AHEAD {
                state.task = Some(cx.waker().clone());
                return wake_reader(state);
            }
            let Some(mut body) = state.body.take() else { return };
            drop(state);
            let (polled, relies) = self.behalf.poll(|| poll(&mut body, cx));
            let mut state = self.state();
            if state.is_closed {
                drop(state);
                return drop_quietly(body);
            }
            state.body = Some(body);
            let Poll::Ready(frame) = polled else {
                if relies {
                    // A worker that waits for its own pool has to know, and to lend its place.
                    return stop(state);
                }
                if came && state.ahead < AHEAD / 2 && state.reader.is_some() {
                    // A connection that has more gives it as soon as it is asked, and that it was just now. The next poll tells.
                    drop(state);
                    return cx.waker().wake_by_ref();
                }
                return wake_reader(state);
            };
            came = true;
            let is_end = !matches!(frame, Some(Ok(_)));
            state.ahead += length(&frame).max(LEAST);
            state.frames.push_back(frame);
            if is_end {
                let body = state.body.take();
                stop(state);
                return drop_quietly(body);
            }
        }
    }

    /// The thread reads what is left itself.
    fn stop(&self) {
        stop(self.state());
    }
}

/// Ends the task's part; the thread goes on.
fn stop(mut state: MutexGuard<'_, State>) {
    state.is_running = false;
    wake_reader(state);
}

/// Wakes the thread, if it waits and there is something for it.
fn wake_reader(mut state: MutexGuard<'_, State>) {
    let is_idle = state.is_running && state.frames.is_empty();
    let reader = if is_idle { None } else { state.reader.take() };
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

fn length(frame: &Option<Result<Frame<Bytes>, BoxError>>) -> usize {
    let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
    data.map_or(0, Bytes::len)
}

/// Polls a user's body.
fn poll(body: &mut Body, cx: &mut Context<'_>) -> PollFrame {
    let polled = guard(|| Pin::new(body).poll_frame(cx));
    polled.unwrap_or_else(|panic| Poll::Ready(Some(Err(panic.into()))))
}

impl http_body::Body for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        self.0.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.state();
        state.frames.is_empty() && !state.is_running && state.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.state().left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_running = false;
        state.is_closed = true;
        let rest = (state.body.take(), mem::take(&mut state.frames), state.reader.take(), state.task.take());
        drop(state);
        drop_quietly(rest);
    }
}
