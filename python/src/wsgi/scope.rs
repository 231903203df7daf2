//! What an environ tells of the async side: `asgi.scope`, and whether the client is still there.

use std::sync::Arc;

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyString};
use tower_wsgi::Environ;

/// `environ["asgi.scope"]`: a read-only mapping, made when somebody first looks into it.
#[pyclass(frozen, mapping, module = "tower_wsgi")]
pub(super) struct WsgiScope {
    environ: Arc<Environ>,
    made: PyOnceLock<Py<PyDict>>,
}

impl WsgiScope {
    pub(super) fn new(environ: Arc<Environ>) -> Self {
        Self { environ, made: PyOnceLock::new() }
    }

    fn dict<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyDict>> {
        self.made.get_or_try_init(py, || self.make(py)).map(|made| made.bind(py))
    }

    /// The keys of an [ASGI HTTP scope](https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope), but for the headers, which the environ has.
    fn make(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let scope = self.environ.scope();
        let dict = PyDict::new(py);
        let versions = PyDict::new(py);
        versions.set_item("version", "3.0")?;
        versions.set_item("spec_version", "2.5")?;
        dict.set_item("type", "http")?;
        dict.set_item("asgi", versions)?;
        dict.set_item("http_version", scope.http_version())?;
        dict.set_item("method", scope.method().as_str())?;
        dict.set_item("scheme", scope.scheme())?;
        dict.set_item("path", scope.path())?;
        dict.set_item("raw_path", PyBytes::new(py, scope.raw_path().as_bytes()))?;
        dict.set_item("query_string", PyBytes::new(py, scope.query_string().as_bytes()))?;
        dict.set_item("root_path", scope.root_path())?;
        dict.set_item("client", scope.client().map(|client| (client.ip().to_string(), client.port())))?;
        dict.set_item("server", scope.server())?;
        Ok(dict.unbind())
    }
}

#[pymethods]
impl WsgiScope {
    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.get_item(key)?.ok_or_else(|| PyKeyError::new_err(key.clone().unbind()))
    }

    #[pyo3(signature = (key, default = None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.dict(py)?.get_item(key)?.or(default))
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.dict(py)?.contains(key)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.dict(py)?.len())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.dict(py)?.try_iter()
    }

    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("keys")
    }

    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("values")
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.dict(py)?.call_method0("items")
    }

    fn __repr__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.dict(py)?.repr()
    }
}

/// `environ["tower_wsgi.client_disconnected"]`.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct ClientDisconnected(Arc<Environ>);

impl ClientDisconnected {
    pub(super) fn of(scope: &WsgiScope) -> Self {
        Self(scope.environ.clone())
    }
}

#[pymethods]
impl ClientDisconnected {
    fn __call__(&self) -> bool {
        self.0.is_disconnected()
    }
}
