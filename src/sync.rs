//! The synchronisation types that the primitives are written against.
//!
//! In a normal build these are the standard library's. With `--cfg tower_wsgi_loom` they are loom's,
//! so that the model checker sees every lock, every atomic and every parked thread.

#[cfg(not(tower_wsgi_loom))]
mod imp {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize};
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::{Thread, current, park, yield_now};

    pub(crate) fn park_timeout(timeout: std::time::Duration) {
        std::thread::park_timeout(timeout);
    }
}

#[cfg(tower_wsgi_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::{Thread, current, park, yield_now};

    /// Time does not pass in a model: a thread that is never woken is a deadlock, and reported.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        park();
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

pub(crate) use imp::*;
pub(crate) use local;
pub(crate) use std::sync::atomic::Ordering;

/// Locks `mutex`. No code of a user runs under a lock that is taken this way, so that a poisoned one still holds
/// a consistent value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
