//! Python WSGI and ASGI applications as tower services: Django, Flask and FastAPI inside axum and hyper, in the same process.
//!
//! # WSGI
//! A WSGI application ([`PyWsgi`]) is a [`SyncHandler`](tower_wsgi::SyncHandler), as a synchronous application in Rust is: a [`WsgiLayer`](tower_wsgi::WsgiLayer) puts it into an asynchronous stack, with its bodies streamed
//! both ways and its work on a bounded pool of threads.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_wsgi::WsgiLayer;
//! use tower_wsgi_python::PyWsgi;
//!
//! let site = PyWsgi::import("wsgiref.simple_server:demo_app")?;
//! let app: Router = Router::new()
//!     .route("/", get(|| async { "from Rust\n" }))
//!     .layer(WsgiLayer::new(site).at("/site").workers(15));
//! # Ok::<(), tower_wsgi_python::Error>(())
//! ```
//!
//! # ASGI
//! An ASGI application ([`PyAsgi`]) is an asynchronous tower service, WebSockets and lifespan included, that runs on an event loop of its own. A [`PyAsgiLayer`] puts it below a prefix; an
//! [`AsgiHandler`](tower_wsgi::AsgiHandler) calls it from synchronous code.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use tower_wsgi_python::{PyAsgi, PyAsgiLayer};
//!
//! let api = PyAsgi::import("api.main:app")?;
//! let app: Router = Router::new()
//!     .route("/", get(|| async { "from Rust\n" }))
//!     .layer(PyAsgiLayer::new(api.clone()).at("/api"));
//! // … and when the server has stopped: api.shutdown().await
//! # Ok::<(), tower_wsgi_python::Error>(())
//! ```
//!
//! # What there is
//! | | |
//! | --- | --- |
//! | [`PyWsgi`] | a WSGI application: a synchronous handler |
//! | [`PyAsgi`], [`PyAsgiFuture`] | an ASGI application: an asynchronous service, and its response's future |
//! | [`PyAsgiLayer`], [`PyAsgiStack`], [`PyAsgiStackFuture`] | the layer that puts one in front of what is inside; the service that it makes, and that one's future |
//! | [`EventLoop`] | what an ASGI application runs on |
//! | [`Import`], [`PyApp`], [`Interface`] | where an application is, and in which virtual environment; one that was loaded; what it speaks |
//! | [`Error`] | why an application could not be loaded or started, with Python's traceback |
//! | [`run_exit_handlers`] | what a Python program leaves for its end |
//!
//! # Threads and the interpreter's lock
//! There is one interpreter per process, started by the first import, and one thread at a time runs Python code in it.
//!
//! | what | runs on | waits without the lock for |
//! | --- | --- | --- |
//! | a WSGI application, its response's iterator and their drop | a worker of the `WsgiLayer` | the client's bytes, and room towards the client |
//! | an ASGI application | its event loop's thread | whatever the loop waits for |
//! | an import, a lifespan's startup | the thread that asks for it | |
//! | routing, HTTP, WebSocket frames | the async runtime, which never waits for the lock | |
//!
//! A worker keeps the lock from one request to the next while some wait, and turns back if it would have to wait for long to get it. Rust code that calls into Python itself, with PyO3's `Python::attach`, belongs on a
//! worker too.
//!
//! # Order across the boundary
//! Layers run in the order in which they are written, on either side and in either language. What one puts into the request is seen further inside:
//!
//! | a Rust layer outside | a WSGI application inside sees | an ASGI application inside sees |
//! | --- | --- | --- |
//! | headers, method, URI | `HTTP_…`, `REQUEST_METHOD`, `PATH_INFO`, `QUERY_STRING` | `headers`, `method`, `path`, `query_string` |
//! | mounts: `at`, axum's `nest` | all of them, `SCRIPT_NAME` | all of them, `root_path` |
//! | async: [`Scope`](tower_wsgi::Scope) | `environ["asgi.scope"]`, a read-only mapping | the scope's own keys |
//! | sync: [`Environ`](tower_wsgi::Environ), with its variables | the environ's own keys | `scope["wsgi_environ"]` |
//!
//! ```
//! use http::Request;
//! use pyo3::prelude::*;
//! use tower_wsgi::{AsgiHandler, BoxError, Environ, Input, Output, SyncHandler, sync_fn};
//! use tower_wsgi_python::{PyApp, PyAsgi};
//! # use http::Response;
//! # use tower_layer::Layer;
//! # tower_wsgi_python::Import::new("wsgiref.simple_server:demo_app").load()?;
//!
//! let code = c"
//! async def app(scope, receive, send):
//!     user = scope['wsgi_environ']['REMOTE_USER']
//!     await send({'type': 'http.response.start', 'status': 200})
//!     await send({'type': 'http.response.body', 'body': b'hello, ' + user.encode()})
//! ";
//! let app = Python::attach(|py| PyModule::from_code(py, code, c"", c"")?.getattr("app").map(Bound::unbind))?;
//! let app = AsgiHandler::new(PyAsgi::new(PyApp::from_callable("app", app))?);
//!
//! // A sync middleware in Rust, around an async application in Python.
//! fn log_in(mut request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
//!     let mut environ = Environ::of(&request);
//!     environ.set("REMOTE_USER", "alice");
//!     request.extensions_mut().insert(environ);
//!     next.call(request)
//! }
//! let stack = sync_fn(log_in).layer(app);
//!
//! let response = stack.call(Request::get("/").body(Input::empty())?)?;
//! assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "hello, alice");
//! # Ok::<(), BoxError>(())
//! ```
//!
//! # The end
//! Signals are the host's. A program that stops ends its server, then its ASGI applications ([`PyAsgi::shutdown`]), then calls [`run_exit_handlers`].
//!
//! # Features
//! - `server` (default): the command-line server `tower-wsgi`. The library needs nothing of it.

// Examples compile without warnings, as what is pasted from them does. What one only shows, it need not use.
#![doc(test(attr(deny(warnings), allow(dead_code, unused_variables))))]

mod asgi;
mod error;
mod import;
mod interpreter;
mod log;
mod text;
mod wsgi;

pub use asgi::{EventLoop, PyAsgi, PyAsgiFuture, PyAsgiLayer, PyAsgiStack, PyAsgiStackFuture};
pub use error::Error;
pub use import::{Import, Interface, PyApp};
pub use interpreter::run_exit_handlers;
pub use wsgi::PyWsgi;

/// The code blocks of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of the guide's page on Python.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/python.md")]
struct Guide;
