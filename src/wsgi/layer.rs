//! The layer, and how it is set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tower_layer::Layer;

use super::service::{Shared, Wsgi, WsgiService};
use super::settings::Settings;
use crate::error::Error;
use crate::handler::{Adapter, SyncHandler};
use crate::next::erase;
use crate::output::Output;
use crate::pool::WorkerPool;
use crate::view::prefix_of;

/// Puts a synchronous application into an asynchronous stack.
///
/// | | is a layer for | the application |
/// | --- | --- | --- |
/// | [`WsgiLayer::new(app)`](Self::new) | any service | stands in front of it; [`at`](Self::at) mounts it under a prefix, [`Next`](crate::Next) calls the service |
/// | [`WsgiLayer::adapter()`](WsgiLayer::adapter) | a [`SyncHandler`] | is what the layer wraps |
///
/// ```
/// use axum::{Router, routing::get};
/// use http::{Request, Response};
/// use tower_wsgi::{Input, WsgiLayer};
///
/// fn legacy(request: Request<Input>) -> Response<String> {
///     std::thread::sleep(std::time::Duration::from_millis(10)); // a query, say
///     Response::new(format!("{} the old way\n", request.uri().path()))
/// }
///
/// let app: Router = Router::new()
///     .route("/", get(|| async { "the new way\n" }))
///     .layer(WsgiLayer::new(legacy).at("/legacy").workers(15));
/// # use tower::ServiceExt;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let request = Request::get("/legacy/page").body(axum::body::Body::empty()).unwrap();
/// # let body = axum::body::to_bytes(app.oneshot(request).await.unwrap().into_body(), 100).await.unwrap();
/// # assert_eq!(body, "/page the old way\n");
/// # });
/// ```
///
/// # Settings
/// | setting | default | |
/// | --- | --- | --- |
/// | [`workers`](Self::workers), [`pool`](Self::pool) | 10 | handlers that run at once |
/// | [`max_queued`](Self::max_queued) | 1,000 requests | beyond it: 503 |
/// | [`queue_timeout`](Self::queue_timeout) | none | beyond it: 503 |
/// | [`send_queue_size`](Self::send_queue_size) | 10 chunks | how far a body runs ahead of its client |
/// | [`prefetch`](Self::prefetch) | 64 KiB | how much of a request's body is read before it gets a worker |
/// | [`read_timeout`](Self::read_timeout) | none | how long a handler's read waits |
/// | [`on_error`](Self::on_error) | a plain 500 | |
/// | [`context`](Self::context) | none | carries task-locals and the like to the worker |
///
/// # Events
/// `tracing` is told of each request that reaches the pool, at `DEBUG`, with the target `tower_wsgi`, inside the span in which the response future was first polled. Times are whole microseconds.
///
/// | message | when | fields |
/// | --- | --- | --- |
/// | `dispatched` | the request was handed to the pool | `queued`: how many waited there |
/// | `started` | a worker runs the handler now | `queue_wait_us`: how long the request waited for it |
/// | `returned` | the handler returned, or failed | `run_us`: how long it ran; `status`: what it returned, or what its error stands for |
/// | `streamed` | the last chunk of a body that a worker made was handed over | `bytes`, `elapsed_us` since `dispatched` |
/// | `aborted` | nobody waits for the response any more, or its body failed behind the head | `by`: `caller` (the client left, or a layer outside gave up) or `handler`; `at`: `queue`, `handler` or `body`; `elapsed_us`; `error` of a handler |
/// | `refused` | no worker took the request: 503 | `error`; `queue_wait_us` if it was dispatched before |
///
/// A request has one end: `streamed`, `aborted`, `refused`, or just `returned`, for a body that is sent in one piece or made by async code. Each `started` has its `returned`, behind `aborted` too. What the pool does is in [`WorkerPool::stats`].
///
/// Handlers that fail or panic, and bodies that do, are logged besides, with the error, its cause and the target of the module that says so:
///
/// | level | what |
/// | --- | --- |
/// | `ERROR` | a handler, a body or a hook failed or panicked; a response that could not be sent as it was |
/// | `DEBUG` | the request's body failed, and the handler passed that on (400, 408, 413); a failure after the client had gone |
///
/// # Cancellation
/// When the response future or the body is dropped, a request that waits for a worker is never run; for one that runs, the next write fails
/// with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe), the next read fails too, and [`Environ::is_disconnected`](crate::Environ::is_disconnected) is true.
pub struct WsgiLayer<H = Adapter> {
    handler: Arc<H>,
    prefix: Arc<str>,
    settings: Settings,
}

impl<H: SyncHandler> WsgiLayer<H> {
    /// A layer that puts `app` in front of the inner service. Without [`at`](Self::at), `app` gets every request.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use http::{Request, Response};
    /// use tower::ServiceExt;
    /// use tower_wsgi::{BoxError, Input, Next, Output, WsgiLayer};
    ///
    /// /// In front of all routes: a middleware.
    /// fn closed_on_sundays(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    ///     let next = request.extensions_mut().remove::<Next>().ok_or("not behind WsgiLayer::new")?;
    ///     let is_sunday = false; // asks a blocking calendar
    ///     if is_sunday { Ok(Response::new("closed".into())) } else { Ok(next.forward(request)) }
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), BoxError> {
    /// let router: Router = Router::new().route("/", get(|| async { "open" }));
    /// let app = router.layer(WsgiLayer::new(closed_on_sundays));
    /// let response = app.oneshot(Request::get("/").body(axum::body::Body::empty())?).await?;
    /// assert_eq!(axum::body::to_bytes(response.into_body(), 100).await?, "open");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(app: H) -> Self {
        Self { handler: Arc::new(app), prefix: "".into(), settings: Settings::default() }
    }

    /// Mounts the application at `prefix`: requests outside it go to the inner service untouched. The application sees
    /// the rest of the path as its URI and the prefix in [`Environ::script_name`](crate::Environ::script_name).
    ///
    /// ```
    /// use axum::Router;
    /// use http::{Request, Response};
    /// use tower::ServiceExt;
    /// use tower_wsgi::{BoxError, Environ, Input, WsgiLayer};
    ///
    /// fn shop(request: Request<Input>) -> Response<String> {
    ///     let mount = Environ::of(&request).script_name().into_owned();
    ///     Response::new(format!("{} of {}", request.uri(), String::from_utf8_lossy(&mount)))
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), BoxError> {
    /// let app: Router = Router::new().layer(WsgiLayer::new(shop).at("/shop"));
    /// let response = app.oneshot(Request::get("/shop/cart?id=1").body(axum::body::Body::empty())?).await?;
    /// assert_eq!(axum::body::to_bytes(response.into_body(), 100).await?, "/cart?id=1 of /shop");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The prefix is compared with the path as it is sent, percent-encoding and all, at the borders of its segments: `/api` does not
    /// own `/apiary`. A slash at its end makes no difference. Nothing is normalised: no `..`, no double slash, no case.
    ///
    /// In an axum `Router` it goes last, onto the outermost one: a `fallback`, `nest` or `merge` that comes after it leads past it, and so does `route_layer`
    /// ([why](crate::guide::order#a-synchronous-application-in-an-axum-router)). `nest_service(prefix, WsgiService::new(app))` mounts it as a route.
    ///
    /// So a mount guards what routes by the path as it is sent, as axum does, and other mounts do. It does not guard an application inside that routes by the decoded
    /// `PATH_INFO`, as WSGI frameworks do: `/%61dmin` is not under `/admin`, and is `/admin` to them. For those ask [`Environ::script_name`](crate::Environ::script_name) and
    /// [`path_info`](crate::Environ::path_info) in a sync middleware.
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

impl WsgiLayer<Adapter> {
    /// The bare crossing: a layer that makes a [`WsgiService`] of the [`SyncHandler`] that it wraps.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::ServiceBuilder;
    /// use tower_http::trace::TraceLayer;
    /// use tower_wsgi::{Input, WsgiLayer};
    ///
    /// let service = ServiceBuilder::new()
    ///     .layer(TraceLayer::new_for_http())
    ///     .layer(WsgiLayer::adapter().workers(15))
    ///     .service(|_: Request<Input>| Response::new("Hello World!"));
    /// # use tower::ServiceExt;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let response = service.oneshot(Request::new(tower_wsgi::Body::empty())).await.unwrap();
    /// # assert_eq!(response.status(), 200);
    /// # });
    /// ```
    #[must_use]
    pub fn adapter() -> Self {
        Self { handler: Arc::new(Adapter), prefix: "".into(), settings: Settings::default() }
    }
}

impl<H> WsgiLayer<H> {
    /// How many handlers run at once, on threads of this layer's own. 10 by default. However many requests a flood brings, no more threads are started for them than [`WorkerPool::new`] says.
    ///
    /// ```
    /// use std::sync::Barrier;
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Body, Input, WsgiLayer};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// let both = Barrier::new(2);
    /// let service = WsgiLayer::adapter().workers(2).layer(move |_: Request<Input>| {
    ///     both.wait(); // until two handlers are here
    ///     Response::new("together")
    /// });
    ///
    /// let call = || service.clone().oneshot(Request::new(Body::empty()));
    /// let (one, other) = tokio::join!(call(), call());
    /// assert_eq!((one?.status(), other?.status()), (http::StatusCode::OK, http::StatusCode::OK));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If `workers` is 0.
    #[doc(alias("threads", "concurrency"))]
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        self.pool(WorkerPool::new(workers))
    }

    /// Runs the handlers on a pool that other layers may use too.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Body, Input, WorkerPool, WsgiLayer};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// let pool = WorkerPool::new(15);
    /// let site = WsgiLayer::adapter().pool(pool.clone()).layer(|_: Request<Input>| Response::new("the site"));
    /// let api = WsgiLayer::adapter().pool(pool.clone()).layer(|_: Request<Input>| Response::new("the API"));
    ///
    /// site.oneshot(Request::new(Body::empty())).await?;
    /// api.oneshot(Request::new(Body::empty())).await?;
    /// // The two share its threads, and it can be watched.
    /// assert!((1..=15).contains(&pool.stats().threads));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pool(mut self, pool: WorkerPool) -> Self {
        self.settings.pool = pool;
        self
    }

    /// How many requests may wait for a worker: 1,000 by default. The next one gets 503 with `Retry-After`, at once. The bound is on the memory and the
    /// patience that a flood of requests can take: some 2 KB for each that waits, its body's [`prefetch`](Self::prefetch), and what the server holds for its connection. 0 turns away whatever no worker is free for.
    ///
    /// ```
    /// use std::sync::{Arc, Barrier};
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Body, Input, WsgiLayer};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    /// let gate = Arc::new(Barrier::new(2));
    /// let theirs = gate.clone();
    /// let service = WsgiLayer::adapter().workers(1).max_queued(0).layer(move |_: Request<Input>| {
    ///     let _ = begins.send(());
    ///     theirs.wait(); // until it may go on
    ///     Response::new("done")
    /// });
    ///
    /// let first = tokio::spawn(service.clone().oneshot(Request::new(Body::empty())));
    /// begun.recv().await;
    /// // The one worker is busy, and nothing may wait for it.
    /// let second = service.oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!((second.status().as_u16(), &second.headers()["retry-after"]), (503, &"1".parse()?));
    /// gate.wait();
    /// assert_eq!(first.await??.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("queue", "backlog"))]
    #[must_use]
    pub fn max_queued(mut self, requests: usize) -> Self {
        self.settings.max_queued = requests;
        self
    }

    /// How long a request may wait for a worker; as long as its client does by default. After it: 503 with `Retry-After`. It bounds what clients who hold all workers (by uploads of unknown length, by downloads
    /// that a function writes) can make others wait.
    ///
    /// ```
    /// use std::sync::{Arc, Barrier};
    /// use std::time::Duration;
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Body, Input, WorkerPool, WsgiLayer};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
    /// let gate = Arc::new(Barrier::new(2));
    /// let theirs = gate.clone();
    /// let layer = WsgiLayer::adapter().pool(WorkerPool::new(1));
    /// let slow = layer.clone().layer(move |_: Request<Input>| {
    ///     let _ = begins.send(());
    ///     theirs.wait(); // until it may go on
    ///     Response::new("at last")
    /// });
    /// let layer = layer.queue_timeout(Duration::from_millis(5));
    /// let hello = layer.layer(|_: Request<Input>| Response::new("Hello World!"));
    ///
    /// tokio::spawn(slow.oneshot(Request::new(Body::empty())));
    /// begun.recv().await;
    /// // No worker within 5 ms.
    /// assert_eq!(hello.oneshot(Request::new(Body::empty())).await?.status(), 503);
    /// gate.wait();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// The response future panics where there is no tokio runtime, or one without its time driver.
    #[must_use]
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.settings.queue_timeout = Some(timeout);
        self
    }

    /// How many chunks of a response's body may wait for the client: 10 by default, at least 1. It bounds the memory that a client who takes nothing can hold: so many chunks, as large as the handler
    /// makes them. A thread it holds only where a function writes the body; nothing here ends that wait, so that those belong behind a server that buffers, or in an iterator or a reader.
    ///
    /// ```
    /// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Body, Input, Output, WsgiLayer};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// let made = Arc::new(AtomicUsize::new(0));
    /// let count = made.clone();
    /// let service = WsgiLayer::adapter().send_queue_size(2).layer(move |_: Request<Input>| {
    ///     let count = count.clone();
    ///     Response::new(Output::iter((0..1_000).map(move |_| {
    ///         count.fetch_add(1, Ordering::Relaxed);
    ///         "a chunk"
    ///     })))
    /// });
    ///
    /// let response = service.oneshot(Request::new(Body::empty())).await?;
    /// // Its body is not read: two chunks wait, and the iterator with them.
    /// assert!(made.load(Ordering::Relaxed) <= 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn send_queue_size(mut self, chunks: usize) -> Self {
        self.settings.send_queue_size = chunks.max(1);
        self
    }

    /// How many bytes of a request's body are read before the handler asks: 64 KiB by default.
    ///
    /// A body of declared length gets a worker once all of it or this much is here, so that a slow sender holds no thread. A body
    /// of unknown length gets one at its first bytes; 0 gives it one at once, for senders who want an answer before they send. With `Expect: 100-continue` nothing is read ahead. A body's frames are not
    /// split: the last one may go over. It bounds the memory of an upload that nobody reads yet. How much is read ahead once the handler has asked, [`Input`](crate::Input#blocking) says.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Input, WsgiLayer};
    ///
    /// # struct Stalled;
    /// # impl http_body::Body for Stalled {
    /// #     type Data = bytes::Bytes;
    /// #     type Error = std::convert::Infallible;
    /// #     fn poll_frame(
    /// #         self: std::pin::Pin<&mut Self>,
    /// #         _: &mut std::task::Context<'_>,
    /// #     ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
    /// #         std::task::Poll::Pending
    /// #     }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// // The sender of `Stalled` sends nothing before it has an answer.
    /// let service = WsgiLayer::adapter().prefetch(0).layer(|_: Request<Input>| Response::new("go on"));
    /// let response = service.oneshot(Request::post("/").body(Stalled)?).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn prefetch(mut self, bytes: usize) -> Self {
        self.settings.prefetch = bytes as u64;
        self
    }

    /// How long a read of the request's body may wait for a byte before it fails with [`TimedOut`](std::io::ErrorKind::TimedOut); for ever by
    /// default. It bounds how long a sender who stalls can hold a worker, which one of unknown length or of more than [`prefetch`](Self::prefetch) bytes does: without it such senders, as many as there are workers, keep all
    /// others out. It does not bound one who sends a byte from time to time: a timeout for the whole request does, tower-http's `TimeoutLayer` outside, whose end fails the handler's read. Where the input becomes an async body, it holds for the polls of that, which then need a runtime with its time driver.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Input, WsgiLayer};
    ///
    /// # struct Stalled;
    /// # impl http_body::Body for Stalled {
    /// #     type Data = bytes::Bytes;
    /// #     type Error = std::convert::Infallible;
    /// #     fn poll_frame(
    /// #         self: std::pin::Pin<&mut Self>,
    /// #         _: &mut std::task::Context<'_>,
    /// #     ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
    /// #         std::task::Poll::Pending
    /// #     }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// let layer = WsgiLayer::adapter().prefetch(0).read_timeout(Duration::from_millis(5));
    /// let service = layer.layer(|request: Request<Input>| {
    ///     std::io::read_to_string(request.into_body()).map(Response::new)
    /// });
    /// // No byte of `Stalled` ever comes. The handler only passes on what its read failed with.
    /// let response = service.oneshot(Request::post("/").body(Stalled)?).await?;
    /// assert_eq!(response.status(), 408);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read_timeout = Some(timeout);
        self
    }

    /// Makes the response for a handler that failed or panicked, on the worker. The response carries the error as an extension in any case.
    /// It may block, as the handler may. Where it fails itself, by a panic or with a response that cannot be sent, the plain response goes out.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Body, Error, Input, Output, WsgiLayer};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// let layer = WsgiLayer::adapter().on_error(|error: &Error| {
    ///     let mut response = Response::new(Output::from("<h1>Sorry</h1>"));
    ///     *response.status_mut() = error.status();
    ///     response
    /// });
    /// let service = layer.layer(|_: Request<Input>| Err::<Response<String>, _>("no such table"));
    /// let response = service.oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!(response.status(), 500);
    /// assert!(response.extensions().get::<Error>().is_some_and(Error::is_handler));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn on_error(mut self, respond: impl Fn(&Error) -> Response<Output> + Send + Sync + 'static) -> Self {
        self.settings.on_error = Some(Arc::new(respond));
        self
    }

    /// Carries context from the caller's task to the worker. `capture` runs in the task; what it returns runs on the worker, around the handler and around
    /// each stretch of its body.
    ///
    /// The `tracing` span and the runtime's handle cross without it. What `capture` returns is dropped on whichever side lets go of the request last.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt};
    /// use tower_wsgi::{Body, Input, WsgiLayer};
    ///
    /// tokio::task_local! { static USER: String; }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), tower_wsgi::BoxError> {
    /// # use http_body_util::BodyExt;
    /// let layer = WsgiLayer::adapter().context(|| {
    ///     let user = USER.try_with(String::clone).unwrap_or_default();
    ///     move |run: &mut dyn FnMut()| USER.sync_scope(user.clone(), run)
    /// });
    /// let service = layer.layer(|_: Request<Input>| Response::new(USER.get()));
    /// let call = service.oneshot(Request::new(Body::empty()));
    /// let response = USER.scope("alice".to_owned(), call).await?;
    /// assert_eq!(response.into_body().collect().await?.to_bytes(), "alice");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where what `capture` returned does not run what it is given, the request fails with an [`Error`] that [`is_response`](Error::is_response).
    #[must_use]
    pub fn context<F, A>(mut self, capture: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: FnMut(&mut dyn FnMut()) + Send + 'static,
    {
        self.settings.capture = Some(Arc::new(move || Box::new(capture())));
        self
    }
}

impl<H: SyncHandler> WsgiService<H> {
    /// A service that runs `handler`, with the settings' defaults and ten threads of its own.
    #[must_use]
    pub fn new(handler: H) -> Self {
        WsgiLayer::adapter().layer(handler)
    }
}

impl<H: SyncHandler> Layer<H> for WsgiLayer<Adapter> {
    type Service = WsgiService<H>;

    fn layer(&self, handler: H) -> Self::Service {
        WsgiService {
            shared: Arc::new(Shared {
                handler,
                prefix: self.prefix.clone(),
                settings: self.settings.clone(),
            }),
        }
    }
}

impl<H: SyncHandler, S: Clone + Send + 'static> Layer<S> for WsgiLayer<H> {
    type Service = Wsgi<H, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Wsgi {
            shared: Arc::new(Shared {
                handler: self.handler.clone(),
                prefix: self.prefix.clone(),
                settings: self.settings.clone(),
            }),
            erased: erase(inner.clone()),
            inner,
        }
    }
}

impl<H> Clone for WsgiLayer<H> {
    fn clone(&self) -> Self {
        Self { handler: self.handler.clone(), prefix: self.prefix.clone(), settings: self.settings.clone() }
    }
}

impl<H> fmt::Debug for WsgiLayer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsgiLayer")
            .field("prefix", &self.prefix)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
