//! Blocking a thread until something async is ready: the thread polls it itself.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::coop;

use crate::error::{Error, Kind};
use crate::nesting::{forget_reliance, relies_on_pool};
use crate::parker::{Parker, Watch};
use crate::pool::{is_worker, lend};
use crate::sync::{local, now};

/// One more than the operations that tokio lets a task do in one go. They are counted by doing them, which takes most of a microsecond.
const BEYOND_BUDGET: usize = 129;

/// How soon, and how seldom at last, a thread that sleeps looks whether there is still somebody who could wake it: to let go of a waker
/// wakes nobody.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_secs(10);

local! {
    /// Whether this thread polls something in [`Wait::until`].
    static POLLING: Cell<bool> = Cell::new(false);
}

/// Why a wait ended before what it waited for was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The response is wanted no more.
    Closed,
    TimedOut,
    /// Nobody is left who could wake the thread.
    Stuck,
    /// The thread belongs to an async task.
    InsideAsync,
}

/// How to wait.
#[derive(Default)]
pub(crate) struct Wait<'a> {
    /// Tells when the response is wanted no more.
    pub(crate) watch: Option<&'a Arc<dyn Watch>>,
    /// Counted from the first poll that was not ready.
    pub(crate) timeout: Option<Duration>,
    /// Whether a worker lends its place meanwhile: what it waits for may need a worker itself. Otherwise it does so only where that is so.
    pub(crate) lends: bool,
    /// Whether the caller asked [`may_block`] already.
    pub(crate) asked: bool,
}

impl Wait<'_> {
    /// Polls until ready. The calling thread sleeps in between; what wakes the polled thing wakes it.
    ///
    /// Where the wait ends early, `poll` is dropped before the worker takes its place back: what it holds is what those wait for who have the place.
    pub(crate) fn until<T, P>(self, poll: P) -> Result<T, Ended>
    where
        P: FnMut(&mut Context<'_>) -> Poll<T>,
    {
        let mut parker = Parker::current();
        if self.watch.is_none() {
            parker.keep_to_myself();
        }
        let mut cx = Context::from_waker(parker.waker());
        let mut held = Some(poll);
        let mut poll = |held: &mut Option<P>| match held {
            Some(poll) => in_place(|| poll(&mut cx)),
            None => Poll::Pending,
        };
        if let Poll::Ready(value) = poll(&mut held) {
            return Ok(value);
        }
        // A worker that polls in a `block_on` of its own was not found out when it was asked.
        if (is_worker() || !self.asked) && is_inside_async() {
            return Err(Ended::InsideAsync);
        }
        // A deadline that is too far away to be told is none.
        let deadline = self.timeout.and_then(|timeout| now().checked_add(timeout));
        let mut lends = self.lends || relies_on_pool();
        loop {
            let mut sleep = || {
                let slept = self.sleep(&parker, deadline, lends, &mut || poll(&mut held));
                if slept.is_err() {
                    held = None;
                }
                slept
            };
            if let Some(value) = if lends { lend(sleep)? } else { sleep()? } {
                return Ok(value);
            }
            lends = true;
        }
    }

    /// Sleeps and polls until ready; `None` if it turned out that what is waited for needs a worker of the pool that this thread belongs to.
    fn sleep<T>(
        &self,
        parker: &Parker,
        deadline: Option<Instant>,
        lends: bool,
        poll: &mut impl FnMut() -> Poll<T>,
    ) -> Result<Option<T>, Ended> {
        let mut look = FIRST_LOOK;
        loop {
            if self.watch.is_some_and(|watch| !watch.watch(parker.waker())) {
                return Err(Ended::Closed);
            }
            let now = now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Err(Ended::TimedOut);
            }
            // What can be cancelled may wait for that, and `watch` keeps the waker then.
            if deadline.is_none() && parker.is_alone() {
                return Err(Ended::Stuck);
            }
            if !parker.park_until(Some(deadline.unwrap_or_else(|| now + look))) {
                look = (look * 2).min(LAST_LOOK);
                continue;
            }
            if let Poll::Ready(value) = poll() {
                return Ok(Some(value));
            }
            if !lends && relies_on_pool() {
                return Ok(None);
            }
        }
    }
}

/// An error if the calling thread belongs to an async task: to block it would keep that task, and maybe all that its runtime does, from going on.
pub(crate) fn may_block() -> Result<(), Error> {
    // A worker may, unless it polls in a `block_on` of its own: that is looked at when it would sleep.
    if POLLING.with(Cell::get) || !is_worker() && is_inside_async() {
        return Err(Ended::InsideAsync.into());
    }
    Ok(())
}

/// Whether the calling thread polls a task.
///
/// A runtime's handle alone says nothing: threads of `spawn_blocking` and those inside `Handle::enter` have it too, and may block. tokio gives those that
/// poll, and no others, a budget of operations. It is spent here, as far as it goes, and given back.
fn is_inside_async() -> bool {
    if POLLING.with(Cell::get) {
        return true;
    }
    if Handle::try_current().is_err() {
        return false;
    }
    let mut cx = Context::from_waker(Waker::noop());
    // The drop of the first gives all of it back.
    let Poll::Ready(_first) = coop::poll_proceed(&mut cx) else {
        return true;
    };
    (1..BEYOND_BUDGET).any(|_| match coop::poll_proceed(&mut cx) {
        Poll::Ready(another) => {
            another.made_progress();
            false
        }
        Poll::Pending => true,
    })
}

/// Runs a poll, during which the thread counts as one that must not block.
fn in_place<T>(poll: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            POLLING.with(|polling| polling.set(self.0));
        }
    }

    let _restore = Restore(POLLING.with(|polling| polling.replace(true)));
    forget_reliance();
    poll()
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Closed => Self::new(Kind::Disconnected, "the response is wanted no more"),
            Ended::TimedOut => {
                Self::new(Kind::TimedOut, "no byte of the request's body came within read_timeout")
            }
            Ended::Stuck => Self::new(
                Kind::Stuck,
                "what this thread waits for can never wake it: it kept no waker, and is not ready",
            ),
            Ended::InsideAsync => Self::new(
                Kind::InsideAsync,
                "a blocking call inside an async task; use spawn_blocking, or await the service itself",
            ),
        }
    }
}
