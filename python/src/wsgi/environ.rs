//! The environ of a request: a copy of what is the same for all, and the request's variables.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::{HeaderName, Request};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyDict, PyMapping, PyString};
use tower_wsgi::{Input, VariableName, Variables};

use super::errors::WsgiErrors;
use super::file_wrapper::FileWrapper;
use super::input::WsgiInput;
use super::scope::{ClientDisconnected, WsgiScope};
use crate::interpreter::attached;
use crate::text::native;

/// How many headers' names are kept as variables' names. A client can make up as many as it likes.
const NAMES: usize = 256;

/// What each request sets.
const ALWAYS: [&str; 14] = [
    "GATEWAY_INTERFACE",
    "SERVER_SOFTWARE",
    "SERVER_PROTOCOL",
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "REQUEST_URI",
    "wsgi.url_scheme",
    "SERVER_NAME",
    "SERVER_PORT",
    "wsgi.input",
    "asgi.scope",
    "tower_wsgi.client_disconnected",
];

/// The string of these bytes if it is one of those that come with almost every request, which are made once.
macro_rules! interned {
    ($py:expr, $bytes:expr, $($known:literal)*) => {{
        let bytes: &[u8] = $bytes;
        $(if bytes == $known.as_bytes() { Some(intern!($py, $known).clone()) } else)* { None }
    }};
}

/// What every environ starts with.
pub(super) struct Template {
    constants: Py<PyDict>,
    names: Mutex<HashMap<HeaderName, Py<PyString>>>,
}

impl Template {
    pub(super) fn new(multiprocess: bool) -> Self {
        let constants = |py: Python<'_>| -> PyResult<Py<PyDict>> {
            // For `isinstance`, and for `match`.
            PyMapping::register::<WsgiScope>(py)?;
            let constants = PyDict::new(py);
            constants.set_item("wsgi.version", (1, 0))?;
            constants.set_item("wsgi.multithread", true)?;
            constants.set_item("wsgi.multiprocess", multiprocess)?;
            constants.set_item("wsgi.run_once", false)?;
            constants.set_item("wsgi.input_terminated", true)?;
            constants.set_item("wsgi.errors", Bound::new(py, WsgiErrors::default())?)?;
            constants.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
            // A dict that grows while it is filled is made twice. A copy has the room of its original, which these make, and one more that is gone again: for some twenty headers.
            for name in ALWAYS.into_iter().chain(["spare"]) {
                constants.set_item(PyString::intern(py, name), "")?;
            }
            constants.del_item("spare")?;
            Ok(constants.unbind())
        };
        let constants = attached(constants).expect("a dict takes strings as keys");
        Self { constants, names: Mutex::default() }
    }

    /// The environ of `request`, but for what is made of its body and connection.
    pub(super) fn fill<'py>(
        &self,
        py: Python<'py>,
        request: &Request<Input>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.constants.bind(py).copy()?;
        // Detached while it waits: what is interned for the first time detaches, too, so that the lock's holder may be in need of the interpreter.
        let mut names = self.names.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        Variables::visit(request, |name, value| {
            if result.is_ok() {
                let name = python_name(py, &mut names, name);
                result = python_value(py, value).and_then(|value| environ.set_item(name, value));
            }
        });
        result.map(|()| environ)
    }

    /// Adds what is made of the request's body and connection.
    pub(super) fn connect(
        &self,
        environ: &Bound<'_, PyDict>,
        input: &Bound<'_, WsgiInput>,
        scope: WsgiScope,
    ) -> PyResult<()> {
        let py = environ.py();
        let disconnected = ClientDisconnected::of(&scope);
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        environ.set_item(intern!(py, "asgi.scope"), Bound::new(py, scope)?)?;
        environ.set_item(intern!(py, "tower_wsgi.client_disconnected"), Bound::new(py, disconnected)?)
    }
}

fn python_name<'py>(
    py: Python<'py>,
    names: &mut HashMap<HeaderName, Py<PyString>>,
    name: VariableName<'_>,
) -> Bound<'py, PyString> {
    if let Some(header) = name.header() {
        if let Some(known) = names.get(header) {
            return known.bind(py).clone();
        }
        let made = PyString::intern(py, &name.to_string());
        if names.len() < NAMES {
            names.insert(header.clone(), made.clone().unbind());
        }
        return made;
    }
    let name = name.plain().unwrap_or_default();
    let known = interned!(py, name.as_bytes(),
        "GATEWAY_INTERFACE" "SERVER_SOFTWARE" "SERVER_PROTOCOL" "REQUEST_METHOD" "SCRIPT_NAME" "PATH_INFO" "QUERY_STRING"
        "REQUEST_URI" "wsgi.url_scheme" "HTTPS" "SERVER_NAME" "SERVER_PORT" "REMOTE_ADDR" "REMOTE_PORT" "REMOTE_USER"
    );
    known.unwrap_or_else(|| PyString::new(py, name))
}

fn python_value<'py>(py: Python<'py>, value: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let known = interned!(py, value,
        "GET" "POST" "HEAD" "PUT" "DELETE" "http" "https" "on" "HTTP/1.1" "HTTP/2.0" "HTTP/1.0" "CGI/1.1" "/" "*/*" "443" "80"
    );
    known.map_or_else(|| native(py, value), Ok)
}
