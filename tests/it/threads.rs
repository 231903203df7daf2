//! A9 and A10: how many threads there are, what for, and for how long.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::sync::Notify;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_wsgi::{Body, BoxError, Input, Next, Output, SyncHandler, WorkerPool, WsgiLayer, WsgiService};

use crate::support::{Events, Gate, PATIENCE, eventually, idle, soon};

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// A handler that tells that it runs, and waits for its gate.
fn gated(gate: &Gate, events: &Events<()>) -> impl SyncHandler + use<> {
    let (gate, tell) = (gate.clone(), events.teller());
    move |_: Request<Input>| {
        tell(());
        gate.pass();
        Response::new("done")
    }
}

/// Sends requests that all workers of a pool run at the same time.
async fn fill<H: SyncHandler>(service: &WsgiService<H>, requests: usize, gate: &Gate, events: &Events<()>) {
    let calls: Vec<_> = (0..requests).map(|_| tokio::spawn(service.clone().oneshot(get("/")))).collect();
    for _ in 0..requests {
        events.next().await;
    }
    gate.open();
    for call in calls {
        assert_eq!(soon(call).await.expect("no panic").expect("a response").status(), 200);
    }
}

/// Takes the ten seconds after which they end, and nothing else meanwhile.
#[tokio::test]
async fn a10_threads_that_nobody_needs_end_and_others_come_after_them() {
    let (gate, events) = (Gate::new(), Events::new());
    let pool = WorkerPool::new(3);
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(gated(&gate, &events));
    fill(&service, 3, &gate, &events).await;
    assert_eq!(idle(&pool).await.threads, 3);
    let deadline = Instant::now() + Duration::from_secs(10) + PATIENCE;
    while pool.stats().threads > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(pool.stats().threads, 0);
    // None of those that have ended is counted on. Nothing holds these requests: how many threads they take is open.
    fill(&service, 3, &gate, &events).await;
    assert!((1..=3).contains(&idle(&pool).await.threads));
}

/// Something whose drop blocks: it counts those that are in there at once, and lets one at a time go on.
#[derive(Clone, Default)]
struct Drops(Arc<(Mutex<Counts>, Condvar)>);

#[derive(Default)]
struct Counts {
    inside: usize,
    most: usize,
    done: usize,
    /// How many may go.
    allowed: usize,
}

struct Held(Drops);

impl Drop for Held {
    fn drop(&mut self) {
        let (counts, changed) = &*self.0.0;
        let mut counts = counts.lock().expect("a lock");
        counts.inside += 1;
        counts.most = counts.most.max(counts.inside);
        let (mut counts, result) =
            changed.wait_timeout_while(counts, PATIENCE, |counts| counts.allowed == 0).expect("a lock");
        assert!(!result.timed_out(), "nobody let it go");
        counts.allowed -= 1;
        counts.inside -= 1;
        counts.done += 1;
    }
}

impl Drops {
    fn read<T>(&self, read: impl FnOnce(&mut Counts) -> T) -> T {
        read(&mut self.0.0.lock().expect("a lock"))
    }

    async fn let_go(&self, drops: usize) {
        let done = self.read(|counts| {
            counts.allowed += drops;
            counts.done + drops
        });
        self.0.1.notify_all();
        eventually("they are gone", || self.read(|counts| counts.done) == done).await;
    }
}

#[tokio::test]
async fn a9_what_vanished_clients_left_is_dropped_by_as_many_extra_threads_as_there_are_workers() {
    let (gate, events, drops) = (Gate::new(), Events::new(), Drops::default());
    let pool = WorkerPool::new(2);
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(gated(&gate, &events));
    let busy = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(get("/"))));
    for _ in &busy {
        events.next().await;
    }
    // Twice, since a thread that has ended must not count for ever.
    for _ in 0..2 {
        for _ in 0..5 {
            let mut request = get("/");
            request.extensions_mut().insert(Arc::new(Held(drops.clone())));
            let mut call = Box::pin(service.clone().oneshot(request));
            assert!(
                std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx).is_pending())).await
            );
            drop(call);
        }
        eventually("two are at it", || drops.read(|counts| counts.inside) == 2).await;
        eventually("the others wait", || pool.stats().discards == 3).await;
        drops.let_go(5).await;
        assert_eq!(drops.read(|counts| std::mem::take(&mut counts.most)), 2);
    }
    gate.open();
    for call in busy {
        soon(call).await.expect("no panic").expect("a response");
    }
}

#[tokio::test]
async fn a10_those_who_lent_their_places_come_back_one_for_each_that_is_free() {
    let (entered, go, running) = (Events::new(), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (tell, wait) = (entered.teller(), go.clone());
    let inner = service_fn(move |_: Request<Body>| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            tell("inner");
            wait.notified().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let (here, back) = (Gate::new(), Gate::new());
    let (tell, here_closed, back_closed) = (entered.teller(), here.clone(), back.clone());
    let app = move |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let lends = request.uri().path() == "/lends";
        if lends {
            request.extensions_mut().remove::<Next>().ok_or("no Next")?.run(request)?;
        }
        let beside = running.fetch_add(1, Ordering::SeqCst);
        tell(if lends { "back" } else { "here" });
        (if lends { &back_closed } else { &here_closed }).pass();
        running.fetch_sub(1, Ordering::SeqCst);
        Ok(Response::new(format!("{beside} beside it").into()))
    };
    let pool = WorkerPool::new(1);
    let service = WsgiLayer::new(app).pool(pool.clone()).layer(inner);
    let mut calls = Vec::new();
    for lending in [1, 2] {
        calls.push(tokio::spawn(service.clone().oneshot(get("/lends"))));
        assert_eq!(entered.next().await, "inner");
        eventually("it has lent its place", || pool.stats().lending == lending).await;
    }
    calls.push(tokio::spawn(service.oneshot(get("/here"))));
    assert_eq!(entered.next().await, "here");
    // What they wait for is there, and the place is not.
    go.notify_one();
    go.notify_one();
    eventually("they want their place back", || pool.stats().lending == 0).await;
    assert_eq!((pool.stats().busy, entered.drain()), (1, vec![]));
    here.open();
    assert_eq!(entered.next().await, "back");
    assert_eq!((pool.stats().busy, entered.drain()), (1, vec![]));
    back.open();
    for call in calls {
        let response = soon(call).await.expect("no panic").expect("a response");
        let body = response.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "0 beside it");
    }
}

/// The last of all tests, one after the other: waits until the threads of all their pools have ended. It is Miri that fails if one has not, or if it left something.
#[cfg(miri)]
#[test]
fn those_that_nobody_needs_leave_nothing() {
    std::thread::sleep(Duration::from_secs(60));
}

/// Set in a process that can start no thread.
const ALONE: &str = "TOWER_WSGI_TEST_ALONE";

#[test]
#[cfg_attr(miri, ignore = "starts a process")]
fn a10_where_no_thread_can_be_started_requests_are_refused() {
    const NAME: &str = "threads::a10_where_no_thread_can_be_started_requests_are_refused";
    if std::env::var_os(ALONE).is_some() {
        return alone();
    }
    // The stack that threads are given there is larger than any address space. One test thread means the main one.
    let this = std::env::current_exe().expect("the path of this test");
    let mut child = std::process::Command::new(this);
    child.args(["--exact", NAME, "--test-threads=1", "--nocapture"]);
    let child = child.env(ALONE, "1").env("RUST_MIN_STACK", (1_u64 << 62).to_string()).output();
    let child = child.expect("a process");
    let out = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && out.contains("1 passed"),
        "{out}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

fn alone() {
    std::thread::Builder::new().spawn(|| ()).expect_err("a thread could be started");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pool = WorkerPool::new(2);
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(|_: Request<Input>| Response::new("hello"));
    // What one try leaves in the books must not mislead the next.
    for _ in 0..5 {
        let response = runtime.block_on(soon(service.clone().oneshot(get("/")))).expect("a response");
        assert_eq!(response.status(), 503);
        let error = response.extensions().get::<tower_wsgi::Error>().expect("an error");
        assert!(error.is_overloaded() && std::error::Error::source(error).is_some(), "{error:?}");
        let stats = pool.stats();
        assert_eq!((stats.threads, stats.busy, stats.queued, stats.discards), (0, 0, 0, 0));
    }
}
