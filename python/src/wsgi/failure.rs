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
        // Before Python 3.12 a raised exception does not know where it comes from until it is caught; this tells it.
        let error = PyErr::from_value(error.clone_ref(py).into_value(py).into_bound(py).into_any());
        Self { traceback: traceback(py, &error).trim_end().to_owned() }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceback)
    }
}

impl std::error::Error for Exception {}
