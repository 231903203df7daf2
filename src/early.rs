//! A response that begins before its handler returns: WSGI's `write` callable.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::error::Error;
use crate::output::{Output, OutputKind};
use crate::parker::Watch;
use crate::writer::Sink;

/// Begins the response while the handler runs: [`Environ::early`](crate::Environ::early). It is for hosts of applications that are made this way, like
/// PEP 3333's [`write` callable](https://peps.python.org/pep-3333/#the-write-callable); where the function that writes can be returned, [`Output::writer`] does the same.
///
/// ```
/// use http::{Request, Response};
/// use tower_wsgi::{BoxError, Environ, Input, Output};
///
/// fn progress(request: Request<Input>) -> Result<Response<Output>, BoxError> {
///     let Some(early) = Environ::of(&request).early() else {
///         return Err("this host cannot send before the end".into());
///     };
///     let mut response = early.begin(Response::new(()))?;
///     response.send("working …\n")?;
///     response.send("done\n")?;
///     Ok(response.finish())
/// }
///
/// # use http_body_util::BodyExt;
/// # use tower::ServiceExt;
/// # use tower_wsgi::{Body, WsgiService};
/// # #[tokio::main]
/// # async fn main() -> Result<(), BoxError> {
/// let response = WsgiService::new(progress).oneshot(Request::new(Body::empty())).await?;
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "working …\ndone\n");
/// # Ok(())
/// # }
/// ```
///
/// # Order
/// What stands between the service and the handler sees the response when it is over: what it changes then has no effect.
#[derive(Clone)]
pub struct Early {
    call: Arc<dyn Begin>,
}

/// A response that has begun: what is sent goes to the client while the handler runs.
///
/// Its head goes out with the first bytes. It is complete once the handler has returned what [`finish`](Self::finish) makes; dropped
/// before, it is cut off, visibly for the client. It holds the service that the handler belongs to: a handler that keeps one for good keeps itself alive.
///
/// ```
/// use http::{Request, Response};
/// use tower::ServiceExt;
/// use tower_wsgi::{Body, BoxError, Environ, EarlyResponse, Input, Output, WsgiService};
///
/// /// An application that is given something to write to, and returns nothing.
/// fn legacy(write: &mut EarlyResponse) -> std::io::Result<()> {
///     write.send("some ")?;
///     write.send("text\n")
/// }
///
/// fn host(request: Request<Input>) -> Result<Response<Output>, BoxError> {
///     let early = Environ::of(&request).early().ok_or("not behind a WsgiService")?;
///     let mut response = early.begin(Response::new(()))?;
///     legacy(&mut response)?;
///     Ok(response.finish())
/// }
/// # use http_body_util::BodyExt;
/// # #[tokio::main]
/// # async fn main() -> Result<(), BoxError> {
/// # let response = WsgiService::new(host).oneshot(Request::new(Body::empty())).await?;
/// # assert_eq!(response.into_body().collect().await?.to_bytes(), "some text\n");
/// # Ok(())
/// # }
/// ```
pub struct EarlyResponse {
    sink: Box<dyn BegunSink>,
    head: Response<()>,
}

/// A call whose response can begin while its handler runs.
pub(crate) trait Begin: Watch {
    /// The same as what its supertrait is. (Rust casts a trait object so from 1.86 on.)
    fn into_watch(self: Arc<Self>) -> Arc<dyn Watch>;

    fn begin(self: Arc<Self>, head: Response<()>) -> Result<Box<dyn BegunSink>, Error>;
}

/// Where an early response's chunks go. One whose handler ends without [`finish`](Self::finish) is cut off by who called the handler.
pub(crate) trait BegunSink: Sink + Send {
    /// Ends the body.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

impl Early {
    pub(crate) fn new(call: Arc<dyn Begin>) -> Self {
        Self { call }
    }

    /// Begins the response; once for each request.
    ///
    /// # Errors
    /// If the head is one that could not be returned either; if the response was begun before.
    pub fn begin(self, head: Response<()>) -> Result<EarlyResponse, Error> {
        let mut shown = Response::new(());
        *shown.status_mut() = head.status();
        *shown.headers_mut() = head.headers().clone();
        Ok(EarlyResponse { sink: self.call.begin(head)?, head: shown })
    }
}

impl EarlyResponse {
    /// Sends a chunk.
    ///
    /// # Errors
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) as soon as the response is wanted no more; [`InvalidInput`](io::ErrorKind::InvalidInput) for what
    /// goes over the response's `Content-Length`.
    ///
    /// # Blocking
    /// While `send_queue_size` chunks wait for the client, as [`Writer`](crate::Writer) does.
    pub fn send(&mut self, chunk: impl Into<Bytes>) -> io::Result<()> {
        let chunk = chunk.into();
        if chunk.is_empty() { self.sink.check() } else { self.sink.send(chunk) }
    }

    /// What the handler has to return.
    #[must_use = "the response is complete when the handler returns this"]
    pub fn finish(self) -> Response<Output> {
        let Self { sink, head } = self;
        head.map(|()| OutputKind::Begun(sink).into())
    }
}

impl fmt::Debug for Early {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Early").finish_non_exhaustive()
    }
}

impl fmt::Debug for EarlyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyResponse").field("head", &self.head).finish_non_exhaustive()
    }
}
