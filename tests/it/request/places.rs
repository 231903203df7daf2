//! A10 and B8: which waits lend a worker's place, and whose queue a request that is waited for goes into.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use http::{Request, Response};
use tower::{Layer as _, ServiceExt as _};
use tower_wsgi::{Body, BoxError, Input, Next, Output, SyncHandler, WorkerPool, WsgiLayer};

use super::{Feed, echo, fed, whole};
use crate::support::{Events, Gate, eventually, idle, soon};

fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/").body(body.into()).expect("a request")
}

/// Wakes the reader of a body some times without a byte.
async fn tease(feed: &Feed) {
    for _ in 0..3 {
        let asked = feed.asked();
        feed.data("");
        eventually("it was asked again", || feed.asked() > asked).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

/// A handler that reads its request, and then tells its path.
fn reading(events: &Events<String>) -> impl SyncHandler + use<> {
    let tell = events.teller();
    move |request: Request<Input>| -> io::Result<Response<Vec<u8>>> {
        let path = request.uri().path().to_owned();
        let response = echo(request);
        tell(path);
        response
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a10_a_worker_that_reads_its_request_keeps_its_place() {
    let (events, pool) = (Events::new(), WorkerPool::new(1));
    let layer = WsgiLayer::adapter().pool(pool.clone()).prefetch(0);
    let service = layer.layer(reading(&events));
    let (feed, body) = fed();
    let slow = Request::post("/slow").body(Body::new(body)).expect("a request");
    let slow = tokio::spawn(service.clone().oneshot(slow));
    eventually("it reads", || feed.asked() > 0).await;
    let quick = Request::post("/quick").body(Body::empty()).expect("a request");
    let quick = tokio::spawn(service.oneshot(quick));
    eventually("the other one waits", || pool.stats().queued == 1).await;
    tease(&feed).await;
    assert_eq!((pool.stats().busy, pool.stats().lending), (1, 0));
    drop(feed);
    for call in [slow, quick] {
        soon(call).await.expect("no panic").expect("a response");
    }
    // Never more handlers at once than there are workers: the one that came first was first.
    assert_eq!(events.drain(), ["/slow", "/quick"]);
}

#[tokio::test]
async fn b8_a_worker_that_reads_a_response_lends_its_place() {
    let (feed, body) = fed();
    let body = std::sync::Mutex::new(Some(Body::new(body)));
    let pool = WorkerPool::new(1);
    let handler = move |request: Request<Input>| {
        if request.uri().path() == "/quick" {
            return Ok(Response::new("quick".to_owned()));
        }
        let body = body.lock().expect("a lock").take().expect("one slow request");
        io::read_to_string(Output::body(body).into_reader()).map(Response::new)
    };
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(handler);
    let slow = tokio::spawn(service.clone().oneshot(Request::new(Body::empty())));
    eventually("it has lent its place", || pool.stats().lending == 1).await;
    let quick = Request::get("/quick").body(Body::empty()).expect("a request");
    assert_eq!(whole(soon(service.oneshot(quick)).await.expect("a response")).await, "quick");
    feed.data("slow");
    drop(feed);
    assert_eq!(whole(soon(slow).await.expect("no panic").expect("a response")).await, "slow");
}

#[tokio::test]
async fn a2_a_read_that_gets_its_byte_in_time_goes_on() {
    let (feed, body) = fed();
    let layer = WsgiLayer::adapter().prefetch(0).read_timeout(Duration::from_secs(3600));
    let call = tokio::spawn(layer.layer(echo).oneshot(post(Body::new(body))));
    eventually("it waits", || feed.asked() > 0).await;
    feed.data("late");
    drop(feed);
    assert_eq!(whole(soon(call).await.expect("no panic").expect("a response")).await, "late");
}

fn run(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    request.extensions_mut().remove::<Next>().ok_or("no Next")?.run(request)
}

#[tokio::test]
async fn a10_a_request_that_another_pool_waits_for_is_bounded_as_any_other() {
    let (inner_pool, gate, events) = (WorkerPool::new(1), Gate::new(), Events::new());
    let (closed, tell) = (gate.clone(), events.teller());
    let inner =
        WsgiLayer::adapter().pool(inner_pool.clone()).max_queued(0).layer(move |_: Request<Input>| {
            tell(());
            closed.pass();
            Response::new("inner")
        });
    let outer = WsgiLayer::new(run).pool(WorkerPool::new(1)).layer(inner.clone());
    let first = tokio::spawn(inner.oneshot(Request::new(Body::empty())));
    events.next().await;
    let refused = soon(outer.oneshot(Request::new(Body::empty()))).await.expect("a response");
    assert_eq!(refused.status(), 503);
    gate.open();
    assert_eq!(soon(first).await.expect("no panic").expect("a response").status(), 200);
}

#[tokio::test]
async fn a10_what_a_worker_waited_for_before_lets_nothing_past_the_queue() {
    // Handlers of `middle` call a service on the pool `last`; handlers on that one may call `middle` in turn.
    let (last, gate, events) = (WorkerPool::new(1), Gate::new(), Events::new());
    let (closed, tell) = (gate.clone(), events.teller());
    let bounded = WsgiLayer::adapter().pool(last.clone()).max_queued(0).layer(move |_: Request<Input>| {
        tell(());
        closed.pass();
        Response::new("last")
    });
    let middle = WsgiLayer::new(|request: Request<Input>| -> Result<Response<Output>, BoxError> {
        if request.uri().path() == "/here" { Ok(Response::new("middle".into())) } else { run(request) }
    });
    let middle = middle.workers(1).layer(bounded.clone());
    let outer = WsgiLayer::new(run).pool(last.clone()).layer(middle.clone());
    let request = |path| Request::get(path).body(Body::empty()).expect("a request");

    // The worker of `middle` runs a handler that a worker of `last` waits for.
    let nested = soon(outer.oneshot(request("/here"))).await.expect("a response");
    assert_eq!(whole(nested).await, "middle");
    idle(&last).await;
    // And then one that nobody waits for, and that is therefore let wait, or not, as any other.
    let first = tokio::spawn(bounded.oneshot(request("/")));
    events.next().await;
    assert_eq!(soon(middle.oneshot(request("/"))).await.expect("a response").status(), 503);
    gate.open();
    assert_eq!(soon(first).await.expect("no panic").expect("a response").status(), 200);
}

#[tokio::test]
async fn a10_a_task_that_relayed_a_body_lets_nothing_past_the_queue() {
    let (feed, body) = fed();
    let (pool, gate, events) = (WorkerPool::new(1), Gate::new(), Events::new());
    let (closed, tell) = (gate.clone(), events.teller());
    let handler = move |request: Request<Input>| {
        if request.method() == http::Method::GET {
            tell(());
            closed.pass();
        }
        echo(request)
    };
    let service = WsgiLayer::adapter().pool(pool.clone()).max_queued(0).prefetch(0).layer(handler);
    let mut upload = std::pin::pin!(service.clone().oneshot(post(Body::new(body))));
    // All on this thread, which is where the queue is asked later.
    let fed = async {
        eventually("it is read", || feed.asked() > 1).await;
        feed.data("hello");
        eventually("it is read on", || feed.asked() > 2).await;
        drop(feed);
        std::future::pending::<Infallible>().await
    };
    let response = tokio::select! {
        response = soon(upload.as_mut()) => response.expect("a response"),
        never = fed => match never {},
    };
    assert_eq!(whole(response).await, "hello");
    idle(&pool).await;

    let first = tokio::spawn(service.clone().oneshot(Request::new(Body::empty())));
    events.next().await;
    assert_eq!(soon(service.oneshot(Request::new(Body::empty()))).await.expect("a response").status(), 503);
    gate.open();
    assert_eq!(soon(first).await.expect("no panic").expect("a response").status(), 200);
}
