//! A5, A6, A9, A11: panics at each call of what a synchronous application returns, over both versions.

use std::fmt;
use std::io::{self, Read, Write as _};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tower::Layer as _;
use tower_wsgi::{BoxError, Input, Output, WorkerPool, WsgiLayer};

use super::census::{Census, Held};
use super::frames::{Client, End, head};
use super::site::{App, Site};
use super::wire::{Replies, raw};

/// So many pieces has a body.
pub(super) const PIECES: usize = 4;
pub(super) const PIECE: &[u8] = b"abc";
const ALL: &[u8] = b"abcabcabcabc";

/// Panics without a word on standard error.
pub(super) fn quiet() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// What the client of a response sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Seen {
    Whole,
    /// A clean 500.
    Failed,
    /// So many pieces, and no end.
    Cut(usize),
    /// No end, and maybe not even a head.
    NoEnd,
}

use Seen::{Cut, Failed, NoEnd, Whole};

/// What comes of a fault at some place.
pub(super) type Expected = fn(usize) -> Seen;

/// Once the head is out, nothing but a cut is left.
pub(super) fn cut_unless_first(at: usize) -> Seen {
    if at == 0 { Failed } else { Cut(at) }
}

/// The faults of a synchronous application, at how many places each, and what comes of them.
const FAULTS: &[(&str, usize, Expected)] = &[
    ("none", 1, |_| Whole),
    ("handler", 1, |_| Failed),
    ("handler-any", 1, |_| Failed),
    ("handler-bomb", 1, |_| Failed),
    ("handler-error", 2, |_| Failed),
    ("iter", PIECES + 1, cut_unless_first),
    ("iter-bomb", PIECES + 1, cut_unless_first),
    ("iter-error", PIECES + 1, cut_unless_first),
    ("iter-into", 1, |_| Failed),
    ("iter-size", 1, |_| Whole),
    ("iter-drop", 1, |_| Whole),
    ("iter-and-drop", PIECES + 1, cut_unless_first),
    ("iter-trailers", 1, |_| Cut(PIECES)),
    ("reader", PIECES + 1, cut_unless_first),
    ("reader-lies", PIECES + 1, cut_unless_first),
    ("reader-error", PIECES + 1, cut_unless_first),
    ("reader-drop", 1, |_| Whole),
    ("writer", PIECES + 1, cut_unless_first),
    ("writer-error", PIECES + 1, cut_unless_first),
    ("writer-drop", 1, |_| Cut(PIECES)),
    ("writer-trailers", 1, |_| Cut(PIECES)),
    ("full-trailers", 1, |_| Failed),
    ("body-error", PIECES + 1, |_| NoEnd),
];

/// Answers with a response that fails at a place.
fn faulty(census: &Census, fault: &str, at: usize) -> Result<Response<Output>, BoxError> {
    // Async bodies are the runtime's to drop.
    let held = if fault.starts_with("body") { census.hold_anywhere() } else { census.hold() };
    let pieces = Pieces::new(held);
    let output = match fault {
        "none" => Output::iter(pieces),
        "handler" => quiet(),
        "handler-any" => resume_unwind(Box::new(5)),
        "handler-bomb" => resume_unwind(Box::new(Bomb)),
        "handler-error" => return Err(if at == 0 { Odd::Display } else { Odd::Source }.into()),
        "iter" => Output::iter(pieces.panics_at(at)),
        "iter-bomb" => Output::iter(pieces.panics_at(at).with_a_bomb()),
        "iter-error" => Output::try_iter(pieces.fails_at(at)),
        "iter-into" => Output::iter(NoIterator),
        "iter-size" => Output::iter(NoSize(pieces)),
        "iter-drop" => Output::iter(pieces.panics_in_drop()),
        "iter-and-drop" => Output::iter(pieces.panics_at(at).panics_in_drop()),
        "iter-trailers" => Output::iter(pieces).with_trailers(|| -> HeaderMap { quiet() }),
        "reader" => Output::reader(pieces.panics_at(at)),
        "reader-lies" => Output::reader(Lying(pieces, at)),
        "reader-error" => Output::reader(Failing(pieces, at)),
        "reader-drop" => Output::reader(pieces.panics_in_drop()),
        "writer" => Output::writer(move |w| {
            pieces.panics_at(at).try_for_each(|piece| w.write_all(&piece).and_then(|()| w.flush()))
        }),
        "writer-error" => Output::writer(move |w| {
            Iterator::take(pieces, at).try_for_each(|piece| w.send(piece))?;
            Err(io::Error::other(Odd::Display))
        }),
        "writer-drop" => Output::writer(move |w| pieces.panics_in_drop().try_for_each(|piece| w.send(piece))),
        "writer-trailers" => {
            let write = Output::writer(move |w| {
                let mut pieces = pieces;
                pieces.try_for_each(|piece| w.send(piece))
            });
            write.with_trailers(|| -> HeaderMap { quiet() })
        }
        "full-trailers" => Output::from("all").with_trailers(|| -> HeaderMap { quiet() }),
        "body-error" => Output::body(Failing(pieces, at)),
        "full" => "all of it".into(),
        other => return Err(format!("no such fault: {other}").into()),
    };
    Ok(Response::new(output))
}

/// The path of a fault at a place, and back.
pub(super) fn place(request: &http::Uri) -> (&str, usize) {
    let mut parts = request.path()[1..].split('/');
    let (fault, at) = (parts.next().unwrap_or_default(), parts.next());
    (fault, at.map_or(0, |at| at.parse().expect("a number")))
}

/// Asks for each fault at each of its places, over both versions.
pub(super) async fn check(site: &Site, faults: &[(&str, usize, Expected)]) {
    for (fault, places, expected) in faults {
        for at in 0..*places {
            let what = format!("{fault} at {at}");
            let request = format!(
                "GET /{fault}/{at} HTTP/1.1\r\nhost:h\r\n\r\n\
                 GET /full HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n"
            );
            let replies = Replies::parse(&raw(site.addr, request.as_bytes()).await);
            let whole: Vec<_> = replies.whole.iter().map(|reply| (reply.status, &*reply.body)).collect();
            let expected = expected(at);
            match expected {
                Whole => assert_eq!(whole, [(200, ALL), (200, b"all of it")], "{what}"),
                Failed => {
                    let failure = (500, &b"Internal Server Error\n"[..]);
                    assert_eq!(whole, [failure, (200, b"all of it")], "{what}");
                }
                Cut(pieces) => {
                    let cut = replies.cut.as_ref().unwrap_or_else(|| panic!("{what}: {replies:?}"));
                    assert_eq!((cut.status, &*cut.body), (200, &ALL[..pieces * PIECE.len()]), "{what}");
                    assert_eq!(whole, [], "{what}");
                }
                NoEnd => assert_eq!(whole, [], "{what}"),
            }
            site.cleared(&what).await;

            let mut client = Client::new(site.addr, 65_535).await;
            client.send(head(1, &format!("/{fault}/{at}"), None)).await;
            let got = client.whole(1).await;
            match expected {
                Whole => {
                    assert_eq!(
                        (got.status, &*got.body, got.end),
                        (Some(200), ALL, Some(End::True)),
                        "{what}"
                    );
                }
                Failed => assert_eq!((got.status, got.end), (Some(500), Some(End::True)), "{what}"),
                Cut(pieces) => {
                    assert_eq!((got.status, got.end), (Some(200), Some(End::Reset)), "{what}");
                    assert!(ALL[..pieces * PIECE.len()].starts_with(&got.body), "{what}: {got:?}");
                }
                NoEnd => assert_eq!(got.end, Some(End::Reset), "{what}: {got:?}"),
            }
            // It is the stream that ended, and not its connection.
            client.send(head(3, "/full", None)).await;
            let next = client.whole(3).await;
            assert_eq!((next.status, &*next.body), (Some(200), &b"all of it"[..]), "{what}");
            drop(client);
            site.cleared(&what).await;
        }
    }
}

#[tokio::test]
async fn a11_a_panic_at_any_call_of_a_response_stays_inside() {
    let (pool, app) = (WorkerPool::new(2), App::new());
    let census = app.census.clone();
    let handler = move |request: Request<Input>| {
        let (fault, at) = place(request.uri());
        faulty(&census, fault, at)
    };
    let site = Site::serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler), pool, app).await;
    check(&site, FAULTS).await;
    assert!(site.pool.stats().threads <= 2, "{:?}", site.pool);
}

/// The pieces of a body, and when to panic over them.
pub(super) struct Pieces {
    given: usize,
    at: Option<usize>,
    has_bomb: bool,
    in_drop: bool,
    _held: Held,
}

impl Pieces {
    pub(super) fn new(held: Held) -> Self {
        Self { given: 0, at: None, has_bomb: false, in_drop: false, _held: held }
    }

    pub(super) fn panics_at(mut self, at: usize) -> Self {
        self.at = Some(at);
        self
    }

    /// What it panics with panics again when it is dropped.
    fn with_a_bomb(mut self) -> Self {
        self.has_bomb = true;
        self
    }

    pub(super) fn panics_in_drop(mut self) -> Self {
        self.in_drop = true;
        self
    }

    fn fails_at(mut self, at: usize) -> impl Iterator<Item = Result<Bytes, Odd>> + Send {
        std::iter::from_fn(
            move || if self.given == at { Some(Err(Odd::Display)) } else { self.next().map(Ok) },
        )
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.at == Some(self.given) {
            if self.has_bomb {
                resume_unwind(Box::new(Bomb));
            }
            quiet();
        }
        self.given += 1;
        (self.given <= PIECES).then_some(Bytes::from_static(PIECE))
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let piece = self.next().unwrap_or_default();
        buf[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if self.in_drop && !std::thread::panicking() {
            quiet();
        }
    }
}

/// A payload of a panic that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            quiet();
        }
    }
}

/// An error that panics when it is asked what it is.
#[derive(Debug)]
pub(super) enum Odd {
    Display,
    Source,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Display => quiet(),
            Self::Source => f.write_str("odd"),
        }
    }
}

impl std::error::Error for Odd {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Display => None,
            Self::Source => quiet(),
        }
    }
}

struct NoIterator;

impl IntoIterator for NoIterator {
    type Item = Bytes;
    type IntoIter = std::vec::IntoIter<Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        quiet()
    }
}

struct NoSize(Pieces);

impl Iterator for NoSize {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        quiet()
    }
}

/// A reader that says that it read more than there was room for.
struct Lying(Pieces, usize);

impl Read for Lying {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.given == self.1 {
            return Ok(buf.len() + 1);
        }
        self.0.read(buf)
    }
}

/// A reader, or an async body, that fails with an odd error.
struct Failing(Pieces, usize);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.given == self.1 {
            return Err(io::Error::other(Odd::Source));
        }
        self.0.read(buf)
    }
}

impl http_body::Body for Failing {
    type Data = Bytes;
    type Error = Odd;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Odd>>> {
        if self.0.given == self.1 {
            return Poll::Ready(Some(Err(Odd::Source)));
        }
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}
