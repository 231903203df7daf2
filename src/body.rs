//! The body that async code gets from this crate.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::error::BoxError;
use crate::source::{Blocking, Producer, Trailers};

/// An [`http_body::Body`] of [`Bytes`]: what async code gets from this crate, as a response's body from
/// [`WsgiService`](crate::WsgiService) or as a request's body from [`Next`](crate::Next).
///
/// It is `Send`, `Unpin`, and of one type whatever is in it. A body put into it by [`new`](Self::new) comes out unchanged; one
/// that is a `Body` already is not wrapped again.
///
/// # End and errors
/// The end of the body is its true end. One that was cut off (its producer failed, panicked, vanished, or fell short of the declared
/// length) yields an error, so that hyper cuts the connection or resets the stream. Errors of this crate are an
/// [`Error`](crate::Error); those of a wrapped body are passed on as they are.
///
/// # Cancellation
/// Dropping the body stops what produces it: at its next write, or at once if it waits for room.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use tower_wsgi::Body;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let body = Body::new(Full::new(Bytes::from("hello")));
/// assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
/// # });
/// ```
#[must_use]
pub struct Body {
    kind: Kind,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Stream),
    Blocking(Box<Blocking>),
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>),
    Ahead(Box<Ahead>),
}

/// A body of which some was read ahead.
struct Ahead {
    chunks: VecDeque<Bytes>,
    rest: Body,
}

pin_project! {
    /// A body of another type. Its hints stay true: neither bytes nor frames change.
    struct Foreign<B> {
        #[pin]
        body: B,
    }
}

/// The last frame of a body.
struct Last(Option<Result<HeaderMap, BoxError>>);

/// Where a streamed body comes from: a worker, through an exchange.
pub(crate) trait Source: Send + Sync {
    /// The next frame; sets `resume` if [`resume`](Self::resume) has to be called.
    fn poll_frame(&self, cx: &mut Context<'_>, resume: &mut bool) -> PollFrame;

    /// Has a worker go on.
    fn resume(self: Arc<Self>);

    /// Whether the end was reached.
    fn is_drained(&self) -> bool;

    /// Nobody will ask again.
    fn close(self: Arc<Self>);
}

struct Stream {
    source: Option<Arc<dyn Source>>,
    /// What is left of the declared length.
    remaining: Option<u64>,
    pause: Pause,
}

/// What a body's poll returns.
pub(crate) type PollFrame = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Pauses once before a failure that follows a frame.
///
/// hyper throws away what it has gathered when a body fails. The pause lets it send the head and the frames that came before, so that
/// the client sees a response that was cut off and not a server that never answered.
#[derive(Default)]
pub(crate) struct Pause {
    flowing: bool,
    failure: Option<BoxError>,
}

impl Pause {
    /// The failure that was held back.
    pub(crate) fn take_failure(&mut self) -> Option<BoxError> {
        self.failure.take()
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// Passes on what was polled, but a failure right after a frame only the next time.
    pub(crate) fn pass(&mut self, cx: &mut Context<'_>, polled: PollFrame) -> PollFrame {
        match polled {
            Poll::Ready(Some(Err(error))) if self.flowing => {
                self.flowing = false;
                self.failure = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => {
                self.flowing = matches!(other, Poll::Ready(Some(Ok(_))));
                other
            }
        }
    }
}

impl Body {
    /// An empty body.
    ///
    /// ```
    /// use http::Request;
    /// use http_body::Body as _;
    /// use tower_wsgi::Body;
    ///
    /// let request = Request::get("/").body(Body::empty())?;
    /// assert!(request.body().is_end_stream());
    /// # Ok::<(), http::Error>(())
    /// ```
    pub const fn empty() -> Self {
        Self { kind: Kind::Empty }
    }

    /// Wraps a body of another type. A body that is empty for certain costs nothing, a `Body` stays as it is, others are boxed.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        let mut body = Some(body);
        if let Some(same) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return same.take().unwrap_or_default();
        }
        let Some(body) = body else {
            return Self::empty();
        };
        Self { kind: Kind::Boxed(Box::pin(Foreign { body })) }
    }

    /// A body that a worker produces, of a declared length or not.
    pub(crate) fn stream(source: Arc<dyn Source>, length: Option<u64>) -> Self {
        Self {
            kind: Kind::Stream(Stream { source: Some(source), remaining: length, pause: Pause::default() }),
        }
    }

    /// A body whose producer blocks.
    pub(crate) fn blocking(producer: Blocking) -> Self {
        Self { kind: Kind::Blocking(Box::new(producer)) }
    }

    /// The producer of a body that the calling thread can run, where it may block.
    pub(crate) fn in_place(&mut self) -> Option<&mut Blocking> {
        match &mut self.kind {
            Kind::Blocking(producer) if producer.is_in_place() => Some(producer),
            Kind::Ahead(ahead) if ahead.chunks.is_empty() => ahead.rest.in_place(),
            _ => None,
        }
    }

    /// The producer, and what makes its trailers, of a body whose producer blocks and has no thread yet.
    pub(crate) fn into_producer(self) -> Result<(Producer, Option<Trailers>), Self> {
        match self.kind {
            Kind::Blocking(blocking) => blocking.into_parts().map_err(Self::blocking),
            Kind::Ahead(ahead) => match ahead.rest.into_producer() {
                Ok((Producer::Source(source), trailers)) => {
                    Ok((Producer::Source(source.behind(ahead.chunks)), trailers))
                }
                // Nothing is read ahead of a writing function without its thread.
                Ok((write, trailers)) => {
                    Err(Self::ahead(ahead.chunks, Self::blocking(Blocking::new(write, trailers))))
                }
                Err(rest) => Err(Self::ahead(ahead.chunks, rest)),
            },
            kind => Err(Self { kind }),
        }
    }

    /// Whether all of it is here.
    pub(crate) fn is_inert(&self) -> bool {
        matches!(self.kind, Kind::Empty | Kind::Full(_))
    }

    /// Whether code of others makes it.
    pub(crate) fn is_foreign(&self) -> bool {
        match &self.kind {
            Kind::Boxed(_) => true,
            Kind::Ahead(ahead) => ahead.rest.is_foreign(),
            _ => false,
        }
    }

    /// Whether what makes it may want to find the runtime that it came from.
    pub(crate) fn needs_runtime(&self) -> bool {
        !self.is_inert() && !matches!(self.kind, Kind::Blocking(_))
    }

    /// A body that has only its trailers or its failure left.
    pub(crate) fn last(end: Result<HeaderMap, BoxError>) -> Self {
        Self { kind: Kind::Boxed(Box::pin(Last(Some(end)))) }
    }

    /// `rest`, with what was read of it in front again.
    pub(crate) fn ahead(mut chunks: VecDeque<Bytes>, rest: Self) -> Self {
        if chunks.is_empty() {
            return rest;
        }
        let rest = match rest.kind {
            Kind::Ahead(further) => {
                chunks.extend(further.chunks);
                further.rest
            }
            kind => Self { kind },
        };
        Self { kind: Kind::Ahead(Box::new(Ahead { chunks, rest })) }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = mem::take(bytes);
                self.kind = Kind::Empty;
                let frame = (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)));
                Poll::Ready(frame)
            }
            Kind::Stream(stream) => stream.poll_frame(cx),
            Kind::Blocking(producer) => producer.poll_frame(cx),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
            Kind::Ahead(ahead) => match ahead.chunks.pop_front() {
                Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
                None => {
                    let mut rest = mem::take(&mut ahead.rest);
                    let polled = Pin::new(&mut rest).poll_frame(cx);
                    *self = rest;
                    polled
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.is_drained(),
            Kind::Blocking(_) => false,
            Kind::Boxed(body) => body.is_end_stream(),
            Kind::Ahead(ahead) => ahead.chunks.is_empty() && ahead.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.remaining.map_or_else(SizeHint::new, SizeHint::with_exact),
            Kind::Blocking(_) => SizeHint::new(),
            Kind::Boxed(body) => body.size_hint(),
            Kind::Ahead(ahead) => {
                let here = ahead.chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                behind(here, &ahead.rest.size_hint())
            }
        }
    }
}

/// The size of a body of which `here` bytes were read ahead.
pub(crate) fn behind(here: u64, rest: &SizeHint) -> SizeHint {
    let mut hint = SizeHint::new();
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper.saturating_add(here));
    }
    hint.set_lower(rest.lower().saturating_add(here));
    hint
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> PollFrame {
        let Some(source) = &self.source else {
            return Poll::Ready(self.pause.take_failure().map(Err));
        };
        let mut resume = false;
        let polled = source.poll_frame(cx, &mut resume);
        if resume {
            source.clone().resume();
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(remaining), Some(data)) = (&mut self.remaining, frame.data_ref()) {
                    *remaining = remaining.saturating_sub(data.len() as u64);
                }
            }
            Poll::Ready(_) => self.close(),
            Poll::Pending => {}
        }
        self.pause.pass(cx, polled)
    }

    fn is_drained(&self) -> bool {
        match &self.source {
            Some(source) => source.is_drained(),
            None => !self.pause.is_failing(),
        }
    }

    fn close(&mut self) {
        if let Some(source) = self.source.take() {
            source.close();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}

impl<B> http_body::Body for Foreign<B>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        let frame = ready!(self.project().body.poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl http_body::Body for Last {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> PollFrame {
        Poll::Ready(self.0.take().map(|end| end.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size_hint", &http_body::Body::size_hint(self)).finish_non_exhaustive()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let kind = if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) };
        Self { kind }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

#[cfg(feature = "axum")]
impl From<Body> for axum::body::Body {
    fn from(body: Body) -> Self {
        Self::new(body)
    }
}
