//! A connection's requests on their way to the application, and the responses on their way back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower_service::Service;
use tower_wsgi::{Body, BoxError, Scope};

use crate::access::{AccessLog, Record};
use crate::bind::Peer;
use crate::keeper::{Activity, Running};

/// What all connections have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root_path: Option<String>,
    pub(crate) log: Option<AccessLog>,
}

/// What hyper calls with each request of a connection.
pub(crate) struct Connection<S> {
    service: S,
    shared: Arc<Shared>,
    peer: Peer,
    activity: Arc<Activity>,
}

impl<S> Connection<S> {
    pub(crate) fn new(service: S, shared: Arc<Shared>, peer: Peer, activity: Arc<Activity>) -> Self {
        Self { service, shared, peer, activity }
    }

    /// The request as ASGI describes it.
    fn scope(&self, request: &Request<Incoming>) -> Scope {
        let mut scope = Scope::of(request);
        if let Some(client) = self.peer.client {
            scope = scope.with_client(client);
        }
        if let Some((host, port)) = &self.peer.server {
            scope = scope.with_server(host.clone(), *port);
        }
        if let Some(root_path) = &self.shared.root_path {
            scope = scope.with_root_path(root_path);
        }
        scope
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let running = self.activity.begin(request.version());
        let record = self.shared.log.as_ref().map(|log| log.record(self.peer.client, &request));
        let account = Some(Account { record, _running: running });
        if !tell_host(&mut request) {
            return Answer { future: None, account };
        }
        let scope = self.scope(&request);
        request.extensions_mut().insert(scope);
        // Both services are always ready: they take what they need inside the response's future.
        Answer { future: Some(self.service.clone().call(request)), account }
    }
}

/// Sees to it that `Host` says whom the request is for (RFC 9112, section 3.2): the authority of the target wins over it. False where nobody can tell, so that two servers in a row could take it for two requests: with two
/// hosts or none, or with a target that is neither a path nor a URL.
fn tell_host(request: &mut Request<Incoming>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return false;
    }
    let Some(authority) = request.uri().authority() else { return true };
    if request.uri().path().is_empty() && request.method() != Method::CONNECT {
        return false;
    }
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    if hosts == 1
        && let Ok(host) = HeaderValue::from_str(host)
    {
        request.headers_mut().insert(HOST, host);
    }
    true
}

/// To a request that the application does not get.
fn refusal() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_REQUEST;
    // Whoever sent it may mean something else by what follows, too.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

pin_project! {
    /// The application's answer.
    pub(crate) struct Answer<F> {
        // None to a request that the application does not get.
        #[pin]
        future: Option<F>,
        account: Option<Account>,
    }
}

/// What ends with a request.
#[derive(Debug)]
struct Account {
    record: Option<Record>,
    _running: Running,
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for Answer<F> {
    type Output = Result<Response<Counted>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.future.as_pin_mut() {
            Some(future) => {
                let Ok(response) = ready!(future.poll(cx));
                response
            }
            None => refusal(),
        };
        let mut account = this.account.take();
        if let Some(Account { record: Some(record), .. }) = &mut account {
            record.status(response.status());
        }
        Poll::Ready(Ok(response.map(|body| Counted { body, account })))
    }
}

/// A response's body; with an access log it is counted, and the request's line is written when the body is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    body: Body,
    account: Option<Account>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(Account { record: Some(record), .. }), Poll::Ready(Some(Ok(frame)))) =
            (&mut self.account, &polled)
        {
            record.count(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
