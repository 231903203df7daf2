//! A13: what `tracing` is told of each request, in the caller's span, with names that stay. And the pool's books of what it refused.

use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer as _, ServiceExt as _};
use tower_wsgi::{Body, Input, Output, SyncHandler, WorkerPool, WsgiLayer, WsgiService};
use tracing::{Instrument as _, Span};

use crate::support::{Events, Gate, collect, eventually, idle, logged, soon};

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

/// The lines of the events in this span.
fn lines(span: &str) -> Vec<String> {
    let mark = format!(" in={span}");
    logged(&mark).into_iter().filter(|line| line.ends_with(&mark)).collect()
}

/// The events in this span, without the times that they tell.
fn told(span: &str) -> Vec<String> {
    let is_other = |field: &&str| !field.contains("_us=") && !field.starts_with("in=");
    lines(span).iter().map(|line| line.split(' ').filter(is_other).collect::<Vec<_>>().join(" ")).collect()
}

/// The times that an event in this span tells.
fn times(span: &str, message: &str) -> Vec<u64> {
    let lines = lines(span);
    let line = lines.iter().find(|line| line.starts_with(&format!("DEBUG {message} "))).expect("an event");
    let values = line.split(' ').filter_map(|field| field.split_once("_us="));
    values.map(|(_, value)| value.parse().expect("microseconds")).collect()
}

/// A handler that tells when it runs, waits, and answers with three chunks, each of which has room only when the one before was taken.
fn gated(gate: &Gate, events: &Events<()>) -> impl SyncHandler + use<> {
    let (gate, tell) = (gate.clone(), events.teller());
    move |_: Request<Input>| {
        tell(());
        gate.pass();
        let mut response = Response::new(Output::iter(["one", "two", "three"]));
        *response.status_mut() = StatusCode::CREATED;
        response
    }
}

struct Site {
    gate: Gate,
    events: Events<()>,
    pool: WorkerPool,
}

impl Site {
    fn new() -> Self {
        collect();
        Self { gate: Gate::new(), events: Events::new(), pool: WorkerPool::new(1) }
    }

    fn service(&self, layer: WsgiLayer) -> WsgiService<impl SyncHandler + use<>> {
        layer.pool(self.pool.clone()).send_queue_size(1).layer(gated(&self.gate, &self.events))
    }
}

fn adapter() -> WsgiLayer {
    WsgiLayer::adapter()
}

#[tokio::test]
async fn a13_each_step_of_a_request_is_told_in_its_span() {
    let site = Site::new();
    let span = tracing::info_span!("events_whole");
    let call = tokio::spawn(site.service(adapter()).oneshot(request()).instrument(span));
    site.events.next().await;
    std::thread::sleep(Duration::from_millis(2));
    site.gate.open();
    let response = soon(call).await.expect("no panic").expect("a response");
    soon(response.into_body().collect()).await.expect("a whole body");
    idle(&site.pool).await;
    let expected = [
        "DEBUG dispatched queued=0",
        "DEBUG started",
        "DEBUG returned status=201",
        "DEBUG streamed bytes=11",
    ];
    assert_eq!(told("events_whole"), expected);
    assert!(times("events_whole", "returned")[0] >= 2_000);
    assert!(times("events_whole", "streamed")[0] >= 2_000);
    assert_eq!(times("events_whole", "started").len(), 1);
}

#[tokio::test]
async fn a13_a_failure_before_the_head_is_a_status_and_one_behind_it_an_abort() {
    let site = Site::new();
    let handler = |request: Request<Input>| -> Result<Response<Output>, &'static str> {
        if request.uri().path() == "/early" {
            return Err("too early");
        }
        Ok(Response::new(Output::try_iter([Ok("some"), Err("too late")])))
    };
    let service = WsgiLayer::adapter().pool(site.pool.clone()).layer(handler);
    for (path, span) in
        [("/early", tracing::info_span!("events_early")), ("/late", tracing::info_span!("events_late"))]
    {
        let mut request = request();
        *request.uri_mut() = path.parse().expect("a path");
        let response = soon(service.clone().oneshot(request).instrument(span)).await.expect("a response");
        assert_eq!(soon(response.into_body().collect()).await.is_err(), path == "/late");
    }
    idle(&site.pool).await;
    let early = ["DEBUG dispatched queued=0", "DEBUG started", "DEBUG returned status=500"];
    assert_eq!(told("events_early"), early);
    let late = [
        "DEBUG dispatched queued=0",
        "DEBUG started",
        "DEBUG returned status=200",
        "DEBUG aborted at=\"body\" by=\"handler\" error=the handler failed",
    ];
    assert_eq!(told("events_late"), late);
}

#[tokio::test]
async fn a13_a_response_has_one_end_whoever_comes_to_it_next() {
    let site = Site::new();
    let failing = |_: Request<Input>| Response::new(Output::try_iter([Ok("some"), Err("too late")]));
    let writing = |_: Request<Input>| {
        Response::new(Output::writer(|w| {
            w.send("some")?;
            w.send("more")?;
            w.send("too much")
        }))
    };
    let layer = WsgiLayer::adapter().pool(site.pool.clone());
    let unread = layer.layer(failing).oneshot(request()).instrument(tracing::info_span!("events_unread"));
    let unread = soon(unread).await.expect("a response");
    // Its failure is in the queue, and told.
    idle(&site.pool).await;
    drop(unread);
    assert_eq!(
        told("events_unread")[3..],
        ["DEBUG aborted at=\"body\" by=\"handler\" error=the handler failed"]
    );
    let left = layer
        .send_queue_size(1)
        .layer(writing)
        .oneshot(request())
        .instrument(tracing::info_span!("events_stopped"));
    drop(soon(left).await.expect("a response"));
    idle(&site.pool).await;
    assert_eq!(told("events_stopped")[3..], ["DEBUG aborted at=\"body\" by=\"caller\""]);
}

#[tokio::test]
async fn a8_a_client_that_leaves_is_told_with_where_its_request_was() {
    let site = Site::new();
    let service = site.service(adapter());
    let spawn = |span: Span| tokio::spawn(service.clone().oneshot(request()).instrument(span));
    let handler = spawn(tracing::info_span!("events_left_handler"));
    site.events.next().await;
    let queue = spawn(tracing::info_span!("events_left_queue"));
    eventually("it is queued", || site.pool.stats().queued == 1).await;
    for call in [queue, handler] {
        call.abort();
        call.await.expect_err("it was stopped");
    }
    site.gate.open();
    let body = spawn(tracing::info_span!("events_left_body"));
    let response = soon(body).await.expect("no panic").expect("a response");
    // Outside of its span.
    drop(response);
    idle(&site.pool).await;
    let aborted = |at: &str| format!("DEBUG aborted at=\"{at}\" by=\"caller\"");
    assert_eq!(told("events_left_queue"), ["DEBUG dispatched queued=0".to_owned(), aborted("queue")]);
    let handler = told("events_left_handler");
    assert!(handler.contains(&aborted("handler")) && handler.len() == 4, "{handler:?}");
    assert_eq!(told("events_left_body").last(), Some(&aborted("body")));
}

#[tokio::test]
async fn a10_a_request_that_is_refused_is_told_and_counted() {
    let site = Site::new();
    let held = tokio::spawn(site.service(adapter()).oneshot(request()));
    site.events.next().await;
    let stats = site.pool.stats();
    assert_eq!((stats.busy, stats.idle, stats.rejected), (1, 0, 0));
    let full = site.service(adapter().max_queued(0)).oneshot(request());
    let late = site.service(adapter().queue_timeout(Duration::from_millis(1))).oneshot(request());
    let full = soon(full.instrument(tracing::info_span!("events_full"))).await.expect("a response");
    let late = soon(late.instrument(tracing::info_span!("events_late_worker"))).await.expect("a response");
    assert_eq!((full.status().as_u16(), late.status().as_u16()), (503, 503));
    assert_eq!(site.pool.stats().rejected, 2);
    site.gate.open();
    let held = soon(held).await.expect("no panic").expect("a response");
    soon(held.into_body().collect()).await.expect("a whole body");
    eventually("its thread is idle", || site.pool.stats().idle == 1).await;
    assert_eq!(idle(&site.pool).await.rejected, 2);
    let full = told("events_full");
    assert_eq!(
        full.last().map(String::as_str),
        Some("DEBUG refused error=too many requests wait for a worker")
    );
    let late = told("events_late_worker");
    assert_eq!(
        late.last().map(String::as_str),
        Some("DEBUG refused error=no worker was free within queue_timeout")
    );
    assert!(times("events_late_worker", "refused")[0] >= 1_000);
}
