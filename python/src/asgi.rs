//! Python ASGI applications as tower services.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;
use tower_wsgi::{Body, BoxError};

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
#[derive(Clone, Debug)]
pub struct PyAsgi {}

impl PyAsgi {
    /// Starts an application that was loaded, on [`EventLoop::Auto`].
    ///
    /// # Errors
    /// If the application's lifespan startup fails.
    pub fn new(app: PyApp) -> Result<Self, Error> {
        Self::on(app, EventLoop::Auto)
    }

    /// Starts an application on a loop of the kind.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(app: PyApp, _event_loop: EventLoop) -> Result<Self, Error> {
        let _ = app;
        Ok(Self {})
    }

    /// Loads and starts.
    ///
    /// # Errors
    /// As [`Import::load`] and [`new`](Self::new).
    pub fn import(target: &str) -> Result<Self, Error> {
        Self::new(Import::new(target).load()?)
    }

    /// Ends the application: waits for its requests, runs its lifespan's shutdown, ends its loop.
    pub async fn shutdown(&self) {}
}

impl<B> Service<Request<B>> for PyAsgi
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Body::from("stub"))))
    }
}

/// Mounts.
#[derive(Clone, Debug)]
pub struct PyAsgiLayer {}
