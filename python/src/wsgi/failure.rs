//! An exception of an application, on its way to the log and the client.

use std::fmt;

use pyo3::prelude::*;

use crate::error::traceback;

/// A Python exception that an application raised. `Display` is Python's traceback.
#[derive(Debug)]
pub(crate) struct Exception {
    traceback: String,
}

impl Exception {
    pub(crate) fn new(py: Python<'_>, error: &PyErr) -> Self {
        Self { traceback: traceback(py, error).trim_end().to_owned() }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceback)
    }
}

impl std::error::Error for Exception {}
