//! `wsgi.errors`: a text stream into the log.

use pyo3::prelude::*;
use pyo3::types::PyString;
use std::sync::{Mutex, PoisonError};

use crate::log::unheard;

/// How much of a line without an end is held back.
const LONGEST: usize = 64 * 1024;

/// The stream. One for all requests: each line is an event of the log, whoever wrote its parts.
#[pyclass(frozen, module = "tower_wsgi")]
#[derive(Default)]
pub(super) struct WsgiErrors {
    /// What was written since the last line's end.
    begun: Mutex<String>,
}

#[pymethods]
impl WsgiErrors {
    fn write(&self, text: &Bound<'_, PyString>) -> usize {
        let length = text.len().unwrap_or(0);
        let text = text.to_string_lossy();
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.push_str(&text);
        if begun.contains('\n') || begun.len() > LONGEST {
            let end =
                if begun.len() > LONGEST { begun.len() } else { begun.rfind('\n').map_or(0, |at| at + 1) };
            let lines: String = begun.drain(..end).collect();
            drop(begun);
            log(&lines);
        }
        length
    }

    fn writelines(&self, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(line?.cast::<PyString>()?);
        }
        Ok(())
    }

    fn flush(&self) {
        let begun = std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        log(&begun);
    }

    fn writable(&self) -> bool {
        true
    }

    fn isatty(&self) -> bool {
        false
    }
}

fn log(lines: &str) {
    for line in lines.lines().filter(|line| !line.is_empty()) {
        tracing::error!(target: "wsgi.errors", "{line}");
        unheard(line);
    }
}
