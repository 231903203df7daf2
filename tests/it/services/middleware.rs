//! Stacks of tower's and tower-http's layers inside sync hosts.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING, ORIGIN, VARY,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_wsgi::{AsgiLayer, Body, BoxError, Error, Input, Output, SyncHandler, WorkerPool, sync_fn};

use super::{ask, host};
use crate::support::{Gate, VERSIONS, blocking, eventually, idle, soon, text, watched};

const TEXT: &str = "Hello World! Hello World! Hello World! Hello World! Hello World! Hello World!";

/// As people stack them in front of a router.
fn stack() -> impl SyncHandler + Clone {
    let router = Router::new()
        .route("/", get(|| async { TEXT }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/panic", get(|| async { panic!("no luck") as &'static str }))
        .route("/never", get(std::future::pending::<&'static str>));
    ServiceBuilder::new()
        .layer(AsgiLayer::adapter())
        .layer(TraceLayer::new_for_http())
        .layer(CatchPanicLayer::new())
        .layer(CorsLayer::permissive())
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(30)))
        .layer(RequestBodyLimitLayer::new(1000))
        .layer(RequestDecompressionLayer::new())
        .service(router)
}

#[tokio::test]
async fn b2_a_whole_stack_of_tower_http() {
    let pool = WorkerPool::new(2);
    let server = host(&pool, stack()).await;
    for version in VERSIONS {
        // Compression, and the header that says so.
        let mut request = server.request("GET", "/", Body::empty());
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static("http://example.org"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(response.headers().contains_key(VARY));
        let packed = soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
        assert!(packed.starts_with(b"\x1f\x8b") && packed.len() < TEXT.len());

        // What was packed there is unpacked here.
        let mut request = server.request("POST", "/echo", Body::from(packed));
        request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(text(response).await, TEXT, "{version:?}");

        // A preflight is answered before the router.
        let mut request = server.request("OPTIONS", "/echo", Body::empty());
        request.headers_mut().insert(ORIGIN, HeaderValue::from_static("http://example.org"));
        request.headers_mut().insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");

        let request = server.request("POST", "/echo", Body::from(vec![b'x'; 1001]));
        assert_eq!(soon(server.send(version, request)).await.expect("a response").status(), 413);
        assert_eq!(server.ask(version, "GET", "/panic").await.status(), 500);
        assert_eq!(server.ask(version, "GET", "/never").await.status(), 504);
        idle(&pool).await;
    }
}

#[test]
fn b2_a_whole_stack_of_tower_http_on_a_plain_thread() {
    watched(|| {
        let handler = stack();
        let request = |path| Request::get(path).body(Input::empty()).expect("a request");
        assert_eq!(ask(&handler, request("/")).expect("a response").body(), TEXT);
        assert_eq!(ask(&handler, request("/panic")).expect("a response").status(), 500);
        assert_eq!(ask(&handler, request("/never")).expect("a response").status(), 504);
        let request = Request::post("/echo").body(Input::from(vec![b'x'; 1001])).expect("a request");
        assert_eq!(ask(&handler, request).expect("a response").status(), 413);
        let request = Request::post("/echo").body(Input::from("hello")).expect("a request");
        assert_eq!(ask(&handler, request).expect("a response").body(), "hello");
    });
}

#[test]
fn b6_a_panic_that_a_layer_catches_is_a_response_and_else_an_err() {
    watched(|| {
        let router = || Router::new().route("/", get(|| async { panic!("no luck") as &'static str }));
        let adapter = || ServiceBuilder::new().layer(AsgiLayer::adapter());
        let request = || Request::get("/").body(Input::empty()).expect("a request");
        let caught =
            adapter().layer(CatchPanicLayer::new()).service(router()).call(request()).expect("a response");
        assert_eq!(caught.status(), 500);
        assert!(caught.extensions().get::<Error>().is_none());
        let error = adapter().service(router()).call(request()).expect_err("an error");
        assert!(error.downcast_ref::<Error>().is_some_and(Error::is_panic));
    });
}

#[test]
fn b6_the_errors_of_towers_layers_are_the_sync_sides() {
    watched(|| {
        let never =
            service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let handler = ServiceBuilder::new()
            .layer(AsgiLayer::adapter())
            .timeout(Duration::from_millis(1))
            .service(never);
        let error = handler.call(Request::new(Input::empty())).expect_err("an error");
        assert!(error.is::<Elapsed>(), "{error}");
    });
}

/// A service that notes how many calls run at once, each until it is let go.
#[derive(Clone, Default)]
struct Slow {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    go: Arc<Notify>,
}

impl Slow {
    async fn call(self, _: Request<Body>) -> Result<Response<Body>, BoxError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.go.notified().await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        Ok(Response::new(Body::from("done")))
    }

    fn service(
        &self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static
    + use<> {
        let slow = self.clone();
        service_fn(move |request: Request<Body>| slow.clone().call(request))
    }
}

#[tokio::test]
async fn b8_readiness_that_has_to_be_waited_for() {
    const REQUESTS: usize = 6;
    let slow = Slow::default();
    let pool = WorkerPool::new(2);
    let handler =
        ServiceBuilder::new().layer(AsgiLayer::adapter()).concurrency_limit(1).service(slow.service());
    let server = Arc::new(host(&pool, handler).await);
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let server = server.clone();
        requests.spawn(async move { text(server.get("/").await).await });
    }
    // One runs, the others wait for their turn; each has lent its place to the next, up to four for each worker.
    eventually("all wait", || pool.stats().lending == REQUESTS).await;
    assert_eq!(slow.running.load(Ordering::SeqCst), 1);
    for left in (0..REQUESTS).rev() {
        slow.go.notify_one();
        assert_eq!(soon(requests.join_next()).await.expect("a request").expect("no panic"), "done");
        let running = usize::from(left > 0);
        eventually("the next one runs", || slow.running.load(Ordering::SeqCst) == running).await;
    }
    assert_eq!(slow.most.load(Ordering::SeqCst), 1);
    idle(&pool).await;
}

#[tokio::test]
async fn b5_who_leaves_while_it_waits_for_readiness_takes_no_turn() {
    let slow = Slow::default();
    let pool = WorkerPool::new(2);
    let handler =
        ServiceBuilder::new().layer(AsgiLayer::adapter()).concurrency_limit(1).service(slow.service());
    let server = Arc::new(host(&pool, handler).await);
    let get = |server: Arc<crate::support::Server>| async move { server.get("/").await.status() };
    let first = tokio::spawn(get(server.clone()));
    eventually("the first runs", || slow.running.load(Ordering::SeqCst) == 1).await;
    let leaves = tokio::spawn(get(server.clone()));
    eventually("it waits", || pool.stats().lending == 2).await;
    let stays = tokio::spawn(get(server.clone()));
    eventually("both wait", || pool.stats().lending == 3).await;
    leaves.abort();
    eventually("one is gone", || pool.stats().lending == 2).await;
    slow.go.notify_one();
    assert_eq!(soon(first).await.expect("no panic"), 200);
    eventually("the next one runs", || slow.running.load(Ordering::SeqCst) == 1).await;
    slow.go.notify_one();
    assert_eq!(soon(stays).await.expect("no panic"), 200);
    idle(&pool).await;
}

#[tokio::test]
async fn b1_a_limit_is_one_for_plain_threads_and_workers() {
    let slow = Slow::default();
    let pool = WorkerPool::new(1);
    let handler =
        ServiceBuilder::new().layer(AsgiLayer::adapter()).concurrency_limit(1).service(slow.service());
    let server = host(&pool, handler.clone()).await;
    let plain =
        std::thread::spawn(move || ask(&handler, Request::new(Input::empty())).map(Response::into_body));
    eventually("the thread's runs", || slow.running.load(Ordering::SeqCst) == 1).await;
    let asked = async { text(server.get("/").await).await };
    let release = async {
        eventually("the worker's waits", || pool.stats().lending == 1).await;
        slow.go.notify_one();
        // Its thread is done before the other one begins.
        let body = blocking(|| plain.join().expect("no panic")).await;
        assert_eq!(body.expect("a response"), "done");
        slow.go.notify_one();
    };
    let (answer, ()) = soon(async { tokio::join!(asked, release) }).await;
    assert_eq!(answer, "done");
    assert_eq!(slow.most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn b6_what_load_shed_turns_away_is_an_err_on_the_sync_side() {
    let slow = Slow::default();
    let pool = WorkerPool::new(4);
    let sheds = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| match next.call(request) {
        Err(error) if error.is::<Overloaded>() => {
            Ok(Response::builder().status(503).body(Output::from("try again"))?)
        }
        other => other,
    });
    let handler = ServiceBuilder::new()
        .layer(sheds)
        .layer(AsgiLayer::adapter())
        .load_shed()
        .concurrency_limit(1)
        .service(slow.service());
    let server = Arc::new(host(&pool, handler).await);
    for version in VERSIONS {
        let first = tokio::spawn({
            let server = server.clone();
            async move { text(server.ask(version, "GET", "/").await).await }
        });
        eventually("the first runs", || slow.running.load(Ordering::SeqCst) == 1).await;
        for _ in 0..3 {
            let response = server.ask(version, "GET", "/").await;
            assert_eq!(response.status(), 503, "{version:?}");
            assert_eq!(text(response).await, "try again");
        }
        slow.go.notify_one();
        assert_eq!(soon(first).await.expect("no panic"), "done");
        idle(&pool).await;
    }
}

/// A service that cannot be cloned: it counts its calls without a lock.
struct Counter(usize);

impl Service<Request<Body>> for Counter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.0 += 1;
        std::future::ready(Ok(Response::new(Body::from(self.0.to_string()))))
    }
}

#[tokio::test]
async fn b2_a_buffer_makes_a_handler_of_a_service_that_cannot_be_cloned() {
    let handler = ServiceBuilder::new().layer(AsgiLayer::adapter()).buffer(2).service(Counter(0));
    let server = Arc::new(host(&WorkerPool::new(2), handler).await);
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let server = server.clone();
        requests.spawn(async move { text(server.get("/").await).await.parse::<usize>().expect("a number") });
    }
    let mut counted = soon(requests.join_all()).await;
    counted.sort_unstable();
    assert!(counted.into_iter().eq(1..=20));
}

#[test]
fn b2_a_buffer_on_plain_threads() {
    watched(|| {
        // Its own task needs a runtime where it is made; the threads that call it need none.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let handler = {
            let _runtime = runtime.enter();
            ServiceBuilder::new().layer(AsgiLayer::adapter()).buffer(1).service(Counter(0))
        };
        let handler = Arc::new(handler);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let handler = handler.clone();
                std::thread::spawn(move || {
                    let ask =
                        |_| ask(&*handler, Request::new(Input::empty())).expect("a response").into_body();
                    (0..10).map(ask).map(|text| text.parse::<usize>().expect("a number")).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut counted: Vec<_> =
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
        counted.sort_unstable();
        assert!(counted.into_iter().eq(1..=40));
    });
}

#[test]
fn b6_a_buffer_whose_runtime_is_gone_is_an_err() {
    watched(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let handler = {
            let _runtime = runtime.enter();
            ServiceBuilder::new().layer(AsgiLayer::adapter()).buffer(1).service(Counter(0))
        };
        drop(runtime);
        handler.call(Request::new(Input::empty())).expect_err("an error");
    });
}

#[tokio::test]
async fn b8_an_async_limit_that_sync_code_holds_while_it_blocks() {
    // The limit is around the crossing inside: what blocks there holds its permit, and only that.
    let (pool, gate) = (WorkerPool::new(1), Gate::new());
    let (inner, closed) = (WorkerPool::new(4), gate.clone());
    let handler = ServiceBuilder::new()
        .layer(AsgiLayer::adapter())
        .concurrency_limit(2)
        .layer(tower_wsgi::WsgiLayer::adapter().pool(inner.clone()))
        .service(move |_: Request<Input>| {
            closed.pass();
            Response::new("done")
        });
    let server = Arc::new(host(&pool, handler).await);
    let mut requests = JoinSet::new();
    for _ in 0..4 {
        let server = server.clone();
        requests.spawn(async move { text(server.get("/").await).await });
    }
    eventually("all wait", || pool.stats().lending == 4).await;
    eventually("two are inside", || inner.stats().busy == 2).await;
    gate.open();
    assert_eq!(soon(requests.join_all()).await, ["done"; 4]);
    idle(&inner).await;
}
