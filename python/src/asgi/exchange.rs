//! One request between the runtime, which holds the connection, and the event loop, which runs the application: what is on its way in both directions.
//!
//! Nothing here belongs to Python. The runtime's side is a [`Consumer`](super::future::ResponseFuture), the loop's a [`Producer`]; each may vanish at any time, and the other learns of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;

use super::hub::Hub;
use super::inbound::{Inbound, Pull};
use super::request::Incoming;
use super::wakes;

/// What the two sides share.
pub(super) struct Exchange {
    pub(super) request: Incoming,
    hub: Arc<Hub>,
    /// How many frames may wait for the client.
    capacity: usize,
    state: Mutex<State>,
}

struct State {
    chunks: VecDeque<Bytes>,
    inbound: InboundState,
    /// The application was told that the request's body was cut off.
    faulted: bool,
    /// A `receive()` waits, for a chunk or for the client to leave.
    asked: bool,
    answer: Option<Answer>,
    answered: bool,
    frames: VecDeque<Frame<Bytes>>,
    /// How the response ended, once it has.
    end: Option<End>,
    /// A `send()` waits for room.
    full: bool,
    /// Nobody wants the response any more.
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum InboundState {
    /// More may come.
    Open,
    /// All of it has come, but the application has not been told so.
    Ended,
    /// The application knows all of it.
    Told,
    /// It was cut off.
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Failed,
}

/// The head of a response, and what is known of its body.
pub(super) enum Answer {
    Full(Response<()>, Bytes),
    Stream(Response<()>, Option<u64>),
    /// The connection becomes a WebSocket.
    Upgrade(Response<()>),
    /// There is none, since the client broke its request off.
    Faulted,
    Failed,
}

/// What a `receive()` gets.
pub(super) enum Received {
    Chunk(Bytes, bool),
    Disconnect,
    Wait,
}

/// The consumer of the response is gone.
pub(super) struct Gone;

/// The loop's side of an exchange. A response that it does not end has failed.
pub(super) struct Producer(pub(super) Arc<Exchange>);

impl Exchange {
    pub(super) fn new(request: Incoming, hub: Arc<Hub>, capacity: usize, inbound: &Inbound) -> Self {
        let state = State {
            chunks: VecDeque::new(),
            inbound: if inbound.is_ended() { InboundState::Ended } else { InboundState::Open },
            faulted: false,
            asked: false,
            answer: None,
            answered: false,
            frames: VecDeque::new(),
            end: None,
            full: false,
            closed: false,
            waker: None,
        };
        Self { request, hub, capacity, state: Mutex::new(state) }
    }

    /// What the loop knows this exchange by, as long as it holds it.
    pub(super) fn key(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The loop's side.

    /// The next piece of the request's body. If there is none yet, the loop is told when to ask again.
    pub(super) fn receive(&self) -> Received {
        let mut state = self.lock();
        if state.closed || state.end.is_some() {
            return Received::Disconnect;
        }
        if let Some(chunk) = state.chunks.pop_front() {
            let last = state.chunks.is_empty() && state.inbound == InboundState::Ended;
            if last {
                state.inbound = InboundState::Told;
            }
            return Received::Chunk(chunk, !last);
        }
        match state.inbound {
            InboundState::Ended => {
                state.inbound = InboundState::Told;
                return Received::Chunk(Bytes::new(), false);
            }
            InboundState::Broken => {
                state.faulted = true;
                return Received::Disconnect;
            }
            InboundState::Open | InboundState::Told => ask(state),
        }
        Received::Wait
    }

    /// Whether nobody waits for the response any more, or it is complete. If not, the loop is told when that changes.
    pub(super) fn watch(&self) -> bool {
        let mut state = self.lock();
        state.asked = true;
        state.closed || state.end.is_some()
    }

    /// Whether a `receive()` would not wait. If it would, the loop is told when it would no more.
    pub(super) fn is_receivable(&self) -> bool {
        let state = self.lock();
        let receivable = state.closed
            || state.end.is_some()
            || !state.chunks.is_empty()
            || matches!(state.inbound, InboundState::Ended | InboundState::Broken);
        if !receivable {
            ask(state);
        }
        receivable
    }

    /// Gives the response's head to the runtime, with the whole of its body or with what comes first of it. True if there is room for more.
    pub(super) fn answer(&self, answer: Answer, first: Option<Bytes>) -> Result<bool, Gone> {
        self.update(|state, capacity| {
            state.answered = true;
            if matches!(answer, Answer::Full(..) | Answer::Upgrade(_)) {
                state.end = Some(End::Complete);
            }
            state.answer = Some(answer);
            state.frames.extend(first.map(Frame::data));
            state.frames.len() < capacity
        })
    }

    /// Gives a frame to the runtime. True if there is room for more.
    pub(super) fn push(&self, frame: Frame<Bytes>) -> Result<bool, Gone> {
        self.update(|state, capacity| {
            state.frames.push_back(frame);
            state.frames.len() < capacity
        })
    }

    /// The response is complete, with `last` and `trailers` at its end.
    pub(super) fn complete(&self, last: Option<Bytes>, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        self.update(|state, _| {
            state.frames.extend(last.map(Frame::data));
            state.frames.extend(trailers.map(Frame::trailers));
            state.end = Some(End::Complete);
        })
    }

    /// The response will not be complete. Nothing if it is, or if nobody waits for it.
    pub(super) fn fail(&self) {
        let _ = self.update(|state, _| {
            if state.end.is_none() {
                state.end = Some(End::Failed);
                if !state.answered {
                    state.answered = true;
                    state.answer = Some(if state.faulted { Answer::Faulted } else { Answer::Failed });
                }
            }
        });
    }

    fn update<R>(&self, update: impl FnOnce(&mut State, usize) -> R) -> Result<R, Gone> {
        let mut state = self.lock();
        if state.closed {
            return Err(Gone);
        }
        let result = update(&mut state, self.capacity);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wakes::wake(waker);
        }
        Ok(result)
    }

    /// Whether there is room for a frame. If there is none, the loop is told when to look again.
    pub(super) fn has_room(&self) -> Result<bool, Gone> {
        let mut state = self.lock();
        if state.closed {
            return Err(Gone);
        }
        state.full = state.frames.len() >= self.capacity;
        Ok(!state.full)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Whether nobody waits for the response any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    // The runtime's side.

    /// The response's head, once it is there. Until then the request's body is read as the application asks for it.
    pub(super) fn poll_answer(self: &Arc<Self>, inbound: &mut Inbound, cx: &mut Context<'_>) -> Poll<Answer> {
        self.poll(inbound, cx, |state, _| state.answer.take())
    }

    /// The next frame of the response's body, and at its end how it ended.
    pub(super) fn poll_frame(
        self: &Arc<Self>,
        inbound: &mut Inbound,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Frame<Bytes>, End>> {
        self.poll(inbound, cx, |state, wakes| match state.frames.pop_front() {
            Some(frame) => {
                *wakes = std::mem::take(&mut state.full);
                Some(Ok(frame))
            }
            None => state.end.map(Err),
        })
    }

    fn poll<R>(
        self: &Arc<Self>,
        inbound: &mut Inbound,
        cx: &mut Context<'_>,
        take: impl Fn(&mut State, &mut bool) -> Option<R>,
    ) -> Poll<R> {
        loop {
            let mut wakes = false;
            let mut state = self.lock();
            let taken = take(&mut state, &mut wakes);
            if let Some(taken) = taken {
                drop(state);
                if wakes {
                    self.hub.notify(self.key());
                }
                return Poll::Ready(taken);
            }
            let is_known = state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if !is_known {
                state.waker = Some(cx.waker().clone());
            }
            let asked = state.asked && state.inbound == InboundState::Open;
            drop(state);
            // Without the lock: a body is anybody's code.
            if !asked || inbound.poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.take_in(inbound);
            self.hub.notify(self.key());
        }
    }

    /// Moves what was read of the request's body to where the application finds it.
    pub(super) fn take_in(&self, inbound: &mut Inbound) {
        let mut state = self.lock();
        while let Some(pull) = inbound.pull() {
            match pull {
                Pull::Chunk(chunk) => state.chunks.push_back(chunk),
                Pull::End => state.inbound = InboundState::Ended,
                Pull::Broken => state.inbound = InboundState::Broken,
            }
        }
        state.asked = false;
    }

    pub(super) fn is_drained(&self) -> bool {
        let state = self.lock();
        state.frames.is_empty() && state.end == Some(End::Complete)
    }

    /// Nobody waits for the response any more.
    pub(super) fn close(self: &Arc<Self>) {
        let mut state = self.lock();
        state.closed = true;
        let waits = state.asked || state.full;
        let leftovers = (std::mem::take(&mut state.frames), state.answer.take(), state.waker.take());
        drop(state);
        drop(leftovers);
        if waits {
            self.hub.notify(self.key());
        }
    }
}

/// Has the connection's task read on, if there is more to come.
fn ask(mut state: MutexGuard<'_, State>) {
    state.asked = true;
    if state.inbound == InboundState::Open {
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.fail();
    }
}
