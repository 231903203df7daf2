//! What is logged in this process, by all tests: threads of the host log, and not the tests', so that there can be one log only. Tests look for words of their own in it.

use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use tracing::level_filters::LevelFilter;

static TEXT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Starts it, if it has not been started.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(LevelFilter::DEBUG);
        log.with_writer(|| Writer).init();
    });
}

/// What it holds so far.
pub(crate) fn text() -> String {
    String::from_utf8_lossy(&TEXT.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

struct Writer;

impl Write for Writer {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        TEXT.lock().unwrap_or_else(PoisonError::into_inner).write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
