//! `start_response`: how the application tells the response's head, and the `write` that it gets for it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use pyo3::exceptions::{PyAssertionError, PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use tower_wsgi::{EarlyResponse, Environ};

use crate::text::bytes;

/// How much is gathered from `write` on a host that sends nothing before the end; more of it is refused.
const GATHERED: usize = 16 * 1024 * 1024;

/// The callable.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct StartResponse {
    state: Mutex<State>,
    environ: Arc<Environ>,
}

#[derive(Default)]
struct State {
    head: Option<Response<()>>,
    written: Written,
    /// Whether the head is on its way.
    sent: bool,
}

/// What was given to `write`.
#[derive(Default)]
enum Written {
    #[default]
    Nothing,
    /// It goes to the client at once.
    Begun(EarlyResponse),
    /// It waits for the response.
    Gathered(Vec<u8>),
}

/// The head as the application told it.
pub(super) enum Started {
    /// The body begins with these bytes.
    Head(Response<()>, Bytes),
    /// It is on its way already.
    Begun(EarlyResponse),
}

impl StartResponse {
    pub(super) fn new(environ: Arc<Environ>) -> Self {
        Self { state: Mutex::default(), environ }
    }

    /// Waits detached, since `write` holds the state while it waits for the client.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that is answered.
    pub(super) fn environ(&self) -> &Arc<Environ> {
        &self.environ
    }

    /// Whether the head is known.
    pub(super) fn is_called(&self, py: Python<'_>) -> bool {
        let state = self.lock(py);
        state.sent || state.head.is_some()
    }

    /// Whether the response is on its way.
    pub(super) fn is_begun(&self, py: Python<'_>) -> bool {
        self.lock(py).sent
    }

    /// The head, which from now on cannot change. `None` if the application did not tell it.
    pub(super) fn take(&self, py: Python<'_>) -> Option<Started> {
        let mut state = self.lock(py);
        state.sent = true;
        match mem::take(&mut state.written) {
            Written::Begun(response) => Some(Started::Begun(response)),
            Written::Gathered(bytes) => Some(Started::Head(state.head.take()?, bytes.into())),
            Written::Nothing => Some(Started::Head(state.head.take()?, Bytes::new())),
        }
    }

    /// PEP 3333's `write`: sends a chunk, now. Called detached.
    fn write(&self, chunk: Bytes) -> PyResult<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Written::Nothing = state.written {
            if state.sent {
                return Err(PyAssertionError::new_err(
                    "write() was called after the application had returned",
                ));
            }
            state.written = match self.environ.early() {
                Some(early) => {
                    let head = state.head.take().expect("write() comes from start_response");
                    state.sent = true;
                    Written::Begun(
                        early.begin(head).map_err(|error| PyValueError::new_err(error.to_string()))?,
                    )
                }
                None => Written::Gathered(Vec::new()),
            };
        }
        match &mut state.written {
            Written::Begun(response) => response.send(chunk).map_err(PyErr::from),
            Written::Gathered(bytes) if bytes.len() + chunk.len() > GATHERED => {
                let message = "this host sends nothing before the application returns: too much for write()";
                Err(PyMemoryError::new_err(message))
            }
            Written::Gathered(bytes) => {
                bytes.extend_from_slice(&chunk);
                Ok(())
            }
            Written::Nothing => unreachable!("it was just begun"),
        }
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info = None, /))]
    fn __call__(
        slf: &Bound<'_, Self>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Write> {
        let exc_info = exc_info.filter(|info| !info.is_none());
        // Whatever the new head is, it comes too late.
        if let Some(info) = exc_info
            && slf.get().is_begun(slf.py())
        {
            return Err(PyErr::from_value(info.get_item(1)?));
        }
        let head = head(status, headers)?;
        let mut state = slf.get().lock(slf.py());
        match exc_info {
            Some(info) if state.sent => {
                drop(state);
                return Err(PyErr::from_value(info.get_item(1)?));
            }
            None if state.sent || state.head.is_some() => {
                return Err(PyAssertionError::new_err("start_response was called twice without exc_info"));
            }
            _ => state.head = Some(head),
        }
        drop(state);
        Ok(Write(slf.clone().unbind()))
    }
}

/// The `write` callable.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct Write(Py<StartResponse>);

#[pymethods]
impl Write {
    fn __call__(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = data.cast::<PyBytes>().map_err(|_| PyTypeError::new_err("write() takes bytes"))?;
        let (chunk, start) = (Bytes::copy_from_slice(data.as_bytes()), self.0.get());
        data.py().detach(|| start.write(chunk))
    }
}

/// The response's head.
fn head(status: &Bound<'_, PyAny>, headers: &Bound<'_, PyAny>) -> PyResult<Response<()>> {
    let mut head = Response::new(());
    let line = status.cast::<PyString>().map_err(|_| PyTypeError::new_err("the status must be a str"))?;
    let line = bytes(line).ok_or_else(|| invalid("status", status))?;
    let (code, reason) = line.split_at_checked(3).ok_or_else(|| invalid("status", status))?;
    let code = StatusCode::from_bytes(code).map_err(|_| invalid("status", status))?;
    let reason = match reason {
        [] => reason,
        [b' ', reason @ ..] => reason,
        _ => return Err(invalid("status", status)),
    };
    *head.status_mut() = code;
    let usual = code.canonical_reason().map(str::as_bytes);
    if !reason.is_empty() && usual != Some(reason) {
        let reason = ReasonPhrase::try_from(reason).map_err(|_| invalid("status", status))?;
        head.extensions_mut().insert(reason);
    }
    let list = headers.cast::<PyList>().map_err(|_| PyTypeError::new_err("the headers must be a list"))?;
    let map = head.headers_mut();
    map.reserve(list.len());
    for pair in list {
        add(map, &pair)?;
    }
    Ok(head)
}

fn add(map: &mut HeaderMap, pair: &Bound<'_, PyAny>) -> PyResult<()> {
    let wrong = || PyTypeError::new_err("each header must be a tuple of two str");
    let tuple = pair.cast::<PyTuple>().map_err(|_| wrong())?;
    let (Ok(name), Ok(value), 2) = (tuple.get_borrowed_item(0), tuple.get_borrowed_item(1), tuple.len())
    else {
        return Err(wrong());
    };
    let (name, value) =
        (name.cast::<PyString>().map_err(|_| wrong())?, value.cast::<PyString>().map_err(|_| wrong())?);
    let known = bytes(&name).and_then(|name| HeaderName::from_bytes(&name).ok());
    let known = known.ok_or_else(|| invalid("header name", &name))?;
    let sent = bytes(&value).and_then(|value| HeaderValue::from_bytes(&value).ok());
    map.append(known, sent.ok_or_else(|| invalid("header value", &value))?);
    Ok(())
}

fn invalid(what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let shown = value.repr().map(|repr| repr.to_string()).unwrap_or_default();
    PyValueError::new_err(format!("not a valid {what}: {shown}"))
}
