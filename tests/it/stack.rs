//! The stacks that the crossing lives in: axum and plain hyper, at different places in each.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::{Layer, Service, ServiceBuilder, ServiceExt as _, layer::layer_fn, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::trace::TraceLayer;
use tower_wsgi::{
    Body, BoxError, Environ, Error, Input, Next, Output, ResponseFuture, Scope, SyncHandler, Variables,
    WorkerPool, Wsgi, WsgiLayer, WsgiService,
};

use crate::support::{Gate, VERSIONS, eventually, serve, serve_axum, soon, text};

/// Tells what reached the sync side.
pub(crate) fn echo(request: Request<Input>) -> io::Result<Response<String>> {
    let environ = Environ::of(&request);
    let mount = String::from_utf8_lossy(&environ.script_name()).into_owned();
    let (parts, mut body) = request.into_parts();
    let mut text = String::new();
    body.read_to_string(&mut text)?;
    Ok(Response::new(format!("sync {} [{mount}]{} {text}", parts.method, parts.uri.path())))
}

pub(crate) fn forward(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
    Ok(next.forward(request))
}

pub(crate) fn run(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
    next.run(request)
}

/// A body of unknown length.
pub(crate) struct Chunks(VecDeque<Bytes>);

impl Chunks {
    pub(crate) fn new<const N: usize>(chunks: [&'static str; N]) -> Self {
        Self(chunks.map(Bytes::from).into())
    }
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }
}

async fn mounted_in_axum() {
    let upload = |headers: HeaderMap, body: String| async move {
        let length = headers.get("content-length").map(|value| value.to_str().expect("a number").to_owned());
        ([("x-b", headers["x-a"].clone())], format!("async {length:?} {body}"))
    };
    let router = Router::new()
        .route("/", get(|| async { "async" }))
        .route("/upload", post(upload))
        .layer(WsgiLayer::new(echo).at("/legacy"));
    let server = serve_axum(router).await;
    for version in VERSIONS {
        let response = server.ask(version, "GET", "/").await;
        assert_eq!(response.headers()["content-length"], "5", "{version:?}");
        assert_eq!(text(response).await, "async");

        let request = server.request("PUT", "/legacy/a/b", Body::from("hello"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(text(response).await, "sync PUT [/legacy]/a/b hello");

        let mut request = server.request("POST", "/upload", Body::from("hello"));
        request.headers_mut().insert("x-a", "1".parse().expect("a value"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(response.headers()["x-b"], "1");
        assert_eq!(text(response).await, "async Some(\"5\") hello");

        let mut request = server.request("POST", "/upload", Chunks::new(["hel", "lo"]));
        request.headers_mut().insert("x-a", "1".parse().expect("a value"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(text(response).await, "async None hello");

        for outside in ["/legacyfoo", "/other", "/legac"] {
            let response = server.ask(version, "GET", outside).await;
            assert_eq!(response.status(), 404, "{outside}");
            assert_eq!(text(response).await, "");
        }
        assert_eq!(server.ask(version, "GET", "/upload").await.status(), 405);
    }
}

#[tokio::test]
async fn a_mount_leaves_the_rest_to_axum() {
    mounted_in_axum().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_leaves_the_rest_to_axum_on_many_threads() {
    mounted_in_axum().await;
}

#[tokio::test]
async fn axum_takes_it_as_a_service_wherever_one_fits() {
    let router = Router::new()
        .route("/", get(|| async { "async" }))
        .route_service("/one/{id}", WsgiService::new(echo))
        .nest_service("/nested", WsgiService::new(echo))
        .fallback_service(WsgiService::new(echo));
    let server = serve_axum(router).await;
    for version in VERSIONS {
        for (path, expected) in [
            ("/", "async"),
            ("/one/2", "sync GET []/one/2 "),
            ("/nested/a/b", "sync GET [/nested]/a/b "),
            ("/nested", "sync GET [/nested]/ "),
            ("/else", "sync GET []/else "),
        ] {
            assert_eq!(text(server.ask(version, "GET", path).await).await, expected, "{version:?} {path}");
        }
    }
}

#[tokio::test]
async fn mounts_lie_one_over_the_other() {
    let router = Router::new()
        .route("/", get(|| async { "async" }))
        .layer(WsgiLayer::new(|_: Request<Input>| Response::new("inner")).at("/a/b"))
        .layer(WsgiLayer::new(|_: Request<Input>| Response::new("outer")).at("/a"));
    let server = serve_axum(router).await;
    for (path, expected) in [("/", "async"), ("/a", "outer"), ("/a/b", "outer")] {
        assert_eq!(text(server.get(path).await).await, expected);
    }
}

async fn in_plain_hyper() {
    let service = ServiceBuilder::new()
        .map_request(|request: Request<Incoming>| request.map(Body::new))
        .layer(WsgiLayer::new(echo).at("/legacy"))
        .service(service_fn(|request: Request<Body>| async {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            Ok::<_, Infallible>(Response::new(Body::from(body.to_vec())))
        }));
    let server = serve(service).await;
    for version in VERSIONS {
        for (path, expected) in [("/legacy/x", "sync POST [/legacy]/x hello"), ("/x", "hello")] {
            let request = server.request("POST", path, Chunks::new(["hel", "lo"]));
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(text(response).await, expected, "{version:?}");
        }
    }
}

#[tokio::test]
async fn it_stands_in_front_of_a_service_in_hyper() {
    in_plain_hyper().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stands_in_front_of_a_service_in_hyper_on_many_threads() {
    in_plain_hyper().await;
}

#[tokio::test]
async fn one_builder_holds_async_and_sync_layers() {
    let timing = layer_fn(|inner| {
        move |request: Request<Input>| {
            let mut response = SyncHandler::call(&inner, request)?;
            response.headers_mut().insert("x-timing", "sync".parse()?);
            Ok::<_, BoxError>(response)
        }
    });
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(CompressionLayer::new())
        .layer(WsgiLayer::adapter().workers(2))
        .layer(timing)
        .service(echo);
    let server = serve(service).await;
    for version in VERSIONS {
        let response = server.ask(version, "GET", "/x").await;
        assert_eq!(response.headers()["x-timing"], "sync");
        assert_eq!(text(response).await, "sync GET []/x ");
    }
}

/// A service that is never ready.
#[derive(Clone)]
struct NeverReady;

impl Service<Request<Body>> for NeverReady {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        pending()
    }
}

#[tokio::test]
async fn a10_always_ready() {
    fn is_ready<S: Service<Request<Body>>>(service: &mut S) -> bool {
        service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }
    let (gate, pool) = (Gate::new(), WorkerPool::new(1));
    let closed = gate.clone();
    let handler = move |_: Request<Input>| {
        closed.pass();
        Response::new("done")
    };
    let mut service = WsgiLayer::adapter().pool(pool.clone()).layer(handler.clone());
    let mut mount = WsgiLayer::new(handler).at("/mount").pool(pool.clone()).max_queued(0).layer(NeverReady);
    assert!(is_ready(&mut service) && is_ready(&mut mount));

    let running = tokio::spawn(service.call(Request::new(Body::empty())));
    eventually("the pool is full", || pool.stats().busy == 1).await;
    assert!(is_ready(&mut service) && is_ready(&mut mount));
    let beyond = Request::get("/mount").body(Body::empty()).expect("a request");
    let refused = mount.call(beyond).await.expect("a response");
    assert_eq!(refused.status(), 503);
    // The inner service is waited for by the requests that are for it, and by nobody else.
    let inner = tokio::spawn(mount.call(Request::new(Body::empty())));
    assert!(is_ready(&mut mount));

    gate.open();
    assert_eq!(soon(running).await.expect("no panic").expect("a response").status(), 200);
    // The worker is free a moment after its response is there.
    eventually("the pool is free", || pool.stats().busy == 0).await;
    let request = Request::get("/mount").body(Body::empty()).expect("a request");
    assert_eq!(soon(mount.call(request)).await.expect("a response").status(), 200);
    assert!(!inner.is_finished());
    inner.abort();
}

#[test]
fn public_types_go_where_they_are_needed() {
    fn send<T: Send>() {}
    fn shared<T: Clone + Send + Sync>() {}
    type Handler = fn(Request<Input>) -> Response<Output>;

    shared::<WsgiLayer<Handler>>();
    shared::<WsgiLayer>();
    shared::<WsgiService<Handler>>();
    shared::<Wsgi<Handler, NeverReady>>();
    shared::<WorkerPool>();
    shared::<Next>();
    shared::<Environ>();
    shared::<Scope>();
    shared::<Error>();
    shared::<Variables>();
    send::<Body>();
    send::<Input>();
    send::<Output>();
    send::<ResponseFuture<Handler>>();
    fn unpin<T: Unpin>() {}
    unpin::<Body>();
    unpin::<Input>();
    unpin::<Output>();
    unpin::<ResponseFuture<Handler>>();
    fn boxed<T: std::error::Error + Send + Sync + 'static>() {}
    boxed::<Error>();
}

#[tokio::test]
async fn c2_a_mount_in_a_router_has_to_be_its_last_word() {
    let mount = || WsgiLayer::new(echo).at("/legacy");
    let routes = || Router::new().route("/", get(|| async { "async" }));
    let elsewhere = || Router::new().route("/else", get(|| async { "elsewhere" }));
    let in_front = "sync GET [/legacy]/x ";
    let routers: [(&str, Router, &str, Option<&str>); 9] = [
        ("the last layer", routes().layer(mount()), "/legacy/x", Some(in_front)),
        ("a service", routes().nest_service("/legacy", WsgiService::new(echo)), "/legacy/x", Some(in_front)),
        (
            "a nested service",
            Router::new().nest("/shop", routes().nest_service("/legacy", WsgiService::new(echo))),
            "/shop/legacy/x",
            Some("sync GET [/shop/legacy]/x "),
        ),
        ("merged into it", elsewhere().merge(routes().layer(mount())), "/legacy/x", Some(in_front)),
        // These lead past it.
        ("a route layer", routes().route_layer(mount()), "/legacy/x", None),
        ("merged out of it", routes().layer(mount()).merge(elsewhere()), "/legacy/x", None),
        ("nested", Router::new().nest("/shop", routes().layer(mount())), "/shop/legacy/x", None),
        (
            "nested, without the prefix",
            Router::new().nest("/shop", routes().layer(mount())),
            "/legacy/x",
            None,
        ),
        (
            "a fallback behind it",
            routes().layer(mount()).fallback(|| async { "fallback" }),
            "/legacy/x",
            Some("fallback"),
        ),
    ];
    for (what, router, path, expected) in routers {
        let request = Request::get(path).body(axum::body::Body::empty()).expect("a request");
        let response = soon(router.oneshot(request)).await.expect("a response");
        assert_eq!(response.status() == 404, expected.is_none(), "{what}");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, expected.unwrap_or_default(), "{what}");
    }
}
