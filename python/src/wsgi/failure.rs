//! An exception of an application, on its way to the log and the client.

use std::fmt;

use pyo3::prelude::*;
use tower_wsgi::Environ;

use crate::error::traceback;
use crate::log::{printable, unheard};

/// A Python exception that an application raised. `Display` is the request's method and path, and Python's traceback.
#[derive(Debug)]
pub(crate) struct Exception {
    request: String,
    traceback: String,
}

impl Exception {
    pub(crate) fn new(py: Python<'_>, error: &PyErr, environ: &Environ) -> Self {
        let scope = environ.scope();
        let request = printable(format!("{} {}", scope.method(), scope.raw_path()));
        Self { request, traceback: traceback(py, error).trim_end().to_owned() }
    }

    /// One that is returned to the host, which logs it unless the client is gone.
    pub(crate) fn returned(py: Python<'_>, error: &PyErr, environ: &Environ) -> Self {
        let exception = Self::new(py, error, environ);
        if !environ.is_disconnected() {
            unheard(&exception);
        }
        exception
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed\n{}", self.request, self.traceback)
    }
}

impl std::error::Error for Exception {}
