//! One request's whole trip: the service, its future and its body on one side, the pool's workers on the other. The client may leave at any moment, the handler may fail at any.
//!
//! Whatever a handler holds is dropped once, on a thread of the pool.

mod streams;
mod uploads;

use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use loom::thread;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::{Tally, block_on, check};
use crate::body::Body;
use crate::environ::Environ;
use crate::error::BoxError;
use crate::handler::SyncHandler;
use crate::input::Input;
use crate::next::Next;
use crate::output::Output;
use crate::pool::WorkerPool;
use crate::wsgi::{WsgiLayer, WsgiService};

/// Checks a model.
fn trip(test: impl Fn() + Send + Sync + 'static) {
    check(3, false, None, test);
}

/// Something that has to be dropped by a thread of the pool.
struct Probe(Arc<Tally>);

impl Drop for Probe {
    fn drop(&mut self) {
        let thread = loom::thread::current();
        assert!(thread.name().is_some_and(|name| name.starts_with("tower-wsgi-")), "{:?}", thread.name());
        self.0.add();
    }
}

/// One worker, and room for one chunk.
fn service<H: SyncHandler>(handler: H) -> WsgiService<H> {
    WsgiLayer::adapter().pool(WorkerPool::new(1)).send_queue_size(1).layer(handler)
}

fn request(body: Body) -> Request<Body> {
    Request::new(body)
}

/// Polls once, as a server does that then finds its client gone.
fn look<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, BoxError>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Reads a body to its end: how many chunks came, and whether the end was a true one.
fn read(body: &mut Body) -> (usize, bool) {
    let mut chunks = 0;
    loop {
        match block_on(next_frame(body)) {
            Some(Ok(_)) => chunks += 1,
            Some(Err(_)) => return (chunks, false),
            None => return (chunks, true),
        }
    }
}

/// The whole trip, to its end.
#[test]
fn a_request_is_answered() {
    trip(|| {
        let mut service = service(|_: Request<Input>| Response::new(Output::from("hello")));
        let Ok(response) = block_on(service.call(request(Body::empty())));
        assert_eq!(response.status(), 200);
        assert_eq!(read(&mut response.into_body()), (1, true));
    });
}

/// A client that leaves before, while or after the handler runs: what the request holds is dropped once, by the pool, and the pool ends.
#[test]
fn a_request_is_cancelled() {
    trip(|| {
        let dropped = Arc::new(Tally::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let counter = runs.clone();
        let mut service = service(move |_: Request<Input>| {
            counter.fetch_add(1, Ordering::SeqCst);
            Response::new(Output::from("hello"))
        });
        let mut request = request(Body::empty());
        request.extensions_mut().insert(Arc::new(Probe(dropped.clone())));
        let mut future = service.call(request);
        drop(service);
        let answer = look(&mut future);
        drop(future);
        dropped.wait_for(1);
        let runs = runs.load(Ordering::SeqCst);
        assert!(runs == 1 || runs == 0 && answer.is_pending());
    });
}

/// A request that is cancelled in the queue, while the only worker waits for what it holds: they wait for each other for ever if it is left in its place.
#[test]
fn what_a_queued_request_holds_is_free_when_its_client_leaves() {
    trip(|| {
        let (dropped, entered) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
        let (awaited, enters) = (dropped.clone(), entered.clone());
        let mut service = service(move |request: Request<Input>| {
            if request.extensions().get::<Arc<Probe>>().is_none() {
                enters.add();
                awaited.wait_for(1);
            }
            Response::new(Output::from("hello"))
        });
        let mut waits = service.call(request(Body::empty()));
        assert!(look(&mut waits).is_pending());
        entered.wait_for(1);
        let mut queued = request(Body::empty());
        queued.extensions_mut().insert(Arc::new(Probe(dropped)));
        let mut queued = service.call(queued);
        assert!(look(&mut queued).is_pending());
        drop((queued, service));
        let Ok(response) = block_on(waits);
        assert_eq!(response.status(), 200);
    });
}

/// A handler that panics, with its client there: a response comes, or the client waits for ever.
#[test]
fn a_panic_is_answered() {
    trip(|| {
        let dropped = Arc::new(Tally::default());
        let probe = dropped.clone();
        let mut service = service(move |_: Request<Input>| -> Response<Output> {
            let _probe = Probe(probe.clone());
            resume_unwind(Box::new("on purpose"))
        });
        let Ok(response) = block_on(service.call(request(Body::empty())));
        assert_eq!(response.status(), 500);
        dropped.wait_for(1);
    });
}

/// A handler that panics while its client leaves.
#[test]
fn a_panic_meets_a_cancel() {
    trip(|| {
        let dropped = Arc::new(Tally::default());
        let mut service = service(|request: Request<Input>| -> Response<Output> {
            let _request = request;
            resume_unwind(Box::new("on purpose"))
        });
        let mut request = request(Body::empty());
        request.extensions_mut().insert(Arc::new(Probe(dropped.clone())));
        let mut future = service.call(request);
        drop(look(&mut future));
        drop((future, service));
        dropped.wait_for(1);
    });
}

/// A response that begins before its handler returns, at the hands of another thread that outlives it: what is begun in time ends as an error and not as a whole response, what is late is refused.
#[test]
fn a_response_begun_meets_its_handlers_return() {
    trip(|| {
        let mut service = service(|request: Request<Input>| {
            let early = Environ::of(&request).early().expect("a crossing");
            thread::spawn(move || {
                if let Ok(mut begun) = early.begin(Response::new(())) {
                    let _ = begun.send("early");
                }
            });
            Response::new(Output::from("late"))
        });
        let Ok(response) = block_on(service.call(request(Body::empty())));
        if response.status() == 500 {
            // It ended between the early head's turn and its way out.
            return;
        }
        let mut body = response.into_body();
        match block_on(next_frame(&mut body)) {
            Some(Ok(frame)) if frame.data_ref().is_some_and(|data| data == "late") => {
                assert_eq!(read(&mut body), (0, true));
            }
            Some(Ok(_)) => assert_eq!(read(&mut body), (0, false)),
            other => panic!("{other:?}"),
        }
    });
}

/// A handler whose inner service needs a worker of the same pool, of one worker: both wait for ever if the place is not lent.
#[test]
fn a_handler_waits_for_its_own_pool() {
    trip(|| {
        let pool = WorkerPool::new(1);
        let inner = WsgiLayer::adapter()
            .pool(pool.clone())
            .layer(|_: Request<Input>| Response::new(Output::from("inner")));
        let outer = |mut request: Request<Input>| {
            let next = request.extensions_mut().remove::<Next>().expect("an inner service");
            next.run(request)
        };
        let mut service = WsgiLayer::new(outer).pool(pool).layer(inner);
        let response = block_on(service.call(request(Body::empty())));
        let response = response.unwrap_or_else(|never| match never {});
        assert_eq!(read(&mut response.into_body()), (1, true));
    });
}
