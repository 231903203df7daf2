//! The request's body on the synchronous side.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use crate::body::Body;
use crate::error::{BodyError, BoxError, Error, Kind, find};
use crate::parker::{Parker, Watch};

/// The request's body on the synchronous side: WSGI's `wsgi.input`.
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
/// # End and errors
/// `Ok(0)` and `None` are the true end of the body. A client that vanishes, or that sends less or more than the `Content-Length` it declared,
/// is an `io::Error`, and so is each read after it. What the error stands for can be asked of the [`Error`] inside it, or of the body's own
/// error, through [`io::Error::get_ref`] and `source()`.
///
/// # Blocking
/// A read blocks the calling thread until the next bytes are here. It polls the body itself and is woken by what wakes the body: by the
/// connection. It ends with [`TimedOut`](io::ErrorKind::TimedOut) after `read_timeout` without a byte (it can be tried again then), and with
/// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) as soon as the response is wanted no more.
pub struct Input {
    current: Bytes,
    ready: VecDeque<Bytes>,
    body: Body,
    state: State,
    /// What the client declared, and how much of it has come.
    length: Option<u64>,
    received: u64,
    trailers: Option<HeaderMap>,
    read_timeout: Option<Duration>,
    watch: Option<Arc<dyn Watch>>,
}

#[derive(Clone)]
enum State {
    Open,
    End,
    Failed(io::ErrorKind, Arc<BoxError>),
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
    #[must_use]
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let body = Body::new(body);
        let length = body.size_hint().exact();
        Self::with_length(body, length)
    }

    /// An empty input.
    #[must_use]
    pub fn empty() -> Self {
        Self::with_length(Body::empty(), None)
    }

    /// An input of which `length` bytes were declared.
    pub(crate) fn with_length(body: Body, length: Option<u64>) -> Self {
        let over = body.is_end_stream() && length.unwrap_or(0) == 0;
        Self {
            current: Bytes::new(),
            ready: VecDeque::new(),
            body,
            state: if over { State::End } else { State::Open },
            length,
            received: 0,
            trailers: None,
            read_timeout: None,
            watch: None,
        }
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
        Ok(more.then(|| std::mem::take(&mut self.current)))
    }

    /// The trailers, once the end of the body was read; `None` before it, and where the client sent none.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref().filter(|_| self.current.is_empty() && self.ready.is_empty())
    }

    /// Turns what was not read yet into an async body again, without a copy.
    pub fn into_body(mut self) -> Body {
        let mut chunks = std::mem::take(&mut self.ready);
        if !self.current.is_empty() {
            chunks.push_front(std::mem::take(&mut self.current));
        }
        let rest = match self.state {
            State::Open => self.body,
            State::End => match self.trailers {
                Some(trailers) => Body::last(Ok(trailers)),
                None => Body::empty(),
            },
            State::Failed(kind, source) => {
                Body::last(Err(io::Error::new(kind, BodyError::new(source)).into()))
            }
        };
        Body::ahead(chunks, rest)
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
                    return Err(io::Error::new(*kind, BodyError::new(source.clone())));
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
        let parker = Parker::current();
        let mut cx = Context::from_waker(parker.waker());
        // One that is too far away to be told is none.
        let within = |timeout| Instant::now().checked_add(timeout);
        let mut deadline = None;
        loop {
            let polled = self.poll_fill(&mut cx)?;
            if polled.is_ready() && !(self.current.is_empty() && matches!(self.state, State::Open)) {
                return Ok(());
            }
            if let Some(watch) = &self.watch
                && !watch.watch(parker.waker())
            {
                return Err(aborted());
            }
            deadline = deadline.or_else(|| self.read_timeout.and_then(within));
            // A frame without bytes is no news: whoever sends such could hold the worker for ever.
            let in_time = match polled {
                Poll::Ready(_) => deadline.is_none_or(|deadline| Instant::now() < deadline),
                Poll::Pending => parker.park_until(deadline),
            };
            if !in_time {
                let message = "no byte of the request's body came within read_timeout";
                return Err(Error::new(Kind::TimedOut, message).into_io(io::ErrorKind::TimedOut));
            }
        }
    }

    /// Takes one frame from the body.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Fill>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Poll::Pending;
        };
        let accepted = match frame {
            Some(Ok(frame)) => self.accept(frame).map(|()| Fill::Frame),
            None => self.end().map(|()| Fill::End),
            Some(Err(error)) => Err((kind_of(&error), error)),
        };
        Poll::Ready(accepted.map_err(|(kind, error)| {
            self.body = Body::empty();
            let source = Arc::new(error);
            self.state = State::Failed(kind, source.clone());
            io::Error::new(kind, BodyError::new(source))
        }))
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
        if let Some(length) = self.length.filter(|length| self.received > *length) {
            let received = self.received;
            let message =
                format!("the request's body is longer than declared: {length} bytes, {received} came");
            let error = Error::new(Kind::Length, message);
            return Err((io::ErrorKind::InvalidData, error.into()));
        }
        if !data.is_empty() {
            if self.current.is_empty() && self.ready.is_empty() {
                self.current = data;
            } else {
                self.ready.push_back(data);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), (io::ErrorKind, BoxError)> {
        self.body = Body::empty();
        match self.length {
            Some(length) if self.received < length => {
                let received = self.received;
                let message = format!("the request's body ended early: {received} of {length} bytes came");
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

fn aborted() -> io::Error {
    let error = Error::new(Kind::Disconnected, "the response is wanted no more");
    error.into_io(io::ErrorKind::ConnectionAborted)
}

/// The kind that a body's error has in std's terms. Two kinds would make readers try again, for ever.
fn kind_of(error: &BoxError) -> io::ErrorKind {
    match find::<io::Error>(&**error).map(io::Error::kind) {
        None | Some(io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => io::ErrorKind::Other,
        Some(kind) => kind,
    }
}
