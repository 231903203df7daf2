//! B5: a host that wants no more drops the service's body, or its future, at once; background tasks go on.

use std::convert::Infallible;
use std::future::pending;
use std::io::Write as _;
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::{Layer as _, Service, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, BackgroundTasks, Body, BoxError, Output, SyncHandler, WorkerPool, WsgiLayer,
    sync_fn,
};

use super::{Dropped, PollFrame, Tell, driven, get, next, poll_body, reader};
use crate::support::{Events, Server, VERSIONS, blocking, idle, is_worker, serve, soon, watched};

/// Spawns a task when it is dropped, which tells that it ran.
struct SpawnAtDrop(std_mpsc::Sender<&'static str>);

impl Drop for SpawnAtDrop {
    fn drop(&mut self) {
        let sender = self.0.clone();
        tokio::spawn(async move { sender.send("spawned by a drop") });
    }
}

/// A service whose body gives one chunk, then waits for ever, and tells when it is dropped.
fn endless() -> (
    impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send,
    std_mpsc::Receiver<Dropped>,
    std_mpsc::Receiver<&'static str>,
) {
    let (tell, dropped) = Tell::new();
    let (sender, ran) = std_mpsc::channel();
    let held = Arc::new(Mutex::new(Some((tell, sender))));
    let service = service_fn(move |_: Request<Body>| {
        let (tell, sender) = held.lock().expect("a lock").take().expect("one call");
        let mut held = Some((tell, SpawnAtDrop(sender)));
        let mut first = Some("first");
        let body = poll_body(move |cx| -> PollFrame {
            let _held = held.as_mut();
            match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first.into())))),
                None => {
                    // Somebody keeps the waker, as a socket would.
                    let waker = cx.waker().clone();
                    tokio::spawn(async move {
                        pending::<()>().await;
                        drop(waker);
                    });
                    Poll::Pending
                }
            }
        });
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    (service, dropped, ran)
}

/// What a host may do with a response that it wants no more of.
const ENDS: [fn(Response<Output>); 3] = [
    drop,
    |response| drop(response.into_body().into_reader()),
    |response| {
        let mut body = response.into_body().into_reader();
        assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"first"[..]));
    },
];

#[test]
fn b5_dropping_the_response_drops_the_body_at_once() {
    watched(|| {
        for end in ENDS {
            let (service, dropped, ran) = endless();
            let response = AsgiHandler::new(service).call(get()).expect("a response");
            assert!(dropped.try_recv().is_err(), "dropped before its time");
            end(response);
            let told = dropped.try_recv().expect("dropped at once");
            assert_eq!(told, Dropped { thread: thread::current().id(), in_runtime: true });
            assert_eq!(next(&ran), "spawned by a drop");
        }
    });
}

#[test]
fn b5_dropping_it_happens_in_the_callers_runtime() {
    watched(|| {
        for runtime in driven() {
            for end in ENDS {
                let (service, dropped, ran) = endless();
                let layer = AsgiLayer::adapter().runtime(runtime.handle.clone());
                end(layer.layer(service).call(get()).expect("a response"));
                let told = dropped.try_recv().expect("dropped at once");
                assert_eq!(told, Dropped { thread: thread::current().id(), in_runtime: true });
                assert_eq!(next(&ran), "spawned by a drop", "{}", runtime.name);
            }
        }
    });
}

#[test]
fn b5_dropping_it_happens_in_the_runtime_on_another_thread_too() {
    watched(|| {
        let (service, dropped, ran) = endless();
        let response = AsgiHandler::new(service).call(get()).expect("a response");
        let dropping = thread::spawn(move || {
            drop(response);
            thread::current().id()
        });
        let thread = dropping.join().expect("no panic");
        assert_eq!(next(&dropped), Dropped { thread, in_runtime: true });
        assert_eq!(next(&ran), "spawned by a drop");
    });
}

#[test]
fn b5_dropping_it_happens_in_the_runtime_that_the_call_was_in() {
    watched(|| {
        for runtime in driven() {
            let (service, dropped, ran) = endless();
            let inside = runtime.handle.enter();
            let response = AsgiHandler::new(service).call(get()).expect("a response");
            drop(inside);
            assert!(Handle::try_current().is_err());
            drop(response);
            assert_eq!(next(&dropped), Dropped { thread: thread::current().id(), in_runtime: true });
            assert_eq!(next(&ran), "spawned by a drop", "{}", runtime.name);
        }
    });
}

#[test]
fn b5_a_body_is_dropped_before_its_end_is_told() {
    watched(|| {
        for layer in [AsgiLayer::adapter(), AsgiLayer::adapter().wait_time(Duration::from_secs(3600))] {
            let (tell, dropped) = Tell::new();
            let tell = Arc::new(Mutex::new(Some(tell)));
            let (go, wait) = oneshot::channel::<()>();
            let wait = Arc::new(Mutex::new(Some(wait)));
            let handler = layer.layer(service_fn(move |request: Request<Body>| {
                let tasks = request.extensions().get::<BackgroundTasks>().expect("background tasks");
                let wait = wait.lock().expect("a lock").take().expect("one call");
                tasks.spawn(async move {
                    let _ = wait.await;
                });
                let mut held = tell.lock().expect("a lock").take();
                let body = poll_body(move |_| {
                    let _held = held.as_mut();
                    Poll::Ready(None)
                });
                async { Ok::<_, Infallible>(Response::new(body)) }
            }));
            let mut body = reader(handler.call(get()));
            // What ends the task is that the body is gone.
            let releasing = thread::spawn(move || {
                next(&dropped);
                go.send(()).expect("a task");
            });
            assert_eq!(body.chunk().expect("the end"), None);
            releasing.join().expect("no panic");
        }
    });
}

/// A handler whose only response has a task that is done when it is told to go on, and tells how it ended.
fn with_task(
    layer: &AsgiLayer,
) -> (impl SyncHandler + use<>, oneshot::Sender<&'static str>, std_mpsc::Receiver<&'static str>) {
    struct Ending(std_mpsc::Sender<&'static str>, &'static str);
    impl Drop for Ending {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }

    let (go, wait) = oneshot::channel();
    let (sender, ended) = std_mpsc::channel();
    let task = Arc::new(Mutex::new(Some((wait, Ending(sender, "cancelled")))));
    let handler = layer.layer(service_fn(move |request: Request<Body>| {
        let tasks = request.extensions().get::<BackgroundTasks>().expect("background tasks");
        let (wait, ending) = task.lock().expect("a lock").take().expect("one call");
        tasks.spawn(async move {
            let mut ending = ending;
            ending.1 = wait.await.unwrap_or("forgotten");
        });
        let mut first = Some("first");
        let body = poll_body(move |_| match first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first.into())))),
            None => Poll::Pending,
        });
        async { Ok::<_, Infallible>(Response::new(body)) }
    }));
    (handler, go, ended)
}

#[test]
fn b5_tasks_go_on_after_the_response_is_dropped() {
    watched(|| {
        let runtimes = driven();
        let mut layers = vec![AsgiLayer::adapter()];
        layers.extend(runtimes.each_ref().map(|one| AsgiLayer::adapter().runtime(one.handle.clone())));
        for layer in layers {
            for layer in [layer.clone(), layer.wait_time(Duration::from_secs(3600))] {
                for end in ENDS {
                    let (handler, go, ended) = with_task(&layer);
                    end(handler.call(get()).expect("a response"));
                    go.send("done").expect("a task that goes on");
                    assert_eq!(next(&ended), "done");
                }
            }
        }
    });
}

#[test]
fn b5_tasks_are_cancelled_when_wait_time_is_over_after_the_drop() {
    watched(|| {
        let runtimes = driven();
        let mut layers = vec![AsgiLayer::adapter()];
        layers.extend(runtimes.each_ref().map(|one| AsgiLayer::adapter().runtime(one.handle.clone())));
        for layer in layers {
            for wait_time in [Duration::ZERO, Duration::from_millis(5)] {
                for end in ENDS {
                    let (handler, go, ended) = with_task(&layer.clone().wait_time(wait_time));
                    end(handler.call(get()).expect("a response"));
                    assert_eq!(next(&ended), "cancelled");
                    drop(go);
                }
            }
        }
    });
}

#[test]
fn b5_tasks_spawned_after_the_drop_run_up_to_wait_time() {
    watched(|| {
        for (wait_time, expected) in [(None, "done"), (Some(Duration::from_millis(5)), "cancelled")] {
            let mut layer = AsgiLayer::adapter();
            if let Some(wait_time) = wait_time {
                layer = layer.wait_time(wait_time);
            }
            let kept = Arc::new(Mutex::new(None));
            let keep = kept.clone();
            let handler = layer.layer(service_fn(move |request: Request<Body>| {
                let tasks = request.extensions().get::<BackgroundTasks>().cloned();
                *keep.lock().expect("a lock") = tasks;
                async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
            }));
            drop(handler.call(get()).expect("a response"));
            let tasks = kept.lock().expect("a lock").take().expect("background tasks");
            let (go, wait) = oneshot::channel::<&'static str>();
            let (sender, ended) = std_mpsc::channel();
            let (tell, dropped) = Tell::new();
            tasks.spawn(async move {
                let _tell = tell;
                let _ = sender.send(wait.await);
            });
            if expected == "done" {
                go.send("done").expect("a task");
                assert_eq!(next(&ended), Ok("done"));
            } else {
                next(&dropped);
                assert!(ended.try_recv().is_err(), "it was not cancelled");
                drop(go);
            }
        }
    });
}

#[test]
fn b5_a_panic_in_the_drop_of_a_body_stops_no_task() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a drop fails");
        }
    }

    watched(|| {
        let (go, wait) = oneshot::channel();
        let (sender, ended) = std_mpsc::channel();
        let task = Arc::new(Mutex::new(Some((wait, sender))));
        let handler = AsgiHandler::new(service_fn(move |request: Request<Body>| {
            let tasks = request.extensions().get::<BackgroundTasks>().expect("background tasks");
            let (wait, sender) = task.lock().expect("a lock").take().expect("one call");
            tasks.spawn(async move { sender.send(wait.await) });
            let mut bomb = Some(Bomb);
            let body = poll_body(move |_| {
                let _bomb = bomb.as_mut();
                Poll::Pending
            });
            async { Ok::<_, Infallible>(Response::new(body)) }
        }));
        let response = handler.call(get()).expect("a response");
        let dropping = thread::spawn(move || drop(response));
        assert!(dropping.join().is_err(), "the panic is the host's to see");
        go.send("done").expect("a task that goes on");
        assert_eq!(next(&ended), Ok("done"));
    });
}

/// What a silent service tells: that it was entered, and that its future was dropped, on which thread and whether inside a runtime.
struct Told {
    entered: std_mpsc::Receiver<()>,
    dropped: std_mpsc::Receiver<(String, bool)>,
}

/// A service that never answers.
fn silent() -> (
    impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send,
    Told,
) {
    struct Held(std_mpsc::Sender<(String, bool)>);
    impl Drop for Held {
        fn drop(&mut self) {
            let name = thread::current().name().unwrap_or_default().to_owned();
            let _ = self.0.send((name, Handle::try_current().is_ok()));
        }
    }

    let ((enter, entered), (tell, dropped)) = (std_mpsc::channel(), std_mpsc::channel());
    let service = service_fn(move |_: Request<Body>| {
        let (enter, held) = (enter.clone(), Held(tell.clone()));
        async move {
            enter.send(()).expect("a test");
            pending::<()>().await;
            drop(held);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    (service, Told { entered, dropped })
}

#[tokio::test]
async fn b5_a_client_that_leaves_ends_the_service_and_frees_the_worker() {
    let (service, Told { entered, dropped }) = silent();
    let pool = WorkerPool::new(1);
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(AsgiHandler::new(service));
    let server = serve(service).await;
    let mut client = server.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").expect("to send");
    let (thread, in_runtime) = blocking(move || {
        next(&entered);
        assert!(dropped.try_recv().is_err(), "dropped before its time");
        drop(client);
        next(&dropped)
    })
    .await;
    assert!(is_worker(&thread) && in_runtime, "on {thread}");
    idle(&pool).await;
}

/// A client on a task of its own, to be aborted.
fn client(server: &Arc<Server>, version: Version) -> JoinHandle<()> {
    let server = server.clone();
    tokio::spawn(async move {
        let request = server.request("GET", "/", Body::empty());
        // It goes before there is an answer.
        let _ = server.send(version, request).await;
    })
}

#[tokio::test]
async fn b5_a_request_that_is_cancelled_ends_the_service_and_frees_the_worker() {
    for version in VERSIONS {
        let (service, Told { entered, dropped }) = silent();
        let pool = WorkerPool::new(1);
        let service = WsgiLayer::adapter().pool(pool.clone()).layer(AsgiHandler::new(service));
        let server = Arc::new(serve(service).await);
        let client = client(&server, version);
        let (thread, in_runtime) = blocking(move || {
            next(&entered);
            client.abort();
            next(&dropped)
        })
        .await;
        assert!(is_worker(&thread) && in_runtime, "{version:?} on {thread}");
        idle(&pool).await;
    }
}

#[tokio::test]
async fn b5_a_client_that_leaves_the_body_has_it_dropped() {
    for version in VERSIONS {
        let (service, dropped, ran) = endless();
        let pool = WorkerPool::new(1);
        let service = WsgiLayer::adapter().pool(pool.clone()).layer(AsgiHandler::new(service));
        let server = serve(service).await;
        let mut body = server.ask(version, "GET", "/").await.into_body();
        let first = soon(body.frame()).await.expect("a frame").expect("a frame");
        assert_eq!(first.into_data().expect("data"), "first");
        drop(body);
        let (told, ran) = blocking(move || (next(&dropped), next(&ran))).await;
        assert!(told.in_runtime);
        assert_eq!(ran, "spawned by a drop", "{version:?}");
        idle(&pool).await;
    }
}

#[tokio::test]
async fn b5_a_client_that_leaves_ends_a_middleware_that_reads_the_body() {
    for version in VERSIONS {
        let (service, dropped, ran) = endless();
        let (reading, ended) = (Events::new(), Events::new());
        let (read, end) = (reading.teller(), ended.teller());
        // It is inside a read that waits, so that the reader it returns is never reached.
        let swallow = sync_fn(move |request, next: &dyn SyncHandler| {
            let mut body = next.call(request)?.into_body().into_reader();
            assert!(body.chunk()?.is_some());
            read(());
            let error = body.chunk().expect_err("nobody waits");
            end(error.kind());
            Err::<Response<Output>, BoxError>(error.into())
        });
        let pool = WorkerPool::new(1);
        let handler = swallow.layer(AsgiHandler::new(service));
        let server = Arc::new(serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler)).await);
        let client = client(&server, version);
        reading.next().await;
        client.abort();
        assert_eq!(ended.next().await, std::io::ErrorKind::ConnectionAborted, "{version:?}");
        let (told, ran) = blocking(move || (next(&dropped), next(&ran))).await;
        assert!(told.in_runtime);
        assert_eq!(ran, "spawned by a drop", "{version:?}");
        idle(&pool).await;
    }
}

#[tokio::test]
async fn b5_a_client_that_leaves_a_middlewares_body_has_it_dropped_in_a_runtime() {
    for version in VERSIONS {
        let (service, dropped, ran) = endless();
        let wrap = sync_fn(|request, next: &dyn SyncHandler| {
            let response = next.call(request)?;
            Ok::<_, BoxError>(response.map(|body| Output::reader(body.into_reader())))
        });
        let pool = WorkerPool::new(1);
        let handler = wrap.layer(AsgiHandler::new(service));
        let server = serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler)).await;
        let mut body = server.ask(version, "GET", "/").await.into_body();
        let first = soon(body.frame()).await.expect("a frame").expect("a frame");
        assert_eq!(first.into_data().expect("data"), "first");
        drop(body);
        let (told, ran) = blocking(move || (next(&dropped), next(&ran))).await;
        assert!(told.in_runtime);
        assert_eq!(ran, "spawned by a drop", "{version:?}");
        idle(&pool).await;
    }
}
