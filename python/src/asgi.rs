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

/// A Python ASGI application as a tower service.
#[derive(Clone)]
pub struct PyAsgi {
    handle: Arc<Handle>,
}

impl PyAsgi {
    /// Starts an application that was loaded, on [`EventLoop::Auto`].
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn new(app: PyApp) -> Result<Self, Error> {
        Self::on(app, EventLoop::Auto)
    }

    /// Starts an application on a loop of the kind.
    ///
    /// # Errors
    /// [`Error::is_startup`] if the application's lifespan startup fails, or if there is no such loop.
    ///
    /// # Blocking
    /// Waits for the application's startup.
    pub fn on(app: PyApp, event_loop: EventLoop) -> Result<Self, Error> {
        Ok(Self { handle: Arc::new(Handle::start(app, event_loop)?) })
    }

    /// Loads and starts.
    ///
    /// # Errors
    /// As [`Import::load`] and [`new`](Self::new).
    pub fn import(target: &str) -> Result<Self, Error> {
        Self::new(Import::new(target).load()?)
    }

    /// How many chunks of a response's body, or messages of a WebSocket, may wait for the client: 10 by default, at least 1.
    #[must_use]
    pub fn send_queue_size(self, chunks: usize) -> Self {
        Self { handle: Arc::new(self.handle.with(|handle| handle.send_queue_size = chunks.max(1))) }
    }

    /// How many bytes a WebSocket's message from the client may have: 16 MiB by default.
    #[must_use]
    pub fn max_message_size(self, bytes: usize) -> Self {
        Self { handle: Arc::new(self.handle.with(|handle| handle.max_message_size = bytes)) }
    }

    /// Ends the application: waits for its requests, runs its lifespan's shutdown, ends its loop.
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
