//! The tasks of one request: who waits for them, and until when. How they run is `background`'s business.

use std::mem;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard, lock};

/// From how many tasks on those that have ended are looked for. (A model has too few threads to come to more.)
const PURGE: usize = if cfg!(tower_wsgi_loom) { 1 } else { 16 };

/// A task that was started.
pub(crate) trait Task {
    /// Ready when it has ended; asked no more then.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    fn is_finished(&self) -> bool;
}

/// The tasks that the end of a response waits for.
pub(crate) struct Tasks<T> {
    state: Mutex<State<T>>,
}

/// No code of a user runs under its lock: what tasks and their results hold is dropped without it.
struct State<T> {
    tasks: Vec<T>,
    /// At how many of them those that have ended are looked for.
    purge_at: usize,
    /// Whether there never was one.
    unused: bool,
    /// Whether the host waits no more.
    released: bool,
}

impl<T: Task> Tasks<T> {
    pub(crate) fn new() -> Self {
        let state = State { tasks: Vec::new(), purge_at: PURGE, unused: true, released: false };
        Self { state: Mutex::new(state) }
    }

    /// Has the end wait for one more.
    ///
    /// # Errors
    /// The task, if the host waits no more.
    pub(crate) fn add(&self, task: T) -> Result<(), T> {
        let mut state = self.state();
        if state.released {
            return Err(task);
        }
        state.unused = false;
        // A body without an end may spawn tasks without an end. To look at all of them whenever they have doubled costs each spawn the same.
        let mut ended = Vec::new();
        if state.tasks.len() >= state.purge_at {
            let (over, running) = mem::take(&mut state.tasks).into_iter().partition(Task::is_finished);
            (ended, state.tasks) = (over, running);
            state.purge_at = PURGE.max(state.tasks.len() * 2);
        }
        state.tasks.push(task);
        drop(state);
        let mut cx = Context::from_waker(Waker::noop());
        ended.into_iter().for_each(|mut task| {
            let _ = task.poll_end(&mut cx);
        });
        Ok(())
    }

    /// Whether there never was one.
    pub(crate) fn is_unused(&self) -> bool {
        self.state().unused
    }

    /// Ready when none runs.
    pub(crate) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pending = Vec::new();
        loop {
            let tasks = mem::take(&mut self.state().tasks);
            if tasks.is_empty() {
                break;
            }
            // Those that are spawned meanwhile are asked next.
            pending.extend(
                tasks.into_iter().filter_map(|mut task| task.poll_end(cx).is_pending().then_some(task)),
            );
        }
        if pending.is_empty() {
            return Poll::Ready(());
        }
        self.state().tasks.append(&mut pending);
        Poll::Pending
    }

    /// The host waits no more: what is left goes on without it, as does what is added later.
    pub(crate) fn release(&self) -> Vec<T> {
        let mut state = self.state();
        state.released = true;
        mem::take(&mut state.tasks)
    }

    /// How many run.
    pub(crate) fn running(&self) -> usize {
        self.state().tasks.iter().filter(|task| !task.is_finished()).count()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}
