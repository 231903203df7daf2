//! What `receive()` and `send()` return: awaitables that are ready, or that wait on a future of the loop.
//!
//! They have a coroutine's methods, so that `asyncio.create_task(receive())` works as with servers whose `receive` is an `async def`. As with a coroutine, a message is taken
//! by the await and not by the call: a `receive()` that is cancelled loses nothing.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;

use super::http::Http;
use super::socket::WebSocket;

/// An awaitable whose result is `None`, at once. It has no state: one serves all.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct Done;

#[pymethods]
impl Done {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    fn send(&self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Err(PyStopIteration::new_err(py.None()))
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        Err(thrown(kind, value)?)
    }

    fn close(&self) {}
}

/// Whose awaitable it is.
pub(super) enum Target {
    Http(Py<Http>),
    WebSocket(Py<WebSocket>),
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A message for the application.
    Message,
    /// Room for the application's next message.
    Room,
}

/// An awaitable that may have to wait.
#[pyclass(frozen, freelist = 64, module = "tower_wsgi")]
pub(super) struct Pending {
    target: Target,
    want: Want,
    future: Mutex<Option<Py<PyAny>>>,
}

impl Pending {
    pub(super) fn new(target: Target, want: Want) -> Self {
        Self { target, want, future: Mutex::new(None) }
    }

    fn step(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let waited = self.forget(py);
        let result = match &self.target {
            Target::Http(http) if waited || http.get().is_free(self.want) => http.get().poll(py, self.want),
            Target::WebSocket(socket) if waited || socket.get().is_free(self.want) => {
                socket.get().poll(py, self.want)
            }
            _ => Ok(None),
        }?;
        if let Some(result) = result {
            if waited {
                // There may be something for the next one too.
                self.settle(py)?;
            }
            return Err(PyStopIteration::new_err(result));
        }
        let future = match &self.target {
            Target::Http(http) => Http::wait(http.bind(py), self.want)?,
            Target::WebSocket(socket) => WebSocket::wait(socket.bind(py), self.want)?,
        };
        // What `yield from` a future does: the task that steps this waits for it.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        *self.future.lock().unwrap_or_else(PoisonError::into_inner) = Some(future.clone().unbind());
        Ok(future.unbind())
    }

    /// The future is waited for no more.
    fn forget(&self, py: Python<'_>) -> bool {
        let future = self.future.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(future) = future else {
            return false;
        };
        let future = future.bind(py);
        match &self.target {
            Target::Http(http) => http.get().forget(future, self.want),
            Target::WebSocket(socket) => socket.get().forget(future, self.want),
        }
        true
    }

    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        match &self.target {
            Target::Http(http) => Http::settle(http.bind(py)),
            Target::WebSocket(socket) => WebSocket::settle(socket.bind(py)),
        }
    }
}

#[pymethods]
impl Pending {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step(py).map(Some)
    }

    fn send(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        self.step(py)
    }

    #[pyo3(signature = (kind, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        if self.forget(py) {
            // It may have been this one's turn.
            self.settle(py)?;
        }
        Err(thrown(kind, value)?)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.forget(py) {
            self.settle(py)?;
        }
        Ok(())
    }
}

/// The exception that is thrown into a coroutine, in either of the forms that `throw` takes.
fn thrown(kind: &Bound<'_, PyAny>, value: Option<&Bound<'_, PyAny>>) -> PyResult<PyErr> {
    if let Some(value) = value.filter(|value| !value.is_none()) {
        return Ok(PyErr::from_value(value.clone()));
    }
    if kind.is_callable() {
        let made = kind.call0()?;
        return Ok(PyErr::from_value(made));
    }
    if kind.is_none() {
        return Err(PyRuntimeError::new_err("no exception to throw"));
    }
    Ok(PyErr::from_value(kind.clone()))
}
