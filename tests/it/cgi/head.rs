//! The head that a CGI program writes, and when.

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use axum::routing::get as on_get;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::sync::mpsc;
use tower_wsgi::gateway::cgi;
use tower_wsgi::{AsgiHandler, Body, BoxError, Input, Output};

use super::{Answer, Flushes, Untouched, get, plain, serve};
use crate::support::{Events, watched};

fn status(status: u16) -> impl Fn(Request<Input>) -> Response<Output> + Send + Sync + 'static {
    move |_| Response::builder().status(status).body("body".into()).expect("a response")
}

#[test]
fn c1_the_status_line_has_the_reason_if_there_is_one() {
    for (code, expected) in
        [(200, "200 OK"), (201, "201 Created"), (418, "418 I'm a teapot"), (503, "503 Service Unavailable")]
    {
        let (answer, served) = get(status(code), "/");
        served.expect("no error");
        assert_eq!(answer.status, expected);
        assert_eq!(answer.text(), "body");
    }
}

/// `Status = "Status:" status-code SP reason-phrase NL`, where the phrase may be empty, and the space may not (RFC 3875, section 6.3.3).
#[test]
fn c1_a_status_without_a_known_reason_keeps_the_space_before_it() {
    for code in [299, 599, 999] {
        let (answer, _) = get(status(code), "/");
        assert_eq!(answer.status, format!("{code} "));
    }
}

#[test]
fn c1_headers_go_out_one_by_one() {
    let handler = |_: Request<Input>| {
        let response = Response::builder()
            .header("x-first", "1")
            .header("set-cookie", "a=1; Path=/")
            .header("set-cookie", "b=2, or not")
            .header("vary", "accept")
            .header("vary", "cookie")
            .header("x-tab", "a\tb")
            .header("content-type", "text/html");
        response.body("body")
    };
    let (answer, served) = get(handler, "/");
    served.expect("no error");
    let all = |name: &str| -> Vec<_> { answer.headers.get_all(name).iter().collect() };
    assert_eq!(all("x-first"), ["1"]);
    assert_eq!(all("set-cookie"), ["a=1; Path=/", "b=2, or not"]);
    assert_eq!(all("vary"), ["accept", "cookie"]);
    assert_eq!(all("x-tab"), ["a\tb"]);
    assert_eq!(all("content-type"), ["text/html"]);
    assert_eq!(all("content-length"), ["4"]);
}

#[test]
fn c1_a_header_keeps_the_bytes_that_are_no_ascii() {
    let value = http::HeaderValue::from_bytes(b"caf\xe9").expect("a value");
    let handler = move |_: Request<Input>| Response::builder().header("x-name", value.clone()).body("");
    let output = watched(move || {
        let mut output = Vec::new();
        cgi::serve(&handler, plain(), Untouched, &mut output).expect("no error");
        output
    });
    assert!(output.windows(14).any(|bytes| bytes == b"x-name: caf\xe9\r\n"), "{output:?}");
}

#[test]
fn c1_a_body_has_a_type() {
    let bodies: [fn() -> Output; 4] = [
        || "body".into(),
        || Output::iter(["body"]),
        || Output::writer(|w| w.write_all(b"body")),
        || Output::body(Body::from("body")),
    ];
    for body in bodies {
        let (answer, _) = get(move |_: Request<Input>| Response::new(body()), "/");
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert_eq!(answer.text(), "body");
    }
    let (answer, _) =
        get(|_: Request<Input>| Response::builder().header("content-type", "text/css").body("p {}"), "/");
    assert_eq!(answer.headers.get_all("content-type").iter().count(), 1);
    assert_eq!(answer.headers["content-type"], "text/css");
    // It was cut off by its length before it was written.
    let cut =
        |_: Request<Input>| Response::builder().header("content-length", "3").body(Output::iter(["body"]));
    let (answer, _) = get(cut, "/");
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(answer.text(), "bod");
    // What has no body needs no type.
    let (answer, _) =
        get(|_: Request<Input>| Response::builder().status(303).header("location", "/x").body(()), "/");
    assert!(!answer.headers.contains_key("content-type"), "{answer:?}");
    assert_eq!(answer.headers["content-length"], "0");
}

#[test]
fn c3_what_is_the_hosts_business_is_dropped() {
    let handler = |_: Request<Input>| {
        let response = Response::builder()
            .status(201)
            .header("status", "500 Never")
            .header("connection", "close, x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("transfer-encoding", "chunked")
            .header("te", "trailers")
            .header("upgrade", "websocket")
            .header("proxy-connection", "close")
            .header("x-public", "1");
        response.body(Output::iter(["body"]))
    };
    let (answer, served) = get(handler, "/");
    served.expect("no error");
    // `Answer::parse` would not take a second status.
    assert_eq!(answer.status, "201 Created");
    let mut names: Vec<_> = answer.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "x-public"]);
}

#[test]
fn a14_a_bodiless_response_has_none_and_its_producer_is_not_run() {
    for (method, code) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let dropped = Events::new();
        let tell = dropped.teller();
        let handler = move |_: Request<Input>| {
            let guard = Guard(Box::new(tell.clone()));
            let never = std::iter::from_fn(move || -> Option<String> {
                let _held = &guard;
                panic!("the producer runs");
            });
            Response::builder().status(code).header("x-a", "1").body(Output::iter(never))
        };
        let variables = [("REQUEST_METHOD", method), ("PATH_INFO", "/")];
        let (answer, served) = serve(handler, &variables, Untouched);
        served.expect("no error");
        assert_eq!(&answer.status[..3], code.to_string());
        assert_eq!(answer.headers["x-a"], "1");
        assert_eq!(answer.text(), "");
        assert_eq!(dropped.drain(), [()]);
    }
}

/// Tells its drop.
pub(super) struct Guard(pub(super) Box<dyn Fn(()) + Send>);

impl Drop for Guard {
    fn drop(&mut self) {
        (self.0)(());
    }
}

#[test]
fn a14_head_declares_what_get_would_send() {
    let router = || AsgiHandler::new(Router::<()>::new().route("/", on_get(|| async { "hello" })));
    let variables = [("REQUEST_METHOD", "HEAD"), ("PATH_INFO", "/")];
    let handlers = [
        serve(|_: Request<Input>| Response::new("hello"), &variables, Untouched),
        serve(router(), &variables, Untouched),
    ];
    for (answer, served) in handlers {
        served.expect("no error");
        assert_eq!(answer.headers["content-length"], "5");
        assert_eq!(answer.text(), "");
    }
}

#[test]
fn a3_each_chunk_is_flushed_and_the_head_goes_with_the_first() {
    let outputs: [fn() -> Output; 3] = [
        || Output::iter(["one", "", "two", "three"]),
        || {
            Output::writer(|w| {
                for chunk in ["one", "two", "three"] {
                    w.write_all(chunk.as_bytes())?;
                    w.flush()?;
                }
                Ok(())
            })
        },
        || Output::reader(Pieces(vec!["three", "two", "one"])),
    ];
    for output in outputs {
        let flushed = watched(move || {
            let mut flushes = Flushes::default();
            let handler = move |_: Request<Input>| Response::new(output());
            cgi::serve(&handler, plain(), Untouched, &mut flushes).expect("no error");
            assert!(flushes.rest.is_empty(), "not flushed: {:?}", flushes.rest);
            flushes.flushed
        });
        let [first, rest @ ..] = &flushed[..] else { panic!("nothing was written") };
        assert_eq!(Answer::parse(first.as_bytes()).text(), "one");
        assert_eq!(rest, ["two", "three"]);
    }
}

/// A reader that gives a piece at a time, the last one first.
struct Pieces(Vec<&'static str>);

impl io::Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.pop().map_or(Ok(0), |piece| piece.as_bytes().read(buf))
    }
}

#[test]
fn a3_a_full_response_goes_out_in_one_piece() {
    let flushed = watched(|| {
        let mut flushes = Flushes::default();
        let handler = |_: Request<Input>| Response::new("hello");
        cgi::serve(&handler, plain(), Untouched, &mut flushes).expect("no error");
        flushes.flushed
    });
    assert_eq!(flushed.len(), 1, "{flushed:?}");
}

/// An async body that the test feeds.
pub(super) struct Fed(pub(super) mpsc::UnboundedReceiver<Result<Bytes, BoxError>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map_ok(Frame::data)
    }
}

/// An output that tells what was written when it is flushed.
pub(super) struct Told<F>(pub(super) Vec<u8>, pub(super) F);

impl<F: Fn(Vec<u8>)> Write for Told<F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.0.is_empty() {
            (self.1)(std::mem::take(&mut self.0));
        }
        Ok(())
    }
}

/// With an async body nothing is lost by it: its first byte may be an event that comes in an hour.
#[tokio::test]
async fn a5_the_head_of_an_async_body_does_not_wait_for_its_first_byte() {
    let events = Events::new();
    let tell = events.teller();
    let (feed, body) = mpsc::unbounded_channel();
    let body = Arc::new(Mutex::new(Some(Fed(body))));
    let service = tower::service_fn(move |_: Request<Body>| {
        let body = body.lock().expect("a lock").take().expect("the only request");
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let serving = std::thread::spawn(move || {
        let output = Told(Vec::new(), tell);
        cgi::serve(&AsgiHandler::new(service), plain(), Untouched, output)
    });
    let head = events.next().await;
    assert!(head.starts_with(b"Status: 200 OK\r\n") && head.ends_with(b"\r\n\r\n"), "{head:?}");
    for chunk in ["first", "second"] {
        feed.send(Ok(chunk.into())).expect("a body that listens");
        assert_eq!(events.next().await, chunk.as_bytes());
    }
    drop(feed);
    watched(move || serving.join().expect("no panic").expect("no error"));
}

#[test]
fn a15_trailers_have_no_place_in_the_output() {
    let handler = |_: Request<Input>| {
        Response::new(Output::from("body").with_trailers(|| {
            http::HeaderMap::from_iter([(http::header::ETAG, "5d41".parse().expect("a value"))])
        }))
    };
    let (answer, served) = get(handler, "/");
    served.expect("no error");
    assert_eq!(answer.text(), "body");
}

#[test]
fn b1_sync_handlers_and_async_routers_answer_alike() {
    let sync = |request: Request<Input>| {
        Response::builder().header("content-type", "text/plain; charset=utf-8").body(format!(
            "{} {}",
            request.method(),
            request.uri()
        ))
    };
    let router = Router::<()>::new().fallback(|request: axum::extract::Request| async move {
        format!("{} {}", request.method(), request.uri())
    });
    let variables = [("REQUEST_METHOD", "PUT"), ("PATH_INFO", "/a b"), ("QUERY_STRING", "c=d")];
    let (one, _) = serve(sync, &variables, Untouched);
    let (other, _) = serve(AsgiHandler::new(router), &variables, Untouched);
    assert_eq!(one.text(), "PUT /a%20b?c=d");
    assert_eq!(one.body, other.body);
    assert_eq!(one.headers, other.headers);
    assert_eq!(one.status, other.status);
}
