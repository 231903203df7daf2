//! `start_response`: how the application tells the response's head, and the `write` that it gets for it.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::ext::ReasonPhrase;
use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::text::bytes;

/// The callable.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct StartResponse {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    head: Option<Response<()>>,
    /// What was given to `write`.
    written: Vec<u8>,
    /// Whether the head is on its way.
    sent: bool,
}

impl StartResponse {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the head is known.
    pub(super) fn is_called(&self) -> bool {
        self.lock().head.is_some()
    }

    /// The head, which from now on cannot change, and what was written.
    pub(super) fn take(&self) -> Option<(Response<()>, Vec<u8>)> {
        let mut state = self.lock();
        state.sent = true;
        let head = state.head.take()?;
        Some((head, mem::take(&mut state.written)))
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
        let head = head(status, headers)?;
        let mut state = slf.get().lock();
        match exc_info.filter(|info| !info.is_none()) {
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
        let mut state = self.0.get().lock();
        state.written.extend_from_slice(data.as_bytes());
        Ok(())
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
