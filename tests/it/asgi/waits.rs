//! B1, B6, B8: what a thread waits for: a pool of its own, a runtime that it drives, a service that has given up.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::task::{Poll, ready};

use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, Body, BoxError, Error, Input, Next, Output, SyncHandler as _, WorkerPool, WsgiLayer,
    WsgiService,
};

use super::{Answer, Tell, current, get, multi, poll_body, refusal};
use crate::support::{PATIENCE, blocking, eventually, idle, soon, watched};

/// More chunks than a queue takes, so that the producer is put aside on the way.
const CHUNKS: usize = 100;

/// Makes a body that does not fit into a queue, or counts one.
fn makes_or_counts(request: Request<Input>) -> io::Result<Response<Output>> {
    if request.uri().path() == "/make" {
        return Ok(Response::new(Output::iter((0..CHUNKS).map(|_| "x"))));
    }
    let read = io::copy(&mut request.into_body(), &mut io::sink())?;
    Ok(Response::new(read.to_string().into()))
}

/// Has its next service make a body, and gives that back to it as a request's.
fn pipes(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
    let made = next.run(Request::get("/make").body(Input::empty())?)?;
    next.run(Request::post("/count").body(made.into_body().into_reader())?)
}

async fn finishes_when_piped() {
    for requests in [1, 10] {
        let pool = WorkerPool::new(1);
        let inner = WsgiLayer::adapter().pool(pool.clone()).layer(makes_or_counts);
        let service = WsgiLayer::new(pipes).pool(pool.clone()).layer(inner);
        let mut calls = JoinSet::new();
        for _ in 0..requests {
            calls.spawn(service.clone().oneshot(Request::new(Body::empty())));
        }
        while let Some(called) = soon(calls.join_next()).await {
            let response = called.expect("no panic").expect("a response");
            let body = soon(response.into_body().collect()).await.expect("a body");
            assert_eq!(body.to_bytes(), CHUNKS.to_string());
        }
        idle(&pool).await;
    }
}

#[tokio::test]
async fn b8_a_response_piped_into_the_next_request_finishes_on_one_worker() {
    finishes_when_piped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_a_response_piped_into_the_next_request_finishes_in_a_multi_thread_runtime() {
    finishes_when_piped().await;
}

#[tokio::test]
async fn b8_a_body_that_turns_to_its_readers_own_pool_finishes_on_one_worker() {
    for (requests, is_timed) in [(1, false), (3, false), (8, false), (1, true), (8, true)] {
        let pool = WorkerPool::new(1);
        let mut layer = WsgiLayer::adapter().pool(pool.clone()).prefetch(0);
        if is_timed {
            layer = layer.queue_timeout(PATIENCE * 2);
        }
        let service = layer.layer(makes_or_counts);
        let mut calls = JoinSet::new();
        for _ in 0..requests {
            let maker = service.clone();
            let mut made = Box::pin(async move {
                // Whoever polls first does not see yet what it will wait for.
                tokio::task::yield_now().await;
                let request = Request::get("/make").body(Body::empty()).expect("a request");
                let Ok(response) = maker.oneshot(request).await;
                response.into_body()
            });
            let mut rest = None;
            let body = poll_body(move |cx| {
                let rest = match &mut rest {
                    Some(rest) => rest,
                    none => none.insert(ready!(made.as_mut().poll(cx))),
                };
                Pin::new(rest).poll_frame(cx)
            });
            calls.spawn(service.clone().oneshot(Request::post("/count").body(body).expect("a request")));
        }
        while let Some(called) = soon(calls.join_next()).await {
            let response = called.expect("no panic").expect("a response");
            let body = soon(response.into_body().collect()).await.expect("a body");
            assert_eq!(body.to_bytes(), CHUNKS.to_string());
        }
        idle(&pool).await;
    }
}

/// A service that asks `leaf` with a request of its own, as a client or a facade does, when it is let in.
fn facade<S>(
    leaf: S,
    open: Arc<Semaphore>,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    service_fn(move |_: Request<Body>| {
        let (leaf, open) = (leaf.clone(), open.clone());
        async move {
            let _permit = open.acquire().await.expect("a semaphore");
            leaf.oneshot(Request::get("/leaf").body(Body::empty()).expect("a request")).await
        }
    })
}

#[tokio::test]
async fn b8_a_service_that_makes_a_request_of_its_own_finishes_on_one_worker() {
    /// How many wait at most on behalf of one worker.
    const WAITING: usize = 4;

    for requests in [1, 3, 8] {
        let (pool, open) = (WorkerPool::new(1), Arc::new(Semaphore::new(0)));
        let layer = WsgiLayer::adapter().pool(pool.clone());
        let leaf = layer.clone().layer(|_: Request<Input>| Response::new("leaf"));
        let service = layer.layer(AsgiHandler::new(facade(leaf, open.clone())));
        let mut calls = JoinSet::new();
        for _ in 0..requests {
            calls.spawn(service.clone().oneshot(Request::new(Body::empty())));
        }
        eventually("as many wait as may", || pool.stats().lending == requests.min(WAITING)).await;
        open.add_permits(requests);
        while let Some(called) = soon(calls.join_next()).await {
            let response = called.expect("no panic").expect("a response");
            let body = soon(response.into_body().collect()).await.expect("a body");
            assert_eq!(body.to_bytes(), "leaf");
        }
        idle(&pool).await;
    }
}

#[tokio::test]
async fn b1_a_workers_own_request_is_refused_inside_its_block_on() {
    for make in [current, multi] {
        let waits = AsgiHandler::new(service_fn(|_: Request<Body>| async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        let app = move |request: Request<Input>| make().block_on(async { waits.call(request) });
        let call = WsgiService::new(app).oneshot(Request::new(Body::empty()));
        let response = soon(call).await.expect("a response");
        assert_eq!(response.status(), 500);
        let error = response.extensions().get::<Error>().expect("an error");
        assert!(error.is_inside_async(), "{error:?}");
    }
}

/// Gives up: never ready, and no waker kept.
async fn gives_up(_: Request<Body>) -> Answer {
    pending().await
}

#[test]
fn b6_a_waker_that_was_kept_hides_no_later_wait_that_is_stuck() {
    watched(|| {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let keeps = AsgiHandler::new(service_fn(move |_: Request<Body>| {
            let keep = keep.clone();
            poll_fn(move |cx| {
                keep.lock().expect("a lock").push(cx.waker().clone());
                Poll::Ready(Ok::<_, Infallible>(Response::new(Body::empty())))
            })
        }));
        for _ in 0..2 {
            keeps.call(get()).expect("a response");
            assert!(refusal(AsgiHandler::new(service_fn(gives_up)).call(get())).is_stuck());
        }
        // They wake nobody, and do no harm.
        for waker in kept.lock().expect("a lock").drain(..) {
            waker.wake();
        }
        assert!(refusal(AsgiHandler::new(service_fn(gives_up)).call(get())).is_stuck());
    });
}

#[tokio::test]
async fn b5_a_service_that_gives_up_on_a_worker_ends_when_its_client_leaves() {
    // Its waker is kept by who would tell it that: it waits for something.
    let (tell, dropped) = Tell::new();
    let (sender, started) = std_mpsc::channel();
    let parts = Arc::new(Mutex::new(Some((tell, sender))));
    let service = service_fn(move |request: Request<Body>| {
        let (tell, sender) = parts.lock().expect("a lock").take().expect("one call");
        async move {
            let _tell = tell;
            sender.send(()).expect("a test");
            gives_up(request).await
        }
    });
    let pool = WorkerPool::new(1);
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(AsgiHandler::new(service));
    let call = tokio::spawn(service.oneshot(Request::new(Body::empty())));
    blocking(move || super::next(&started)).await;
    eventually("it waits", || pool.stats().lending == 1).await;
    call.abort();
    blocking(move || super::next(&dropped)).await;
    idle(&pool).await;
}

#[test]
fn b1_block_in_place_helps_no_service_that_is_polled_in_place() {
    watched(|| {
        let runtime = multi();
        let inner = AsgiHandler::new(service_fn(|_: Request<Body>| async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        let blocks = service_fn(move |_: Request<Body>| {
            let inner = inner.clone();
            async move {
                let response = block_in_place(|| inner.call(get()))?;
                Ok::<_, BoxError>(response.map(|_| Body::empty()))
            }
        });
        let handler = AsgiHandler::new(blocks.clone());
        // In a task of a runtime it makes room for the others.
        let task = runtime.spawn(blocks.oneshot(Request::new(Body::empty())));
        runtime.block_on(soon(task)).expect("no panic").expect("a response");
        // In place there is nobody to make room for.
        let _inside = runtime.enter();
        let refused = refusal(handler.call(get()));
        assert!(refused.is_inside_async(), "{refused:?}");
    });
}
