//! A10, for handlers that take something once for many requests: `SyncHandler::serve`, who is inside, and who waits.

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt};
use tower_wsgi::{Body, BoxError, Input, Output, SyncHandler, WorkerPool, WsgiLayer, sync_fn};

use crate::support::{Events, Gate, PATIENCE, eventually, idle, soon};

/// A handler made of two functions.
struct Handler<C, S> {
    call: C,
    serve: S,
}

impl<C, S> SyncHandler for Handler<C, S>
where
    C: Fn(&str) + Send + Sync + 'static,
    S: Fn(&mut dyn FnMut()) + Send + Sync + 'static,
{
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        (self.call)(request.uri().path());
        Ok(Response::new("done".into()))
    }

    fn serve(&self, calls: &mut dyn FnMut()) {
        (self.serve)(calls);
    }
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// Sends a request, which waits for its response in a task of its own.
fn ask<S>(asked: &mut JoinSet<StatusCode>, service: &S, path: &'static str)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let service = service.clone();
    asked.spawn(async move { service.oneshot(request(path)).await.expect("infallible").status() });
}

async fn all_done(mut asked: JoinSet<StatusCode>) {
    while let Some(status) = soon(asked.join_next()).await {
        assert_eq!(status.expect("no panic"), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_handler_is_entered_once_for_all_that_wait() {
    let pool = WorkerPool::new(1);
    let entered = Arc::new(AtomicUsize::new(0));
    let (gate, count) = (Gate::new(), entered.clone());
    let inside = gate.clone();
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
        call: move |_: &str| inside.pass(),
        serve: move |calls: &mut dyn FnMut()| {
            count.fetch_add(1, Ordering::SeqCst);
            calls();
        },
    });
    let mut asked = JoinSet::new();
    for _ in 0..20 {
        ask(&mut asked, &service, "/");
    }
    eventually("all the others wait", || pool.stats().queued == 19).await;
    gate.open();
    all_done(asked).await;
    assert_eq!(entered.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_who_waits_to_come_in_holds_no_request() {
    let pool = WorkerPool::new(4);
    let gate = Gate::new();
    let (called, arrived) = (Arc::new(AtomicUsize::new(0)), Events::new());
    let (count, tell, way) = (called.clone(), arrived.teller(), gate.clone());
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
        call: move |_: &str| {
            count.fetch_add(1, Ordering::SeqCst);
        },
        serve: move |calls: &mut dyn FnMut()| {
            tell(());
            way.pass();
            calls();
        },
    });
    let mut asked = JoinSet::new();
    ask(&mut asked, &service, "/");
    arrived.next().await;
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.busy), (1, 0));
    // Its client goes: the request is never seen.
    asked.shutdown().await;
    eventually("it is withdrawn", || pool.stats().queued == 0).await;
    gate.open();
    idle(&pool).await;
    assert_eq!(called.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_who_is_inside_takes_the_request_that_another_wants_to_come_in_for() {
    let pool = WorkerPool::new(2);
    let (first, second) = (Gate::new(), Gate::new());
    let (waiting, handled) = (Events::new(), Events::new());
    let (long, way) = (first.clone(), second.clone());
    let (tell_waiting, tell_handled) = (waiting.teller(), handled.teller());
    let is_second = AtomicBool::new(false);
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
        call: move |path: &str| {
            tell_handled((path.to_owned(), thread::current().id()));
            if path == "/long" {
                long.pass();
            }
        },
        serve: move |calls: &mut dyn FnMut()| {
            if is_second.swap(true, Ordering::SeqCst) {
                tell_waiting(());
                way.pass();
            }
            calls();
        },
    });
    let mut asked = JoinSet::new();
    ask(&mut asked, &service, "/long");
    let (_, inside) = handled.next().await;
    ask(&mut asked, &service, "/next");
    waiting.next().await;
    first.open();
    let (path, by) = handled.next().await;
    assert_eq!((path.as_str(), by), ("/next", inside));
    second.open();
    all_done(asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_a_way_in_that_fails_loses_no_request() {
    let pool = WorkerPool::new(2);
    let way = Arc::new(AtomicUsize::new(0));
    let called = Arc::new(AtomicUsize::new(0));
    let (next, count) = (way.clone(), called.clone());
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
        call: move |_: &str| {
            count.fetch_add(1, Ordering::SeqCst);
        },
        serve: move |calls: &mut dyn FnMut()| match next.load(Ordering::SeqCst) {
            0 => {}
            1 => panic_any("a way in that panics before"),
            2 => {
                calls();
                panic_any("a way in that panics after");
            }
            _ => {
                calls();
                calls();
            }
        },
    });
    for kind in 0..4 {
        idle(&pool).await;
        way.store(kind, Ordering::SeqCst);
        for _ in 0..5 {
            let mut asked = JoinSet::new();
            for _ in 0..10 {
                ask(&mut asked, &service, "/");
            }
            all_done(asked).await;
        }
        assert_eq!(called.swap(0, Ordering::SeqCst), 50, "way {kind}");
        assert!(pool.stats().threads <= 2);
    }
}

thread_local! {
    /// Which handler this thread is inside.
    static INSIDE: Cell<Option<usize>> = const { Cell::new(None) };
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_handlers_on_one_pool_are_each_entered_for_their_own() {
    let pool = WorkerPool::new(3);
    let wrong = Arc::new(AtomicUsize::new(0));
    let services: Vec<_> = (0..3)
        .map(|number| {
            let wrong = wrong.clone();
            WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
                call: move |_: &str| {
                    if INSIDE.get() != Some(number) {
                        wrong.fetch_add(1, Ordering::SeqCst);
                    }
                },
                serve: move |calls: &mut dyn FnMut()| {
                    let before = INSIDE.replace(Some(number));
                    calls();
                    INSIDE.set(before);
                },
            })
        })
        .collect();
    let plain = WsgiLayer::adapter().pool(pool.clone()).layer(|_: Request<Input>| {
        assert_eq!(INSIDE.get(), None);
        Response::new("done")
    });
    let mut asked = JoinSet::new();
    for n in 0..400 {
        match services.get(n % 4) {
            Some(service) => ask(&mut asked, service, "/"),
            None => ask(&mut asked, &plain, "/"),
        }
    }
    all_done(asked).await;
    assert_eq!(wrong.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_bodies_are_produced_inside_too() {
    struct Streams;
    impl SyncHandler for Streams {
        fn call(&self, _: Request<Input>) -> Result<Response<Output>, BoxError> {
            let chunks = (0..100).map(|_| {
                assert_eq!(INSIDE.get(), Some(7));
                bytes::Bytes::from_static(b"x")
            });
            Ok(Response::new(Output::iter(chunks)))
        }

        fn serve(&self, calls: &mut dyn FnMut()) {
            INSIDE.set(Some(7));
            calls();
            INSIDE.set(None);
        }
    }
    let service = WsgiLayer::adapter().workers(2).send_queue_size(2).layer(Arc::new(Streams));
    let response = soon(service.oneshot(request("/"))).await.expect("infallible");
    let body = soon(http_body_util::BodyExt::collect(response.into_body())).await.expect("a whole body");
    assert_eq!(body.to_bytes().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_handler_inside_a_sync_middleware_is_not_asked() {
    let entered = Arc::new(AtomicUsize::new(0));
    let count = entered.clone();
    let handler = Handler {
        call: |_: &str| {},
        serve: move |calls: &mut dyn FnMut()| {
            count.fetch_add(1, Ordering::SeqCst);
            calls();
        },
    };
    let middleware = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| next.call(request));
    let service = WsgiLayer::adapter().layer(middleware.layer(handler));
    let response = soon(service.oneshot(request("/"))).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(entered.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_slow_way_in_takes_no_requests_from_those_who_are_inside() {
    const REQUESTS: usize = 300;
    let pool = WorkerPool::new(4);
    let seen: Arc<Mutex<HashSet<ThreadId>>> = Arc::default();
    let tried = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let (threads, tries, progress, counted) = (seen.clone(), tried.clone(), done.clone(), done.clone());
    let gate = Gate::new();
    let begin = gate.clone();
    let service = WsgiLayer::adapter().pool(pool.clone()).max_queued(REQUESTS).layer(Handler {
        call: move |_: &str| {
            begin.pass();
            threads.lock().expect("a lock").insert(thread::current().id());
            // This long it takes.
            thread::sleep(Duration::from_millis(1));
            counted.fetch_add(1, Ordering::SeqCst);
        },
        serve: move |calls: &mut dyn FnMut()| {
            // Like an interpreter's lock: free for the first one, and slow for whoever comes later.
            if tries.fetch_add(1, Ordering::SeqCst) > 0 {
                let (before, began) = (progress.load(Ordering::SeqCst), Instant::now());
                let deadline = began + PATIENCE;
                while began.elapsed() < Duration::from_millis(8)
                    || progress.load(Ordering::SeqCst) < (before + 2).min(REQUESTS)
                {
                    assert!(Instant::now() < deadline, "nothing gets done inside");
                    thread::sleep(Duration::from_micros(100));
                }
            }
            calls();
        },
    });
    let mut asked = JoinSet::new();
    for _ in 0..REQUESTS {
        ask(&mut asked, &service, "/");
    }
    eventually("all of them are in", || pool.stats().queued + pool.stats().busy == REQUESTS).await;
    gate.open();
    all_done(asked).await;
    assert!(tried.load(Ordering::SeqCst) > 1, "nobody else tried: the test shows nothing");
    assert_eq!(seen.lock().expect("a lock").len(), 1, "one thread did it all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_others_come_in_where_the_one_inside_gives_the_way_free() {
    const REQUESTS: usize = 60;
    /// Like an interpreter's lock.
    #[derive(Default)]
    struct Lock(Mutex<bool>, Condvar);
    impl Lock {
        fn take(&self) {
            let held = self.0.lock().expect("a lock");
            let (mut held, result) = self.1.wait_timeout_while(held, PATIENCE, |held| *held).expect("a lock");
            assert!(!result.timed_out(), "it is never free");
            *held = true;
        }
        fn give(&self) {
            *self.0.lock().expect("a lock") = false;
            self.1.notify_one();
        }
    }
    let pool = WorkerPool::new(4);
    let (lock, gate, tried) = (Arc::new(Lock::default()), Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (inside, hold, way, tries) = (lock.clone(), gate.clone(), lock, tried.clone());
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
        call: move |path: &str| {
            if path == "/block" {
                inside.give();
                hold.pass();
                inside.take();
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        },
        serve: move |calls: &mut dyn FnMut()| {
            tries.fetch_add(1, Ordering::SeqCst);
            way.take();
            calls();
            way.give();
        },
    });
    let (mut asked, mut blocked) = (JoinSet::new(), JoinSet::new());
    for _ in 0..REQUESTS {
        ask(&mut asked, &service, "/");
    }
    eventually("another one tries", || tried.load(Ordering::SeqCst) > 1).await;
    ask(&mut blocked, &service, "/block");
    eventually("it is taken", || pool.stats().queued == 0).await;
    for _ in 0..REQUESTS {
        ask(&mut asked, &service, "/");
    }
    all_done(asked).await;
    gate.open();
    all_done(blocked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_what_waits_behind_a_long_job_is_taken_by_another_worker_soon() {
    let pool = WorkerPool::new(3);
    let mut took = Vec::new();
    for _ in 0..20 {
        let (gate, started) = (Gate::new(), Events::new());
        let (hold, tell) = (gate.clone(), started.teller());
        let service = WsgiLayer::adapter().pool(pool.clone()).layer(move |request: Request<Input>| {
            if request.uri().path() == "/long" {
                tell(());
                hold.pass();
            }
            Response::new("done")
        });
        let mut asked = JoinSet::new();
        // The pool learns that its jobs are short.
        for _ in 0..300 {
            ask(&mut asked, &service, "/");
        }
        all_done(asked).await;
        let mut long = JoinSet::new();
        ask(&mut long, &service, "/long");
        started.next().await;
        let began = Instant::now();
        let mut behind = JoinSet::new();
        ask(&mut behind, &service, "/");
        all_done(behind).await;
        took.push(began.elapsed());
        gate.open();
        all_done(long).await;
    }
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_millis(50), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_slow_way_out_holds_up_nobody() {
    let pool = WorkerPool::new(2);
    let (gate, leaving) = (Gate::new(), Events::new());
    let is_last = Arc::new(AtomicBool::new(false));
    let (way, tell, last) = (gate.clone(), leaving.teller(), is_last.clone());
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
        call: move |path: &str| is_last.store(path == "/last", Ordering::SeqCst),
        serve: move |calls: &mut dyn FnMut()| {
            calls();
            if last.swap(false, Ordering::SeqCst) {
                tell(());
                way.pass();
            }
        },
    });
    let mut asked = JoinSet::new();
    // The pool learns that its jobs are short.
    for _ in 0..300 {
        ask(&mut asked, &service, "/");
    }
    all_done(asked).await;
    let mut last = JoinSet::new();
    ask(&mut last, &service, "/last");
    all_done(last).await;
    leaving.next().await;
    for _ in 0..3 {
        let mut behind = JoinSet::new();
        ask(&mut behind, &service, "/");
        all_done(behind).await;
    }
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_handlers_that_block_after_many_short_ones_have_all_workers() {
    const WORKERS: usize = 10;
    let met = Arc::new((Mutex::new(0), Condvar::new()));
    let meeting = met.clone();
    let pool = WorkerPool::new(WORKERS);
    let call = move |path: &str| {
        if path == "/meet" {
            let (count, all) = &*meeting;
            let mut count = count.lock().expect("a lock");
            *count += 1;
            all.notify_all();
            let (_count, result) =
                all.wait_timeout_while(count, PATIENCE, |count| *count % WORKERS != 0).expect("a lock");
            assert!(!result.timed_out(), "they never meet");
        }
    };
    let serve = |calls: &mut dyn FnMut()| calls();
    let service = WsgiLayer::adapter().pool(pool.clone()).max_queued(10_000).layer(Handler { call, serve });
    for _ in 0..10 {
        let mut asked = JoinSet::new();
        for n in 0..500 + WORKERS {
            ask(&mut asked, &service, if n < 500 { "/" } else { "/meet" });
        }
        all_done(asked).await;
        // In the next round the count starts at a multiple again.
        assert_eq!(*met.0.lock().expect("a lock") % WORKERS, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_way_in_that_is_closed_holds_up_no_other_handler() {
    let pool = WorkerPool::new(4);
    let gate = Gate::new();
    let way = gate.clone();
    let closed = WsgiLayer::adapter().pool(pool.clone()).layer(Handler {
        call: |_: &str| {},
        serve: move |calls: &mut dyn FnMut()| {
            way.pass();
            calls();
        },
    });
    let open = WsgiLayer::adapter().pool(pool.clone()).layer(|_: Request<Input>| Response::new("done"));
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        ask(&mut waiting, &closed, "/");
    }
    eventually("they wait", || pool.stats().queued == 2 && pool.stats().threads > 0).await;
    let mut asked = JoinSet::new();
    ask(&mut asked, &open, "/");
    let first = tokio::time::timeout(Duration::from_secs(5), all_done(asked)).await;
    gate.open();
    all_done(waiting).await;
    first.expect("the handler that is open answers");
}
