//! The futures of the crossing.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{EXPECT, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::call::{Answer, Call, Work};
use super::deliver::log;
use super::events::At;
use crate::body::Body;
use crate::error::{BoxError, Error, Kind};
use crate::exchange::Leftover;
use crate::handler::SyncHandler;
use crate::input::Input;
use crate::nesting::{adopt, is_waited_for, note_reliance};
use crate::output;
use crate::response::error_response;

/// The response of a [`WsgiService`](crate::WsgiService), before it is there.
///
/// ```
/// use http::{Request, Response};
/// use tower_service::Service;
/// use tower_wsgi::{Body, BoxError, Input, ResponseFuture, WsgiService};
///
/// /// A type that can be named, where a service of one's own holds the future.
/// type Hello = fn(Request<Input>) -> Response<&'static str>;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), BoxError> {
/// let mut service: WsgiService<Hello> = WsgiService::new(|_| Response::new("Hello World!"));
/// let future: ResponseFuture<Hello> = service.call(Request::new(Body::empty()));
/// assert_eq!(future.await?.status(), 200);
///
/// // Given up before it began: the handler is not called.
/// drop(service.call(Request::new(Body::empty())));
/// # Ok(())
/// # }
/// ```
///
/// # Cancellation
/// Dropped before a worker began, the request is not run; dropped later, the handler's next read or write fails. The request itself
/// is dropped on a worker, unless it was forwarded to the inner service.
///
/// # Panics
/// A poll panics where [`queue_timeout`](crate::WsgiLayer::queue_timeout) is set, and there is no tokio runtime, or one without its time driver.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<H: SyncHandler> {
    call: Arc<Call<H>>,
    stage: Stage,
    /// Keeps the buffer that the request's head was read into: what a thread allocates is best freed by the same one, and the worker would be the last to let go of it.
    _buffer: Option<HeaderValue>,
}

enum Stage {
    /// Reading ahead.
    Prefetch(Box<Request<Input>>),
    /// The exchange holds the request.
    Held,
    /// Waiting for a worker, or for its answer; the timer runs until one has begun.
    Submitted(Option<Pin<Box<Sleep>>>),
    /// Waiting for the inner service, with what the handler put on its response.
    Forwarded(output::ResponseFuture, Box<Response<()>>),
    Done,
}

impl<H: SyncHandler> ResponseFuture<H> {
    /// The future of a call, with its request if that has to be read ahead, and a share of the request's buffer.
    pub(super) fn new(
        call: Arc<Call<H>>,
        ahead: Option<Box<Request<Input>>>,
        buffer: Option<HeaderValue>,
    ) -> Self {
        Self { call, stage: ahead.map_or(Stage::Held, Stage::Prefetch), _buffer: buffer }
    }

    /// Hands the request to the pool.
    fn submit(&mut self, timer: Option<Pin<Box<Sleep>>>) -> Result<(), Error> {
        let settings = &self.call.shared.settings;
        let nested = self.call.exchange.submit(|work| match work {
            Work::Start(request) => {
                adopt(request);
                is_waited_for(request, &settings.pool)
            }
            Work::Resume(_) | Work::Fail(_) => false,
        });
        let nested = nested.unwrap_or_default();
        self.call.set_waited_for(nested);
        self.call.events.dispatched(self.call.span(), || settings.pool.stats().queued);
        if nested {
            settings.pool.resume(self.call.clone());
        } else if settings.pool.submit(self.call.clone(), settings.max_queued).is_err() {
            self.discard();
            return Err(Error::new(Kind::Overloaded, "too many requests wait for a worker"));
        }
        self.stage = Stage::Submitted(timer);
        Ok(())
    }

    /// Has a worker drop a request that was never handed to the pool.
    fn let_go(&mut self) {
        self.call.exchange.submit(|_| ());
        self.discard();
    }

    /// Closes an exchange whose work is not in the pool, and has a worker drop it.
    fn discard(&mut self) {
        self.stage = Stage::Done;
        self.call.exchange.close();
        self.call.shared.settings.pool.discard(self.call.clone());
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Error>> {
        loop {
            match &mut self.stage {
                Stage::Prefetch(request) => {
                    self.call.capture();
                    ready!(poll_prefetch(request, self.call.shared.settings.prefetch, cx));
                    if let Stage::Prefetch(request) = std::mem::replace(&mut self.stage, Stage::Held) {
                        self.call.exchange.hold(Work::Start(*request));
                    }
                }
                Stage::Held => {
                    self.call.capture();
                    // Before anything else happens: where there is no timer this panics, and the request is still the future's.
                    let timeout = self.call.shared.settings.queue_timeout;
                    self.submit(timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout))))?;
                }
                Stage::Submitted(timer) => {
                    let Poll::Ready(answer) = self.call.exchange.poll_answer(cx) else {
                        note_reliance(&self.call.shared.settings.pool);
                        if let Some(sleep) = timer {
                            ready!(sleep.as_mut().poll(cx));
                            *timer = None;
                            self.time_out()?;
                        }
                        return Poll::Pending;
                    };
                    self.stage = Stage::Done;
                    match answer {
                        Some(Answer::Response(response)) => return Poll::Ready(Ok(response)),
                        Some(Answer::Stream(head, length)) => {
                            let body = Body::stream(self.call.clone(), length);
                            return Poll::Ready(Ok(head.map(|()| body)));
                        }
                        Some(Answer::Forward(head, forward)) => {
                            self.stage = Stage::Forwarded(forward(), Box::new(head));
                        }
                        None => {
                            let failure = self.call.exchange.take_failure();
                            let message = "the request was dropped without an answer";
                            let vanished = || Error::new(Kind::Handler, message);
                            return Poll::Ready(Err(failure.unwrap_or_else(vanished)));
                        }
                    }
                }
                Stage::Forwarded(inner, head) => {
                    let mut response = match ready!(inner.as_mut().poll(cx)) {
                        Ok(response) => response,
                        Err(error) => {
                            self.fail(Error::handler(error))?;
                            continue;
                        }
                    };
                    response.headers_mut().extend(std::mem::take(head.headers_mut()));
                    response.extensions_mut().extend(std::mem::take(head.extensions_mut()));
                    self.stage = Stage::Done;
                    return Poll::Ready(Ok(response));
                }
                Stage::Done => return Poll::Pending,
            }
        }
    }

    /// The inner service failed. `on_error` may block: it needs a worker again.
    fn fail(&mut self, error: Error) -> Result<(), Error> {
        self.stage = Stage::Done;
        let call = &self.call;
        if call.shared.settings.on_error.is_none() {
            log(call, &error);
            return Err(error);
        }
        if let Err(Work::Fail(error)) = call.exchange.requeue(Work::Fail(error)) {
            return Err(error);
        }
        call.shared.settings.pool.resume(call.clone());
        self.stage = Stage::Submitted(None);
        Ok(())
    }

    /// Gives up if no worker has begun.
    fn time_out(&mut self) -> Result<(), Error> {
        let Some(leftover) = self.call.exchange.close_if_queued() else {
            return Ok(());
        };
        self.stage = Stage::Done;
        self.call.abandon(leftover);
        self.call.shared.settings.pool.count_rejected();
        Err(Error::new(Kind::Overloaded, "no worker was free within queue_timeout"))
    }
}

impl<H: SyncHandler> Future for ResponseFuture<H> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let response = ready!(this.poll_response(cx));
        Poll::Ready(Ok(response.unwrap_or_else(|error| {
            if error.is_overloaded() {
                this.call.events.refused(this.call.span(), &error);
            }
            refusal(&this.call.method, &error)
        })))
    }
}

impl<H: SyncHandler> Drop for ResponseFuture<H> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Prefetch(request) => {
                self.call.exchange.hold(Work::Start(*request));
                self.let_go();
            }
            Stage::Held => self.let_go(),
            Stage::Submitted(_) | Stage::Forwarded(..) => {
                let leftover = self.call.exchange.close();
                let at = if leftover == Leftover::InQueue { At::Queue } else { At::Handler };
                self.call.events.left(self.call.span(), at);
                self.call.abandon(leftover);
            }
            Stage::Done => {}
        }
    }
}

impl<H: SyncHandler> fmt::Debug for ResponseFuture<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Prefetch(_) => "prefetch",
            Stage::Held => "held",
            Stage::Submitted(_) => "submitted",
            Stage::Forwarded(..) => "forwarded",
            Stage::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("stage", &stage).finish_non_exhaustive()
    }
}

/// Whether a request should get a worker at once: one whose body is here, or need not be read ahead. With `Expect: 100-continue` asking for a byte is what sends the interim response, and that
/// is the handler's to decide.
pub(super) fn is_ready(request: &Request<Input>, limit: u64) -> bool {
    let expects = || {
        let expect = request.headers().get(EXPECT);
        expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    };
    request.body().is_complete() || wanted(request.body(), limit) == 0 || expects()
}

/// How much of a body is read ahead.
fn wanted(input: &Input, limit: u64) -> u64 {
    input.length().map_or(limit, |length| length.min(limit))
}

/// Reads ahead until the request should get a worker.
///
/// A body of declared length waits here for all of it or for `limit` bytes: a slow sender holds no thread. One of unknown length waits for its first bytes only,
/// since its sender may be waiting for an answer.
fn poll_prefetch(request: &mut Request<Input>, limit: u64, cx: &mut Context<'_>) -> Poll<()> {
    let input = request.body_mut();
    let wanted = wanted(input, limit);
    while input.received() < wanted {
        match input.poll_ahead(cx) {
            Poll::Ready(true) => {}
            Poll::Ready(false) => break,
            Poll::Pending if input.length().is_none() && input.received() > 0 => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(())
}

/// The response for a request that no handler answered.
fn refusal(method: &Method, error: &Error) -> Response<Body> {
    if !error.is_overloaded() {
        return error_response(method, error);
    }
    let mut response = error_response(method, error);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pin_project! {
    /// The response of a [`Wsgi`](crate::Wsgi), before it is there: the application's or the inner service's.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use axum::Router;
    /// use http::{Request, Response};
    /// use tower_layer::Layer;
    /// use tower_service::Service;
    /// use tower_wsgi::{BoxError, Input, Wsgi, WsgiFuture, WsgiLayer};
    ///
    /// type Incoming = axum::extract::Request;
    /// type Legacy = fn(Request<Input>) -> Response<&'static str>;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), BoxError> {
    /// let legacy: Legacy = |_| Response::new("the old way");
    /// let mut service: Wsgi<Legacy, Router> = WsgiLayer::new(legacy).at("/legacy").layer(Router::new());
    /// let request = Request::get("/legacy").body(axum::body::Body::empty())?;
    /// let future: WsgiFuture<Arc<Legacy>, Router, Incoming> = service.call(request);
    /// assert_eq!(future.await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancellation
    /// Dropped, it drops the inner service's future, or the application's [`ResponseFuture`].
    #[must_use = "futures do nothing unless polled"]
    pub struct WsgiFuture<H: SyncHandler, S, R>
    where
        S: Service<R>,
    {
        #[pin]
        state: State<H, S, R>,
    }
}

pin_project! {
    #[project = Project]
    enum State<H: SyncHandler, S, R>
    where
        S: Service<R>,
    {
        Crossing { #[pin] future: ResponseFuture<H> },
        Ready { service: S, request: Option<R> },
        Inner { #[pin] future: S::Future },
    }
}

impl<H: SyncHandler, S: Service<R>, R> WsgiFuture<H, S, R> {
    pub(super) fn crossing(future: ResponseFuture<H>) -> Self {
        Self { state: State::Crossing { future } }
    }

    pub(super) fn inner(service: S, request: R) -> Self {
        let request = Some(request);
        Self { state: State::Ready { service, request } }
    }
}

impl<H, S, R, RB> Future for WsgiFuture<H, S, R>
where
    H: SyncHandler,
    S: Service<R, Response = Response<RB>>,
    RB: http_body::Body + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project().state.project() {
                Project::Crossing { future } => {
                    return future.poll(cx).map(|response| response.map_err(|never| match never {}));
                }
                Project::Ready { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    service.call(request)
                }
                Project::Inner { future } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(response.map(Body::new)));
                }
            };
            self.as_mut().project().state.set(State::Inner { future });
        }
    }
}

impl<H: SyncHandler, S: Service<R>, R> fmt::Debug for WsgiFuture<H, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Crossing { .. } => "crossing",
            State::Ready { .. } | State::Inner { .. } => "inner",
        };
        f.debug_struct("WsgiFuture").field("state", &state).finish_non_exhaustive()
    }
}
