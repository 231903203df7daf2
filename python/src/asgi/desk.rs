//! The event loop's own book-keeping: who waits, which heads are held back, and what is shared by all requests. Touched by the loop's thread only.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;

use super::awaits::{Done, Target};
use super::http::Http;
use super::socket::WebSocket;

/// What the requests on a loop share.
pub(super) struct Desk {
    pub(super) event_loop: Py<PyAny>,
    /// What `send()` gives when it need not wait.
    done: Py<Done>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whom an event of the hub is for, by the key of their exchange.
    waiting: HashMap<usize, Target>,
    /// Requests whose head was sent, but none of their body.
    held: Vec<Py<Http>>,
    /// The WebSockets that are open.
    sockets: HashMap<usize, Py<WebSocket>>,
    /// The request that is being started: what it holds back is looked after when it pauses.
    starting: Option<usize>,
}

/// The tasks that wait for the same thing. First come, first served.
#[derive(Default)]
pub(super) struct Waiters {
    futures: VecDeque<Py<PyAny>>,
    /// How many were told to look again, and have not yet done so. Nobody gets in before them.
    turns: usize,
}

impl Desk {
    pub(super) fn new(py: Python<'_>, event_loop: Py<PyAny>) -> PyResult<Self> {
        Ok(Self { event_loop, done: Py::new(py, Done)?, state: Mutex::default() })
    }

    pub(super) fn done(&self, py: Python<'_>) -> Py<PyAny> {
        self.done.clone_ref(py).into_any()
    }

    pub(super) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.event_loop.bind(py).call_method0(intern!(py, "create_future"))
    }

    pub(super) fn register(&self, key: usize, target: Target) {
        self.lock().waiting.insert(key, target);
    }

    pub(super) fn unregister(&self, key: usize) {
        let target = self.lock().waiting.remove(&key);
        // Its drop may run anything.
        drop(target);
    }

    pub(super) fn target(&self, key: usize) -> Option<Target> {
        self.lock().waiting.remove(&key)
    }

    pub(super) fn set_starting(&self, starting: Option<usize>) {
        self.lock().starting = starting;
    }

    /// Notes that a head is held back. True if the loop has to be told to come back for it.
    pub(super) fn hold(&self, key: usize, http: Py<Http>) -> bool {
        let mut state = self.lock();
        if state.starting == Some(key) {
            return false;
        }
        state.held.push(http);
        state.held.len() == 1
    }

    pub(super) fn take_held(&self) -> Vec<Py<Http>> {
        std::mem::take(&mut self.lock().held)
    }

    pub(super) fn open_socket(&self, key: usize, socket: Py<WebSocket>) {
        self.lock().sockets.insert(key, socket);
    }

    pub(super) fn close_socket(&self, key: usize) {
        let socket = self.lock().sockets.remove(&key);
        drop(socket);
    }

    pub(super) fn take_sockets(&self) -> HashMap<usize, Py<WebSocket>> {
        std::mem::take(&mut self.lock().sockets)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    pub(super) fn push(&mut self, future: Py<PyAny>) {
        self.futures.push_back(future);
    }

    /// Whose turn it is next.
    pub(super) fn pop(&mut self) -> Option<Py<PyAny>> {
        let next = self.futures.pop_front()?;
        self.turns += 1;
        Some(next)
    }

    /// Whether one who comes now need not queue.
    pub(super) fn is_free(&self) -> bool {
        self.futures.is_empty() && self.turns == 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.futures.is_empty()
    }

    /// One looks again, or gives up: it waits no more, or it has had its turn.
    pub(super) fn remove(&mut self, future: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
        let Some(index) = self.futures.iter().position(|waiting| waiting.is(future)) else {
            self.turns = self.turns.saturating_sub(1);
            return None;
        };
        self.futures.remove(index)
    }
}

/// Lets the task that waits for `future` go on. It may have been cancelled meanwhile.
pub(super) fn resolve(py: Python<'_>, future: Py<PyAny>) -> PyResult<()> {
    let future = future.into_bound(py);
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}
