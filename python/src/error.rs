//! What goes wrong before a Python application can be called.

use std::fmt;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::log::printable;

/// Why a Python application could not be loaded or started.
///
/// `Display` says it in one line and, where Python raised something, with Python's own traceback below.
///
/// ```
/// use tower_wsgi_python::{Error, PyWsgi};
///
/// /// What a program says to its supervisor.
/// fn exit_code(error: &Error) -> u8 {
///     match error {
///         e if e.is_import() => 3,
///         e if e.is_startup() => 4,
///         e if e.is_interpreter() => 5,
///         _ => 1,
///     }
/// }
///
/// let error = PyWsgi::import("no_such_module:app").unwrap_err();
/// assert_eq!(exit_code(&error), 3);
/// assert!(error.to_string().contains("no_such_module"));
/// assert!(error.traceback().is_none()); // there is nothing to see in it
///
/// let error = PyWsgi::import("wsgiref.simple_server:no_such_app").unwrap_err();
/// assert!(error.traceback().is_some_and(|text| text.contains("AttributeError")));
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    message: String,
    traceback: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Interpreter,
    Import,
    Startup,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { inner: Arc::new(Inner { kind, message: message.into(), traceback: None }) }
    }

    /// An error with what Python has to say about it.
    pub(crate) fn raised(kind: Kind, message: impl Into<String>, py: Python<'_>, error: &PyErr) -> Self {
        let traceback = Some(traceback(py, error));
        Self { inner: Arc::new(Inner { kind, message: message.into(), traceback }) }
    }

    /// Whether the interpreter could not be started, or not with the virtual environment that was asked for.
    #[must_use]
    pub fn is_interpreter(&self) -> bool {
        self.inner.kind == Kind::Interpreter
    }

    /// Whether the application could not be imported: there is no such module or attribute, it is not callable, the import raised, or what was found speaks the other interface.
    #[must_use]
    pub fn is_import(&self) -> bool {
        self.inner.kind == Kind::Import
    }

    /// Whether the application itself refused to start: its lifespan's startup failed.
    #[must_use]
    pub fn is_startup(&self) -> bool {
        self.inner.kind == Kind::Startup
    }

    /// Python's traceback, where Python raised something.
    #[must_use]
    pub fn traceback(&self) -> Option<&str> {
        self.inner.traceback.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        match &self.inner.traceback {
            Some(traceback) => write!(f, "\n{}", traceback.trim_end()),
            None => Ok(()),
        }
    }
}

/// As `Display`: this is what a `main` that returns the error prints, and a traceback in one line is none.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// An exception as Python prints it, with its causes, and [`printable`].
pub(crate) fn traceback(py: Python<'_>, error: &PyErr) -> String {
    let format = || -> PyResult<String> {
        // The value on its own has its traceback only from Python 3.12 on.
        let value = error.clone_ref(py).into_value(py);
        let lines = py.import("traceback")?.call_method1("format_exception", (value,))?;
        // A lone surrogate has no place in UTF-8, and the rest has: also where a client had its part in the words.
        lines.try_iter()?.map(|line| Ok(line?.cast::<PyString>()?.to_string_lossy().into_owned())).collect()
    };
    // Only an exception whose own `__str__` raises gets here.
    printable(format().unwrap_or_else(|_| error.to_string()))
}
