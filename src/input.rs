//! A body on the synchronous side, to be read: the request's, or one of a response that synchronous code reads.

mod held;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use self::held::Held;
use crate::body::Body;
use crate::error::{BodyError, BoxError, Error, Kind, drop_quietly, find, guard};
use crate::nesting::relies_on_pool;
use crate::parker::Watch;
use crate::source::{Blocking, Producer, Source};
use crate::wait::{Ended, Wait};

/// The request's body on the synchronous side: WSGI's `wsgi.input`. And a response's body, where synchronous code
/// [reads one](crate::Output::into_reader).
///
/// It is [`Read`] and [`BufRead`], so that `io::copy`, `read_to_end`, `lines` and every parser that takes a reader work.
/// [`chunk`](Self::chunk) gives the bytes as they came in, without a copy.
///
/// ```
/// use std::io::{BufRead, Read};
/// use tower_wsgi::Input;
///
/// let mut input = Input::from("first\nsecond");
/// let mut line = String::new();
/// input.read_line(&mut line).unwrap();
/// assert_eq!(line, "first\n");
/// let mut rest = Vec::new();
/// input.read_to_end(&mut rest).unwrap();
/// assert_eq!(rest, b"second");
/// ```
///
/// There is no limit on its length: `tower_http::limit::RequestBodyLimitLayer` outside of the crossing sets one. axum's `DefaultBodyLimit`, which is for axum's own extractors, does not.
///
/// # End and errors
/// `Ok(0)` and `None` are the true end of the body. A client that vanishes, or that sends less or more than the `Content-Length` it declared,
/// is an `io::Error`, and so is each read after it. What the error stands for can be asked of the [`Error`] inside it, or of the body's own
/// error, through [`io::Error::get_ref`] and `source()`.
///
/// # Blocking
/// A read blocks the calling thread until the next bytes are here. It polls the body itself and is woken by what wakes the body: by the
/// connection. While a [`WsgiService`](crate::WsgiService)'s response is awaited, the task that awaits it does that for the reader, from the first read that has to wait, and reads at most 256 KiB ahead (and
/// what is left of a frame; a small frame counts as 1 KiB). A read ends with [`TimedOut`](io::ErrorKind::TimedOut) after `read_timeout` without a byte (it can be tried again then), and with
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) as soon as the response is wanted no more. A read that would have to wait inside an async task, or for a body that
/// can never wake it, fails.
///
/// # Cancellation
/// Dropping it drops the body: of a request, what was not read is the server's to deal with; of a response, what makes it is stopped, as [`Output::into_reader`](crate::Output::into_reader) says.
#[doc(alias = "wsgi.input")]
pub struct Input {
    current: Bytes,
    ready: VecDeque<Bytes>,
    body: Body,
    state: State,
    role: Role,
    /// What was declared, and how much of it has come.
    length: Option<u64>,
    received: u64,
    trailers: Option<HeaderMap>,
    read_timeout: Option<Duration>,
    watch: Option<Arc<dyn Watch>>,
    /// Whether the task that waits for the response was asked to read on.
    is_offered: bool,
}

/// Whose body it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Request,
    Response,
}

impl Role {
    fn failure(self, kind: io::ErrorKind, source: Arc<BoxError>) -> io::Error {
        io::Error::new(kind, BodyError::new(source, self == Self::Request))
    }
}

#[derive(Clone)]
enum State {
    Open,
    End,
    Failed(io::ErrorKind, Arc<BoxError>),
}

/// What is logged where a response goes over its length.
pub(crate) const EXCESS: &str = "a response's body went over its Content-Length and was cut off";

/// A wait for more. A response that is wanted no more is let go of with it: whoever makes it may have the place that this worker has lent.
struct Reading<'a>(&'a mut Input);

impl Reading<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let input = &mut *self.0;
        let mut polled = input.poll_fill(cx);
        if polled.is_pending() && input.offer() {
            polled = input.poll_fill(cx);
        }
        let no_news = input.current.is_empty() && matches!(input.state, State::Open);
        if polled.is_ready() && no_news {
            // A frame without bytes: whoever sends such must not hold the thread beyond its deadline.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let input = &mut *self.0;
        if input.role == Role::Response && input.check_wanted().is_err() {
            drop_quietly(mem::take(&mut input.body));
            input.state = State::Failed(io::ErrorKind::ConnectionAborted, Arc::new(aborted().into()));
        }
    }
}

/// What [`Input::poll_fill`] got.
enum Fill {
    Frame,
    End,
}

impl Input {
    /// An input that reads `body`.
    ///
    /// A body that waits for I/O needs whatever wakes it to run elsewhere: on a thread of a runtime that is busy in this call nothing
    /// would.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http_body_util::Full;
    /// use tower_wsgi::Input;
    ///
    /// let input = Input::new(Full::new(Bytes::from("hello")));
    /// assert_eq!(std::io::read_to_string(input)?, "hello");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let body = Body::new(body);
        let length = body.size_hint().exact();
        Self::declared(body, length)
    }

    /// An input that reads from `reader`, up to its end: for hosts whose connections are readers.
    ///
    /// ```
    /// use std::io::{BufRead, Cursor};
    /// use tower_wsgi::Input;
    ///
    /// let connection = Cursor::new("name=value&rest of the connection");
    /// let mut input = Input::reader(std::io::Read::take(connection, 10)).with_length(10);
    /// assert_eq!(input.fill_buf().unwrap(), b"name=value");
    /// ```
    ///
    /// An input owns what it reads from. What a server only lends, a `&mut dyn Read` say, has to be reached through something that is owned: the examples `tiny_http_host` (a shared request)
    /// and `rouille_host` (the lender's thread) do so.
    ///
    /// # Blocking
    /// Reads of the input read from `reader`, on the calling thread. Where the input becomes an async body ([`into_body`](Self::into_body)), the first poll of that starts a thread, which
    /// reads at most two pieces of 64 KiB ahead and ends with the body. If the body is dropped before, it ends when the read in which it is returns.
    #[must_use]
    pub fn reader(reader: impl Read + Send + 'static) -> Self {
        Self::declared(Body::blocking(Blocking::new(Producer::Source(Source::read(reader)), None)), None)
    }

    /// Declares the length of the whole body, also where some of it was read: a body that ends before it, or goes on after it, is an error.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use tower_wsgi::Input;
    ///
    /// let cut = Input::from("hello").with_length(10);
    /// assert_eq!(std::io::read_to_string(cut).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    /// let longer = Input::from("hello").with_length(4);
    /// assert_eq!(std::io::read_to_string(longer).unwrap_err().kind(), ErrorKind::InvalidData);
    /// ```
    #[must_use]
    pub fn with_length(mut self, length: u64) -> Self {
        self.declare(length);
        self
    }

    /// An empty input.
    ///
    /// ```
    /// use http::Request;
    /// use tower_wsgi::Input;
    ///
    /// let mut request = Request::get("/").body(Input::empty())?;
    /// assert_eq!(request.body_mut().chunk()?, None);
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    #[must_use]
    pub fn empty() -> Self {
        Self::declared(Body::empty(), None)
    }

    /// The body of a response, which synchronous code reads.
    pub(crate) fn response(body: Body, watch: Option<Arc<dyn Watch>>) -> Self {
        let length = body.size_hint().exact();
        Self { role: Role::Response, watch, is_offered: true, ..Self::declared(body, length) }
    }

    /// An input of which `length` bytes were declared.
    pub(crate) fn declared(body: Body, length: Option<u64>) -> Self {
        let over = body.is_end_stream() && length.unwrap_or(0) == 0;
        Self {
            current: Bytes::new(),
            ready: VecDeque::new(),
            body,
            state: if over { State::End } else { State::Open },
            role: Role::Request,
            length,
            received: 0,
            trailers: None,
            read_timeout: None,
            watch: None,
            is_offered: false,
        }
    }

    /// Declares the length of the whole body, of which some may have been read.
    pub(crate) fn declare(&mut self, length: u64) {
        self.length = Some(length);
        if self.received > length {
            let excess = usize::try_from(self.received - length).unwrap_or(usize::MAX);
            match self.role {
                Role::Request => {
                    let (kind, error) = too_long(length, self.received);
                    self.body = Body::empty();
                    self.state = State::Failed(kind, Arc::new(error));
                }
                Role::Response => self.cut_off(excess),
            }
        } else if matches!(self.state, State::End) && self.received < length {
            // It has to be told to who reads.
            self.state = State::Open;
        }
    }

    /// Takes back what came last and has not been read, so many bytes of it, and ends. Only a response is cut off, and nobody reads one ahead: nothing is `ready`.
    fn cut_off(&mut self, excess: usize) {
        tracing::error!(declared = self.length, "{EXCESS}");
        let cut = excess.min(self.current.len());
        self.current.truncate(self.current.len() - cut);
        // Another length may be declared yet.
        self.received -= cut as u64;
        self.body = Body::empty();
        self.state = State::End;
    }

    pub(crate) fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    pub(crate) fn set_watch(&mut self, watch: Arc<dyn Watch>) {
        self.watch = Some(watch);
    }

    /// The declared length.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// How much has come so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Reads one frame ahead from async code; ready with false at the end, also one by an error (which is kept for the reader).
    pub(crate) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !matches!(self.state, State::Open) {
            return Poll::Ready(false);
        }
        self.poll_fill(cx).map(|filled| matches!(filled, Ok(Fill::Frame)))
    }

    /// The next bytes as they came in, without a copy; `None` at the end of the body. Never empty.
    ///
    /// ```
    /// # use tower_wsgi::Input;
    /// # use bytes::Bytes;
    /// let mut input = Input::from("hello");
    /// assert_eq!(input.chunk().unwrap(), Some(Bytes::from("hello")));
    /// assert_eq!(input.chunk().unwrap(), None);
    /// ```
    ///
    /// # Errors
    /// As for reads: see [`Input`].
    ///
    /// # Blocking
    /// Waits for the next bytes: see [`Input`].
    pub fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let more = self.fill()?;
        Ok(more.then(|| mem::take(&mut self.current)))
    }

    /// The trailers, once the end of the body was read; `None` before it, and where the client sent none.
    ///
    /// ```
    /// use std::io::Read;
    /// use http::{HeaderMap, HeaderName, HeaderValue};
    /// use tower_wsgi::Output;
    ///
    /// let checksum = (HeaderName::from_static("checksum"), HeaderValue::from_static("5d41"));
    /// let mut input = Output::from("hello").with_trailers(|| HeaderMap::from_iter([checksum])).into_reader();
    /// assert!(input.trailers().is_none());
    /// input.read_to_end(&mut Vec::new())?;
    /// assert_eq!(input.trailers().expect("the end was read")["checksum"], "5d41");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref().filter(|_| self.is_drained())
    }

    /// Whether all that is left of the body is here, so that no read waits: for code that has to give something up before it waits, an interpreter's lock say.
    ///
    /// ```
    /// # use tower_wsgi::Input;
    /// assert!(Input::from("hello").is_complete());
    /// assert!(!Input::reader(std::io::stdin()).is_complete());
    /// ```
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !matches!(self.state, State::Open) || self.body.is_inert()
    }

    /// Turns what was not read yet into an async body again, without a copy. It is held to the declared length, and to
    /// [`read_timeout`](crate::WsgiLayer::read_timeout) while it is polled.
    ///
    /// An error of a request's body is known as such wherever it is passed on: a service that fails with it answers with 400, 408 or 413 and not with 500.
    ///
    /// ```
    /// use std::io::BufRead;
    /// use http_body_util::BodyExt;
    /// use tower_wsgi::Input;
    ///
    /// let mut input = Input::from("first line\nthe rest");
    /// let mut line = String::new();
    /// input.read_line(&mut line)?;
    ///
    /// // What is left goes to an async client, say.
    /// let rest = input.into_body();
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// assert_eq!(rest.collect().await?.to_bytes(), "the rest");
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// # })?;
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    ///
    /// # Panics
    /// With a `read_timeout`, a poll of the body that has to wait panics where there is no tokio runtime, or one without its time driver.
    pub fn into_body(mut self) -> Body {
        let left = self.left();
        let is_unaware = left.is_some() && left != self.body.size_hint().exact();
        // Who made a foreign body says what length it has, and may end it before that: to hyper a stream that is reset with NO_ERROR has ended.
        let is_held =
            is_unaware || self.read_timeout.is_some() || self.role == Role::Request && self.body.is_foreign();
        if matches!(self.state, State::Open) && is_held {
            return Body::new(Held::new(self));
        }
        let mut chunks = mem::take(&mut self.ready);
        if !self.current.is_empty() {
            chunks.push_front(mem::take(&mut self.current));
        }
        let rest = match self.state {
            State::Open => self.body,
            State::End => match self.trailers {
                Some(trailers) => Body::last(Ok(trailers)),
                None => Body::empty(),
            },
            State::Failed(kind, source) => Body::last(Err(self.role.failure(kind, source).into())),
        };
        Body::ahead(chunks, rest)
    }

    /// Makes the first bytes come, or the end, or the failure; which of them, the next read tells.
    pub(crate) fn await_first(&mut self) -> io::Result<()> {
        self.fill().map(drop)
    }

    /// Whether a read would not have to wait, or run anything.
    pub(crate) fn is_ready(&self) -> bool {
        let is_open = matches!(self.state, State::Open) && !self.body.is_inert();
        !self.is_drained() || !is_open
    }

    /// Whether all was read.
    pub(crate) fn is_over(&self) -> bool {
        self.is_drained() && matches!(self.state, State::End)
    }

    /// Whether all that has come was read.
    fn is_drained(&self) -> bool {
        self.current.is_empty() && self.ready.is_empty()
    }

    /// How much of what was declared has not come yet.
    fn left(&self) -> Option<u64> {
        self.length.map(|length| length.saturating_sub(self.received))
    }

    /// Makes `current` non-empty; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.check_wanted()?;
        while self.current.is_empty() {
            if let Some(chunk) = self.ready.pop_front() {
                self.current = chunk;
                continue;
            }
            match &self.state {
                State::Open => self.wait()?,
                // A body may end for no other reason than that its connection went, and the response with it.
                State::End => return self.check_wanted().map(|()| false),
                State::Failed(kind, source) => {
                    return Err(self.role.failure(*kind, source.clone()));
                }
            }
        }
        Ok(true)
    }

    fn check_wanted(&self) -> io::Result<()> {
        match &self.watch {
            Some(watch) if watch.is_closed() => Err(aborted()),
            _ => Ok(()),
        }
    }

    /// Blocks until bytes, the end or a failure have come.
    fn wait(&mut self) -> io::Result<()> {
        if let Some(producer) = self.body.in_place() {
            let frame = producer.next();
            return self.take_in(frame).map(drop);
        }
        let watch = self.watch.clone();
        let wait = Wait {
            watch: watch.as_ref(),
            timeout: self.read_timeout,
            lends: self.role == Role::Response,
            asked: false,
        };
        let mut reading = Reading(self);
        let waited = wait.until(move |cx| reading.poll(cx));
        waited.map_err(|ended| {
            let kind = match ended {
                Ended::Closed => io::ErrorKind::ConnectionAborted,
                Ended::TimedOut => io::ErrorKind::TimedOut,
                Ended::Stuck | Ended::InsideAsync => io::ErrorKind::Other,
            };
            Error::from(ended).into_io(kind)
        })??;
        Ok(())
    }

    /// Has the task that waits for the response read on, once: false if that was done, or is not to be.
    fn offer(&mut self) -> bool {
        // A worker that polls what waits for its own pool has to know, and to lend its place.
        if self.is_offered || relies_on_pool() {
            return false;
        }
        let Some(watch) = &self.watch else { return false };
        self.is_offered = true;
        self.body = watch.relay(mem::take(&mut self.body));
        true
    }

    /// Takes one frame from the body.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let frame = match guard(|| Pin::new(&mut self.body).poll_frame(cx)) {
            Ok(polled) => ready!(polled),
            Err(panic) => Some(Err(panic.into())),
        };
        Poll::Ready(self.take_in(frame))
    }

    /// Takes what the body gave.
    fn take_in(&mut self, frame: Option<Result<Frame<Bytes>, BoxError>>) -> io::Result<Fill> {
        let accepted = match frame {
            Some(Ok(frame)) => self.accept(frame).map(|()| Fill::Frame),
            None => self.end().map(|()| Fill::End),
            Some(Err(error)) => Err((kind_of(&error), error)),
        };
        accepted.map_err(|(kind, error)| {
            self.body = Body::empty();
            let source = Arc::new(error);
            self.state = State::Failed(kind, source.clone());
            self.role.failure(kind, source)
        })
    }

    fn accept(&mut self, frame: Frame<Bytes>) -> Result<(), (io::ErrorKind, BoxError)> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => {
                let Ok(trailers) = other.into_trailers() else {
                    return Ok(());
                };
                self.end()?;
                self.trailers = Some(trailers);
                return Ok(());
            }
        };
        self.received += data.len() as u64;
        let excess = self.length.map_or(0, |length| self.received.saturating_sub(length));
        if excess > 0 && self.role == Role::Request {
            return Err(too_long(self.length.unwrap_or(0), self.received));
        }
        if !data.is_empty() {
            if self.is_drained() {
                self.current = data;
            } else {
                self.ready.push_back(data);
            }
        }
        if excess > 0 {
            self.cut_off(usize::try_from(excess).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), (io::ErrorKind, BoxError)> {
        self.body = Body::empty();
        match self.length {
            Some(length) if self.received < length => {
                let received = self.received;
                let whose = if self.role == Role::Request { "request" } else { "response" };
                let message = format!("the {whose}'s body ended early: {received} of {length} bytes came");
                let error = Error::new(Kind::Length, message);
                Err((io::ErrorKind::UnexpectedEof, error.into()))
            }
            _ => {
                self.state = State::End;
                Ok(())
            }
        }
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || !self.fill()? {
            return Ok(0);
        }
        let length = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..length]);
        Ok(length)
    }

    /// Makes room for what is here, once, and copies it chunk by chunk. A length that was only declared gets no memory.
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let start = buf.len();
        while self.fill()? {
            let here =
                self.ready.iter().fold(self.current.len(), |sum, chunk| sum.saturating_add(chunk.len()));
            buf.reserve(here);
            buf.extend_from_slice(&mem::take(&mut self.current));
        }
        Ok(buf.len() - start)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let read = self.read_to_end(&mut bytes);
        let text =
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        let text = match (text, &read) {
            (Err(error), Ok(_)) => return Err(error),
            // What came before an error is the reader's, as far as it is text.
            (text, _) => text.unwrap_or_default(),
        };
        if buf.is_empty() {
            *buf = text;
        } else {
            buf.push_str(&text);
        }
        read
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()?;
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Default for Input {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("length", &self.length)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl From<Body> for Input {
    fn from(body: Body) -> Self {
        Self::new(body)
    }
}

impl From<Bytes> for Input {
    fn from(bytes: Bytes) -> Self {
        Self::new(Body::from(bytes))
    }
}

impl From<&'static str> for Input {
    fn from(text: &'static str) -> Self {
        Self::new(Body::from(text))
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self::new(Body::from(text))
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Body::from(bytes))
    }
}

impl From<Input> for Body {
    fn from(input: Input) -> Self {
        input.into_body()
    }
}

/// A client that sends more than it declared.
fn too_long(length: u64, received: u64) -> (io::ErrorKind, BoxError) {
    let message = format!("the request's body is longer than declared: {length} bytes, {received} came");
    (io::ErrorKind::InvalidData, Error::new(Kind::Length, message).into())
}

fn aborted() -> io::Error {
    Error::from(Ended::Closed).into_io(io::ErrorKind::ConnectionAborted)
}

/// The kind that a body's error has in std's terms. Two kinds would make readers try again, for ever.
fn kind_of(error: &BoxError) -> io::ErrorKind {
    match find::<io::Error>(&**error).map(io::Error::kind) {
        None | Some(io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => io::ErrorKind::Other,
        Some(kind) => kind,
    }
}
