//! The synchronisation types that the primitives are written against.
//!
//! In a normal build these are the standard library's. With `--cfg tower_wsgi_loom` they are loom's (see `sync/model.rs`),
//! so that the model checker sees every lock, every atomic and every parked thread.

#[cfg(tower_wsgi_loom)]
pub(crate) mod model;

#[cfg(not(tower_wsgi_loom))]
mod imp {
    use std::io;
    use std::time::Instant;

    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, fence};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread::{Thread, current, park, yield_now};

    /// Parks the thread until the deadline at the latest; false, at once, if that has passed.
    pub(crate) fn park_before(deadline: Instant) -> bool {
        let now = now();
        if now < deadline {
            std::thread::park_timeout(deadline - now);
        }
        now < deadline
    }

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Whether time passes: in a model it need not.
    pub(crate) const fn is_timed() -> bool {
        true
    }

    /// Starts a thread that nobody joins.
    pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        super::thread(name).spawn(work).map(drop)
    }
}

/// A thread-local with a constant first value.
#[cfg(not(tower_wsgi_loom))]
macro_rules! local {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = $first:expr;) => {
        std::thread_local! { $(#[$attribute])* static $name: $type = const { $first }; }
    };
}

#[cfg(tower_wsgi_loom)]
macro_rules! local {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = $first:expr;) => {
        loom::thread_local! { $(#[$attribute])* static $name: $type = $first; }
    };
}

#[cfg(not(tower_wsgi_loom))]
pub(crate) use imp::*;
pub(crate) use local;
#[cfg(tower_wsgi_loom)]
pub(crate) use model::*;
pub(crate) use std::sync::atomic::Ordering;

/// Locks `mutex`. No code of a user runs under a lock that is taken this way, so that a poisoned one still holds
/// a consistent value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits for a wake of `condvar`, under such a lock.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A thread that code of a user runs on.
///
/// Its stack is as big as the one that synchronous code has elsewhere, a Unix system's usual 8 MiB, and not the 2 MiB of Rust's threads: interpreters count their recursions, and the limit fits that
/// size. Memory is taken only as the stack grows. `RUST_MIN_STACK` has its usual effect.
pub(crate) fn thread(name: &str) -> std::thread::Builder {
    const STACK: usize = 8 * 1024 * 1024;

    let thread = std::thread::Builder::new().name(name.to_owned());
    if std::env::var_os("RUST_MIN_STACK").is_some() { thread } else { thread.stack_size(STACK) }
}
