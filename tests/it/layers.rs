//! The crossing under and over the layers of tower and tower-http. Under one is inside it; over one is in front of a service that it wraps, called
//! through `Next`.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::util::ServiceExt;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::decompression::DecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_wsgi::{Body, BoxError, Environ, Error, Input, Next, Output, WorkerPool, WsgiLayer, WsgiService};

use crate::stack::{Chunks, echo, forward, run};
use crate::support::{Events, Gate, PATIENCE, Server, VERSIONS, eventually, serve, soon, text};

/// Longer than a test may take: who waits for it is woken by a clock that the test moves.
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn under_trace() {
    let events = Events::new();
    let (response, chunk, failure) = (events.teller(), events.teller(), events.teller());
    let trace = TraceLayer::new_for_http()
        .on_response(move |r: &Response<_>, _: Duration, _: &tracing::Span| response(r.status().to_string()))
        .on_body_chunk(move |data: &Bytes, _: Duration, _: &tracing::Span| chunk(format!("{data:?}")))
        .on_failure(move |class, _: Duration, _: &tracing::Span| failure(format!("{class}")));
    let service =
        ServiceBuilder::new().layer(trace).layer(WsgiLayer::adapter()).service(|request: Request<Input>| {
            match request.uri().path() {
                "/fails" => Err("no database"),
                _ => Ok(Response::new(Output::iter(["a", "b"]))),
            }
        });
    let server = serve(service).await;
    assert_eq!(text(server.get("/").await).await, "ab");
    assert_eq!(events.drain(), ["200 OK", "b\"a\"", "b\"b\""]);
    assert_eq!(server.get("/fails").await.status(), 500);
    let told = events.drain();
    assert_eq!(told[..2], ["500 Internal Server Error", "Status code: 500 Internal Server Error"]);
}

/// As many lines as make several chunks of a compressed body.
fn lines() -> String {
    (0..2000).map(|n| format!("line {n}\n")).collect()
}

async fn unpacked(server: &Server, version: Version) -> String {
    let client = service_fn(|request| server.send(version, request));
    let client = DecompressionLayer::new().layer(client);
    let response = soon(client.oneshot(server.request("GET", "/", Body::empty()))).await;
    let body = soon(response.expect("a response").into_body().collect()).await.expect("a whole body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

#[tokio::test]
async fn under_and_over_compression() {
    let stream = |_: Request<Input>| Response::new(Output::iter((0..2000).map(|n| format!("line {n}\n"))));
    let under =
        ServiceBuilder::new().layer(CompressionLayer::new()).layer(WsgiLayer::adapter()).service(stream);
    let over = ServiceBuilder::new()
        .map_request(|request: Request<Incoming>| request.map(Body::new))
        .layer(WsgiLayer::new(run))
        .layer(CompressionLayer::new())
        .service(WsgiService::new(stream));
    for server in [serve(under).await, serve(over).await] {
        for version in VERSIONS {
            assert_eq!(unpacked(&server, version).await, lines());
            let mut request = server.request("GET", "/", Body::empty());
            request.headers_mut().insert("accept-encoding", "gzip".parse().expect("a value"));
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.headers()["content-encoding"], "gzip");
            assert!(!response.headers().contains_key("content-length"));
            let packed = soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
            assert!(packed.starts_with(b"\x1f\x8b"));
        }
    }
}

#[tokio::test]
async fn a6_compression_does_not_hide_that_a_body_was_cut_off() {
    let chunks = || (0..2000).map(|n| Ok(format!("line {n}\n"))).chain([Err("no database")]);
    let service = ServiceBuilder::new()
        .layer(CompressionLayer::new())
        .layer(WsgiLayer::adapter())
        .service(move |_: Request<Input>| Response::new(Output::try_iter(chunks())));
    let server = serve(service).await;
    for version in VERSIONS {
        let mut request = server.request("GET", "/", Body::empty());
        request.headers_mut().insert("accept-encoding", "gzip".parse().expect("a value"));
        // Compressed, the whole of it may be less than a buffer: then the failure comes before the head.
        if let Ok(response) = soon(server.send(version, request)).await {
            soon(response.into_body().collect()).await.expect_err("a body that was cut off");
        }
    }
}

/// Moves the clock to when everything with a time limit has run out of it.
async fn let_time_pass() {
    tokio::time::pause();
    tokio::time::advance(2 * HOUR).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a8_under_timeout_the_handler_hears_of_it() {
    let events = Events::new();
    let tell = events.teller();
    let handler = move |request: Request<Input>| {
        let environ = Environ::of(&request);
        assert!(!environ.is_disconnected());
        tell("started");
        let deadline = std::time::Instant::now() + PATIENCE;
        while !environ.is_disconnected() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        tell(if environ.is_disconnected() { "disconnected" } else { "never disconnected" });
        Response::new("too late")
    };
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, HOUR))
        .layer(WsgiLayer::adapter())
        .service(handler);
    let server = serve(service).await;
    for version in VERSIONS {
        let request = server.request("GET", "/", Body::empty());
        let (response, ()) = tokio::join!(server.send(version, request), async {
            assert_eq!(events.next().await, "started");
            let_time_pass().await;
        });
        assert_eq!(response.expect("a response").status(), 408);
        assert_eq!(events.next().await, "disconnected");
    }
}

#[tokio::test]
async fn over_timeout() {
    for app in [run, forward] {
        let events = Events::new();
        let tell = events.teller();
        let service = ServiceBuilder::new()
            .map_request(|request: Request<Incoming>| request.map(Body::new))
            .layer(WsgiLayer::new(app))
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, HOUR))
            .service(service_fn(move |_: Request<Body>| {
                tell("started");
                pending::<Result<Response<Body>, Infallible>>()
            }));
        let server = serve(service).await;
        let request = server.request("GET", "/", Body::empty());
        let (response, ()) = tokio::join!(server.send(Version::HTTP_11, request), async {
            assert_eq!(events.next().await, "started");
            let_time_pass().await;
        });
        assert_eq!(response.expect("a response").status(), 408);
    }
}

#[tokio::test]
async fn a12_under_a_body_limit_what_is_too_large_is_a_413() {
    let service =
        ServiceBuilder::new().layer(RequestBodyLimitLayer::new(8)).layer(WsgiLayer::adapter()).service(echo);
    let server = serve(service).await;
    for version in VERSIONS {
        for (body, status) in [("hello", 200), ("hello world", 413)] {
            let request = server.request("POST", "/", Body::from(body));
            let declared = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(declared.status(), status, "{version:?}");
            let (first, second) = body.split_at(3);
            let request = server.request("POST", "/", Chunks::new([first, second]));
            let chunked = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(chunked.status(), status, "{version:?}");
        }
    }
}

#[tokio::test]
async fn over_a_body_limit() {
    let inner = ServiceBuilder::new().layer(RequestBodyLimitLayer::new(8)).service(WsgiService::new(echo));
    for app in [run, forward] {
        let service = ServiceBuilder::new()
            .map_request(|request: Request<Incoming>| request.map(Body::new))
            .layer(WsgiLayer::new(app))
            .service(inner.clone());
        let server = serve(service).await;
        for (body, status) in [("hello", 200), ("hello world", 413)] {
            let request = server.request("POST", "/", Body::from(body));
            let declared = soon(server.send(Version::HTTP_11, request)).await.expect("a response");
            assert_eq!(declared.status(), status);
            let (first, second) = body.split_at(3);
            let request = server.request("POST", "/", Chunks::new([first, second]));
            let chunked = soon(server.send(Version::HTTP_11, request)).await.expect("a response");
            assert_eq!(chunked.status(), status);
        }
    }
}

#[tokio::test]
async fn a11_a_panic_never_reaches_catch_panic_above() {
    let caught = |_| Response::builder().status(599).body(Body::empty()).expect("a response");
    let service = ServiceBuilder::new()
        .layer(CatchPanicLayer::custom(caught))
        .layer(WsgiLayer::adapter().workers(1))
        .service(|request: Request<Input>| match request.uri().path() {
            "/panic" => panic!("no luck"),
            _ => Response::new("alive"),
        });
    let server = serve(service).await;
    for version in VERSIONS {
        assert_eq!(server.ask(version, "GET", "/panic").await.status(), 500);
        assert_eq!(text(server.ask(version, "GET", "/").await).await, "alive");
    }
}

#[tokio::test]
async fn over_catch_panic() {
    async fn panics(_: Request<Body>) -> Result<Response<Body>, Infallible> {
        panic!("no luck")
    }
    let caught = |_| Response::builder().status(599).body(Body::empty()).expect("a response");
    for app in [run, forward] {
        let service = ServiceBuilder::new()
            .map_request(|request: Request<Incoming>| request.map(Body::new))
            .layer(WsgiLayer::new(app).at("/mount"))
            .layer(CatchPanicLayer::custom(caught))
            .service(service_fn(panics));
        let server = serve(service).await;
        for path in ["/", "/mount"] {
            assert_eq!(server.get(path).await.status(), 599, "{path}");
        }
    }
}

#[tokio::test]
async fn under_and_over_cors() {
    let under =
        ServiceBuilder::new().layer(CorsLayer::permissive()).layer(WsgiLayer::adapter()).service(echo);
    let over = ServiceBuilder::new()
        .map_request(|request: Request<Incoming>| request.map(Body::new))
        .layer(WsgiLayer::new(forward))
        .layer(CorsLayer::permissive())
        .service(WsgiService::new(echo));
    for server in [serve(under).await, serve(over).await] {
        for (method, expected) in [("GET", "sync GET []/x "), ("OPTIONS", "")] {
            let mut request = server.request(method, "/x", Body::empty());
            request.headers_mut().insert("origin", "http://example.org".parse().expect("a value"));
            let asked = "GET".parse().expect("a value");
            request.headers_mut().insert("access-control-request-method", asked);
            let response = soon(server.send(Version::HTTP_11, request)).await.expect("a response");
            assert_eq!(response.headers()["access-control-allow-origin"], "*");
            assert_eq!(text(response).await, expected);
        }
    }
}

#[tokio::test]
async fn a10_under_load_shed_nothing_is_shed() {
    let (gate, pool) = (Gate::new(), WorkerPool::new(1));
    let closed = gate.clone();
    let service = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: BoxError| async { StatusCode::TOO_MANY_REQUESTS }))
        .layer(LoadShedLayer::new())
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .service(move |_: Request<Input>| {
            closed.pass();
            Response::new("done")
        });
    let server = serve(service).await;
    let (first, second, ()) = tokio::join!(server.get("/"), server.get("/"), async {
        eventually("one runs, one waits", || pool.stats().busy == 1 && pool.stats().queued == 1).await;
        gate.open();
    });
    assert_eq!((text(first).await, text(second).await), ("done".into(), "done".into()));
}

#[tokio::test]
async fn under_a_concurrency_limit_and_a_buffer() {
    let gate = Gate::new();
    let events = Events::new();
    let (closed, tell) = (gate.clone(), events.teller());
    let service = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: BoxError| async { StatusCode::TOO_MANY_REQUESTS }))
        .layer(BufferLayer::new(8))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(WsgiLayer::adapter())
        .service(move |_: Request<Input>| {
            tell(());
            closed.pass();
            Response::new("done")
        });
    let server = serve(service).await;
    let (first, second) = tokio::join!(server.get("/"), async {
        events.next().await;
        let second = server.get("/").await;
        gate.open();
        second
    });
    assert_eq!(text(first).await, "done");
    assert_eq!(second.status(), 429);
    // The permit came back with the first response.
    assert_eq!(text(server.get("/").await).await, "done");
}

#[tokio::test]
async fn over_a_buffer_and_a_concurrency_limit() {
    for app in [run, forward] {
        let (entered, go) = (Events::new(), Arc::new(Notify::new()));
        let (tell, wait) = (entered.teller(), go.clone());
        let service = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(|_: BoxError| async { StatusCode::BAD_GATEWAY }))
            .map_request(|request: Request<Incoming>| request.map(Body::new))
            .layer(WsgiLayer::new(app).at("/mount"))
            .layer(BufferLayer::new(8))
            .layer(ConcurrencyLimitLayer::new(1))
            .service(service_fn(move |request: Request<Body>| {
                let wait = wait.clone();
                tell(request.uri().path().to_owned());
                async move {
                    wait.notified().await;
                    Ok::<_, Infallible>(Response::new(Body::from("done")))
                }
            }));
        let server = serve(service).await;
        // One at a time, whether they come through the mount or beside it.
        let (first, second, ()) = tokio::join!(server.get("/mount"), server.get("/"), async {
            let first = entered.next().await;
            assert_eq!(entered.drain(), [""; 0]);
            go.notify_one();
            assert_ne!(entered.next().await, first);
            go.notify_one();
        });
        assert_eq!((text(first).await, text(second).await), ("done".into(), "done".into()));
    }
}

#[tokio::test]
async fn a12_over_load_shed_the_overload_is_seen_by_both_sides() {
    fn answers(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
        match next.run(request) {
            Err(error) if error.is::<tower::load_shed::error::Overloaded>() => {
                Ok(Response::new("the handler saw it".into()))
            }
            other => other,
        }
    }
    let events = Events::new();
    let tell = events.teller();
    let full = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(0))
        .service(service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) }));
    let service = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: BoxError| async { StatusCode::TOO_MANY_REQUESTS }))
        .map_request(|request: Request<Incoming>| request.map(Body::new))
        .map_response(move |response: Response<Body>| {
            tell(response.extensions().get::<Error>().cloned());
            response
        })
        .layer(WsgiLayer::new(answers).at("/run"))
        .layer(WsgiLayer::new(forward).at("/forward"))
        .service(full);
    let server = serve(service).await;
    assert_eq!(server.get("/").await.status(), 429);
    assert_eq!(text(server.get("/run").await).await, "the handler saw it");
    assert!(events.next().await.is_none());
    assert_eq!(server.get("/forward").await.status(), 500);
    let error = events.next().await.expect("an error");
    let source = std::error::Error::source(&error).expect("a source");
    assert!(source.is::<tower::load_shed::error::Overloaded>());
}
