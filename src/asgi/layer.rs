//! The layer, the handlers it makes, and their settings.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use tokio::runtime::Handle;
use tower_layer::Layer;
use tower_service::Service;

use super::background::BackgroundTasks;
use super::body::Backed;
use super::runtime;
use crate::body::Body;
use crate::environ::Environ;
use crate::error::{BoxError, Error, Kind, guard};
use crate::handler::{Adapter, SyncHandler};
use crate::input::Input;
use crate::nesting::mark_waited_for;
use crate::next::Next;
use crate::output::Output;
use crate::response::declared_length;
use crate::scope::Scope;
use crate::view::{prefix_of, split};
use crate::wait::{Wait, may_block};

/// Puts an asynchronous service into a synchronous stack: the mirror image of [`WsgiLayer`](crate::WsgiLayer).
///
/// | | is a layer for | the service |
/// | --- | --- | --- |
/// | [`AsgiLayer::new(service)`](Self::new) | a [`SyncHandler`] | stands in front of it; [`at`](Self::at) mounts it under a prefix |
/// | [`AsgiLayer::adapter()`](AsgiLayer::adapter) | any service | is what the layer wraps |
///
/// ```
/// use axum::{Router, routing::get};
/// use http::{Request, Response};
/// use tower_layer::Layer;
/// use tower_wsgi::{AsgiLayer, Input, SyncHandler};
///
/// fn legacy(request: Request<Input>) -> Response<String> {
///     Response::new(format!("{} the old way\n", request.uri().path()))
/// }
///
/// let api = Router::<()>::new().route("/users", get(|| async { "the new way\n" }));
/// let app = AsgiLayer::new(api).at("/api").layer(legacy);
///
/// let response = app.call(Request::get("/api/users").body(Input::empty())?)?;
/// assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "the new way\n");
/// # Ok::<(), tower_wsgi::BoxError>(())
/// ```
///
/// # Settings
/// | setting | default | |
/// | --- | --- | --- |
/// | [`runtime`](Self::runtime) | the thread's, or one of this crate's own | what the service is polled in |
/// | [`wait_time`](Self::wait_time) | none: as long as it takes | how long the end of a response waits for [`BackgroundTasks`] |
/// | [`request_body`](Self::request_body) | [`Body`] | the body that the service takes |
///
/// See [`AsgiHandler`] for how a call runs.
pub struct AsgiLayer<S = Adapter, B = Body> {
    service: Inner<S>,
    prefix: Arc<str>,
    settings: Settings,
    takes: PhantomData<fn(B)>,
}

/// A [`SyncHandler`] made from a tower service: what a2wsgi calls `ASGIMiddleware(app)`.
///
/// The service may be whatever tower service takes a request and gives a response: an axum `Router`, a tonic service, a stack of tower layers.
///
/// ```
/// use axum::{Router, routing::get};
/// use http::Request;
/// use tower_wsgi::{AsgiHandler, Input, SyncHandler};
///
/// let router = Router::<()>::new().route("/", get(|| async { "Hello World!" }));
/// let handler = AsgiHandler::new(router);
///
/// // No runtime in sight: this could be a CGI script, a thread of a blocking server, a plain test.
/// let response = handler.call(Request::get("/").body(Input::empty())?)?;
/// assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "Hello World!");
/// # Ok::<(), tower_wsgi::BoxError>(())
/// ```
///
/// Its settings are those of the layer: `AsgiLayer::adapter().wait_time(second).layer(router)`. So is the body that a service takes, if it is none of ours: see
/// [`AsgiLayer::request_body`].
///
/// The service finds the request's [`Scope`] and its [`BackgroundTasks`] among the request's extensions, beside those that the host and the sync middleware put there.
///
/// # Runtime
/// The service is polled inside a tokio runtime's context: the one set by [`AsgiLayer::runtime`], else the one that the calling thread is in (as workers of a [`WsgiService`](crate::WsgiService) and
/// threads of `spawn_blocking` are), else one of this crate's own. That is multi-threaded, the same for the whole process, and started by the first call that needs it, so that a process that forks
/// after the handler was made, and before it was called, works.
///
/// # Blocking
/// The calling thread polls the service, and later the body, itself: a service that is ready costs no hop to another thread. While it is not, the
/// thread sleeps until it is woken by what wakes the service. A worker of a [`WsgiService`](crate::WsgiService) lends its place in the pool meanwhile.
///
/// There is no time limit of its own. A service that gives up for good (it is not ready, and keeps no waker) is an error, but for a host whose client can still end the wait by leaving; put tower's `TimeoutLayer` around one that may
/// wait for ever. Timers and sockets need their runtime to be driven: a multi-threaded one is; a current-thread one only while some thread is in its `block_on`.
///
/// What the thread polls counts as async: a handler that is called in there is an error, inside `block_in_place` too. Tasks of tokio are recognised, but for those inside
/// `tokio::task::unconstrained`; those of other executors are not.
///
/// # Errors
/// The service's own error, from [`call`](SyncHandler::call). An [`Error`] that [`is_panic`](Error::is_panic) if the service panicked, [`is_disconnected`](Error::is_disconnected) if the
/// host's client left meanwhile, [`is_inside_async`](Error::is_inside_async) if the calling thread polls an async task, which it would keep from going on, [`is_stuck`](Error::is_stuck) if the
/// service can never become ready. A body's error, or panic, comes from the read of the body.
///
/// # Cancellation
/// A host that drops the response drops the service's body at once. When the host is a `WsgiService` whose client leaves, the service's future is dropped too. Background tasks go on,
/// up to `wait_time`.
#[doc(alias = "ASGIMiddleware")]
pub struct AsgiHandler<S, B = Body> {
    service: Inner<S>,
    settings: Settings,
    takes: PhantomData<fn(B)>,
}

/// The handler that [`AsgiLayer::new(service)`](AsgiLayer::new) makes of an inner handler.
///
/// ```
/// use axum::{Router, routing::get};
/// use http::{Request, Response};
/// use tower_layer::Layer;
/// use tower_wsgi::{Asgi, AsgiLayer, Input, SyncHandler};
///
/// type Legacy = fn(Request<Input>) -> Response<&'static str>;
///
/// let legacy: Legacy = |_| Response::new("the old way");
/// let api = Router::<()>::new().route("/", get(|| async { "the new way" }));
/// let app: Asgi<Router, Legacy> = AsgiLayer::new(api).at("/api").layer(legacy);
///
/// for (path, text) in [("/", "the old way"), ("/api", "the new way")] {
///     let response = app.call(Request::get(path).body(Input::empty())?)?;
///     assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, text);
/// }
/// # Ok::<(), tower_wsgi::BoxError>(())
/// ```
pub struct Asgi<S, H, B = Body> {
    outer: AsgiHandler<S, B>,
    prefix: Arc<str>,
    inner: H,
}

/// A future on the stack that can be dropped before its frame is left.
struct InPlace<'a, F>(Pin<&'a mut Option<F>>);

/// A service of which each call takes a clone; it need not be `Sync`.
type Inner<S> = Arc<Mutex<S>>;

#[derive(Clone, Debug, Default)]
struct Settings {
    runtime: Option<Handle>,
    wait_time: Option<Duration>,
}

impl<F: Future> InPlace<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx))
    }
}

impl<F> Drop for InPlace<'_, F> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl<S> AsgiLayer<S> {
    /// A layer that puts `service` in front of the inner handler. Without [`at`](Self::at), it gets every request.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self {
            service: Arc::new(Mutex::new(service)),
            prefix: "".into(),
            settings: Settings::default(),
            takes: PhantomData,
        }
    }
}

impl AsgiLayer<Adapter> {
    /// The bare crossing: a layer that makes an [`AsgiHandler`] of the service that it wraps.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower::ServiceBuilder;
    /// use tower_http::compression::CompressionLayer;
    /// use tower_wsgi::AsgiLayer;
    ///
    /// let router = Router::<()>::new().route("/", get(|| async { "Hello World!" }));
    /// let handler = ServiceBuilder::new()
    ///     .layer(AsgiLayer::adapter())
    ///     .layer(CompressionLayer::new())
    ///     .service(router);
    /// # use tower_wsgi::{Input, SyncHandler};
    /// # let request = http::Request::get("/").body(Input::empty()).unwrap();
    /// # assert_eq!(handler.call(request).unwrap().status(), 200);
    /// ```
    #[must_use]
    pub fn adapter() -> Self {
        Self::new(Adapter)
    }
}

impl<S, B> AsgiLayer<S, B> {
    /// Polls the service inside this runtime; see [`AsgiHandler`] for which one it is otherwise.
    ///
    /// Timers, sockets and tasks need it to be driven. A multi-threaded runtime is. A current-thread one is only while some thread is in its `block_on`: without that, a service that
    /// waits for one of them waits for ever. Tasks that are spawned on a runtime that has been shut down are dropped.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use http::Request;
    /// use tower_layer::Layer;
    /// use tower_wsgi::{AsgiLayer, Input, SyncHandler};
    ///
    /// /// Where a task of the service runs.
    /// async fn task() -> String {
    ///     let name = async { std::thread::current().name().unwrap_or_default().to_owned() };
    ///     tokio::spawn(name).await.unwrap_or_default()
    /// }
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("mine").enable_all().build()?;
    /// let layer = AsgiLayer::adapter().runtime(runtime.handle().clone());
    /// let handler = layer.layer(Router::<()>::new().route("/", get(task)));
    /// let response = handler.call(Request::get("/").body(Input::empty())?)?;
    /// assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "mine");
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    #[doc(alias = "loop")]
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.settings.runtime = Some(runtime);
        self
    }

    /// How long the end of a response waits for the request's [`BackgroundTasks`], counted from the end of the body, or from its drop; then they are cancelled. By default the wait
    /// takes as long as they do. Zero cancels them at the end of the body. It bounds how long tasks that clients can make long hold a host's thread, or a CGI program.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, routing::get};
    /// use http::Request;
    /// use tower_layer::Layer;
    /// use tower_wsgi::{AsgiLayer, BackgroundTasks, Input, SyncHandler};
    ///
    /// async fn order(background: BackgroundTasks) -> &'static str {
    ///     background.spawn(std::future::pending::<()>()); // without an end
    ///     "thank you\n"
    /// }
    ///
    /// let router = Router::<()>::new().route("/", get(order));
    /// let handler = AsgiLayer::adapter().wait_time(Duration::from_millis(5)).layer(router);
    /// let response = handler.call(Request::get("/").body(Input::empty())?)?;
    /// assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "thank you\n");
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    ///
    /// The runtime needs its time driver: without it, the read that would wait fails.
    #[must_use]
    pub fn wait_time(mut self, wait_time: Duration) -> Self {
        self.settings.wait_time = Some(wait_time);
        self
    }

    /// The body that the service takes in its request, where that is not this crate's [`Body`] or any body. It is made [`From`] ours. To be named before [`at`](Self::at).
    ///
    /// ```
    /// use axum::{Router, extract::Request, middleware::{Next, from_fn}, response::Response};
    /// use tower::ServiceBuilder;
    /// use tower_wsgi::AsgiLayer;
    ///
    /// async fn authenticate(request: Request, next: Next) -> Response {
    ///     next.run(request).await
    /// }
    ///
    /// let handler = ServiceBuilder::new()
    ///     .layer(AsgiLayer::adapter().request_body::<axum::body::Body>())
    ///     .layer(from_fn(authenticate))
    ///     .service(Router::<()>::new());
    /// # use tower_wsgi::{Input, SyncHandler};
    /// # let request = http::Request::get("/").body(Input::empty()).unwrap();
    /// # assert_eq!(handler.call(request).unwrap().status(), 404);
    /// ```
    #[must_use]
    pub fn request_body<T>(self) -> AsgiLayer<S, T> {
        let Self { service, prefix, settings, .. } = self;
        AsgiLayer { service, prefix, settings, takes: PhantomData }
    }
}

impl<S, B> AsgiLayer<S, B>
where
    S: Service<Request<B>>,
{
    /// Mounts the service at `prefix`: requests outside it go to the inner handler untouched. The service sees the rest of the path as its URI and the
    /// prefix in [`Scope::root_path`].
    ///
    /// The prefix is compared as in [`WsgiLayer::at`](crate::WsgiLayer::at), which says what it guards and what not: `/api` does not own `/apiary`.
    ///
    /// # Panics
    /// If `prefix` does not start with a slash, or is not the path of a URI.
    #[doc(alias("prefix", "mount"))]
    #[must_use]
    pub fn at(mut self, prefix: &str) -> Self {
        self.prefix = prefix_of(prefix);
        self
    }
}

impl<S> AsgiHandler<S> {
    /// A handler that calls `service`, with the settings' defaults.
    #[must_use]
    pub fn new<RB>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<RB>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        RB: http_body::Body + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        AsgiLayer::adapter().layer(service)
    }
}

impl<S, B> AsgiHandler<S, B> {
    /// Gives a request what belongs to the async side, and takes from it what does not.
    fn cross(&self, mut request: Request<Input>, tasks: &BackgroundTasks) -> Request<Body> {
        if let Ok(Some(length)) = declared_length(request.headers()) {
            if request.body().length() != Some(length) {
                request.body_mut().declare(length);
            }
        }
        request.extensions_mut().remove::<Next>();
        Scope::cross(&mut request);
        mark_waited_for(&mut request);
        request.extensions_mut().insert(tasks.clone());
        request.map(Input::into_body)
    }
}

impl<S, B, RB> SyncHandler for AsgiHandler<S, B>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    B: From<Body> + 'static,
    RB: http_body::Body + Send + 'static,
    RB::Error: Into<BoxError>,
{
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        may_block()?;
        let runtime = runtime::find(self.settings.runtime.as_ref()).map_err(|error| {
            Error::with_source(Kind::Overloaded, "no runtime could be started for a service", error)
        })?;
        let watch = request.extensions().get().and_then(Environ::watch);
        let lingering = request.extensions().get().cloned();
        let tasks = BackgroundTasks::new(runtime.clone(), self.settings.wait_time, lingering);
        let _runtime = runtime.enter();
        // What the service drops, it drops inside: a panic in that is an error too.
        let response = guard(|| {
            let request = self.cross(request, &tasks).map(B::from);
            let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let response = pin!(Some(async move {
                poll_fn(|cx| service.poll_ready(cx)).await?;
                service.call(request).await
            }));
            let mut response = InPlace(response);
            let wait = Wait { watch: watch.as_ref(), lends: true, asked: true, ..Wait::default() };
            wait.until(move |cx| response.poll(cx))
        });
        let response: Result<_, BoxError> = match response {
            Ok(Ok(Ok(response))) => Ok(response.map(Body::new)),
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(ended)) => Err(Error::from(ended).into()),
            Err(panic) => Err(panic.into()),
        };
        let response = response.inspect_err(|_| tasks.release())?;
        Ok(response.map(|body| {
            let needs_runtime = body.needs_runtime() && !body.is_end_stream();
            let body =
                if needs_runtime || tasks.may_run() { Body::new(Backed::new(body, tasks)) } else { body };
            Output { watch, ..Output::from(body) }
        }))
    }
}

impl<S, H, B> SyncHandler for Asgi<S, H, B>
where
    AsgiHandler<S, B>: SyncHandler,
    H: SyncHandler,
{
    fn call(&self, mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
        if split(request.uri().path(), &self.prefix).is_none() {
            return self.inner.call(request);
        }
        if !self.prefix.is_empty() {
            Environ::shift(&mut request, &self.prefix);
        }
        self.outer.call(request)
    }
}

impl<S, B> Layer<S> for AsgiLayer<Adapter, B>
where
    S: Service<Request<B>>,
{
    type Service = AsgiHandler<S, B>;

    fn layer(&self, service: S) -> Self::Service {
        AsgiHandler {
            service: Arc::new(Mutex::new(service)),
            settings: self.settings.clone(),
            takes: PhantomData,
        }
    }
}

impl<S, H, B> Layer<H> for AsgiLayer<S, B>
where
    S: Service<Request<B>>,
    H: SyncHandler,
{
    type Service = Asgi<S, H, B>;

    fn layer(&self, inner: H) -> Self::Service {
        let outer = AsgiHandler {
            service: self.service.clone(),
            settings: self.settings.clone(),
            takes: PhantomData,
        };
        Asgi { outer, prefix: self.prefix.clone(), inner }
    }
}

impl<S, B> Clone for AsgiLayer<S, B> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            prefix: self.prefix.clone(),
            settings: self.settings.clone(),
            takes: PhantomData,
        }
    }
}

impl<S, B> Clone for AsgiHandler<S, B> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), settings: self.settings.clone(), takes: PhantomData }
    }
}

impl<S, H: Clone, B> Clone for Asgi<S, H, B> {
    fn clone(&self) -> Self {
        Self { outer: self.outer.clone(), prefix: self.prefix.clone(), inner: self.inner.clone() }
    }
}

impl<S, B> fmt::Debug for AsgiLayer<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsgiLayer")
            .field("prefix", &self.prefix)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<S, B> fmt::Debug for AsgiHandler<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsgiHandler").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<S, H: fmt::Debug, B> fmt::Debug for Asgi<S, H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asgi")
            .field("prefix", &self.prefix)
            .field("settings", &self.outer.settings)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
