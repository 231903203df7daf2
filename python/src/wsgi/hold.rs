//! What a request holds on to until its response is over: its `contextvars` context, and its body.

use pyo3::call::PyCallArgs;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::input::WsgiInput;
use crate::interpreter::attached;

/// A request's context and body. Each step of the application runs in the one context, on whichever thread: what a generator has set it finds again.
///
/// Dropped, it gives the body up, whoever still holds the `environ`: the cycle of an exception and its traceback may do so until the next garbage collection, and the connection would wait for it.
pub(super) struct Hold {
    context: Py<PyAny>,
    input: Py<WsgiInput>,
}

impl Hold {
    pub(super) fn new(input: &Bound<'_, WsgiInput>) -> PyResult<Self> {
        static COPY_CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let copy = COPY_CONTEXT.import(input.py(), "contextvars", "copy_context")?;
        Ok(Self { context: copy.call0()?.unbind(), input: input.clone().unbind() })
    }

    /// Calls in the context what comes first in `call`, with the rest as its arguments.
    pub(super) fn run<'py>(
        &self,
        py: Python<'py>,
        call: impl PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.context.bind(py).call_method1(intern!(py, "run"), call)
    }

    /// The iterator of an iterable.
    pub(super) fn iterate<'py>(&self, iterable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        static ITER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = iterable.py();
        self.run(py, (ITER.import(py, "builtins", "iter")?, iterable))
    }

    /// The next item of an iterator.
    pub(super) fn step<'py>(&self, iterator: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        static NEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = iterator.py();
        // What ends it is no item of any application.
        let (next, end) = (NEXT.import(py, "builtins", "next")?, self.context.bind(py));
        let item = self.run(py, (next, iterator, end))?;
        Ok((!item.is(end)).then_some(item))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        attached(|_| self.input.get().release());
    }
}
