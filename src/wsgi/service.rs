//! The services that the layer makes.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::call::Call;
use super::future::{ResponseFuture, WsgiFuture};
use super::settings::Settings;
use crate::body::Body;
use crate::error::BoxError;
use crate::handler::SyncHandler;
use crate::next::{CallInner, call_inner};
use crate::view::split;

/// A service that runs a [`SyncHandler`] on a worker pool: what a2wsgi calls `WSGIMiddleware(app)`.
///
/// It is always ready: a worker is waited for inside the response future, so that idle connections hold nothing.
///
/// ```
/// use axum::Router;
/// use http::{Request, Response};
/// use tower_wsgi::{Input, WsgiService};
///
/// fn report(_: Request<Input>) -> Response<&'static str> {
///     Response::new("all is well\n")
/// }
///
/// let app: Router = Router::new().route_service("/report", WsgiService::new(report));
/// # use tower::ServiceExt;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let request = Request::get("/report").body(axum::body::Body::empty()).unwrap();
/// # assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
/// # });
/// ```
///
/// Its settings are those of the layer: `WsgiLayer::adapter().workers(15).layer(report)`.
///
/// # Errors
/// The service has none. What fails is a response, which carries the [`Error`](crate::Error) as an extension.
///
/// # Cancellation
/// As [`WsgiLayer`](crate::WsgiLayer#cancellation) says.
#[doc(alias("WSGIMiddleware", "WsgiToAsgi"))]
pub struct WsgiService<H> {
    pub(super) shared: Arc<Shared<H>>,
}

/// The service that [`WsgiLayer::new(app)`](crate::WsgiLayer::new) makes of an inner service.
///
/// ```
/// use axum::{Router, routing::get};
/// use http::{Request, Response};
/// use tower::{Layer, ServiceExt};
/// use tower_wsgi::{BoxError, Input, Wsgi, WsgiLayer};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), BoxError> {
/// let router: Router = Router::new().route("/", get(|| async { "the new way" }));
/// let legacy = |_: Request<Input>| Response::new("the old way");
/// let service: Wsgi<_, Router> = WsgiLayer::new(legacy).at("/legacy").layer(router);
///
/// for (path, text) in [("/", "the new way"), ("/legacy", "the old way")] {
///     let request = Request::get(path).body(axum::body::Body::empty())?;
///     let body = service.clone().oneshot(request).await?.into_body();
///     assert_eq!(axum::body::to_bytes(body.into(), 100).await?, text);
/// }
/// # Ok(())
/// # }
/// ```
///
/// It is always ready. Readiness of the inner service is awaited inside the response future of those requests that
/// reach it, as in axum's `Router`, so that neither side keeps the other from being called.
pub struct Wsgi<H, S> {
    pub(super) shared: Arc<Shared<Arc<H>>>,
    pub(super) inner: S,
    pub(super) erased: Arc<dyn Any + Send + Sync>,
}

/// What all requests of a service share.
pub(crate) struct Shared<H> {
    pub(super) handler: H,
    pub(super) prefix: Arc<str>,
    pub(super) settings: Settings,
}

impl<H, B> Service<Request<B>> for WsgiService<H>
where
    H: SyncHandler,
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture<H>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Call::start(&self.shared, request.map(Body::new), None)
    }
}

impl<H, S, B, RB> Service<Request<B>> for Wsgi<H, S>
where
    H: SyncHandler,
    S: Service<Request<B>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body + From<Body> + Send + 'static,
    B::Error: Into<BoxError>,
    RB: http_body::Body + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = WsgiFuture<Arc<H>, S, Request<B>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if split(request.uri().path(), &self.shared.prefix).is_none() {
            return WsgiFuture::inner(self.inner.clone(), request);
        }
        let call: CallInner = call_inner::<S, B, RB>;
        let next = (self.erased.clone(), call);
        WsgiFuture::crossing(Call::start(&self.shared, request.map(Body::new), Some(next)))
    }
}

impl<H> Clone for WsgiService<H> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<H, S: Clone> Clone for Wsgi<H, S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), inner: self.inner.clone(), erased: self.erased.clone() }
    }
}

impl<H> fmt::Debug for WsgiService<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsgiService").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl<H, S: fmt::Debug> fmt::Debug for Wsgi<H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wsgi")
            .field("prefix", &self.shared.prefix)
            .field("settings", &self.shared.settings)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
