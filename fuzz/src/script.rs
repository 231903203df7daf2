//! Bodies that follow a script.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use tower_wsgi::BoxError;

use crate::harness::{Token, panic_on_purpose, wake_elsewhere};

/// What a body does when polled.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    Data(Size),
    /// Pending, woken at once.
    Pending,
    /// Pending, until another thread wakes.
    Later,
    /// Pending, and no waker kept, however often it is polled: until [`Script::passed`] lets it pass.
    Stuck,
}

/// How a body ends.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Clean,
    Trailers,
    Failure,
    /// An I/O error that would make a reader try again.
    Interrupted,
    Panic,
}

/// How many bytes.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size(u8);

impl Size {
    /// Mostly few; some as many as fill buffers.
    pub(crate) fn get(self) -> usize {
        match usize::from(self.0) {
            few @ ..240 => few % 48,
            many => (many - 239) * 1100,
        }
    }
}

/// How much more is declared than comes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Excess(i8);

impl Excess {
    /// Often by little: what is off by one goes wrong most easily.
    pub(crate) fn get(self) -> i64 {
        i64::from(if self.0 % 2 == 0 { self.0 % 5 } else { self.0 })
    }

    /// Of so many that come, what is declared.
    pub(crate) fn of(self, total: usize) -> u64 {
        u64::try_from(total as i64 + self.get()).unwrap_or(0)
    }
}

/// What the bytes of a body look like. Which one it is depends on its place, so that none can be lost, doubled or swapped unseen.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Text {
    Lines,
    /// UTF-8 of all lengths, which frames cut in two.
    Wide,
    Binary,
}

impl Text {
    fn byte(self, at: usize) -> u8 {
        // Fibonacci hashing, of which the upper bits are good.
        let mixed = ((at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        match self {
            Self::Lines if mixed < 32 => b'\n',
            Self::Lines => b'a' + mixed % 26,
            Self::Wide => {
                let text = "aé\n€b𐍈c\u{7f}de\nfghij".as_bytes();
                text[at % text.len()]
            }
            Self::Binary => mixed,
        }
    }

    /// `length` bytes from `start` on.
    pub(crate) fn bytes(self, start: usize, length: usize) -> Bytes {
        (start..start + length).map(|at| self.byte(at)).collect()
    }
}

/// What trailers the bodies here have.
pub(crate) fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"5d41\""))])
}

/// What a body fails with.
pub(crate) fn failure(end: End) -> BoxError {
    match end {
        End::Interrupted => io::Error::from(io::ErrorKind::Interrupted).into(),
        _ => "failed on purpose".into(),
    }
}

/// An async body that follows a script.
pub(crate) struct Script {
    pub(crate) steps: VecDeque<Step>,
    pub(crate) end: Option<End>,
    pub(crate) text: Text,
    pub(crate) at: usize,
    /// What is left of the exact length that it says it has.
    pub(crate) hint: Option<u64>,
    pub(crate) polls: Arc<AtomicUsize>,
    /// How many steps that are stuck may be passed.
    pub(crate) passed: Arc<AtomicUsize>,
    pub(crate) _token: Token,
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        while self.steps.front() == Some(&Step::Stuck) {
            if self.passed.load(Ordering::Relaxed) == 0 {
                return Poll::Pending;
            }
            self.passed.fetch_sub(1, Ordering::Relaxed);
            self.steps.pop_front();
        }
        match self.steps.pop_front() {
            Some(Step::Data(size)) => {
                let data = self.text.bytes(self.at, size.get());
                self.at += data.len();
                self.hint = self.hint.map(|hint| hint.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Later) => {
                wake_elsewhere(cx.waker().clone());
                Poll::Pending
            }
            Some(Step::Stuck) => unreachable!("passed above"),
            None => Poll::Ready(match self.end.take() {
                Some(End::Trailers) => Some(Ok(Frame::trailers(trailers()))),
                Some(End::Panic) => panic_on_purpose(),
                Some(end @ (End::Failure | End::Interrupted)) => Some(Err(failure(end))),
                Some(End::Clean) | None => None,
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && matches!(self.end, None | Some(End::Clean))
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// What came of a body.
#[derive(Debug, PartialEq)]
pub(crate) struct Collected {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Whether it ended, and did not fail.
    pub(crate) whole: bool,
}

/// Polls a body to its end with `poll`, and holds it to what it says of itself meanwhile: its length, where it ends well, and whether it is over.
pub(crate) fn collect(
    body: &mut tower_wsgi::Body,
    mut poll: impl FnMut(&mut tower_wsgi::Body) -> Option<Result<Frame<Bytes>, BoxError>>,
) -> Collected {
    let mut collected = Collected { bytes: Vec::new(), trailers: None, whole: false };
    let mut hints = Vec::new();
    loop {
        let (hint, over) = (body.size_hint(), body.is_end_stream());
        hints.push((collected.bytes.len() as u64, hint));
        let frame = poll(body);
        assert!(!over || frame.is_none(), "a body that says that it is over has no frame left");
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                assert!(collected.trailers.is_none(), "trailers come last");
                collected.bytes.extend_from_slice(&data);
            }
            Some(Ok(Err(frame))) => {
                assert!(collected.trailers.is_none(), "trailers come once");
                collected.trailers = frame.into_trailers().ok();
            }
            Some(Err(_)) => return collected,
            None => break,
        }
    }
    collected.whole = true;
    let total = collected.bytes.len() as u64;
    for (before, hint) in hints {
        let left = total - before;
        assert!(hint.lower() <= left, "{left} bytes came, at least {} were announced", hint.lower());
        assert!(hint.upper().is_none_or(|upper| left <= upper), "{left} bytes came of at most {hint:?}");
    }
    assert!(poll(body).is_none(), "a body that has ended stays so");
    collected
}
