//! The response's body on the synchronous side.

use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::body::Body;
use crate::early::BegunSink;
use crate::error::{BoxError, Error, Kind};
use crate::input::Input;
use crate::parker::Watch;
use crate::source::{Blocking, Producer, Source, Trailers, Write};
use crate::trailed::Trailed;
use crate::writer::Writer;

/// The response's body on the synchronous side.
///
/// | | made by | like WSGI's |
/// | --- | --- | --- |
/// | full | `From<&'static str>`, `String`, `Vec<u8>`, `Bytes` | a list of one |
/// | chunks | [`iter`](Self::iter), [`try_iter`](Self::try_iter) | an iterable |
/// | reader | [`reader`](Self::reader) | `wsgi.file_wrapper` |
/// | writer | [`writer`](Self::writer) | the `write` callable |
/// | async body | [`body`](Self::body) | |
///
/// ```
/// use std::io::{Cursor, Write};
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use tower_wsgi::Output;
///
/// fn text(output: Output) -> std::io::Result<String> {
///     std::io::read_to_string(output.into_reader())
/// }
///
/// assert_eq!(text(Output::empty())?, "");
/// assert_eq!(text("Hello World!".into())?, "Hello World!");
/// assert_eq!(text(Output::iter(["Hello ", "World!"]))?, "Hello World!");
/// assert_eq!(text(Output::reader(Cursor::new("Hello World!")))?, "Hello World!");
/// assert_eq!(text(Output::writer(|w| write!(w, "Hello {}!", "World")))?, "Hello World!");
/// assert_eq!(text(Output::body(Full::new(Bytes::from("Hello World!"))))?, "Hello World!");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Nothing runs before the response is delivered. Iterators, readers and writers then run on a worker, and are dropped on one,
/// exactly once, whatever happens.
///
/// # Head
/// As PEP 3333 has it, status and headers go out with the first non-empty chunk, or at the end of the body. What fails before
/// that is a clean error response; what fails later cuts the response off, visibly for the client.
///
/// # Blocking
/// At most `send_queue_size` chunks are ahead of the client. When so many wait, an iterator or a reader is put aside and its worker
/// serves others; it goes on, on any worker, when there is room. It should hold no lock between two chunks. A writer cannot be
/// put aside: it blocks its worker until there is room.
///
/// Outside of a [`WsgiService`](crate::WsgiService), [`into_reader`](Self::into_reader) runs them.
///
/// # Cancellation
/// When the response is wanted no more, an iterator or a reader that waits for room is dropped, on a worker; one that runs is asked for nothing more. A writer's next write fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe). An async body is dropped by who polls it, or on the worker where nobody came to.
#[must_use]
pub struct Output {
    pub(crate) kind: OutputKind,
    pub(crate) trailers: Option<Trailers>,
    /// Tells who reads an async body here when the response is wanted no more.
    pub(crate) watch: Option<Arc<dyn Watch>>,
}

/// The future of an inner service.
pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// Starts the inner service on a request that was forwarded to it.
pub(crate) type Forward = Box<dyn FnOnce() -> ResponseFuture + Send>;

pub(crate) enum OutputKind {
    Full(Bytes),
    Source(Source),
    Write(Write),
    Body(Body),
    Forward(Forward),
    /// It was sent while the handler ran.
    Begun(Box<dyn BegunSink>),
}

impl Output {
    /// An empty body.
    pub fn empty() -> Self {
        Bytes::new().into()
    }

    /// A body of chunks, each sent as soon as it is there.
    ///
    /// ```
    /// use std::io::BufRead;
    /// use tower_wsgi::Output;
    ///
    /// let numbers = Output::iter((1..=1_000_000).map(|n| format!("{n}\n")));
    /// // As many are made as are read.
    /// let mut lines = numbers.into_reader().lines();
    /// assert_eq!(lines.next().transpose()?.as_deref(), Some("1"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn iter<I>(chunks: I) -> Self
    where
        I: IntoIterator<Item: Into<Bytes> + 'static, IntoIter: Send + 'static>,
    {
        Self::try_iter(chunks.into_iter().map(Ok::<_, BoxError>))
    }

    /// A body of chunks, any of which may fail. An error ends the body; the client sees that it is not complete.
    ///
    /// ```
    /// use tower_wsgi::Output;
    ///
    /// let rows = ["id\n", "1\n"].map(Ok).into_iter().chain([Err("the database went away")]);
    /// let mut reader = Output::try_iter(rows).into_reader();
    /// assert_eq!(reader.chunk()?.as_deref(), Some(&b"id\n"[..]));
    /// assert_eq!(reader.chunk()?.as_deref(), Some(&b"1\n"[..]));
    /// assert_eq!(reader.chunk().unwrap_err().to_string(), "the database went away");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_iter<I, T, E>(chunks: I) -> Self
    where
        I: IntoIterator<Item = Result<T, E>, IntoIter: Send + 'static>,
        T: Into<Bytes>,
        E: Into<BoxError>,
    {
        OutputKind::Source(Source::iter(chunks)).into()
    }

    /// A body read from `reader`, up to its end, in pieces of up to 64 KiB.
    ///
    /// ```no_run
    /// # use tower_wsgi::Output;
    /// # fn main() -> std::io::Result<()> {
    /// let file = Output::reader(std::fs::File::open("film.mp4")?);
    /// # drop(file);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reader(reader: impl Read + Send + 'static) -> Self {
        OutputKind::Source(Source::read(reader)).into()
    }

    /// A body written by a function. Small writes are gathered; [`flush`](io::Write::flush) sends what there is.
    /// If the function fails, the body is cut off.
    ///
    /// ```
    /// use std::io::Write;
    /// use tower_wsgi::Output;
    ///
    /// let output = Output::writer(|w| {
    ///     writeln!(w, "<h1>Report</h1>")?;
    ///     w.flush()?; // the browser has something to show
    ///     writeln!(w, "<p>{}</p>", 6 * 7)
    /// });
    /// # assert_eq!(std::io::read_to_string(output.into_reader()).unwrap(), "<h1>Report</h1>\n<p>42</p>\n");
    /// ```
    ///
    /// # Blocking
    /// A slow client holds the worker: see [`Output`].
    pub fn writer(write: impl FnOnce(&mut Writer<'_>) -> io::Result<()> + Send + 'static) -> Self {
        OutputKind::Write(Box::new(write)).into()
    }

    /// An async body, passed through as it is: polled by the async side, no worker is held. One that synchronous code made ([`into_reader`](Self::into_reader), [`Input::into_body`]) is
    /// what it was before.
    ///
    /// ```
    /// use axum::response::IntoResponse;
    /// use http::Response;
    /// use tower_wsgi::Output;
    ///
    /// // What axum's helpers make, from a synchronous handler.
    /// let response: Response<Output> = axum::Json([1, 2, 3]).into_response().map(Output::body);
    /// assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "[1,2,3]");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn body<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Body::new(body).into()
    }

    /// Adds trailers, made when the body is complete: on a worker, but for an async body, where its last poll makes them. Over HTTP/1.1 the response has to name them in its `Trailer` header, and
    /// the client has to ask for them with `TE: trailers` ([RFC 9110, section 6.5](https://www.rfc-editor.org/rfc/rfc9110#section-6.5)).
    ///
    /// ```
    /// use http::{HeaderMap, HeaderValue};
    /// use tower_wsgi::Output;
    ///
    /// let output = Output::from("hello").with_trailers(|| {
    ///     HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"5d41\""))])
    /// });
    /// # let mut reader = output.into_reader();
    /// # std::io::Read::read_to_end(&mut reader, &mut Vec::new()).unwrap();
    /// # assert_eq!(reader.trailers().unwrap()["etag"], "\"5d41\"");
    /// ```
    pub fn with_trailers(mut self, trailers: impl FnOnce() -> HeaderMap + Send + 'static) -> Self {
        self.trailers = Some(Box::new(trailers));
        self
    }

    /// Turns the body into one that synchronous code reads: what a sync middleware does to change a body, and a sync host to send it.
    ///
    /// ```
    /// use std::io::Read;
    /// use tower_wsgi::Output;
    ///
    /// let mut text = String::new();
    /// Output::iter(["Hello ", "World!"]).into_reader().read_to_string(&mut text).unwrap();
    /// assert_eq!(text, "Hello World!");
    /// ```
    ///
    /// # Errors
    /// Reads fail with what the body fails with, a panic in it included. The body of a response that [`Next::forward`](crate::Next::forward) made is not here, and reads of
    /// it fail.
    ///
    /// # Blocking
    /// Iterators and readers run on the thread that reads, inside its read. An async body is polled by it, in place. A writing function runs on a thread
    /// of its own from the first read on, at most two chunks ahead. A worker that waits here lends its place in the pool, as in [`Next::run`](crate::Next::run).
    ///
    /// # Cancellation
    /// Dropping it drops the body; a writing function's next write fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe).
    #[must_use]
    pub fn into_reader(self) -> Input {
        let Self { kind, trailers, watch } = self;
        let body = match kind {
            OutputKind::Source(source) => Body::blocking(Blocking::new(Producer::Source(source), trailers)),
            OutputKind::Write(write) => Body::blocking(Blocking::new(Producer::Write(write), trailers)),
            other => {
                let body = match other {
                    OutputKind::Full(bytes) => Body::from(bytes),
                    OutputKind::Body(body) => body,
                    OutputKind::Begun(_) => {
                        let message = "the response was sent while its handler ran: its body is not here";
                        Body::last(Err(Error::new(Kind::Response, message).into()))
                    }
                    _ => {
                        let message = "the request was forwarded: its response's body is not here";
                        Body::last(Err(Error::new(Kind::Response, message).into()))
                    }
                };
                match trailers {
                    Some(trailers) => Body::new(Trailed::new(body, trailers)),
                    None => body,
                }
            }
        };
        Input::response(body, watch)
    }

    /// The length, if it is known without running anything.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.kind {
            OutputKind::Full(bytes) => Some(bytes.len() as u64),
            OutputKind::Body(body) => http_body::Body::size_hint(body).exact(),
            OutputKind::Source(_) | OutputKind::Write(_) | OutputKind::Forward(_) | OutputKind::Begun(_) => {
                None
            }
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            OutputKind::Full(_) => "full",
            OutputKind::Source(Source::Iter(_)) => "chunks",
            OutputKind::Source(Source::Read(..)) => "reader",
            OutputKind::Write(_) => "writer",
            OutputKind::Body(_) => "async body",
            OutputKind::Forward(_) => "forward",
            OutputKind::Begun(_) => "begun",
        };
        f.debug_struct("Output")
            .field("kind", &kind)
            .field("length", &self.length())
            .field("trailers", &self.trailers.is_some())
            .finish()
    }
}

impl From<OutputKind> for Output {
    fn from(kind: OutputKind) -> Self {
        Self { kind, trailers: None, watch: None }
    }
}

impl From<Bytes> for Output {
    fn from(bytes: Bytes) -> Self {
        OutputKind::Full(bytes).into()
    }
}

impl From<&'static str> for Output {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Output {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<Vec<u8>> for Output {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<Body> for Output {
    fn from(body: Body) -> Self {
        match body.into_producer() {
            Ok((Producer::Source(source), trailers)) => {
                Self { trailers, ..OutputKind::Source(source).into() }
            }
            Ok((Producer::Write(write), trailers)) => Self { trailers, ..OutputKind::Write(write).into() },
            Err(body) => OutputKind::Body(body).into(),
        }
    }
}

impl From<Input> for Output {
    /// What of the input was not read yet.
    fn from(input: Input) -> Self {
        input.into_body().into()
    }
}

impl From<()> for Output {
    fn from((): ()) -> Self {
        Self::empty()
    }
}
