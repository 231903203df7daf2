//! Python WSGI applications as synchronous handlers: [`PyWsgi`], and the trip of one request through it.

mod body;
mod environ;
mod errors;
mod failure;
mod file_wrapper;
mod hold;
mod input;
mod scope;
mod start_response;

use std::fmt;
use std::sync::Arc;

use http::{Method, Request, Response};
use pyo3::prelude::*;
use tower_wsgi::{BoxError, Environ, Input, Output, SyncHandler};

use self::environ::Template;
use self::failure::Exception;
use self::hold::Hold;
use self::input::WsgiInput;
use self::scope::WsgiScope;
use self::start_response::StartResponse;
use crate::error::Error;
use crate::import::{Import, PyApp};
use crate::interpreter::attached;

/// A Python WSGI application ([PEP 3333](https://peps.python.org/pep-3333/)) as a [`SyncHandler`]: Django, Flask and others inside axum, hyper and every other
/// tower stack, behind a [`WsgiLayer`](tower_wsgi::WsgiLayer).
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_wsgi::WsgiLayer;
/// use tower_wsgi_python::PyWsgi;
///
/// let site = PyWsgi::import("wsgiref.simple_server:demo_app")?;
/// let app: Router = Router::new()
///     .route("/rust", get(|| async { "from Rust\n" }))
///     .layer(WsgiLayer::new(site).at("/site"));
/// # use tower::ServiceExt;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let request = http::Request::get("/site").body(axum::body::Body::empty()).unwrap();
/// # assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
/// # });
/// # Ok::<(), tower_wsgi_python::Error>(())
/// ```
///
/// It is a handler, as cheap to clone as an `Arc`. Where a service is wanted, by axum's `fallback_service` say, it takes a [`WsgiService`](tower_wsgi::WsgiService): `WsgiService::new(app)`. Without that the compiler finds
/// `Service<Request<…>>` not implemented for `PyWsgi`.
///
/// # The environ
/// A `dict` of its own for each request, with native strings as PEP 3333 has them (each character is a byte), the variables of
/// [`Variables`](tower_wsgi::Variables), and:
///
/// | key | value |
/// | --- | --- |
/// | `wsgi.version`, `wsgi.multithread`, `wsgi.multiprocess`, `wsgi.run_once` | `(1, 0)`, `True`, [`multiprocess`](Self::multiprocess), `False` |
/// | `wsgi.input` | the request's body: `read`, `read1`, `readline`, `readlines`, `readinto`, iteration. Its end is its true end |
/// | `wsgi.input_terminated` | `True`: it may be read to its end without a `CONTENT_LENGTH` |
/// | `wsgi.errors` | a text stream into the log, at the level `ERROR`, under the target `wsgi.errors`: an event for each line |
/// | `wsgi.file_wrapper` | for `return environ["wsgi.file_wrapper"](file)` |
/// | `asgi.scope` | the request as [`Scope`](tower_wsgi::Scope) has it, as a read-only mapping with the keys of an ASGI HTTP scope but `headers` |
/// | `tower_wsgi.client_disconnected` | a function that tells whether the response is wanted no more |
///
/// # Errors
/// An exception before the first byte is an `Err` with the request's method and path and Python's traceback: a 500, and the traceback in the log. Later it cuts the response off, so that the client sees it. What breaks PEP 3333 (no `start_response`, a chunk that is no
/// `bytes`, a header with a line break) is such an exception. Where the client is gone, reads and `write` raise `OSError`.
///
/// The log is `tracing`'s, at the level `ERROR`. In a program that has no subscriber for it, tracebacks and the lines of `wsgi.errors` go to stderr.
///
/// # Context
/// Each request has a `contextvars` context of its own, a copy of the worker's: the call, every step of the iterable that it returned and its `close` run in it, on whichever thread. The body is closed when the response
/// is over, whoever still holds the environ.
///
/// # Blocking
/// The application runs on the calling thread, which is a worker's behind a `WsgiLayer`. One thread at a time runs Python in an interpreter with a global lock: `workers` is how many requests can wait for something at once, a database say.
///
/// # Cancellation
/// Python code that runs is not interrupted. When the response is wanted no more, reads and `write` raise `OSError`, `tower_wsgi.client_disconnected` tells it, and the iterable gets its `close`.
#[derive(Clone)]
pub struct PyWsgi {
    inner: Arc<Inner>,
}

struct Inner {
    callable: Py<PyAny>,
    name: String,
    template: Template,
}

impl PyWsgi {
    /// Hosts an application that was loaded.
    ///
    /// ```
    /// use http::Request;
    /// use tower_wsgi::{Input, SyncHandler};
    /// use tower_wsgi_python::{Import, PyWsgi};
    ///
    /// let site = PyWsgi::new(Import::new("wsgiref.simple_server:demo_app").load()?);
    /// // A plain call, as a test or a synchronous host does it.
    /// let response = site.call(Request::get("/").body(Input::empty())?)?;
    /// assert_eq!(response.status(), 200);
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    ///
    /// # Blocking
    /// The calling thread waits for the interpreter's lock.
    #[must_use]
    pub fn new(app: PyApp) -> Self {
        let name = app.name().to_owned();
        Self {
            inner: Arc::new(Inner { callable: app.into_callable(), name, template: Template::new(false) }),
        }
    }

    /// Loads the application at `target`, `"package.module:attribute"`, from the active virtual environment. For more settings see [`Import`].
    ///
    /// # Errors
    /// As [`Import::load`].
    ///
    /// # Blocking
    /// As [`Import::load`].
    pub fn import(target: &str) -> Result<Self, Error> {
        Import::new(target).load().map(Self::new)
    }

    /// Says that other processes serve the same application: `wsgi.multiprocess`, false by default. For requests through this clone.
    ///
    /// ```
    /// use http::Request;
    /// use tower_wsgi::{Input, SyncHandler};
    /// use tower_wsgi_python::PyWsgi;
    ///
    /// // An application that shows its environ.
    /// let site = PyWsgi::import("wsgiref.simple_server:demo_app")?.multiprocess(true);
    /// let response = site.call(Request::get("/").body(Input::empty())?)?;
    /// let text = std::io::read_to_string(response.into_body().into_reader())?;
    /// assert!(text.contains("wsgi.multiprocess = True"));
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    #[must_use]
    pub fn multiprocess(self, multiprocess: bool) -> Self {
        let callable = attached(|py| self.inner.callable.clone_ref(py));
        let (name, template) = (self.inner.name.clone(), Template::new(multiprocess));
        Self { inner: Arc::new(Inner { callable, name, template }) }
    }
}

impl Inner {
    /// Calls the application and takes its answer up to where the head is known.
    fn respond(&self, py: Python<'_>, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let raised = |error, environ: &Environ| BoxError::from(Exception::returned(py, &error, environ));
        let filled = self.template.fill(py, &request);
        let environ = filled.map_err(|error| raised(error, &Environ::of(&request)))?;
        let is_head = request.method() == Method::HEAD;
        let (mut parts, body) = request.into_parts();
        let described = parts.extensions.remove::<Environ>();
        // Behind a crossing there is one. A synchronous host may have said nothing.
        let described = Arc::new(described.unwrap_or_else(|| Environ::of(&Request::from_parts(parts, ()))));
        let raised = |error| raised(error, &described);
        let input = Bound::new(py, WsgiInput::new(body)).map_err(raised)?;
        self.template.connect(&environ, &input, WsgiScope::new(described.clone())).map_err(raised)?;
        let start = Bound::new(py, StartResponse::new(described.clone())).map_err(raised)?;
        let hold = Hold::new(&input).map_err(raised)?;
        let result = hold.run(py, || self.callable.bind(py).call1((environ, &start)));
        let response = result.and_then(|result| body::respond(&result, start.get(), hold, is_head));
        response.map_err(|error| {
            // An application that passes on what its input failed with is not the one that failed.
            match input.get().take_failure(py, &error) {
                Some(failure) => failure.into(),
                None => raised(error),
            }
        })
    }
}

impl SyncHandler for PyWsgi {
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        attached(|py| self.inner.respond(py, request))
    }

    /// Attached once for as many requests as wait, and detached only to wait.
    fn serve(&self, calls: &mut dyn FnMut()) {
        attached(|_| calls());
    }
}

impl fmt::Debug for PyWsgi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PyWsgi").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
