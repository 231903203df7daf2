//! A4 and A8 to A11: threads, queues, cancellation, drops and panics.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, Service, ServiceExt};
use tower_wsgi::{Body, Environ, Error, Input, Output, WorkerPool, WsgiLayer, WsgiService};

use crate::support::{Events, Gate, Probe, Server, VERSIONS, eventually, idle, is_worker, serve, soon, text};

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

/// An endless body at `/endless`, `hello` elsewhere.
fn endless(request: Request<Input>) -> Response<Output> {
    match request.uri().path() {
        "/endless" => {
            Response::new(Output::iter(std::iter::repeat(bytes::Bytes::from_static(&[b'x'; 4096]))))
        }
        "/reader" => Response::new(Output::reader(io::repeat(b'x'))),
        _ => Response::new("hello".into()),
    }
}

#[tokio::test]
async fn a4_stalled_downloads_hold_no_threads() {
    let pool = WorkerPool::new(2);
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).layer(endless)).await;
    let mut stalled = Vec::new();
    for n in 0..100 {
        let path = if n % 2 == 0 { "/endless" } else { "/reader" };
        let version = VERSIONS[n / 2 % 2];
        let request = server.request("GET", path, Body::empty());
        stalled.push(soon(server.send(version, request)).await.expect("a response"));
    }
    idle(&pool).await;
    assert_eq!(text(soon(server.get("/")).await).await, "hello");
    for response in &mut stalled {
        soon(response.frame()).await.expect("a frame").expect("no error");
    }
}

#[tokio::test]
async fn a4_a_body_goes_on_on_any_worker() {
    let threads = Arc::new(std::sync::Mutex::new(HashSet::new()));
    let seen = threads.clone();
    let pool = WorkerPool::new(2);
    let gate = Gate::new();
    let inside = gate.clone();
    let started = Events::new();
    let tell = started.teller();
    let handler = move |request: Request<Input>| {
        if request.uri().path() == "/block" {
            tell(std::thread::current().id());
            inside.pass();
            return Response::new(Output::empty());
        }
        let seen = seen.clone();
        Response::new(Output::iter((0..100).map(move |n| {
            seen.lock().expect("a lock").insert(std::thread::current().id());
            format!("{n}\n")
        })))
    };
    let mut service = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(2).layer(handler);
    let response = service.call(request()).await.expect("a response");
    idle(&pool).await;
    // Takes the worker that made the first chunks, so that another one has to go on.
    let block = Request::builder().uri("/block").body(Body::empty()).expect("a request");
    let blocked = tokio::spawn(service.call(block));
    let first = *threads.lock().expect("a lock").iter().next().expect("a thread");
    assert_eq!(started.next().await, first);
    let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
    assert!(body.ends_with(b"98\n99\n"));
    assert_eq!(threads.lock().expect("a lock").len(), 2);
    gate.open();
    soon(blocked).await.expect("no panic").expect("a response");
}

#[tokio::test]
async fn a4_a_fast_download_does_not_keep_a_worker_from_others() {
    // Each chunk is made only when the one before was taken: the queue never fills, and the body never ends.
    let (taken, next) = std::sync::mpsc::channel();
    let next = std::sync::Mutex::new(Some(next));
    let layer = WsgiLayer::adapter().workers(1).send_queue_size(4);
    let mut service = layer.layer(move |request: Request<Input>| {
        if request.uri().path() != "/endless" {
            return Response::new(Output::from("hello"));
        }
        let next = next.lock().expect("a lock").take().expect("one download");
        Response::new(Output::iter(std::iter::from_fn(move || next.recv().ok().map(|()| "x"))))
    });
    let endless = Request::builder().uri("/endless").body(Body::empty()).expect("a request");
    taken.send(()).expect("a producer");
    let mut download = soon(service.call(endless)).await.expect("a response").into_body();
    let reading = tokio::spawn(async move {
        while let Some(Ok(_)) = download.frame().await {
            taken.send(()).expect("a producer");
        }
    });
    for _ in 0..10 {
        assert_eq!(soon(service.call(request())).await.expect("a response").status(), 200);
    }
    reading.abort();
}

#[tokio::test]
async fn a8_a_request_that_still_waits_is_never_run() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = ran.clone();
    let (gate, started, dropped) = (Gate::new(), Events::new(), Events::new());
    let (inside, tell) = (gate.clone(), started.teller());
    let pool = WorkerPool::new(1);
    let mut service = WsgiLayer::adapter().pool(pool.clone()).layer(move |_: Request<Input>| {
        counter.fetch_add(1, Ordering::SeqCst);
        tell(());
        inside.pass();
        Response::new("")
    });
    let first = tokio::spawn(service.call(request()));
    started.next().await;

    let mut waiting = request();
    waiting.extensions_mut().insert(Probe::new(&dropped));
    let second = tokio::spawn(service.call(waiting));
    eventually("the second request waits", || pool.stats().queued == 1).await;
    second.abort();
    // Dropped at once, although the only worker is busy: what it holds may be what the worker waits for.
    assert!(is_worker(&dropped.next().await));
    assert_eq!(pool.stats().queued, 0);

    gate.open();
    soon(first).await.expect("no panic").expect("a response");
    idle(&pool).await;
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a8_a_running_handler_sees_that_its_client_left() {
    let (gate, seen) = (Gate::new(), Events::new());
    let (inside, tell) = (gate.clone(), seen.teller());
    let started = Events::new();
    let start = started.teller();
    let handler = move |request: Request<Input>| {
        let environ = Environ::of(&request);
        start(environ.is_disconnected());
        inside.pass();
        let (mut body, tell) = (request.into_body(), tell.clone());
        Response::new(Output::writer(move |w| {
            let read = body.chunk().expect_err("nobody sends any more").kind();
            let written = w.send("text").expect_err("nobody listens any more").kind();
            tell((environ.is_disconnected(), read, written));
            Ok(())
        }))
    };
    let mut service = WsgiService::new(handler);
    let running = tokio::spawn(service.call(request()));
    assert!(!started.next().await);
    running.abort();
    running.await.expect_err("an aborted task");
    gate.open();
    let expected = (true, io::ErrorKind::ConnectionAborted, io::ErrorKind::BrokenPipe);
    assert_eq!(seen.next().await, expected);
}

#[tokio::test]
async fn a8_a_client_that_leaves_in_mid_download_stops_the_producer() {
    for version in VERSIONS {
        for path in ["/iterator", "/writer"] {
            let dropped = Events::new();
            let probe = std::sync::Mutex::new(Some(Probe::new(&dropped)));
            let pool = WorkerPool::new(1);
            let server =
                serve(WsgiLayer::adapter().pool(pool.clone()).layer(move |request: Request<Input>| {
                    let probe = probe.lock().expect("a lock").take();
                    Response::new(match request.uri().path() {
                        "/writer" => Output::writer(move |w| {
                            let _held = &probe;
                            loop {
                                w.send("some text")?;
                            }
                        }),
                        _ => Output::iter((0_u64..).map(move |n| {
                            let _held = &probe;
                            format!("{n}\n")
                        })),
                    })
                }))
                .await;
            let request = server.request("GET", path, Body::empty());
            let mut response = soon(server.send(version, request)).await.expect("a response");
            soon(response.frame()).await.expect("a frame").expect("no error");
            drop(response);
            assert!(is_worker(&dropped.next().await), "{path} over {version:?}");
            idle(&pool).await;
        }
    }
}

/// Where a probe is put, and what happens to the request.
async fn a9(put: &'static str, make: impl Fn(Probe) -> Output + Send + Sync + 'static, take_body: bool) {
    let dropped = Events::new();
    let probe = Probe::new(&dropped);
    let mut request = request();
    request.extensions_mut().insert(probe);
    let pool = WorkerPool::new(2);
    let mut service = WsgiLayer::adapter().pool(pool.clone()).layer(move |mut request: Request<Input>| {
        Response::new(make(request.extensions_mut().remove::<Probe>().expect("a probe")))
    });
    let response = soon(service.call(request)).await.expect("a response");
    if take_body {
        let _ = soon(response.into_body().collect()).await;
    } else {
        drop(response);
    }
    assert!(is_worker(&dropped.next().await), "{put}");
    idle(&pool).await;
    assert!(dropped.drain().is_empty(), "{put}: dropped twice");
}

#[tokio::test]
async fn a9_bodies_are_dropped_once_on_a_worker() {
    for take in [true, false] {
        a9("an endless iterator", |p| Output::iter((0..100).map(move |_| hold(&p))), take).await;
        a9("a reader", |p| Output::reader(Held(p, 1 << 20)), take).await;
        a9("a writer", |p| Output::writer(move |w| (0..100).try_for_each(|_| w.send(hold(&p)))), take).await;
        a9(
            "a failing iterator",
            |p| Output::try_iter((0..20).map(move |n| if n < 15 { Ok(hold(&p)) } else { Err("gone") })),
            take,
        )
        .await;
        a9(
            "a panicking iterator",
            |p| Output::iter((0..20).map(move |n| if n < 15 { hold(&p) } else { panic!("on purpose") })),
            take,
        )
        .await;
    }
}

#[tokio::test]
async fn a9_a_request_is_dropped_on_a_worker_on_every_path() {
    let gate = Gate::new();
    let inside = gate.clone();
    let started = Events::new();
    let tell = started.teller();
    let pool = WorkerPool::new(1);
    let mut service =
        WsgiLayer::adapter().pool(pool.clone()).max_queued(0).layer(move |request: Request<Input>| {
            if request.uri().path() == "/block" {
                tell(());
                inside.pass();
            }
            Response::new("")
        });
    let dropped = Events::new();
    let with_probe = || {
        let mut request = request();
        request.extensions_mut().insert(Probe::new(&dropped));
        request
    };

    // Run; never polled; refused.
    soon(service.call(with_probe())).await.expect("a response");
    assert!(is_worker(&dropped.next().await), "run");
    drop(service.call(with_probe()));
    assert!(is_worker(&dropped.next().await), "never polled");
    idle(&pool).await;
    let block = Request::builder().uri("/block").body(Body::empty()).expect("a request");
    let blocked = tokio::spawn(service.call(block));
    started.next().await;
    let response = soon(service.call(with_probe())).await.expect("a response");
    assert_eq!(response.status(), 503);
    assert!(is_worker(&dropped.next().await), "refused");
    gate.open();
    soon(blocked).await.expect("no panic").expect("a response");
}

/// Sends so many requests to `/` at once, and tells their responses as they come.
fn burst(server: &Arc<Server>, requests: usize) -> Events<(u16, Option<String>)> {
    let responses = Events::new();
    for _ in 0..requests {
        let (server, tell) = (server.clone(), responses.teller());
        tokio::spawn(async move {
            let response = server.get("/").await;
            let after = response.headers().get("retry-after").map(|v| v.to_str().expect("text").to_owned());
            tell((response.status().as_u16(), after));
        });
    }
    responses
}

#[tokio::test]
async fn a10_over_max_queued_is_503_at_once() {
    let gate = Gate::new();
    let inside = gate.clone();
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, highest) = (running.clone(), most.clone());
    let service = WsgiLayer::adapter().workers(2).max_queued(4).layer(move |_: Request<Input>| {
        highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        inside.pass();
        now.fetch_sub(1, Ordering::SeqCst);
        Response::new("")
    });
    let server = Arc::new(serve(service).await);
    let responses = burst(&server, 20);
    for _ in 0..14 {
        assert_eq!(responses.next().await, (503, Some("1".to_owned())));
    }
    eventually("both workers run", || running.load(Ordering::SeqCst) == 2).await;
    gate.open();
    for _ in 0..6 {
        assert_eq!(responses.next().await, (200, None));
    }
    assert_eq!(most.load(Ordering::SeqCst), 2, "more handlers than workers");
}

#[tokio::test]
async fn a10_the_queue_is_bounded_by_default() {
    let gate = Gate::new();
    let inside = gate.clone();
    let pool = WorkerPool::new(1);
    let mut service = WsgiLayer::adapter().pool(pool.clone()).layer(move |_: Request<Input>| {
        inside.pass();
        Response::new("")
    });
    let calls: Vec<_> = (0..1_001).map(|_| tokio::spawn(service.call(request()))).collect();
    eventually("the queue is full", || pool.stats().queued + pool.stats().busy == 1_001).await;
    let refused = soon(service.call(request())).await.expect("a response");
    assert_eq!(refused.status(), 503);
    assert!(refused.extensions().get::<Error>().expect("the reason").is_overloaded());
    gate.open();
    for call in calls {
        assert_eq!(soon(call).await.expect("no panic").expect("a response").status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a10_waiting_longer_than_queue_timeout_is_503() {
    let gate = Gate::new();
    let inside = gate.clone();
    let ran = Arc::new(AtomicUsize::new(0));
    let (counter, started) = (ran.clone(), Events::new());
    let tell = started.teller();
    let pool = WorkerPool::new(1);
    let mut service = WsgiLayer::adapter().pool(pool.clone()).queue_timeout(Duration::from_secs(5)).layer(
        move |_: Request<Input>| {
            counter.fetch_add(1, Ordering::SeqCst);
            tell(());
            inside.pass();
            Response::new("")
        },
    );
    let first = tokio::spawn(service.call(request()));
    started.next().await;
    let refused = service.call(request()).await.expect("a response");
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"1".parse().expect("a value"))
    );
    // The one that runs is not hurried by the timeout.
    gate.open();
    assert_eq!(first.await.expect("no panic").expect("a response").status(), 200);
    idle(&pool).await;
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a10_layers_share_a_pool() {
    let gate = Gate::new();
    let started = Events::new();
    let handler = || {
        let (gate, tell) = (gate.clone(), started.teller());
        move |_: Request<Input>| {
            tell(());
            gate.pass();
            Response::new("")
        }
    };
    let pool = WorkerPool::new(1);
    let layer = WsgiLayer::adapter().pool(pool.clone());
    let (mut one, mut two) = (layer.layer(handler()), layer.layer(handler()));
    let (one, two) = (tokio::spawn(one.call(request())), tokio::spawn(two.call(request())));
    started.next().await;
    eventually("the other one waits", || pool.stats().queued == 1).await;
    assert_eq!(pool.stats().threads, 1);
    gate.open();
    soon(one).await.expect("no panic").expect("a response");
    soon(two).await.expect("no panic").expect("a response");
}

#[tokio::test]
async fn a10_a_pool_is_waited_for_until_it_has_nothing_to_do() {
    let (gate, started) = (Gate::new(), Events::new());
    let (inside, tell) = (gate.clone(), started.teller());
    let pool = WorkerPool::new(1);
    let handler = move |_: Request<Input>| {
        tell(());
        inside.pass();
        Response::new(Output::iter(["one", "two", "three"]))
    };
    let service = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(1).layer(handler);
    assert!(pool.wait_idle(Duration::ZERO), "nothing has begun");

    let [running, queued] = [(); 2].map(|()| tokio::spawn(service.clone().oneshot(request())));
    started.next().await;
    eventually("one waits", || pool.stats().queued == 1).await;
    assert!(!pool.wait_idle(Duration::from_millis(1)), "one runs, and one waits");
    let resting = |limit| {
        let pool = pool.clone();
        tokio::task::spawn_blocking(move || pool.wait_idle(limit))
    };
    let rests = [resting(Duration::from_secs(60)), resting(Duration::MAX)];
    gate.open();
    for rest in rests {
        assert!(soon(rest).await.expect("no panic"));
    }
    // Both bodies wait for their clients by now, which is nobody's work.
    let responses =
        [running, queued].map(|call| async move { soon(call).await.expect("no panic").expect("a response") });
    let [one, two] = responses;
    let one = one.await.into_body().collect().await.expect("a whole body");
    assert_eq!(one.to_bytes(), "onetwothree");
    drop(two.await);
    assert!(soon(resting(Duration::from_secs(60))).await.expect("no panic"), "what was left is dropped");
    let stats = pool.stats();
    assert_eq!((stats.busy, stats.queued, stats.resumed, stats.discards), (0, 0, 0, 0));
}

#[tokio::test]
async fn a9_a_pool_is_waited_for_until_what_vanished_clients_left_is_dropped() {
    /// Blocks when it is dropped.
    struct Slow(Gate);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.pass();
        }
    }

    let (gate, drops, started) = (Gate::new(), Gate::new(), Events::new());
    let (inside, tell) = (gate.clone(), started.teller());
    let pool = WorkerPool::new(1);
    let handler = move |_: Request<Input>| {
        tell(());
        inside.pass();
        Response::new("")
    };
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(handler);
    let running = tokio::spawn(service.clone().oneshot(request()));
    started.next().await;
    let mut left = request();
    left.extensions_mut().insert(Arc::new(Slow(drops.clone())));
    let left = tokio::spawn(service.oneshot(left));
    eventually("it waits", || pool.stats().queued == 1).await;
    left.abort();
    left.await.expect_err("it was stopped");
    // The worker is done before the extra thread.
    eventually("an extra thread drops it", || pool.stats().discards == 0).await;
    gate.open();
    soon(running).await.expect("no panic").expect("a response");
    eventually("the worker is done", || pool.stats().busy == 0).await;
    assert!(!pool.wait_idle(Duration::from_millis(1)), "something is still being dropped");
    let rest = pool.clone();
    let rest = tokio::task::spawn_blocking(move || rest.wait_idle(Duration::from_secs(60)));
    drops.open();
    assert!(soon(rest).await.expect("no panic"));
}

/// The way out of a handler, and its drop, may give up an interpreter's lock, or a database.
#[tokio::test]
async fn a10_a_pool_is_waited_for_until_its_threads_are_out_of_their_handlers() {
    struct Slow {
        out: Gate,
        leaving: Box<dyn Fn(()) + Send + Sync>,
    }
    impl tower_wsgi::SyncHandler for Slow {
        fn call(&self, _: Request<Input>) -> Result<Response<Output>, tower_wsgi::BoxError> {
            Ok(Response::new("".into()))
        }

        fn serve(&self, calls: &mut dyn FnMut()) {
            calls();
            (self.leaving)(());
            self.out.pass();
        }
    }

    let (out, leaves) = (Gate::new(), Events::new());
    let pool = WorkerPool::new(1);
    let handler = Slow { out: out.clone(), leaving: Box::new(leaves.teller()) };
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(handler);
    soon(service.oneshot(request())).await.expect("a response");
    leaves.next().await;
    assert_eq!(pool.stats().busy, 0);
    assert!(!pool.wait_idle(Duration::from_millis(1)), "it is on its way out");
    let rest = tokio::task::spawn_blocking(move || pool.wait_idle(Duration::from_secs(60)));
    out.open();
    assert!(soon(rest).await.expect("no panic"));
}

#[tokio::test]
async fn a10_the_threads_end_with_their_pool() {
    let alive = Arc::new(());
    let held = alive.clone();
    let mut service = WsgiService::new(move |_: Request<Input>| {
        thread_local!(static HELD: std::cell::RefCell<Option<Arc<()>>> = const { std::cell::RefCell::new(None) });
        HELD.with(|local| *local.borrow_mut() = Some(held.clone()));
        Response::new("")
    });
    soon(service.call(request())).await.expect("a response");
    drop(service);
    eventually("the worker ended", || Arc::strong_count(&alive) == 1).await;
}

#[tokio::test]
async fn a11_panics_stay_inside() {
    let pool = WorkerPool::new(2);
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).layer(|request: Request<Input>| {
        assert!(request.uri().path() != "/panic", "on purpose");
        Response::new("hello")
    }))
    .await;
    for _ in 0..20 {
        assert_eq!(server.get("/panic").await.status(), 500);
    }
    assert_eq!(text(server.get("/").await).await, "hello");
    assert!(pool.stats().threads <= 2);
}

#[tokio::test]
async fn a11_a_panic_in_a_drop_stays_inside() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let pool = WorkerPool::new(1);
    let handler = |request: Request<Input>| match request.uri().path() {
        "/body" => {
            let bomb = Bomb;
            Response::new(Output::iter((0..20).map(move |_| {
                let _held = &bomb;
                "x"
            })))
        }
        _ => Response::new("hello".into()),
    };
    let mut service = WsgiLayer::adapter().pool(pool.clone()).layer(handler);
    let get = |path: &str| Request::builder().uri(path).body(Body::empty()).expect("a request");
    let whole = soon(service.call(get("/body"))).await.expect("a response");
    assert_eq!(soon(whole.into_body().collect()).await.expect("all of it").to_bytes().len(), 20);
    drop(soon(service.call(get("/body"))).await.expect("a response"));
    idle(&pool).await;
    assert_eq!(soon(service.call(get("/"))).await.expect("a response").status(), 200);
    assert_eq!(pool.stats().threads, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_requests_dropped_at_any_moment_leave_nothing_behind() {
    let pool = WorkerPool::new(4);
    let alive = Arc::new(());
    let held = alive.clone();
    let handler = move |request: Request<Input>| {
        let held = held.clone();
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        match path.as_str() {
            "/read" => {
                while body.chunk()?.is_some() {}
                Ok::<_, io::Error>(Response::new(Output::from("read")))
            }
            "/write" => Ok(Response::new(Output::writer(move |w| {
                let _held = &held;
                (0..100).try_for_each(|_| w.send("some text"))
            }))),
            _ => Ok(Response::new(Output::iter((0..100).map(move |_| {
                let _held = &held;
                "some text"
            })))),
        }
    };
    let service = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(3).layer(handler);
    let tasks: Vec<_> = (0..2_000_usize)
        .map(|n| {
            let path = ["/read", "/write", "/iterate"][n % 3];
            let body = if n % 2 == 0 { Body::from("text") } else { Body::new(Stalled) };
            let request = Request::builder().uri(path).body(body).expect("a request");
            let service = service.clone();
            tokio::spawn(async move {
                // Gives up after so many polls, wherever the request is by then.
                let mut polls = n % 17;
                let mut exchange = std::pin::pin!(async {
                    let response = service.oneshot(request).await.expect("a response");
                    let _ = response.into_body().collect().await;
                });
                std::future::poll_fn(|cx| {
                    if polls == 0 || exchange.as_mut().poll(cx).is_ready() {
                        return std::task::Poll::Ready(());
                    }
                    polls -= 1;
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                })
                .await;
            })
        })
        .collect();
    for task in tasks {
        soon(task).await.expect("no panic");
    }
    let stats = idle(&pool).await;
    assert!(stats.threads <= 4, "{stats:?}");
    drop(service);
    eventually("everything was dropped", || Arc::strong_count(&alive) == 1).await;
}

/// A body that never comes.
struct Stalled;

impl http_body::Body for Stalled {
    type Data = bytes::Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, io::Error>>> {
        std::task::Poll::Pending
    }
}

/// Some text, made while the probe is alive.
fn hold(_: &Probe) -> &'static str {
    "x"
}

/// A reader of so many bytes that holds a probe.
struct Held(#[expect(dead_code, reason = "held for its drop")] Probe, usize);

impl io::Read for Held {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = buf.len().min(self.1);
        buf[..length].fill(b'x');
        self.1 -= length;
        Ok(length)
    }
}

#[tokio::test]
async fn a11_a_panic_when_the_context_is_dropped_stays_inside() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("on purpose");
            }
        }
    }
    let gate = Gate::new();
    let inside = gate.clone();
    let started = Events::new();
    let tell = started.teller();
    let pool = WorkerPool::new(1);
    let layer = WsgiLayer::adapter().pool(pool.clone()).context(|| {
        let bomb = is_armed().then(|| Bomb);
        move |run: &mut dyn FnMut()| {
            let _held = &bomb;
            run();
        }
    });
    let mut service = layer.layer(move |_: Request<Input>| {
        tell(());
        inside.pass();
        Response::new("")
    });
    let abandoned = tokio::spawn(ARMED.scope((), service.call(request())));
    started.next().await;
    // The worker is the last to hold what the context captured.
    abandoned.abort();
    abandoned.await.expect_err("an aborted task");
    gate.open();
    idle(&pool).await;
    assert_eq!(soon(service.call(request())).await.expect("a response").status(), 200);
    assert_eq!(pool.stats().threads, 1);
}

tokio::task_local! { static ARMED: (); }

fn is_armed() -> bool {
    ARMED.try_with(|()| ()).is_ok()
}

#[test]
fn a10_a_queue_timeout_without_a_timer_leaves_nothing_behind() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = ran.clone();
    let pool = WorkerPool::new(1);
    let layer = WsgiLayer::adapter().pool(pool.clone()).queue_timeout(Duration::from_secs(1));
    let mut service = layer.layer(move |_: Request<Input>| {
        counter.fetch_add(1, Ordering::SeqCst);
        Response::new("")
    });
    let dropped = Events::new();
    let mut request = request();
    request.extensions_mut().insert(Probe::new(&dropped));
    let without_timer = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let call = service.call(request);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| without_timer.block_on(call)));
    assert!(panicked.is_err());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        assert!(is_worker(&dropped.next().await));
        idle(&pool).await;
    });
    assert_eq!(ran.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a12_on_error_is_not_asked_where_nobody_waits() {
    let (gate, asked, started) = (Gate::new(), Events::new(), Events::new());
    let (inside, ask, start) = (gate.clone(), asked.teller(), started.teller());
    let pool = WorkerPool::new(1);
    let layer = WsgiLayer::adapter().pool(pool.clone()).on_error(move |error| {
        ask(error.to_string());
        Response::new("sorry".into())
    });
    let mut service = layer.layer(move |request: Request<Input>| {
        start(());
        inside.pass();
        request.into_body().chunk().map(|_| Response::new(""))
    });
    let abandoned = tokio::spawn(service.call(request()));
    started.next().await;
    abandoned.abort();
    abandoned.await.expect_err("an aborted task");
    gate.open();
    idle(&pool).await;
    assert!(asked.drain().is_empty());
}
