//! The runtime's side of a request: the response's future, and the body that it ends in.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tower_wsgi::{Body, BoxError};

use super::exchange::{Answer, End, Exchange, Producer};
use super::handle::Handle;
use super::hub::Event;
use super::inbound::Inbound;
use super::request::Incoming;
use super::upgrade::{self, Handshake};

/// How much of a request's body goes with the request, if it is there already.
const PREFETCH: u64 = 64 * 1024;

/// The response of a [`PyAsgi`](crate::PyAsgi), before it is there.
///
/// ```
/// use http::Request;
/// use tower_service::Service;
/// use tower_wsgi::Body;
/// use tower_wsgi_python::{PyAsgi, PyAsgiFuture};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), tower_wsgi::BoxError> {
/// # tower_wsgi_python::Import::new("shop.main:app").path("tests/apps/docs").load()?;
/// let mut shop = PyAsgi::import("shop.main:app")?;
/// let future: PyAsgiFuture = shop.call(Request::get("/cart").body(Body::empty())?);
/// assert_eq!(future.await?.status(), 200);
///
/// // Given up before its first poll: the application hears nothing of it.
/// drop(shop.call(Request::get("/cart").body(Body::empty())?));
/// # Ok(())
/// # }
/// ```
///
/// # Cancellation
/// Dropping it before its first poll keeps the request from the application. Later, the application's `receive()` gives `http.disconnect`, and its `send()` raises `OSError`;
/// it is not cancelled, and may go on without its client.
#[must_use = "futures do nothing unless polled"]
pub struct PyAsgiFuture {
    stage: Stage,
}

enum Stage {
    Start(Box<Start>),
    Prefetch(Box<Prefetch>),
    Running(Arc<Exchange>, Inbound),
    Handshake(Handshake),
    Done,
}

struct Start {
    handle: Arc<Handle>,
    request: Request<Body>,
}

/// A request whose body is looked at before it is handed over.
struct Prefetch {
    handle: Arc<Handle>,
    incoming: Incoming,
    inbound: Inbound,
    /// Whether the body was not ready once.
    polled: bool,
}

impl PyAsgiFuture {
    pub(super) fn new(handle: Arc<Handle>, request: Request<Body>) -> Self {
        Self { stage: Stage::Start(Box::new(Start { handle, request })) }
    }

    fn start(start: Start) -> Stage {
        let Start { handle, mut request } = start;
        if upgrade::is_asked_for(&request) {
            return Stage::Handshake(Handshake::new(&handle, request));
        }
        let incoming = Incoming::of(&mut request);
        let inbound = Inbound::new(request.into_body(), &incoming.headers);
        Stage::Prefetch(Box::new(Prefetch { handle, incoming, inbound, polled: false }))
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        loop {
            match &mut self.stage {
                Stage::Start(_) => {
                    if let Stage::Start(start) = std::mem::replace(&mut self.stage, Stage::Done) {
                        self.stage = Self::start(*start);
                    }
                }
                Stage::Prefetch(prefetch) => {
                    ready!(prefetch.poll(cx));
                    if let Stage::Prefetch(prefetch) = std::mem::replace(&mut self.stage, Stage::Done) {
                        match prefetch.submit() {
                            Ok((exchange, inbound)) => self.stage = Stage::Running(exchange, inbound),
                            Err(response) => return Poll::Ready(*response),
                        }
                    }
                }
                Stage::Running(exchange, inbound) => {
                    let answer = ready!(exchange.poll_answer(inbound, cx));
                    let Stage::Running(exchange, inbound) = std::mem::replace(&mut self.stage, Stage::Done)
                    else {
                        continue;
                    };
                    return Poll::Ready(respond(exchange, inbound, answer));
                }
                Stage::Handshake(handshake) => {
                    let response = ready!(handshake.poll(cx));
                    self.stage = Stage::Done;
                    return Poll::Ready(response);
                }
                Stage::Done => return Poll::Pending,
            }
        }
    }
}

impl Prefetch {
    /// Reads what is there of the body, so that the application's first `receive()` need not wait.
    ///
    /// hyper reads a body only once somebody has asked for it: hence the second look. There is no third: the application may not want the body at all, or its client an answer before it sends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.incoming.expects_continue() {
            return Poll::Ready(());
        }
        while !self.inbound.is_read() && self.inbound.received() < PREFETCH {
            if self.inbound.poll(cx).is_ready() {
                continue;
            }
            if self.polled {
                break;
            }
            self.polled = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn submit(self) -> Result<(Arc<Exchange>, Inbound), Box<Response<Body>>> {
        let Self { handle, incoming, mut inbound, .. } = self;
        let exchange = Exchange::new(incoming, handle.hub.clone(), handle.send_queue_size, &inbound);
        exchange.take_in(&mut inbound);
        let exchange = Arc::new(exchange);
        match handle.hub.submit(Event::Http(Producer(exchange.clone()))) {
            Ok(()) => Ok((exchange, inbound)),
            Err(_) => Err(Box::new(closed(&exchange.request.method))),
        }
    }
}

impl Future for PyAsgiFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_response(cx).map(Ok)
    }
}

impl Drop for PyAsgiFuture {
    fn drop(&mut self) {
        if let Stage::Running(exchange, _) = &self.stage {
            exchange.close();
        }
    }
}

impl fmt::Debug for PyAsgiFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Start(_) => "start",
            Stage::Prefetch(_) => "prefetch",
            Stage::Running(..) => "running",
            Stage::Handshake(_) => "handshake",
            Stage::Done => "done",
        };
        f.debug_struct("PyAsgiFuture").field("stage", &stage).finish_non_exhaustive()
    }
}

/// The body of a response that was not complete when its head went out.
struct ResponseBody {
    exchange: Arc<Exchange>,
    inbound: Inbound,
    /// What is left of the declared length.
    remaining: Option<u64>,
    /// Whether the last poll gave a frame.
    flowing: bool,
    ended: bool,
}

impl ResponseBody {
    fn new(exchange: Arc<Exchange>, inbound: Inbound, remaining: Option<u64>) -> Self {
        Self { exchange, inbound, remaining, flowing: true, ended: false }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = this.exchange.poll_frame(&mut this.inbound, cx) else {
            this.flowing = false;
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            Ok(frame) => {
                this.flowing = true;
                if let (Some(remaining), Some(data)) = (&mut this.remaining, frame.data_ref()) {
                    *remaining = remaining.saturating_sub(data.len() as u64);
                }
                Some(Ok(frame))
            }
            // hyper throws away what it has gathered when a body fails: it gets a chance to send that first.
            Err(End::Failed) if this.flowing => {
                this.flowing = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Err(end) => {
                this.ended = true;
                (end == End::Failed).then(|| Err("the application did not complete its response".into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.exchange.is_drained()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.exchange.close();
    }
}

/// The response that an answer stands for.
pub(super) fn respond(exchange: Arc<Exchange>, inbound: Inbound, answer: Answer) -> Response<Body> {
    match answer {
        Answer::Full(head, body) => head.map(|()| body.into()),
        Answer::Stream(head, length) => {
            head.map(|()| Body::new(ResponseBody::new(exchange, inbound, length)))
        }
        // It may still listen: after chunks that are none, or with its own half of the connection closed.
        Answer::Faulted => {
            exchange.close();
            plain(&exchange.request.method, StatusCode::BAD_REQUEST)
        }
        // Only a handshake is answered so, and it looks before it asks here.
        Answer::Failed | Answer::Upgrade(_) => {
            exchange.close();
            plain(&exchange.request.method, StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// The response to a request that came after the application's end.
pub(super) fn closed(method: &Method) -> Response<Body> {
    let mut response = plain(method, StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A response that says no more than its status.
pub(super) fn plain(method: &Method, status: StatusCode) -> Response<Body> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    // Over HTTP/2 hyper would send the body of a response to HEAD.
    if method != Method::HEAD {
        *response.body_mut() = text.into();
    }
    response
}
