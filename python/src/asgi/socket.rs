use std::sync::Arc;

use pyo3::prelude::*;

use super::awaits::Want;
use super::desk::Desk;
use super::request::Incoming;

pub(super) enum SocketEnd {}

impl SocketEnd {
    pub(super) fn request(&self) -> &Incoming {
        match *self {}
    }
    pub(super) fn subprotocols(&self) -> &[String] {
        match *self {}
    }
}

#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct WebSocket {}

impl WebSocket {
    pub(super) fn new(_end: SocketEnd, _desk: Arc<Desk>) -> Self {
        Self {}
    }
    pub(super) fn poll(&self, _py: Python<'_>, _want: Want) -> PyResult<Option<Py<PyAny>>> {
        Ok(None)
    }
    pub(super) fn wait<'py>(slf: &Bound<'py, Self>, _want: Want) -> PyResult<Bound<'py, PyAny>> {
        Ok(slf.clone().into_any())
    }
    pub(super) fn forget(&self, _future: &Bound<'_, PyAny>, _want: Want) {}
    pub(super) fn settle(_slf: &Bound<'_, Self>) -> PyResult<()> {
        Ok(())
    }
    pub(super) fn returned(&self) {}
    pub(super) fn raised(&self, _py: Python<'_>, _error: &PyErr) {}
}
