//! A2, A6, A7: bodies of other lengths than declared, and chunks that are none, in both directions. A connection that is kept is never out of step.

use std::future::ready;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tower::{Layer as _, service_fn};
use tower_wsgi::{AsgiLayer, Body, BoxError, Input, Output, WorkerPool, WsgiLayer};

use super::site::{App, SHAPES, Site};
use super::wire::{Replies, raw};

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It is answered with its body, and so is the next one on the connection.
    Whole(&'static str),
    /// It is answered with its body, and the connection closed.
    Last(&'static str),
    /// It is refused, and the connection closed.
    Refused,
}

use Outcome::{Last, Refused, Whole};

/// The next request on the connection.
const NEXT: &str = "GET /full?next HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n";

/// Headers and a body, as they are sent; `NEXT` follows at once.
const REQUESTS: &[(&str, &str, Outcome)] = &[
    // Lengths.
    ("content-length:5", "hello", Whole("hello")),
    ("content-length:05", "hello", Whole("hello")),
    ("content-length:0", "", Whole("")),
    ("content-length:5\r\ncontent-length:5", "hello", Whole("hello")),
    ("content-length:5\r\ncontent-length:6", "hello", Refused),
    ("content-length:6\r\ncontent-length:5", "hello", Refused),
    ("content-length:5, 6", "hello", Refused),
    ("content-length:-5", "hello", Refused),
    ("content-length:+5", "hello", Refused),
    ("content-length:0x5", "hello", Refused),
    ("content-length:5.0", "hello", Refused),
    ("content-length:five", "hello", Refused),
    ("content-length:", "hello", Refused),
    ("content-length:18446744073709551616", "hello", Refused),
    ("content-length:99999999999999999999999", "hello", Refused),
    ("content-length :5", "hello", Refused),
    // Chunks.
    ("transfer-encoding:chunked", "5\r\nhello\r\n0\r\n\r\n", Whole("hello")),
    ("transfer-encoding:Chunked", "5\r\nhello\r\n0\r\n\r\n", Whole("hello")),
    ("transfer-encoding:chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", Whole("hello")),
    ("transfer-encoding:chunked", "005\r\nhello\r\n000\r\n\r\n", Whole("hello")),
    ("transfer-encoding:chunked", "A\r\nhello, wor\r\n0\r\n\r\n", Whole("hello, wor")),
    ("transfer-encoding:chunked", "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n", Whole("hello")),
    ("transfer-encoding:chunked", "5\r\nhello\r\n0\r\nx-a:1\r\nx-b:2\r\n\r\n", Whole("hello")),
    ("transfer-encoding:chunked", "0\r\n\r\n", Whole("")),
    ("transfer-encoding:chunked", "g\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "-5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "+5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "0x5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "5 5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "10000000000000000\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "5\r\nhello0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "5\r\nhello!\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "4\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "5\nhello\n0\n\n", Refused),
    ("transfer-encoding:chunked", "5\rhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "5;a\nb\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "5\r\nhello\r\n0\r\nno trailer\r\n\r\n", Refused),
    ("transfer-encoding:chunked", "5\r\nhello\r\n0\r\n: 1\r\n\r\n", Refused),
    // Both, and neither.
    ("transfer-encoding:chunked\r\ncontent-length:3", "5\r\nhello\r\n0\r\n\r\n", Last("hello")),
    ("content-length:3\r\ntransfer-encoding:chunked", "5\r\nhello\r\n0\r\n\r\n", Last("hello")),
    ("transfer-encoding:gzip", "hello", Refused),
    ("transfer-encoding:chunked, gzip", "5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:xchunked", "5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:", "5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding:chunked\r\ntransfer-encoding:identity", "5\r\nhello\r\n0\r\n\r\n", Refused),
    ("transfer-encoding :chunked", "5\r\nhello\r\n0\r\n\r\n", Refused),
    ("x-none:", "", Whole("")),
];

#[tokio::test]
async fn a2_a_body_that_is_none_is_never_taken_for_one() {
    for shape in SHAPES {
        for prefetch in [0, 64 * 1024] {
            let site = Site::new(shape, |layer| layer.prefetch(prefetch)).await;
            for path in ["/echo", "/relay"] {
                for (header, body, outcome) in REQUESTS {
                    let what = format!("{shape:?}, prefetch {prefetch}, {path}, {header:?}, {body:?}");
                    let request =
                        format!("POST {path}?this HTTP/1.1\r\nhost:h\r\n{header}\r\n\r\n{body}{NEXT}");
                    let replies = Replies::parse(&raw(site.addr, request.as_bytes()).await);
                    site.cleared(&what).await;
                    let readings = site.app.readings.drain();
                    assert!(readings.iter().all(|reading| reading.query == "this"), "{what}: {readings:?}");
                    let read =
                        readings.iter().find(|reading| reading.is_whole).map(|reading| &*reading.bytes);
                    match outcome {
                        Whole(expected) | Last(expected) => {
                            let bodies: Vec<_> = replies.whole.iter().map(|reply| &*reply.body).collect();
                            let both = [expected.as_bytes(), b"all of it"];
                            let count = if *outcome == Last(expected) { 1 } else { 2 };
                            assert_eq!(read, Some(expected.as_bytes()), "{what}");
                            assert_eq!(replies.statuses(), [200; 2][..count], "{what}");
                            assert_eq!(bodies, both[..count], "{what}");
                        }
                        Refused => {
                            assert_eq!(read, None, "{what}: a false end");
                            // Nobody answers what only seems to be the next request.
                            assert!(replies.whole.len() <= 1, "{what}: {replies:?}");
                            assert!(!replies.statuses().contains(&200), "{what}: {replies:?}");
                        }
                    }
                }
            }
            site.settle(&format!("{shape:?}")).await;
        }
    }
}

/// What a response says of its length, and what it is.
struct Mismatch {
    kind: &'static str,
    declared: usize,
    actual: usize,
    piece: usize,
}

const TEXT: &[u8] = b"01234567";

/// Pieces of the first bytes of the text.
fn pieces(actual: usize, piece: usize) -> impl Iterator<Item = Bytes> + Send {
    TEXT[..actual].chunks(piece).map(Bytes::from_static)
}

impl Mismatch {
    fn of(request: &http::Uri) -> Self {
        let query = request.query().expect("a query");
        let numbers: Vec<_> = query.split('-').map(|text| text.parse().expect("a number")).collect();
        let kinds = ["full", "iter", "reader", "writer", "body"];
        let kind = kinds.into_iter().find(|kind| request.path() == format!("/{kind}")).expect("a kind");
        Self { kind, declared: numbers[0], actual: numbers[1], piece: numbers[2] }
    }

    fn response<T>(&self, body: T) -> Response<T> {
        Response::builder().header("content-length", self.declared).body(body).expect("a response")
    }

    fn output(self) -> Response<Output> {
        let (actual, piece) = (self.actual, self.piece);
        let output = match self.kind {
            "full" => Bytes::from_static(&TEXT[..actual]).into(),
            "iter" => Output::iter(pieces(actual, piece)),
            "reader" => Output::reader(&TEXT[..actual]),
            "writer" => Output::writer(move |w| {
                // It may go on after it was told that this is too much.
                pieces(actual, piece).for_each(|piece| drop(w.send(piece)));
                Ok(())
            }),
            _ => Output::body(self.body()),
        };
        self.response(output)
    }

    fn body(&self) -> Body {
        let mut pieces = pieces(self.actual, self.piece);
        Body::new(Polled(move || pieces.next().map(Frame::data)))
    }
}

/// A body of unknown length.
struct Polled<F>(F);

impl<F: FnMut() -> Option<Frame<Bytes>> + Unpin> http_body::Body for Polled<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        std::task::Poll::Ready((self.0)().map(Ok))
    }
}

/// Asks for each combination of lengths, with another request behind it on the same connection.
async fn mismatches(site: &Site, kinds: &[&str]) {
    for &kind in kinds {
        for declared in 0..=TEXT.len() {
            for actual in 0..=TEXT.len() {
                for piece in [1, 3, 8] {
                    let what = format!("{kind}: {declared} declared, {actual} sent in pieces of {piece}");
                    let request = format!(
                        "GET /{kind}?{declared}-{actual}-{piece} HTTP/1.1\r\nhost:h\r\n\r\n\
                         GET /full?3-3-3 HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n"
                    );
                    let replies = Replies::parse(&raw(site.addr, request.as_bytes()).await);
                    let whole: Vec<_> =
                        replies.whole.iter().map(|reply| (reply.status, &*reply.body)).collect();
                    if actual >= declared {
                        let expected = [(200, &TEXT[..declared]), (200, &b"012"[..])];
                        assert_eq!(whole, expected, "{what}");
                    } else if let Some(cut) = &replies.cut {
                        // It was too late for another response, and there is none behind it.
                        assert_eq!(whole, [], "{what}");
                        assert_eq!((cut.status, &*cut.body), (200, &TEXT[..actual]), "{what}");
                    } else if kind == "body" && actual == 0 {
                        // Nothing was here when the head was to be sent, so that hyper sends none.
                        assert_eq!(whole, [], "{what}");
                    } else {
                        let expected = [(500, &b"Internal Server Error\n"[..]), (200, b"012")];
                        assert_eq!(whole, expected, "{what}");
                        let is_known = kind == "full" || actual == 0;
                        assert!(is_known, "{what}: nothing was sent");
                    }
                }
            }
        }
        site.cleared(kind).await;
    }
}

#[tokio::test]
async fn a7_no_length_puts_a_connection_out_of_step() {
    let pool = WorkerPool::new(2);
    let handler = |request: Request<Input>| Mismatch::of(request.uri()).output();
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(handler);
    let site = Site::serve(service, pool, App::new()).await;
    mismatches(&site, &["full", "iter", "reader", "writer", "body"]).await;
}

#[tokio::test]
async fn a7_no_length_of_a_nested_service_puts_a_connection_out_of_step() {
    let pool = WorkerPool::new(2);
    let service = service_fn(|request: Request<Body>| {
        let mismatch = Mismatch::of(request.uri());
        ready(Ok::<_, BoxError>(mismatch.response(mismatch.body())))
    });
    let handler = AsgiLayer::adapter().layer(service);
    let site = Site::serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler), pool, App::new()).await;
    mismatches(&site, &["body"]).await;
}
