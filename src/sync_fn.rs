//! Synchronous middleware as a function.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use tower_layer::Layer;

use crate::error::BoxError;
use crate::handler::{IntoResult, SyncHandler};
use crate::input::Input;
use crate::output::Output;

/// Makes a sync middleware of a function: a [`Layer`] around a [`SyncHandler`], what axum's `from_fn` is for async ones.
///
/// The function gets the request and the handler inside. It may change the request, answer it itself, call the handler once, several times or not at all, and work on the response. Its `next`
/// is a [`SyncHandler`], as [`Next`](crate::Next) is, so that one function serves in a synchronous stack and in front of an asynchronous service.
///
/// ```
/// use std::time::Instant;
/// use http::{HeaderValue, Request, Response};
/// use tower::ServiceBuilder;
/// use tower_wsgi::{BoxError, Input, Output, SyncHandler, WsgiLayer, sync_fn};
///
/// fn timing(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
///     let start = Instant::now();
///     let mut response = next.call(request)?;
///     let value = format!("app;dur={}", start.elapsed().as_millis());
///     response.headers_mut().insert("server-timing", HeaderValue::try_from(value)?);
///     Ok(response)
/// }
///
/// let service = ServiceBuilder::new()
///     .layer(WsgiLayer::adapter())
///     .layer(sync_fn(timing))
///     .service(|_: Request<Input>| Response::new("Hello World!"));
/// # let _ = service;
/// ```
#[must_use]
pub fn sync_fn<F, R>(function: F) -> SyncFnLayer<F>
where
    F: Fn(Request<Input>, &dyn SyncHandler) -> R + Send + Sync + 'static,
    R: IntoResult,
{
    SyncFnLayer { function: Arc::new(function) }
}

/// The layer that [`sync_fn`] makes.
pub struct SyncFnLayer<F> {
    function: Arc<F>,
}

/// The handler that a [`SyncFnLayer`] makes.
pub struct SyncFn<F, H> {
    function: Arc<F>,
    next: H,
}

impl<F, H: SyncHandler> Layer<H> for SyncFnLayer<F> {
    type Service = SyncFn<F, H>;

    fn layer(&self, next: H) -> Self::Service {
        SyncFn { function: self.function.clone(), next }
    }
}

impl<F, H, R> SyncHandler for SyncFn<F, H>
where
    F: Fn(Request<Input>, &dyn SyncHandler) -> R + Send + Sync + 'static,
    H: SyncHandler,
    R: IntoResult,
{
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        (self.function)(request, &self.next).into_result()
    }
}

impl<F> Clone for SyncFnLayer<F> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone() }
    }
}

impl<F, H: Clone> Clone for SyncFn<F, H> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), next: self.next.clone() }
    }
}

impl<F> fmt::Debug for SyncFnLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncFnLayer").field("function", &type_name::<F>()).finish()
    }
}

impl<F, H: fmt::Debug> fmt::Debug for SyncFn<F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncFn").field("function", &type_name::<F>()).field("next", &self.next).finish()
    }
}
