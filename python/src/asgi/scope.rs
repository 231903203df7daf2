//! The `scope` dictionary of a request (ASGI, "HTTP connection scope" and "WebSocket connection scope").

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, Method};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tower_wsgi::{Scope, Variables};

use super::request::Incoming;

/// What scopes are made of, on the loop's thread.
pub(super) struct Scopes {
    http: Py<PyDict>,
    websocket: Py<PyDict>,
    asgi: Py<PyDict>,
    /// What the application's lifespan has put there.
    state: Py<PyDict>,
    empty: Py<PyString>,
    no_bytes: Py<PyBytes>,
    last: Mutex<Last>,
}

/// The addresses of the last request: most have the same ones.
#[derive(Default)]
struct Last {
    client: Option<(SocketAddr, Py<PyTuple>)>,
    server: Option<(String, u16, Py<PyTuple>)>,
}

impl Scopes {
    pub(super) fn new(py: Python<'_>, state: Py<PyDict>) -> PyResult<Self> {
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        asgi.set_item("spec_version", "2.5")?;
        let template = |kind: &str| -> PyResult<Py<PyDict>> {
            let scope = PyDict::new(py);
            scope.set_item("type", kind)?;
            // So that the table has its size from the start.
            for key in KEYS {
                scope.set_item(PyString::intern(py, key), py.None())?;
            }
            Ok(scope.unbind())
        };
        let websocket = template("websocket")?;
        websocket.bind(py).del_item("method")?;
        websocket.bind(py).set_item("subprotocols", py.None())?;
        Ok(Self {
            http: template("http")?,
            websocket,
            asgi: asgi.unbind(),
            state,
            empty: PyString::new(py, "").unbind(),
            no_bytes: PyBytes::new(py, b"").unbind(),
            last: Mutex::default(),
        })
    }

    pub(super) fn http<'py>(&self, py: Python<'py>, request: &Incoming) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.http.bind(py).copy()?;
        let extensions = PyDict::new(py);
        if carries_trailers(request) {
            extensions.set_item(intern!(py, "http.response.trailers"), PyDict::new(py))?;
        }
        scope.set_item(intern!(py, "extensions"), extensions)?;
        scope.set_item(intern!(py, "method"), method(py, &request.method))?;
        let scheme = match request.scope.scheme() {
            "http" => intern!(py, "http").clone(),
            "https" => intern!(py, "https").clone(),
            other => PyString::new(py, other),
        };
        scope.set_item(intern!(py, "scheme"), scheme)?;
        self.fill(&scope, request)?;
        if let Some(variables) = &request.variables {
            scope.set_item(intern!(py, "wsgi_environ"), environ(py, variables)?)?;
        }
        Ok(scope)
    }

    pub(super) fn websocket<'py>(
        &self,
        py: Python<'py>,
        request: &Incoming,
        subprotocols: &[String],
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.websocket.bind(py).copy()?;
        let extensions = PyDict::new(py);
        extensions.set_item(intern!(py, "websocket.http.response"), PyDict::new(py))?;
        scope.set_item(intern!(py, "extensions"), extensions)?;
        let scheme = if request.scope.scheme() == "https" { "wss" } else { "ws" };
        scope.set_item(intern!(py, "scheme"), scheme)?;
        scope.set_item(intern!(py, "subprotocols"), subprotocols)?;
        self.fill(&scope, request)?;
        Ok(scope)
    }

    /// What both have.
    fn fill(&self, scope: &Bound<'_, PyDict>, request: &Incoming) -> PyResult<()> {
        let py = scope.py();
        let view = &request.scope;
        scope.set_item(intern!(py, "asgi"), self.asgi.bind(py).copy()?)?;
        let version = match view.http_version() {
            "1.1" => intern!(py, "1.1").clone(),
            "2" => intern!(py, "2").clone(),
            other => PyString::new(py, other),
        };
        scope.set_item(intern!(py, "http_version"), version)?;
        scope.set_item(intern!(py, "path"), &*request.path)?;
        scope.set_item(intern!(py, "raw_path"), self.bytes(py, view.raw_path()))?;
        scope.set_item(intern!(py, "query_string"), self.bytes(py, view.query_string()))?;
        let root = view.root_path();
        let root = if root.is_empty() { self.empty.bind(py).clone() } else { PyString::new(py, &root) };
        scope.set_item(intern!(py, "root_path"), root)?;
        scope.set_item(intern!(py, "headers"), headers(py, &request.headers)?)?;
        scope.set_item(intern!(py, "state"), self.state.bind(py).copy()?)?;
        self.connection(scope, view)
    }

    fn connection(&self, scope: &Bound<'_, PyDict>, view: &Scope) -> PyResult<()> {
        let py = scope.py();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = view.client() {
            let known = last.client.as_ref().filter(|(address, _)| *address == client);
            let pair = match known {
                Some((_, pair)) => pair.bind(py).clone(),
                None => {
                    let host = client.ip().to_canonical().to_string();
                    let pair = (host, client.port()).into_pyobject(py)?;
                    last.client = Some((client, pair.clone().unbind()));
                    pair
                }
            };
            scope.set_item(intern!(py, "client"), pair)?;
        }
        if let Some((host, port)) = view.server() {
            let known = last.server.as_ref().filter(|(name, number, _)| name == host && *number == port);
            let pair = match known {
                Some((.., pair)) => pair.bind(py).clone(),
                None => {
                    let pair = (host, port).into_pyobject(py)?;
                    last.server = Some((host.to_owned(), port, pair.clone().unbind()));
                    pair
                }
            };
            scope.set_item(intern!(py, "server"), pair)?;
        }
        Ok(())
    }

    fn bytes<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyBytes> {
        if text.is_empty() { self.no_bytes.bind(py).clone() } else { PyBytes::new(py, text.as_bytes()) }
    }
}

const KEYS: [&str; 13] = [
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
    "state",
    "extensions",
];

fn method<'py>(py: Python<'py>, method: &Method) -> Bound<'py, PyString> {
    match *method {
        Method::GET => intern!(py, "GET").clone(),
        Method::POST => intern!(py, "POST").clone(),
        Method::PUT => intern!(py, "PUT").clone(),
        Method::DELETE => intern!(py, "DELETE").clone(),
        Method::HEAD => intern!(py, "HEAD").clone(),
        Method::OPTIONS => intern!(py, "OPTIONS").clone(),
        Method::PATCH => intern!(py, "PATCH").clone(),
        // The specification has it in upper case; methods know case.
        _ => PyString::new(py, method.as_str()),
    }
}

fn headers<'py>(py: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (name, value) in headers {
        let name = PyBytes::new(py, name.as_str().as_bytes());
        let value = PyBytes::new(py, value.as_bytes());
        list.append(PyTuple::new(py, [name, value])?)?;
    }
    Ok(list)
}

/// HTTP/1.1 sends trailers to those who said that they read them, HTTP/2 to all, older versions to none.
fn carries_trailers(request: &Incoming) -> bool {
    let accepts = |value: &http::HeaderValue| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case("trailers")))
    };
    match request.scope.http_version() {
        "1.1" => request.headers.get_all(http::header::TE).iter().any(accepts),
        "2" | "3" => true,
        _ => false,
    }
}

/// Variables as PEP 3333 has them: native strings, each character one byte.
fn environ<'py>(py: Python<'py>, variables: &Variables) -> PyResult<Bound<'py, PyDict>> {
    let environ = PyDict::new(py);
    for (name, value) in variables.iter() {
        let value: String = value.iter().copied().map(char::from).collect();
        environ.set_item(name, value)?;
    }
    Ok(environ)
}
