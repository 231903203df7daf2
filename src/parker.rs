//! Blocking a thread until a waker is woken.
//!
//! Everything that waits on the synchronous side waits here: a handler that reads a body, a writer whose
//! queue is full, an idle worker. The waker can be handed to any future or body, so that the waiting
//! thread is woken by the event itself, with no task in between.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use crate::body::Body;
use crate::sync::{AtomicBool, Ordering, Thread, current, fence, local, park, park_before};

/// How code on the sync side hears that its response is wanted no more.
pub(crate) trait Watch: Send + Sync {
    fn is_closed(&self) -> bool;

    /// Asks for a wake at the close; false if it has happened.
    fn watch(&self, waker: &Waker) -> bool;

    /// Has the task that waits for the response read the request's body ahead, where it does that.
    fn relay(&self, body: Body) -> Body;
}

/// The calling thread's means to wait.
pub(crate) struct Parker {
    signal: Option<Arc<Signal>>,
    waker: Waker,
    /// Whether the next wait may use the signal although somebody still holds its waker.
    reusable: bool,
}

/// What a waker sets and the thread waits for. The flag is the truth; `unpark` only ends the sleep, so
/// that other users of the thread's park token cannot steal a wake.
struct Signal {
    woken: AtomicBool,
    thread: Thread,
}

impl Signal {
    fn references(self: &Arc<Self>) -> usize {
        // A model knows nothing of the count. This stands for a look at it: a step of its own, behind which the wakes of those who let go are seen.
        #[cfg(tower_wsgi_loom)]
        self.woken.fetch_or(false, Ordering::AcqRel);
        Arc::strong_count(self)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

local! {
    /// Taken while in use: a nested wait gets a signal of its own and cannot swallow the outer one's wake.
    static SPARE: Cell<Option<Arc<Signal>>> = Cell::new(None);
}

impl Parker {
    /// The calling thread's parker. Only this thread may [`park`](Self::park) on it.
    pub(crate) fn current() -> Self {
        let signal = SPARE
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_else(|| Arc::new(Signal { woken: AtomicBool::new(false), thread: current() }));
        Self { waker: Waker::from(signal.clone()), signal: Some(signal), reusable: true }
    }

    /// Keeps the signal from later waits of the thread if its waker is still held somewhere then: for whoever asks whether it [`is_alone`](Self::is_alone).
    pub(crate) fn keep_to_myself(&mut self) {
        self.reusable = false;
    }

    /// Wakes the thread that waits in [`park`](Self::park).
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether nobody but this parker has its waker, and no wake came: to wait then would be to wait for ever.
    ///
    /// Whoever holds it may never wake it: a false answer says nothing.
    pub(crate) fn is_alone(&self) -> bool {
        let Some(signal) = &self.signal else {
            return false;
        };
        // Two are the parker's own. Who wakes sets the flag before it lets go of the waker: where its reference
        // is seen to be gone, behind the fence its wake is seen too.
        if signal.references() > 2 {
            return false;
        }
        fence(Ordering::Acquire);
        !signal.woken.load(Ordering::Acquire)
    }

    /// Waits until the waker is woken. A wake that came since the last wait ends this one at once.
    pub(crate) fn park(&self) {
        self.park_until(None);
    }

    /// Like [`park`](Self::park); false if `deadline` passed first.
    pub(crate) fn park_until(&self, deadline: Option<Instant>) -> bool {
        let Some(signal) = &self.signal else {
            return true;
        };
        while !signal.woken.swap(false, Ordering::AcqRel) {
            match deadline {
                None => park(),
                Some(deadline) if park_before(deadline) => {}
                Some(_) => return false,
            }
        }
        true
    }
}

impl Drop for Parker {
    fn drop(&mut self) {
        let signal = self.signal.take().filter(|signal| self.reusable || Arc::strong_count(signal) <= 2);
        // The thread may be ending; the signal then just goes.
        let _ = SPARE.try_with(|spare| spare.set(signal));
    }
}
