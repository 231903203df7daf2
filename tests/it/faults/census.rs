//! What requests hold, and where it is dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::is_worker;

/// Counts the values of requests that are alive.
#[derive(Clone, Default)]
pub(super) struct Census(Arc<Counts>);

#[derive(Default)]
struct Counts {
    alive: AtomicUsize,
    astray: Mutex<Vec<String>>,
}

/// A value of a request.
pub(super) struct Held {
    census: Census,
    is_sync: bool,
}

impl Census {
    /// A value that only workers may drop.
    pub(super) fn hold(&self) -> Held {
        self.count(true)
    }

    /// A value that any thread may drop.
    pub(super) fn hold_anywhere(&self) -> Held {
        self.count(false)
    }

    fn count(&self, is_sync: bool) -> Held {
        self.0.alive.fetch_add(1, Ordering::SeqCst);
        Held { census: self.clone(), is_sync }
    }

    pub(super) fn alive(&self) -> usize {
        self.0.alive.load(Ordering::SeqCst)
    }

    /// The threads that dropped what they must not.
    pub(super) fn astray(&self) -> Vec<String> {
        self.0.astray.lock().expect("a lock").clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        if self.is_sync && !is_worker(&thread) {
            self.census.0.astray.lock().expect("a lock").push(thread);
        }
        self.census.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}
