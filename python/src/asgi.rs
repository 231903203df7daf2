//! Python ASGI applications as tower services.
//!
//! The runtime's side of a request is a [`future`], the event loop's a Python object ([`http`], [`socket`]); between them lie an [`exchange`] for what belongs to the request, and the [`hub`] that wakes the loop.
//! No thread of the runtime ever attaches to the interpreter, and no future of asyncio is touched but by its loop's thread.

mod awaits;
mod desk;
mod exchange;
mod future;
mod handle;
mod head;
mod http;
mod hub;
mod inbound;
mod layer;
mod link;
mod pump;
mod request;
mod scope;
mod socket;
mod starter;
mod upgrade;
mod wakes;
mod worker;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::{Request, Response};
use tower_service::Service;
use tower_wsgi::{Body, BoxError};

pub use self::future::PyAsgiFuture;
use self::handle::Handle;
pub use self::layer::{PyAsgiLayer, PyAsgiStack, PyAsgiStackFuture};
use crate::error::Error;
use crate::import::{Import, PyApp};

/// Which event loop runs an ASGI application.
///
/// ```
/// use tower_wsgi_python::EventLoop;
///
/// assert_eq!(EventLoop::default(), EventLoop::Auto);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventLoop {
    /// uvloop where it is installed, asyncio otherwise.
    #[default]
    Auto,
    /// The standard library's.
    Asyncio,
    /// [uvloop](https://uvloop.readthedocs.io)'s.
    Uvloop,
}

/// A Python ASGI application ([ASGI 3](https://asgi.readthedocs.io/en/latest/specs/main.html)) as a tower service: FastAPI, Starlette, Django, Quart, or a plain coroutine function.
///
/// ```
/// use axum::Router;
/// use tower_wsgi_python::PyAsgi;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), tower_wsgi::BoxError> {
/// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
/// let shop = PyAsgi::import("shop.main:app")?;
/// let app: Router = Router::new().nest_service("/shop", shop.clone()).fallback_service(shop);
/// # use tower::ServiceExt;
/// # let request = http::Request::get("/shop/cart").body(axum::body::Body::empty())?;
/// # let body = app.oneshot(request).await?.into_body();
/// # assert_eq!(axum::body::to_bytes(body, 100).await?, "/shop/cart");
/// # Ok(())
/// # }
/// ```
///
/// It is a service for requests with any body, as cheap to clone as an `Arc`, and always ready. For a prefix in front of other services see [`PyAsgiLayer`]; a `WsgiLayer` is for handlers, and with it the compiler
/// finds `SyncHandler` not implemented for `PyAsgi`. For a synchronous host wrap it in [`AsgiHandler`](tower_wsgi::AsgiHandler).
///
/// # Settings
/// | setting | default | |
/// | --- | --- | --- |
/// | [`EventLoop`], for [`on`](Self::on) | uvloop, or else asyncio | what the application runs on |
/// | [`send_queue_size`](Self::send_queue_size) | 10 chunks | how far a response, or a WebSocket's messages, run ahead of the client |
/// | [`max_message_size`](Self::max_message_size) | 16 MiB | the biggest message that a WebSocket's client may send |
///
/// ```
/// use http::Request;
/// use tower_wsgi::{AsgiHandler, Input, SyncHandler};
/// use tower_wsgi_python::PyAsgi;
///
/// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
/// // Clients of this clone hold less memory.
/// let shop = PyAsgi::import("shop.main:app")?;
/// let public = shop.clone().send_queue_size(4).max_message_size(64 * 1024);
/// let response = AsgiHandler::new(public).call(Request::get("/").body(Input::empty())?)?;
/// assert_eq!(response.status(), 200);
/// # Ok::<(), tower_wsgi::BoxError>(())
/// ```
///
/// # The loop
/// Each application has an event loop on a thread of its own, where all of its Python code runs; threads of the async runtime never wait for the interpreter. A request is a task of that loop. It runs
/// at once up to its first pause, as Python's [eager tasks](https://docs.python.org/3/library/asyncio-task.html#eager-task-factory) do, in older Pythons too, unless the application has set a task factory.
///
/// # HTTP
/// Bodies are streamed both ways. At most 64 KiB of a request's body go along with the request, if they are there already; after that it is read as the application calls `receive()`, chunk by chunk. `send()` waits while the
/// client is `send_queue_size` chunks behind. `http.response.start` goes out with the first message of the body, or when the application pauses before that.
///
/// A response is kept to its `Content-Length`: what goes over is cut off and reported, what falls short makes `send()` raise. Hop-by-hop headers are dropped; responses to HEAD, and those with status 204 and 304, have no body. Mistakes in
/// messages are exceptions in the application: `TypeError` and `ValueError` for what is in them, `RuntimeError` for their order.
///
/// The scope has, beyond the specification's keys, `state` (a shallow copy of the lifespan's) and, where the request came through a synchronous host, `wsgi_environ`: its variables as PEP 3333 has them. Of the extensions
/// there are `http.response.trailers`, where the client takes trailers, and `websocket.http.response`.
///
/// # WebSockets
/// A handshake becomes a scope `websocket` where the server can upgrade the connection: hyper, with `serve_connection_with_upgrades`, over HTTP/1.1, and over HTTP/2 with `enable_connect_protocol`; axum's `serve` does. Messages wait
/// for each other in both directions. Pings are answered. The connection's task runs on the runtime that polled the handshake, which needs its time driver.
///
/// An application that returns closes its socket with 1000, one that fails with 1011, and the service's end closes it with 1012. `websocket.disconnect` has the client's code, 1005 if it gave none, 1006 if it vanished.
///
/// # Errors
/// The service has none. An application that fails, or returns, before its response has begun is a plain 500, with its traceback in the log (at `ERROR`, in the caller's span; in a program without a `tracing` subscriber on stderr). After that the body ends with an error, so that hyper cuts the
/// connection or resets the stream. After [`shutdown`](Self::shutdown) began: 503 with `Retry-After`.
///
/// # Cancellation
/// When the response's future or body is dropped, the application is told, as the specification has it, and not ended: `receive()` gives `http.disconnect`, `send()` raises `OSError`. What it does for itself, after the response
/// or after its client has left, it does to the end. What it raises once it was told is in the log at `DEBUG` only. A request whose future is dropped before the loop took it up is never run.
///
/// # Lifespan
/// The application's startup is over when [`new`](Self::new) returns. When the last clone is dropped, the application ends as in [`shutdown`](Self::shutdown), in the background.
#[derive(Clone)]
pub struct PyAsgi {
    handle: Arc<Handle>,
}

impl PyAsgi {
    /// Starts an application that was loaded, on [`EventLoop::Auto`]; otherwise as [`on`](Self::on).
    ///
    /// ```
    /// use tower_wsgi_python::{Import, Interface, PyAsgi};
    ///
    /// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
    /// let app = Import::new("shop.main:app").load()?;
    /// assert_eq!(app.interface(), Interface::Asgi);
    /// let shop = PyAsgi::new(app)?;
    /// # Ok::<(), tower_wsgi_python::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`on`](Self::on).
    ///
    /// # Blocking
    /// As [`on`](Self::on).
    pub fn new(app: PyApp) -> Result<Self, Error> {
        Self::on(app, EventLoop::Auto)
    }

    /// Starts an application on a loop of the kind, and runs its lifespan's startup.
    ///
    /// An application that raises before it has received anything, that returns, or that answers `lifespan.startup` with a message of another protocol, does not know the lifespan protocol, and goes on without.
    ///
    /// ```
    /// # tower_wsgi_python::Import::new("wsgiref.simple_server:demo_app").load()?;
    /// use pyo3::prelude::*;
    /// use tower_wsgi_python::{EventLoop, PyApp, PyAsgi};
    ///
    /// let code = c"async def app(scope, receive, send): ...";
    /// let app = Python::attach(|py| PyModule::from_code(py, code, c"", c"")?.getattr("app").map(Bound::unbind)).unwrap();
    /// let service = PyAsgi::on(PyApp::from_callable("app", app), EventLoop::Asyncio)?;
    /// # use tower_wsgi::{AsgiHandler, Input, SyncHandler};
    /// # let response = AsgiHandler::new(service).call(http::Request::new(Input::empty()))?;
    /// # assert_eq!(response.status(), 500);
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::is_import`] if it is beyond doubt that the application speaks WSGI. [`Error::is_startup`] if the application's lifespan says that the startup failed, or raises after it began; if there is no such loop; if no thread can be started.
    ///
    /// # Blocking
    /// The calling thread waits, detached from the interpreter, for the application's startup, as long as that takes. Inside an async runtime call it where a thread may block.
    pub fn on(app: PyApp, event_loop: EventLoop) -> Result<Self, Error> {
        Ok(Self { handle: Arc::new(Handle::start(app, event_loop)?) })
    }

    /// Loads the application at `target`, `"package.module:attribute"`, with the active virtual environment, and starts it. For more settings see [`Import`].
    ///
    /// ```
    /// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
    /// use tower_wsgi_python::PyAsgi;
    ///
    /// let app = PyAsgi::import("shop.main:app")?;
    /// # assert_eq!(format!("{app:?}"), "PyAsgi { app: \"shop.main:app\", .. }");
    /// # Ok::<(), tower_wsgi_python::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Import::load`] and [`on`](Self::on).
    ///
    /// # Blocking
    /// As [`Import::load`] and [`on`](Self::on).
    pub fn import(target: &str) -> Result<Self, Error> {
        Self::new(Import::new(target).load()?)
    }

    /// How many chunks of a response's body, or messages of a WebSocket, may wait for the client: 10 by default, at least 1. For requests
    /// through this clone; the application stays the same.
    #[must_use]
    pub fn send_queue_size(self, chunks: usize) -> Self {
        Self { handle: Arc::new(self.handle.with(|handle| handle.send_queue_size = chunks.max(1))) }
    }

    /// How many bytes a WebSocket's message from the client may have: 16 MiB by default. A bigger one closes the connection with code 1009. The bound is on the memory that a client can take: ten such messages may wait for the application.
    #[must_use]
    pub fn max_message_size(self, bytes: usize) -> Self {
        Self { handle: Arc::new(self.handle.with(|handle| handle.max_message_size = bytes)) }
    }

    /// Ends the application, for all clones. New requests get 503 at once, WebSockets are closed with code 1012. When the requests that run are over, and whatever their tasks do after their responses, the
    /// lifespan's shutdown is run; then tasks that the application has started are cancelled, its async generators and its executor closed, the loop and its thread ended.
    ///
    /// What goes wrong in that is in the log. A later call waits for the same end.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::Request;
    /// use tower::ServiceExt;
    /// use tower_wsgi::Body;
    /// use tower_wsgi_python::PyAsgi;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
    /// let app = PyAsgi::import("shop.main:app")?;
    /// // … serve it …
    ///
    /// // After the server's own graceful shutdown: a response that its client still reads counts as running.
    /// if tokio::time::timeout(Duration::from_secs(30), app.shutdown()).await.is_err() {
    ///     eprintln!("the application takes too long");
    /// }
    /// let late = app.oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!(late.status(), 503);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropping the future gives up the wait; the end goes on. A request that never ends keeps it from its goal.
    pub async fn shutdown(&self) {
        self.handle.shutdown().await;
    }
}

impl<B> Service<Request<B>> for PyAsgi
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = PyAsgiFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        PyAsgiFuture::new(self.handle.clone(), request.map(Body::new))
    }
}

impl fmt::Debug for PyAsgi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PyAsgi").field("app", &self.handle.name).finish_non_exhaustive()
    }
}
