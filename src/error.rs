//! The crate's error type.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::StatusCode;
use http_body_util::LengthLimitError;

/// Any error: what handlers fail with and what bodies of foreign types end with.
///
/// ```
/// use http::{Request, Response};
/// use tower_wsgi::{BoxError, Input};
///
/// fn double(request: Request<Input>) -> Result<Response<String>, BoxError> {
///     let text = std::io::read_to_string(request.into_body())?; // an io::Error
///     let number: i64 = text.trim().parse()?; // a ParseIntError
///     let doubled = number.checked_mul(2).ok_or("too large to be doubled")?; // words
///     Ok(Response::new(doubled.to_string()))
/// }
///
/// assert_eq!(double(Request::new(Input::from("21")))?.body(), "42");
/// let error = double(Request::new(Input::from(i64::MAX.to_string()))).unwrap_err();
/// assert_eq!(error.to_string(), "too large to be doubled");
/// # Ok::<(), BoxError>(())
/// ```
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong at a crossing.
///
/// Responses that a crossing makes itself (500, 503, ...) carry it as an extension, so that outer layers can
/// see the reason; a body that was cut off ends with it.
///
/// ```
/// use http::{Request, Response};
/// use tower::ServiceExt;
/// use tower_wsgi::{Body, Error, Input, WsgiService};
///
/// /// Whom to look for, as a counter's label.
/// fn label(error: &Error) -> &'static str {
///     match error {
///         e if e.is_overloaded() => "load",
///         e if e.is_disconnected() || e.is_timed_out() || e.is_request() => "client",
///         // It only passed on what was wrong with its request's body.
///         e if e.is_handler() && e.status().is_client_error() => "client",
///         e if e.is_handler() || e.is_panic() || e.is_response() || e.is_length() => "application",
///         e if e.is_stuck() || e.is_inside_async() => "a wait without an end",
///         _ => "other",
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), tower_wsgi::BoxError> {
/// let service = WsgiService::new(|_: Request<Input>| Err::<Response<String>, _>("no such table"));
/// let response = service.oneshot(Request::new(Body::empty())).await?;
/// let error = response.extensions().get::<Error>().expect("the reason");
/// assert_eq!((error.status().as_u16(), label(error)), (500, "application"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Handler,
    Panic,
    Overloaded,
    TimedOut,
    Disconnected,
    Length,
    Response,
    Request,
    Stuck,
    InsideAsync,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Arc::new(Inner { kind, message: message.into(), source: None }) }
    }

    pub(crate) fn with_source(
        kind: Kind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self { inner: Arc::new(Inner { kind, message: message.into(), source: Some(source.into()) }) }
    }

    /// A handler's own error; one of ours that comes back through a handler stays what it is.
    pub(crate) fn handler(source: BoxError) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => *error,
            Err(source) => Self::with_source(Kind::Handler, "the handler failed", source),
        }
    }

    /// What reading a response's body failed with: one of ours stays what it is, unless it only passes on what was wrong with the request.
    pub(crate) fn body(error: io::Error) -> Self {
        let own = causes(&error)
            .take_while(|cause| !is_request_body(*cause))
            .find_map(|cause| cause.downcast_ref::<Self>())
            .cloned();
        own.unwrap_or_else(|| Self::handler(error.into()))
    }

    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&'static str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a message");
        Self::new(Kind::Panic, format!("the application panicked: {message}"))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The handler, or the body that it returned, failed; [`source`](std::error::Error::source) is its error.
    #[must_use]
    pub fn is_handler(&self) -> bool {
        self.kind() == Kind::Handler
    }

    /// The handler, or the body that it returned, panicked; the message holds the panic's.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.kind() == Kind::Panic
    }

    /// No worker was free in time: too many requests waited, or this one waited for too long, or no thread could
    /// be started.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.kind() == Kind::Overloaded
    }

    /// A read of the request's body waited longer than `read_timeout`.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.kind() == Kind::TimedOut
    }

    /// The other side is gone.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.kind() == Kind::Disconnected
    }

    /// A body was shorter or longer than its `Content-Length`.
    #[must_use]
    pub fn is_length(&self) -> bool {
        self.kind() == Kind::Length
    }

    /// The handler's response cannot be sent as it is, or there is none; the message says why.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.kind() == Kind::Response
    }

    /// A request cannot be made of what was given; the message says why.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.kind() == Kind::Request
    }

    /// A thread waited for something that could never wake it: a future or a body that is not ready and kept no waker.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.kind() == Kind::Stuck
    }

    /// A blocking call was made inside an async task, which it would have kept from going on.
    #[must_use]
    pub fn is_inside_async(&self) -> bool {
        self.kind() == Kind::InsideAsync
    }

    /// The status that says it best to the client: 503 for too much load, and 500 for all else, unless the handler only passed on what was
    /// wrong with its request's body: 413 for one over a limit, 408 for one that came too slowly, 400 for any other failure of it.
    ///
    /// It is the status of the plain response that stands in for an error, and at hand for
    /// [`on_error`](crate::WsgiLayer::on_error).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        if self.is_overloaded() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        match std::error::Error::source(self).filter(|_| self.is_handler()) {
            Some(source) if find::<LengthLimitError>(source).is_some() => StatusCode::PAYLOAD_TOO_LARGE,
            // A body that panicked is no client's fault.
            Some(source) if find::<Self>(source).is_some_and(Self::is_panic) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Some(source) if find::<Self>(source).is_some_and(Self::is_timed_out) => {
                StatusCode::REQUEST_TIMEOUT
            }
            Some(source) if causes(source).any(is_request_body) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As an `io::Error` of the given kind, for readers and writers.
    pub(crate) fn into_io(self, kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, self)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// Runs a user's code; a panic of it is an error.
pub(crate) fn guard<R>(code: impl FnOnce() -> R) -> Result<R, Error> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| Error::panic(&*payload))
}

/// Drops a user's value. A panic in its `Drop` changes nothing for the client: what it was for is done.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(error) = guard(|| drop(value)) {
        tracing::error!(%error, "a panic while a body was dropped");
    }
}

/// What ended a body early, told to each read after it.
#[derive(Debug)]
pub(crate) struct BodyError {
    source: Arc<BoxError>,
    /// Whether it was a request's: the client's fault then.
    is_request: bool,
}

impl BodyError {
    pub(crate) fn new(source: Arc<BoxError>, is_request: bool) -> Self {
        Self { source, is_request }
    }
}

fn is_request_body(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<BodyError>().is_some_and(|body| body.is_request)
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&**self.source)
    }
}

/// The first error of type `T` among `error` and its causes.
pub(crate) fn find<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref::<T>())
}

/// An error and its causes.
///
/// An `io::Error` hides what it wraps from `source()`, which names only the cause of that; both are looked at.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}
