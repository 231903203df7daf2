//! A6, A11, B6: panics at each poll of an async service, and of its body, inside a synchronous host inside a server.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tower::{Layer as _, Service, ServiceBuilder};
use tower_wsgi::{AsgiLayer, Body, BoxError, Input, Output, SyncHandler, WorkerPool, WsgiLayer, sync_fn};

use super::census::Census;
use super::panics::{Expected, PIECES, Pieces, Seen, check, cut_unless_first, place, quiet};
use super::site::{App, Site};

/// The faults of an async service whose body goes to the server as it is. The server polls it, and a panic then is the connection's, or with HTTP/2 the stream's.
const SERVED: &[(&str, usize, Expected)] = &[
    ("none", 1, |_| Seen::Whole),
    ("call", 1, |_| Seen::Failed),
    ("future", 4, |_| Seen::Failed),
    ("future-drop", 1, |_| Seen::Failed),
    ("body", PIECES + 1, |_| Seen::NoEnd),
    ("body-later", PIECES + 1, |_| Seen::NoEnd),
    ("body-error", PIECES + 1, |_| Seen::NoEnd),
];

/// The same where a synchronous middleware reads the body.
const READ: &[(&str, usize, Expected)] = &[
    ("none", 1, |_| Seen::Whole),
    ("future", 4, |_| Seen::Failed),
    ("body", PIECES + 1, cut_unless_first),
    ("body-later", PIECES + 1, cut_unless_first),
    ("body-error", PIECES + 1, cut_unless_first),
    ("body-drop", 1, |_| Seen::Cut(PIECES)),
];

/// A service that panics at one of its calls.
#[derive(Clone)]
struct Faulty {
    census: Census,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

impl Service<Request<Body>> for Faulty {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let (fault, at) = place(request.uri());
        let (fault, held) = (fault.to_owned(), self.census.hold_anywhere());
        if fault == "call" {
            quiet();
        }
        if fault == "full" {
            return Box::pin(async { Ok(Response::new("all of it".into())) });
        }
        let mut polls = 0;
        let mut guard = (fault == "future-drop").then(|| PanicsInDrop);
        Box::pin(async move {
            poll_fn(|cx| {
                let _held = &mut guard;
                if fault == "future" && polls == at {
                    quiet();
                }
                polls += 1;
                cx.waker().wake_by_ref();
                if polls > PIECES { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            // Before there is a response, which would be lost to the panic.
            drop(guard);
            let pieces = Pieces::new(held);
            let pieces = if fault == "body-drop" { pieces.panics_in_drop() } else { pieces };
            let body = FaultyBody { pieces, fault, at, polls: 0, is_pending: true };
            Ok(Response::new(Body::new(body)))
        })
    }
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            quiet();
        }
    }
}

/// An async body of all the pieces.
pub(super) fn frames(
    pieces: Pieces,
) -> impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static {
    FaultyBody { pieces, fault: String::new(), at: 0, polls: 0, is_pending: true }
}

/// A body that panics, or fails, at one of its polls.
struct FaultyBody {
    pieces: Pieces,
    fault: String,
    at: usize,
    polls: usize,
    is_pending: bool,
}

impl http_body::Body for FaultyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.fault == "body-later" && std::mem::replace(&mut self.is_pending, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_pending = true;
        if self.polls == self.at {
            match &*self.fault {
                "body" | "body-later" => quiet(),
                "body-error" => return Poll::Ready(Some(Err("no more".into()))),
                _ => {}
            }
        }
        self.polls += 1;
        Poll::Ready(self.pieces.next().map(|piece| Ok(Frame::data(piece))))
    }
}

#[tokio::test]
async fn a11_a_panic_at_any_poll_of_a_nested_service_stays_inside() {
    let (pool, app) = (WorkerPool::new(2), App::new());
    let layer = WsgiLayer::adapter().pool(pool.clone());
    let handler = AsgiLayer::adapter().layer(Faulty { census: app.census.clone() });
    let site = Site::serve(layer.layer(handler), pool, app).await;
    check(&site, SERVED).await;
}

#[tokio::test]
async fn a11_a_panic_at_any_poll_of_a_nested_body_is_an_error_to_who_reads_it() {
    let (pool, app) = (WorkerPool::new(2), App::new());
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .layer(sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
            let response = next.call(request)?;
            Ok::<_, BoxError>(response.map(|output| Output::reader(output.into_reader())))
        }))
        .layer(AsgiLayer::adapter())
        .service(Faulty { census: app.census.clone() });
    let site = Site::serve(service, pool, app).await;
    check(&site, READ).await;
}
