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
///
/// # use tower::ServiceExt;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let response = service.oneshot(Request::new(tower_wsgi::Body::empty())).await?;
/// assert!(response.headers().contains_key("server-timing"));
/// # Ok::<(), BoxError>(())
/// # })?;
/// # Ok::<(), BoxError>(())
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
///
/// ```
/// use http::{HeaderValue, Request, Response};
/// use tower_layer::Layer;
/// use tower_wsgi::{BoxError, Input, SyncHandler, sync_fn};
///
/// let no_store = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
///     let mut response = next.call(request)?;
///     response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
///     Ok::<_, BoxError>(response)
/// });
///
/// // One layer around several handlers: its function is shared.
/// let shop = no_store.layer(|_: Request<Input>| Response::new("the shop"));
/// let blog = no_store.clone().layer(|_: Request<Input>| Response::new("the blog"));
/// assert_eq!(shop.call(Request::new(Input::empty()))?.headers()["cache-control"], "no-store");
/// assert_eq!(blog.call(Request::new(Input::empty()))?.headers()["cache-control"], "no-store");
/// # Ok::<(), BoxError>(())
/// ```
pub struct SyncFnLayer<F> {
    function: Arc<F>,
}

/// The handler that a [`SyncFnLayer`] makes.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower_layer::Layer;
/// use tower_wsgi::{BoxError, Input, Output, SyncHandler, sync_fn};
///
/// fn members_only(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
///     if request.headers().contains_key("cookie") {
///         return next.call(request);
///     }
///     let mut refusal = Response::new(Output::empty());
///     *refusal.status_mut() = StatusCode::UNAUTHORIZED;
///     Ok(refusal)
/// }
///
/// // A handler like any other: a test calls it, with no service around it.
/// let club = sync_fn(members_only).layer(|_: Request<Input>| Response::new("welcome"));
/// assert_eq!(club.call(Request::new(Input::empty()))?.status(), 401);
/// let member = Request::get("/").header("cookie", "id=1").body(Input::empty())?;
/// assert_eq!(club.call(member)?.status(), 200);
/// # Ok::<(), BoxError>(())
/// ```
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
