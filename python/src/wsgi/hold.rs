//! What a request holds on to until its response is over: its `contextvars` context, and its body.

#![expect(
    unsafe_code,
    reason = "PyO3 has no way into a context but Python's own, which costs as much as a small application"
)]

use pyo3::ffi;
use pyo3::prelude::*;

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
        // SAFETY: the thread is attached; what comes back is a new reference, or null with an exception set.
        let context = unsafe { Bound::from_owned_ptr_or_err(input.py(), ffi::PyContext_CopyCurrent())? };
        Ok(Self { context: context.unbind(), input: input.clone().unbind() })
    }

    /// Runs a step of the application in the context.
    pub(super) fn run<T>(&self, py: Python<'_>, step: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let _inside = Inside::enter(self.context.bind(py))?;
        step()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        attached(|_| self.input.get().release());
    }
}

/// A context that the thread is in. It is left on the way of a panic, too.
struct Inside<'a, 'py>(&'a Bound<'py, PyAny>);

impl<'a, 'py> Inside<'a, 'py> {
    fn enter(context: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: the thread is attached, and the object is a context, which is borrowed for as long as the thread is in it.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
            return Err(PyErr::fetch(context.py()));
        }
        Ok(Self(context))
    }
}

impl Drop for Inside<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: as above; no exception is set, since `step` has fetched its own.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
            // The application has left the thread in a context of its own.
            PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), Some(self.0));
        }
    }
}
