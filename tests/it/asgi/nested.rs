//! B8: workers that wait for a service which itself needs a worker of the same pool.

use std::io::{self, Read};

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tower::{Layer as _, Service, ServiceExt as _};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, BoxError, Input, Next, Output, SyncHandler, WorkerPool, WsgiLayer,
    WsgiService, sync_fn,
};

use super::fed;
use crate::support::{Events, Gate, eventually, idle, soon};

/// A handler as a service on a pool.
fn on<H: SyncHandler>(pool: &WorkerPool, handler: H) -> WsgiService<H> {
    WsgiLayer::adapter().pool(pool.clone()).layer(handler)
}

/// A handler that waits at a gate before it goes in.
fn gated<H: SyncHandler>(gate: &Gate, handler: H) -> impl SyncHandler + use<H> {
    let gate = gate.clone();
    let wait = sync_fn(move |request, next: &dyn SyncHandler| {
        gate.pass();
        next.call(request)
    });
    wait.layer(handler)
}

/// What the innermost handler gets and gives.
fn echo(mut request: Request<Input>) -> io::Result<Response<String>> {
    Ok(Response::new(io::read_to_string(request.body_mut())?))
}

/// Sends as many requests at once; each gets its own text back, as `answer` makes it. All are there before the gate is opened.
async fn flood<S>(service: S, pool: &WorkerPool, gate: &Gate, requests: usize, answer: fn(&str) -> String)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug + Send,
{
    let mut calls = JoinSet::new();
    for n in 0..requests {
        let service = service.clone();
        calls.spawn(async move {
            let sent = format!("request {n}");
            let request = Request::new(Body::from(sent.clone()));
            let response = service.oneshot(request).await.expect("a response");
            assert_eq!(response.status(), 200);
            let back = response.into_body().collect().await.expect("a whole body").to_bytes();
            assert_eq!(back, answer(&sent));
        });
    }
    eventually("all are there, and every worker has one", || {
        let stats = pool.stats();
        stats.busy == pool.workers().min(requests) && stats.busy + stats.queued == requests
    })
    .await;
    gate.open();
    while let Some(ended) = soon(calls.join_next()).await {
        ended.expect("no panic");
    }
    idle(pool).await;
}

/// How many workers, and how many requests at once.
const SIZES: [(usize, usize); 5] = [(1, 1), (1, 20), (2, 30), (10, 10), (10, 100)];

#[tokio::test]
async fn b8_workers_that_wait_for_their_own_pool_finish() {
    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let service = on(&pool, gated(&gate, AsgiHandler::new(on(&pool, echo))));
        flood(service, &pool, &gate, requests, str::to_owned).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_workers_that_wait_for_their_own_pool_finish_in_a_multi_thread_runtime() {
    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let service = on(&pool, gated(&gate, AsgiHandler::new(on(&pool, echo))));
        flood(service, &pool, &gate, requests, str::to_owned).await;
    }
}

#[tokio::test]
async fn b8_workers_that_wait_two_levels_deep_finish() {
    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let inner = AsgiHandler::new(on(&pool, echo));
        let middle = AsgiHandler::new(on(&pool, inner));
        let service = on(&pool, gated(&gate, middle));
        flood(service, &pool, &gate, requests, str::to_owned).await;
    }
}

#[tokio::test]
async fn b8_workers_that_all_wait_at_the_same_time_finish() {
    for workers in [1, 10] {
        let (pool, gate, inner_gate) = (WorkerPool::new(workers), Gate::new(), Gate::new());
        let inner = gated(&inner_gate, echo);
        let service = on(&pool, gated(&gate, AsgiHandler::new(on(&pool, inner))));
        let watching = pool.clone();
        let opening = tokio::spawn(async move {
            // Every worker's request is inside the inner service, and has lent its place for that.
            eventually("all wait", || watching.stats().lending >= watching.workers()).await;
            inner_gate.open();
        });
        flood(service, &pool, &gate, workers * 3, str::to_owned).await;
        soon(opening).await.expect("no panic");
    }
}

#[tokio::test]
async fn b8_a_service_in_between_that_waits_for_its_runtime_keeps_the_mark() {
    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let inner = on(&pool, echo);
        let slow = tower::service_fn(move |request: Request<Body>| {
            let inner = inner.clone();
            async move {
                tokio::task::yield_now().await;
                // On another thread, as through a Buffer.
                tokio::spawn(inner.oneshot(request)).await.expect("no panic")
            }
        });
        let service = on(&pool, gated(&gate, AsgiHandler::new(slow)));
        flood(service, &pool, &gate, requests, str::to_owned).await;
    }
}

/// Makes every letter a capital one, as it is read.
struct Upper<R>(R);

impl<R: Read> Read for Upper<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buf)?;
        buf[..n].make_ascii_uppercase();
        Ok(n)
    }
}

fn upper(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
    Ok(next.call(request)?.map(|body| Output::reader(Upper(body.into_reader()))))
}

/// More chunks than a queue takes, so that the producer is put aside on the way.
const CHUNKS: usize = 100;

fn repeat(mut request: Request<Input>) -> io::Result<Response<Output>> {
    let text = io::read_to_string(request.body_mut())?;
    Ok(Response::new(Output::iter((0..CHUNKS).map(move |_| text.clone()))))
}

#[tokio::test]
async fn b8_bodies_made_by_workers_are_read_by_workers_of_the_same_pool() {
    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let handler = sync_fn(upper).layer(AsgiHandler::new(on(&pool, repeat)));
        let service = on(&pool, gated(&gate, handler));
        flood(service, &pool, &gate, requests, |sent| sent.to_uppercase().repeat(CHUNKS)).await;
    }
}

#[tokio::test]
async fn b8_bodies_are_read_through_two_levels_of_the_same_pool() {
    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let inner = sync_fn(upper).layer(AsgiHandler::new(on(&pool, repeat)));
        let outer = sync_fn(upper).layer(AsgiHandler::new(on(&pool, inner)));
        let service = on(&pool, gated(&gate, outer));
        flood(service, &pool, &gate, requests, |sent| sent.to_uppercase().repeat(CHUNKS)).await;
    }
}

#[tokio::test]
async fn b8_written_bodies_are_read_by_workers_of_the_same_pool() {
    fn write(mut request: Request<Input>) -> io::Result<Response<Output>> {
        let text = io::read_to_string(request.body_mut())?;
        Ok(Response::new(Output::writer(move |w| (0..CHUNKS).try_for_each(|_| w.send(text.clone())))))
    }
    fn read_all(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
        let response = next.call(request)?;
        let text = io::read_to_string(response.into_body().into_reader())?;
        Ok(Response::new(text.to_uppercase().into()))
    }

    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let handler = sync_fn(read_all).layer(AsgiHandler::new(on(&pool, write)));
        let service = on(&pool, gated(&gate, handler));
        flood(service, &pool, &gate, requests, |sent| sent.to_uppercase().repeat(CHUNKS)).await;
    }
}

#[tokio::test]
async fn b8_a_request_body_read_by_a_worker_goes_to_a_worker_of_the_same_pool() {
    // The inner worker reads a reader that the outer one has made of the request.
    fn shout(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
        next.call(request.map(|body| Input::reader(Upper(body))))
    }

    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let handler = sync_fn(shout).layer(AsgiHandler::new(on(&pool, echo)));
        let service = on(&pool, gated(&gate, handler));
        flood(service, &pool, &gate, requests, str::to_uppercase).await;
    }
}

#[tokio::test]
async fn b8_a_body_made_by_a_worker_can_be_the_request_that_another_reads() {
    for (workers, requests) in SIZES {
        let (pool, gate) = (WorkerPool::new(workers), Gate::new());
        let (from, to) = (AsgiHandler::new(on(&pool, repeat)), AsgiHandler::new(on(&pool, echo)));
        let pass_on = move |request: Request<Input>| {
            let made = from.call(request)?;
            to.call(Request::new(made.into_body().into_reader()))
        };
        let service = on(&pool, gated(&gate, pass_on));
        flood(service, &pool, &gate, requests, |sent| sent.repeat(CHUNKS)).await;
    }
}

#[tokio::test]
async fn b8_a_mixed_stack_on_one_worker_finishes() {
    let (pool, gate) = (WorkerPool::new(1), Gate::new());
    let wsgi = WsgiLayer::adapter().pool(pool.clone());
    let closed = gate.clone();
    let wait = sync_fn(move |request, next: &dyn SyncHandler| {
        closed.pass();
        next.call(request)
    });
    let service = tower::ServiceBuilder::new()
        .layer(wsgi.clone())
        .layer(wait)
        .layer(sync_fn(upper))
        .layer(AsgiLayer::adapter())
        .layer(wsgi.clone())
        .layer(sync_fn(upper))
        .layer(AsgiLayer::adapter())
        .layer(wsgi)
        .service(repeat);
    flood(service, &pool, &gate, 20, |sent| sent.to_uppercase().repeat(CHUNKS)).await;
}

/// Leaves while a handler behind `service` waits for its request's body; the pool has to be free again.
async fn leave<S>(service: S, pool: &WorkerPool, reading: &Events<()>)
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    // What has come has them begin. It stays open, and nothing follows: whoever is to go on has to be told that nobody waits for the response any more.
    let (feed, body) = fed();
    feed.send("begun").expect("a body");
    let call = tokio::spawn(service.oneshot(Request::new(body)));
    reading.next().await;
    call.abort();
    idle(pool).await;
    drop(feed);
}

/// Tells that it begins, and waits for the request's end.
fn waiting(tell: impl Fn(()) + Send + Sync + 'static) -> impl SyncHandler {
    move |mut request: Request<Input>| {
        tell(());
        request.body_mut().read_to_end(&mut Vec::new()).map(|_| Response::new(()))
    }
}

#[tokio::test]
async fn b8_a_client_that_leaves_frees_the_workers_of_a_call_inside_a_call() {
    for workers in [1, 2] {
        let (pool, reading) = (WorkerPool::new(workers), Events::new());
        let service = on(&pool, AsgiHandler::new(on(&pool, waiting(reading.teller()))));
        leave(service, &pool, &reading).await;
    }
}

#[tokio::test]
async fn b8_a_client_that_leaves_frees_the_workers_of_an_inner_service() {
    for workers in [1, 2] {
        let (pool, reading) = (WorkerPool::new(workers), Events::new());
        let app = |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
            let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
            next.run(request)
        };
        let service = WsgiLayer::new(app).pool(pool.clone()).layer(on(&pool, waiting(reading.teller())));
        leave(service, &pool, &reading).await;
    }
}

#[tokio::test]
async fn b8_a_client_that_leaves_frees_who_makes_a_response_that_is_read() {
    let (pool, gate, reading, ended) = (WorkerPool::new(2), Gate::new(), Events::new(), Events::new());
    let tell = ended.teller();
    let inner = move |request: Request<Input>| {
        let (tell, mut input) = (tell.clone(), request.into_body());
        Response::new(Output::writer(move |writer| {
            writer.send("begun")?;
            let copied = io::copy(&mut input, writer).map(drop);
            tell(copied.is_err());
            copied
        }))
    };
    let tell = reading.teller();
    let read = sync_fn(move |request, next: &dyn SyncHandler| -> Result<_, BoxError> {
        let mut body = next.call(request)?.into_body().into_reader();
        body.chunk()?;
        tell(());
        body.read_to_end(&mut Vec::new())?;
        Ok(Response::new(Output::empty()))
    });
    let (feed, body) = fed();
    feed.send("begun").expect("a body");
    let service = on(&pool, read.layer(AsgiHandler::new(on(&pool, inner))));
    let call = tokio::spawn(service.oneshot(Request::new(body)));
    reading.next().await;
    eventually("the middleware has lent its place", || {
        let stats = pool.stats();
        (stats.lending, stats.busy) == (1, 1)
    })
    .await;
    // Another has the place when it wants to go on.
    let other = on(&pool, gated(&gate, |_: Request<Input>| Response::new(())));
    let other = tokio::spawn(other.oneshot(Request::new(Body::empty())));
    eventually("all places are taken", || pool.stats().busy == 2).await;
    call.abort();
    assert!(ended.next().await, "nobody waits for the response any more");
    gate.open();
    soon(other).await.expect("no panic").expect("a response");
    idle(&pool).await;
    drop(feed);
}
