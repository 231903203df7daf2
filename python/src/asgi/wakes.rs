//! Waking the runtime's tasks in batches.
//!
//! A wake costs the loop's thread a system call if the runtime sleeps, and often its place on the processor: the thread that it wakes runs at once. While the loop goes through a batch of events, the wakes
//! of requests that are answered in a few microseconds are gathered and done together.

use std::cell::RefCell;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How long wakes are gathered. An event that takes longer by itself puts off none that it brought about.
const PATIENCE: Duration = Duration::from_micros(400);

#[derive(Default)]
struct Gathered {
    /// Since when wakes are gathered, while a batch is gone through.
    since: Option<Instant>,
    wakers: Vec<Waker>,
}

thread_local! {
    static GATHERED: RefCell<Gathered> = RefCell::default();
}

/// Wakes a task: at once, or with the others of the batch.
pub(super) fn wake(waker: Waker) {
    let now = GATHERED.with_borrow_mut(|gathered| {
        if gathered.since.is_none() {
            return Some(waker);
        }
        gathered.wakers.push(waker);
        None
    });
    if let Some(waker) = now {
        waker.wake();
    }
}

/// Gathers the wakes of this thread until the guard is dropped.
pub(super) fn gather() -> Gathering {
    GATHERED.with_borrow_mut(|gathered| gathered.since = Some(Instant::now()));
    Gathering
}

/// Between two events: wakes those that have waited for long enough.
pub(super) fn between() {
    let due = GATHERED.with_borrow_mut(|gathered| {
        let due = gathered.since.is_some_and(|since| since.elapsed() >= PATIENCE);
        if due {
            gathered.since = Some(Instant::now());
        }
        due
    });
    if due {
        release();
    }
}

/// Wakes are gathered while this lives.
pub(super) struct Gathering;

impl Drop for Gathering {
    fn drop(&mut self) {
        GATHERED.with_borrow_mut(|gathered| gathered.since = None);
        release();
    }
}

fn release() {
    let mut wakers = GATHERED.with_borrow_mut(|gathered| std::mem::take(&mut gathered.wakers));
    // A waker may be anybody's: it is not called while the cell is borrowed.
    for waker in wakers.drain(..) {
        waker.wake();
    }
    GATHERED.with_borrow_mut(|gathered| {
        if gathered.wakers.is_empty() {
            gathered.wakers = wakers;
        }
    });
}
