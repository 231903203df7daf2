//! The layer that puts an application in front of an async service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tower_service::Service;
use tower_wsgi::{Body, BoxError, Scope};

use super::PyAsgi;
use super::future::PyAsgiFuture;

/// Puts a Python ASGI application into an asynchronous stack, in front of the inner service: the counterpart of [`WsgiLayer`](tower_wsgi::WsgiLayer) for applications that are asynchronous already.
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_wsgi_python::{PyAsgi, PyAsgiLayer};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), tower_wsgi::BoxError> {
/// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
/// let shop = PyAsgi::import("shop.main:app")?;
/// let app: Router = Router::new()
///     .route("/", get(|| async { "from Rust" }))
///     .layer(PyAsgiLayer::new(shop).at("/shop"));
/// # use tower::ServiceExt;
/// # let request = http::Request::get("/shop/cart").body(axum::body::Body::empty())?;
/// # let body = app.oneshot(request).await?.into_body();
/// # assert_eq!(axum::body::to_bytes(body, 100).await?, "/shop/cart");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PyAsgiLayer {
    app: PyAsgi,
    prefix: Arc<str>,
}

/// The service that [`PyAsgiLayer`] makes of an inner service.
///
/// ```
/// use axum::{Router, routing::get};
/// use http::Request;
/// use tower::{Layer, ServiceExt};
/// use tower_wsgi_python::{PyAsgi, PyAsgiLayer, PyAsgiStack};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), tower_wsgi::BoxError> {
/// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
/// let router: Router = Router::new().route("/", get(|| async { "from Rust" }));
/// let layer = PyAsgiLayer::new(PyAsgi::import("shop.main:app")?).at("/shop");
/// let service: PyAsgiStack<Router> = layer.layer(router);
///
/// for (path, text) in [("/", "from Rust"), ("/shop/cart", "/shop/cart")] {
///     let request = Request::get(path).body(axum::body::Body::empty())?;
///     let body = service.clone().oneshot(request).await?.into_body();
///     assert_eq!(axum::body::to_bytes(axum::body::Body::new(body), 100).await?, text);
/// }
/// # Ok(())
/// # }
/// ```
///
/// It is always ready. Readiness of the inner service is awaited inside the response future of those requests that reach it, so that neither side keeps the other from being called.
#[derive(Clone, Debug)]
pub struct PyAsgiStack<S> {
    app: PyAsgi,
    prefix: Arc<str>,
    inner: S,
}

impl PyAsgiLayer {
    /// A layer that puts `app` in front of the inner service. Without [`at`](Self::at), `app` gets every request.
    #[must_use]
    pub fn new(app: PyAsgi) -> Self {
        Self { app, prefix: "".into() }
    }

    /// Mounts the application at `prefix`: requests outside it go to the inner service untouched. The application finds the prefix at the end of its `root_path`; its `path` is the whole path, as ASGI has it.
    ///
    /// The prefix is compared with the path as it is sent, percent-encoding and all, at the borders of its segments: `/api` does not
    /// own `/apiary`. A slash at its end makes no difference.
    ///
    /// # Panics
    /// If `prefix` does not start with a slash, or is not the path of a URI.
    #[must_use]
    pub fn at(mut self, prefix: &str) -> Self {
        assert!(prefix.starts_with('/'), "a prefix starts with a slash, which {prefix:?} does not");
        let path = http::uri::PathAndQuery::try_from(prefix).ok();
        assert!(
            path.is_some_and(|path| path.as_str() == prefix && path.query().is_none()),
            "a prefix is the path of a URI, which {prefix:?} is not"
        );
        self.prefix = prefix.trim_end_matches('/').into();
        self
    }
}

impl<S> tower_layer::Layer<S> for PyAsgiLayer {
    type Service = PyAsgiStack<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PyAsgiStack { app: self.app.clone(), prefix: self.prefix.clone(), inner }
    }
}

impl<S, B, RB> Service<Request<B>> for PyAsgiStack<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
    RB: http_body::Body + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = PyAsgiStackFuture<S, Request<B>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let state = if self.prefix.is_empty() || Scope::shift(&mut request, &self.prefix) {
            State::App { future: self.app.call(request) }
        } else {
            State::Ready { service: self.inner.clone(), request: Some(request) }
        };
        PyAsgiStackFuture { state }
    }
}

pin_project_lite::pin_project! {
    /// The response of a [`PyAsgiStack`], before it is there: the application's or the inner service's.
    ///
    /// ```
    /// use axum::{Router, extract::Request};
    /// use tower_layer::Layer;
    /// use tower_service::Service;
    /// use tower_wsgi_python::{PyAsgi, PyAsgiLayer, PyAsgiStackFuture};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
    /// let layer = PyAsgiLayer::new(PyAsgi::import("shop.main:app")?).at("/shop");
    /// let mut service = layer.layer(Router::<()>::new());
    /// let request = Request::get("/shop/cart").body(axum::body::Body::empty())?;
    /// let future: PyAsgiStackFuture<Router, Request> = service.call(request);
    /// assert_eq!(future.await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropped, it drops the inner service's future, or the application's [`PyAsgiFuture`].
    #[must_use = "futures do nothing unless polled"]
    pub struct PyAsgiStackFuture<S, R>
    where
        S: Service<R>,
    {
        #[pin]
        state: State<S, R>,
    }
}

pin_project_lite::pin_project! {
    #[project = Project]
    enum State<S, R>
    where
        S: Service<R>,
    {
        App { future: PyAsgiFuture },
        Ready { service: S, request: Option<R> },
        Inner { #[pin] future: S::Future },
    }
}

impl<S, R, RB> Future for PyAsgiStackFuture<S, R>
where
    S: Service<R, Response = Response<RB>>,
    RB: http_body::Body + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project().state.project() {
                Project::App { future } => {
                    let response = ready!(Pin::new(future).poll(cx));
                    return Poll::Ready(response.map_err(|never| match never {}));
                }
                Project::Ready { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    service.call(request)
                }
                Project::Inner { future } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(response.map(Body::new)));
                }
            };
            self.as_mut().project().state.set(State::Inner { future });
        }
    }
}

impl<S: Service<R>, R> std::fmt::Debug for PyAsgiStackFuture<S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PyAsgiStackFuture").finish_non_exhaustive()
    }
}
