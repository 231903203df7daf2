//! What the tests share: a virtual environment with the frameworks, programs that serve, and a client that sees what is on the wire.

pub(crate) mod client;
pub(crate) mod server;
pub(crate) mod venv;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{panic, thread};

/// How long anything may take before the test fails. Never waited for in a test that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test, which must not hang.
pub(crate) fn watched(test: impl FnOnce() + Send + 'static) {
    let (alive, over) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _alive = alive;
        test();
    });
    if over.recv_timeout(4 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
        panic!("hung");
    }
    if let Err(panic) = thread.join() {
        panic::resume_unwind(panic);
    }
}

/// Asks until the answer is yes. What is asked takes a moment itself, a round trip or so.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        thread::yield_now();
    }
}

/// The directory with the Python applications of the tests.
pub(crate) fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("apps")
}
