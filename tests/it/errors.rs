//! A12: what went wrong on the sync side, as the async side sees it.

use std::error::Error as _;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_wsgi::{Body, BoxError, Error, Input, Output, SyncHandler, Variables, WsgiLayer, gateway};

use crate::support::{Events, Server, VERSIONS, serve, soon, text};

#[derive(Debug)]
struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}", self.0)
    }
}

impl std::error::Error for Broken {}

/// Serves a handler under a layer that tells which error each response carries.
async fn watched<H: SyncHandler>(layer: WsgiLayer, handler: H) -> (Server, Events<Option<Error>>) {
    let events = Events::new();
    let tell = events.teller();
    let service = ServiceBuilder::new()
        .map_response(move |response: Response<Body>| {
            tell(response.extensions().get::<Error>().cloned());
            response
        })
        .layer(layer)
        .service(handler);
    (serve(service).await, events)
}

/// Fails before the first byte, in each way there is.
fn failing(request: Request<Input>) -> Result<Response<Output>, Broken> {
    Ok(Response::new(match request.uri().path() {
        "/call" => return Err(Broken("call")),
        "/iter" => Output::try_iter([Ok(""), Err(Broken("iter"))]),
        "/reader" => Output::reader(Reader),
        "/writer" => Output::writer(|w| {
            write!(w, "gathered, not sent")?;
            Err(io::Error::other(Broken("writer")))
        }),
        _ => "fine".into(),
    }))
}

struct Reader;

impl io::Read for Reader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(Broken("reader")))
    }
}

/// The error of ours that the client's error stands for.
fn broken(error: &Error) -> &Broken {
    let source = error.source().expect("a source");
    let inner = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let found = inner.map_or_else(|| source.downcast_ref(), |inner| inner.downcast_ref());
    found.expect("the handler's own error")
}

#[tokio::test]
async fn a12_a_failure_is_a_500_that_carries_its_error() {
    let (server, events) = watched(WsgiLayer::adapter(), failing).await;
    for version in VERSIONS {
        for path in ["/call", "/iter", "/reader", "/writer"] {
            let response = server.ask(version, "GET", path).await;
            assert_eq!(response.status(), 500, "{version:?} {path}");
            assert_eq!(response.headers()["content-type"], "text/plain");
            // What went wrong is the log's business, not the client's.
            assert_eq!(text(response).await, "Internal Server Error\n");
            let error = events.next().await.expect("an error");
            assert!(error.is_handler() && !error.is_panic(), "{error:?}");
            assert_eq!(broken(&error).0, &path[1..]);
        }
        assert_eq!(text(server.ask(version, "GET", "/").await).await, "fine");
        assert!(events.next().await.is_none());
    }
}

fn panicking(request: Request<Input>) -> Response<Output> {
    Response::new(match request.uri().path() {
        "/call" => panic!("no luck in {}", "call"),
        "/iter" => Output::iter(std::iter::from_fn(|| -> Option<String> { panic!("no luck in iter") })),
        "/writer" => Output::writer(|_| panic!("no luck in writer")),
        "/trailers" => Output::from("full").with_trailers(|| panic!("no luck in trailers")),
        _ => "fine".into(),
    })
}

#[tokio::test]
async fn a12_a_panic_is_a_500_that_carries_its_message() {
    let (server, events) = watched(WsgiLayer::adapter().workers(1), panicking).await;
    for version in VERSIONS {
        for path in ["/call", "/iter", "/writer", "/trailers"] {
            let response = server.ask(version, "GET", path).await;
            assert_eq!(response.status(), 500, "{version:?} {path}");
            let error = events.next().await.expect("an error");
            assert!(error.is_panic() && !error.is_handler(), "{error:?}");
            assert_eq!(error.to_string(), format!("the application panicked: no luck in {}", &path[1..]));
        }
        assert_eq!(text(server.ask(version, "GET", "/").await).await, "fine");
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn a12_a_response_that_cannot_be_sent_is_an_error_of_its_own() {
    let handler = |_: Request<Input>| Response::builder().header("content-length", "many").body("hello");
    let (server, events) = watched(WsgiLayer::adapter(), handler).await;
    assert_eq!(server.get("/").await.status(), 500);
    assert!(events.next().await.expect("an error").is_response());
}

/// A page that says what went wrong.
fn page(error: &Error, body: impl FnOnce(String) -> Output) -> Response<Output> {
    let cause = error.source().map(ToString::to_string);
    let kind = if error.is_panic() { "panic" } else { "failure" };
    let mut response = Response::new(body(format!("{kind}: {error}, {cause:?}")));
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    response.headers_mut().insert("x-page", "yes".parse().expect("a value"));
    response
}

#[tokio::test]
async fn a12_on_error_makes_another_response() {
    let layers = [
        WsgiLayer::adapter().on_error(|error| page(error, Into::into)),
        WsgiLayer::adapter().on_error(|error| page(error, |text| Output::iter([text]))),
        WsgiLayer::adapter()
            .on_error(|error| page(error, |text| Output::writer(move |w| w.write_all(text.as_bytes())))),
    ];
    for layer in layers {
        let (server, events) = watched(layer, |request: Request<Input>| match request.uri().path() {
            "/panic" => panic!("no luck"),
            _ => failing(request),
        })
        .await;
        for version in VERSIONS {
            for (path, expected) in [
                ("/call", "failure: the handler failed, Some(\"broken: call\")"),
                ("/iter", "failure: the handler failed, Some(\"broken: iter\")"),
                ("/writer", "failure: the handler failed, Some(\"broken: writer\")"),
                ("/panic", "panic: the application panicked: no luck, None"),
            ] {
                let response = server.ask(version, "GET", path).await;
                assert_eq!(response.status(), 502, "{version:?} {path}");
                assert_eq!(response.headers()["x-page"], "yes");
                assert_eq!(text(response).await, expected);
                let error = events.next().await.expect("an error");
                assert_eq!(error.is_panic(), path == "/panic");
            }
            assert_eq!(text(server.ask(version, "GET", "/").await).await, "fine");
            assert!(events.next().await.is_none());
        }
    }
}

#[tokio::test]
async fn a12_an_on_error_that_fails_gives_a_plain_500() {
    let layers = [
        WsgiLayer::adapter().on_error(|_| panic!("no luck in on_error")),
        WsgiLayer::adapter().on_error(|error| page(error, |_| Output::try_iter([Err::<&str, _>("again")]))),
        WsgiLayer::adapter()
            .on_error(|error| page(error, |_| Output::writer(|_| Err(io::Error::other("again"))))),
        WsgiLayer::adapter().on_error(|error| {
            let mut response = page(error, Into::into);
            response.headers_mut().insert("content-length", "many".parse().expect("a value"));
            response
        }),
    ];
    for layer in layers {
        let (server, events) = watched(layer.workers(1), failing).await;
        for version in VERSIONS {
            for path in ["/call", "/iter"] {
                let response = server.ask(version, "GET", path).await;
                assert_eq!(response.status(), 500, "{version:?} {path}");
                assert!(!response.headers().contains_key("x-page"));
                assert_eq!(text(response).await, "Internal Server Error\n");
                // The first error is the cause.
                let error = events.next().await.expect("an error");
                assert_eq!(broken(&error).0, &path[1..]);
            }
            assert_eq!(text(server.ask(version, "GET", "/").await).await, "fine");
            assert!(events.next().await.is_none());
        }
    }
}

/// Reads the whole body; only passes on what goes wrong.
fn reads(mut request: Request<Input>) -> io::Result<Response<String>> {
    let mut text = String::new();
    request.body_mut().read_to_string(&mut text)?;
    Ok(Response::new(text))
}

#[tokio::test]
async fn a12_a_body_that_comes_too_slowly_is_a_408() {
    let layer = WsgiLayer::adapter().prefetch(0).read_timeout(Duration::from_millis(10));
    let (server, events) = watched(layer, reads).await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\nconnection: close\r\n\r\nabc";
    let response = String::from_utf8(server.raw(request).await).expect("text");
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert!(response.ends_with("\r\n\r\nRequest Timeout\n"), "{response}");
    assert!(events.next().await.expect("an error").is_handler());
}

#[tokio::test]
async fn a12_a_body_of_another_length_than_declared_is_a_400() {
    for replaced in ["short", "much too long"] {
        let service = ServiceBuilder::new()
            .map_request(move |request: Request<Incoming>| request.map(|_| Body::from(replaced)))
            .layer(WsgiLayer::adapter())
            .service(reads);
        let server = serve(service).await;
        for version in VERSIONS {
            let request = server.request("POST", "/", Body::from("ten bytes."));
            let response = server.send(version, request).await.expect("a response");
            assert_eq!(response.status(), 400, "{version:?} {replaced}");
            assert_eq!(text(response).await, "Bad Request\n");
        }
    }
}

#[tokio::test]
async fn a12_a_handler_that_deals_with_a_bad_body_answers_what_it_likes() {
    let handler = |request: Request<Input>| match reads(request) {
        Ok(response) => response,
        Err(error) => Response::new(format!("{:?}", error.kind())),
    };
    let service = ServiceBuilder::new()
        .map_request(|request: Request<Incoming>| request.map(|_| Body::from("short")))
        .layer(WsgiLayer::adapter())
        .service(handler);
    let server = serve(service).await;
    let request = server.request("POST", "/", Body::from("ten bytes."));
    let response = server.send(http::Version::HTTP_11, request).await.expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "UnexpectedEof");
}

/// What an error can be asked.
type Question = (&'static str, fn(&Error) -> bool);

/// The questions that an error answers with yes.
fn answers(error: &Error) -> Vec<&'static str> {
    let questions: [Question; 10] = [
        ("handler", Error::is_handler),
        ("panic", Error::is_panic),
        ("overloaded", Error::is_overloaded),
        ("timed out", Error::is_timed_out),
        ("disconnected", Error::is_disconnected),
        ("length", Error::is_length),
        ("response", Error::is_response),
        ("request", Error::is_request),
        ("stuck", Error::is_stuck),
        ("inside async", Error::is_inside_async),
    ];
    questions.into_iter().filter_map(|(name, ask)| ask(error).then_some(name)).collect()
}

#[test]
fn a12_an_error_is_of_one_kind_only() {
    let of = |path: &str| {
        let handler = |request: Request<Input>| -> Result<Response<&'static str>, BoxError> {
            match request.uri().path() {
                "/panic" => panic!("no luck"),
                "/response" => Ok(Response::builder().status(103).body("")?),
                "/length" => Ok(Response::builder().header("content-length", "9").body("")?),
                _ => Err("no rows".into()),
            }
        };
        let request = Request::get(path).body(Input::empty()).expect("a request");
        let response = gateway::respond(&handler, request);
        response.extensions().get::<Error>().expect("an error").clone()
    };
    for kind in ["handler", "panic", "response", "length"] {
        assert_eq!(answers(&of(&format!("/{kind}"))), [kind]);
    }
    let variables: Variables = [("REQUEST_METHOD", "not one")].into_iter().collect();
    assert_eq!(answers(&variables.into_request().expect_err("no request")), ["request"]);
}

#[tokio::test]
async fn a12_a_requests_body_that_panics_is_no_fault_of_the_clients() {
    let handler = |mut request: Request<Input>| -> io::Result<Response<String>> {
        let mut text = String::new();
        request.body_mut().read_to_string(&mut text)?;
        Ok(Response::new(text))
    };
    for prefetch in [0, 1024] {
        let layer = WsgiLayer::adapter().prefetch(prefetch);
        let service = ServiceBuilder::new().layer(layer).service(handler);
        let response = soon(service.oneshot(Request::new(Body::new(Panicking)))).await.expect("a response");
        assert_eq!(response.status(), 500, "{prefetch}");
    }
}

struct Panicking;

impl http_body::Body for Panicking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        panic!("a body's own panic")
    }
}
