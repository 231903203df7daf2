//! The response's body: what the application returned, as an [`Output`].

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyIterator, PyList, PyTuple};
use tower_wsgi::{BoxError, EarlyResponse, Environ, Output};

use super::failure::Exception;
use super::hold::Hold;
use super::start_response::{StartResponse, Started};
use crate::interpreter::attached;
use crate::log::tell;

/// From this size on a chunk is sent from Python's memory. Below it a copy costs less than to have the chunk freed by the next thread that is attached.
const LARGE: usize = 32 * 1024;

/// Makes the response of what the application returned. Runs it up to its first byte: an application may call `start_response` as late as in its first step.
pub(super) fn respond(
    result: &Bound<'_, PyAny>,
    start: &StartResponse,
    hold: Hold,
    is_head: bool,
) -> PyResult<Response<Output>> {
    let py = result.py();
    if let Some(bytes) = whole(result)? {
        return match start.take(py).ok_or_else(no_head)? {
            Started::Head(head, written) if written.is_empty() => Ok(head.map(|()| bytes.into())),
            Started::Head(head, written) => Ok(head.map(|()| [written, bytes].concat().into())),
            Started::Begun(response) => follow(py, response, Some(bytes), None),
        };
    }
    let mut chunks = Chunks::new(result, start.environ().clone(), hold)?;
    // Until the first byte the head may still change: with `exc_info`, as PEP 3333 has it, for an error page. A body that nobody wants is not begun.
    let mut first = None;
    while !(start.is_begun(py) || is_head && start.is_called(py)) {
        match chunks.step(py)? {
            Some(chunk) if chunk.is_empty() => {}
            other => {
                first = other;
                break;
            }
        }
    }
    match start.take(py).ok_or_else(no_head)? {
        Started::Head(head, written) => {
            let written = (!written.is_empty()).then_some(Ok(written));
            Ok(head.map(|()| Output::try_iter(written.into_iter().chain(first.map(Ok)).chain(chunks))))
        }
        Started::Begun(response) => follow(py, response, first, Some(chunks)),
    }
}

/// Sends a body behind what was given to `write`: what is here of it, then the rest.
fn follow(
    py: Python<'_>,
    mut response: EarlyResponse,
    here: Option<Bytes>,
    mut rest: Option<Chunks>,
) -> PyResult<Response<Output>> {
    let mut next = here;
    loop {
        match (next.take(), &mut rest) {
            (Some(chunk), _) => py.detach(|| response.send(chunk))?,
            (None, Some(chunks)) => match chunks.step(py)? {
                Some(chunk) => next = Some(chunk),
                None => rest = None,
            },
            (None, None) => return Ok(response.finish()),
        }
    }
}

/// A body that is all here: that of a plain list or tuple, which has no `close` either.
fn whole(result: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
    if let Ok(list) = result.cast_exact::<PyList>() {
        return match list.len() {
            1 => chunk(&list.get_item(0)?).map(Some),
            _ => list.iter().map(|item| chunk(&item)).collect::<PyResult<Vec<_>>>().map(joined),
        };
    }
    if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        return tuple.iter().map(|item| chunk(&item)).collect::<PyResult<Vec<_>>>().map(joined);
    }
    Ok(None)
}

/// Pieces that are small enough to be one.
fn joined(mut pieces: Vec<Bytes>) -> Option<Bytes> {
    match pieces.len() {
        0 => Some(Bytes::new()),
        1 => pieces.pop(),
        _ if pieces.iter().map(Bytes::len).sum::<usize>() <= LARGE => Some(pieces.concat().into()),
        _ => None,
    }
}

/// A chunk, which has to be `bytes`.
fn chunk(item: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let Ok(bytes) = item.cast::<PyBytes>() else {
        let kind = item.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "a WSGI application must return an iterable of bytes, not of {kind}"
        )));
    };
    if bytes.as_bytes().len() < LARGE {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    Ok(Bytes::from_owner(PyBackedBytes::from(bytes.clone())))
}

fn no_head() -> PyErr {
    PyRuntimeError::new_err("the application did not call start_response before its first chunk")
}

/// The iterable that an application returned. Its `close` is called once, when this is dropped.
struct Chunks {
    iterator: Option<Py<PyIterator>>,
    close: Option<Py<PyAny>>,
    environ: Arc<Environ>,
    /// Dropped last: `close` may still look at the body.
    hold: Hold,
}

impl Chunks {
    fn new(result: &Bound<'_, PyAny>, environ: Arc<Environ>, hold: Hold) -> PyResult<Self> {
        let close = result.getattr_opt(intern!(result.py(), "close"))?.map(Bound::unbind);
        // What has a `close` is closed, also if it cannot be iterated.
        let mut chunks = Self { iterator: None, close, environ, hold };
        chunks.iterator = Some(chunks.hold.run(result.py(), || result.try_iter())?.unbind());
        Ok(chunks)
    }

    fn step(&mut self, py: Python<'_>) -> PyResult<Option<Bytes>> {
        let Some(iterator) = &self.iterator else {
            return Ok(None);
        };
        let next = self.hold.run(py, || iterator.bind(py).clone().next().transpose());
        let step = next.and_then(|item| item.as_ref().map(chunk).transpose());
        if !matches!(step, Ok(Some(_))) {
            self.iterator = None;
        }
        step
    }
}

impl Iterator for Chunks {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.iterator.as_ref()?;
        attached(|py| {
            let step = self.step(py);
            step.map_err(|error| Exception::returned(py, &error, &self.environ).into()).transpose()
        })
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        if self.iterator.is_none() && self.close.is_none() {
            return;
        }
        attached(|py| {
            drop(self.iterator.take());
            if let Some(close) = self.close.take()
                && let Err(error) = self.hold.run(py, || close.call0(py))
            {
                let error = Exception::new(py, &error, &self.environ);
                tell!("close() of a response's iterable failed: {error}");
            }
        });
    }
}
