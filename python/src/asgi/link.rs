//! A WebSocket between its connection's task and the event loop: the messages on their way, and its end. Nothing here belongs to Python.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::exchange::Gone;
use super::hub::Hub;

/// How many messages are read from the client before the application asks for them.
const AHEAD: usize = 10;

pub(super) struct Link {
    hub: Arc<Hub>,
    /// How many messages may wait for the client.
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the loop knows this by.
    key: usize,
    inbox: VecDeque<Message>,
    outbox: VecDeque<Message>,
    /// The application has closed it.
    closing: bool,
    /// There is no connection any more; the code and the reason, as far as known.
    lost: Option<(u16, String)>,
    /// A `receive()` waits.
    asked: bool,
    /// A `send()` waits for room.
    full: bool,
    waker: Option<Waker>,
}

/// What a `receive()` gets.
pub(super) enum Received {
    Message(Message),
    Disconnect(u16, String),
    Wait,
}

impl Link {
    pub(super) fn new(hub: Arc<Hub>, capacity: usize, key: usize) -> Self {
        let state = State { key, ..State::default() };
        Self { hub, capacity, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The loop's side.

    /// The next message from the client. If there is none yet, the loop is told when to ask again.
    pub(super) fn receive(&self) -> Received {
        let mut state = self.lock();
        if let Some(message) = state.inbox.pop_front() {
            if state.inbox.len() == AHEAD - 1 {
                wake(state);
            }
            return Received::Message(message);
        }
        if let Some((code, reason)) = &state.lost {
            return Received::Disconnect(*code, reason.clone());
        }
        state.asked = true;
        Received::Wait
    }

    /// Whether a `receive()` would not wait. If it would, the loop is told when it would no more.
    pub(super) fn is_receivable(&self) -> bool {
        let mut state = self.lock();
        let receivable = !state.inbox.is_empty() || state.lost.is_some();
        state.asked |= !receivable;
        receivable
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lock().lost.is_some()
    }

    /// Gives a message to the connection. True if there is room for more.
    pub(super) fn push(&self, message: Message) -> Result<bool, Gone> {
        let mut state = self.lock();
        if state.lost.is_some() {
            return Err(Gone);
        }
        state.outbox.push_back(message);
        let room = state.outbox.len() < self.capacity;
        wake(state);
        Ok(room)
    }

    /// Whether there is room for a message. If there is none, the loop is told when to look again.
    pub(super) fn has_room(&self) -> Result<bool, Gone> {
        let mut state = self.lock();
        if state.lost.is_some() {
            return Err(Gone);
        }
        state.full = state.outbox.len() >= self.capacity;
        Ok(!state.full)
    }

    /// Closes the connection, behind what was sent. Once: further calls do nothing.
    pub(super) fn close(&self, frame: Option<CloseFrame>) {
        let mut state = self.lock();
        if !state.closing && state.lost.is_none() {
            state.closing = true;
            state.outbox.push_back(Message::Close(frame));
            wake(state);
        }
    }

    // The connection's side.

    /// The next message for the client; `full` is set if the next one has to wait for the task to be polled again.
    pub(super) fn next(&self, cx: &Context<'_>) -> Option<Message> {
        let mut state = self.lock();
        let message = state.outbox.pop_front();
        if message.is_none() {
            remember(&mut state, cx);
        } else if std::mem::take(&mut state.full) {
            let key = state.key;
            drop(state);
            self.hub.notify(key);
        }
        message
    }

    /// Whether a message from the client can be taken in. If not, the task is polled when it can.
    pub(super) fn has_appetite(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        let appetite = state.inbox.len() < AHEAD || state.closing;
        if !appetite {
            remember(&mut state, cx);
        }
        appetite
    }

    /// Takes a message from the client in. After the application has closed, it is for nobody.
    pub(super) fn deliver(&self, message: Message) {
        let mut state = self.lock();
        if !state.closing {
            state.inbox.push_back(message);
        }
        self.notify(state);
    }

    /// There is no connection any more. The first to say so is believed.
    pub(super) fn lose(&self, code: u16, reason: &str) {
        let mut state = self.lock();
        if state.lost.is_none() {
            state.lost = Some((code, reason.to_owned()));
            state.outbox.clear();
        }
        state.asked |= std::mem::take(&mut state.full);
        self.notify(state);
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.asked) {
            let key = state.key;
            drop(state);
            self.hub.notify(key);
        }
    }
}

fn remember(state: &mut State, cx: &Context<'_>) {
    if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        state.waker = Some(cx.waker().clone());
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
