//! B4: background tasks hold the end of a response, and nothing else.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use axum::{Extension, Router};
use http::header::ETAG;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, BackgroundTasks, Body, BoxError, Input, Output, SyncHandler, WorkerPool,
    WsgiLayer, WsgiService, sync_fn,
};

use super::{Tell, answer, ask, chunks, driven, frames, get, poll_body, reader};
use crate::support::{VERSIONS, blocking, eventually, idle, serve, soon, text, watched};

/// Long enough that a reader who does not wait for a task is past its end before the task is.
const MOMENT: Duration = Duration::from_millis(20);

/// Longer than the test has.
const LONG: Duration = Duration::from_secs(3600);

fn tasks_of(request: &Request<Body>) -> BackgroundTasks {
    request.extensions().get().cloned().expect("background tasks")
}

/// A service that gives its tasks to `start`, and answers with what that returns.
#[derive(Clone)]
struct Starting<F>(F);

fn service<F>(start: F) -> Starting<F>
where
    F: Fn(BackgroundTasks) -> Body,
{
    Starting(start)
}

impl<F> Service<Request<Body>> for Starting<F>
where
    F: Fn(BackgroundTasks) -> Body,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(Response::new((self.0)(tasks_of(&request)))))
    }
}

/// Something that a task does last, and that can be asked for.
#[derive(Clone, Default)]
struct Done(Arc<AtomicBool>);

impl Done {
    fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// A task that is done a moment after `go`.
    fn after(&self, go: oneshot::Receiver<()>) -> impl Future<Output = ()> + Send + use<> {
        let done = self.0.clone();
        async move {
            let _ = go.await;
            tokio::time::sleep(MOMENT).await;
            done.store(true, Ordering::SeqCst);
        }
    }
}

/// A handler whose response is `body`, with a task that is done a moment after the sender is used.
fn with_task(layer: &AsgiLayer, body: fn() -> Body) -> (impl SyncHandler + use<>, oneshot::Sender<()>, Done) {
    let (go, wait) = oneshot::channel();
    let (wait, done) = (Arc::new(Mutex::new(Some(wait))), Done::default());
    let told = done.clone();
    let handler = layer.layer(service(move |tasks| {
        if let Some(wait) = wait.lock().expect("a lock").take() {
            tasks.spawn(told.after(wait));
        }
        body()
    }));
    (handler, go, done)
}

#[test]
fn b4_bytes_are_here_before_the_task_is_done_and_the_end_is_not() {
    watched(|| {
        for body in [|| Body::from("hello"), || chunks(["hel", "lo"])] {
            let (handler, go, done) = with_task(&AsgiLayer::adapter(), body);
            let mut body = reader(handler.call(get()));
            let mut hello = [0; 5];
            body.read_exact(&mut hello).expect("the bytes");
            assert_eq!(&hello, b"hello");
            // The task cannot be done: nobody has told it to go.
            go.send(()).expect("a task");
            assert_eq!(body.read(&mut hello).expect("the end"), 0);
            assert!(done.is(), "the end came before the task was done");
            assert_eq!(body.read(&mut hello).expect("the end"), 0);
        }
    });
}

#[test]
fn b4_the_callers_runtime_runs_the_tasks() {
    watched(|| {
        for runtime in driven() {
            let layer = AsgiLayer::adapter().runtime(runtime.handle.clone());
            for layer in [layer.clone(), layer.wait_time(LONG)] {
                let (handler, go, done) = with_task(&layer, || Body::from("hello"));
                let mut body = reader(handler.call(get()));
                assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"hello"[..]));
                go.send(()).expect("a task");
                assert_eq!(body.chunk().expect("the end"), None);
                assert!(done.is(), "{}", runtime.name);
            }
        }
    });
}

#[test]
fn b4_the_end_of_an_empty_body_waits() {
    watched(|| {
        for method in [Method::GET, Method::HEAD] {
            for body in [Body::empty, || Body::from(""), || chunks([])] {
                let (handler, go, done) = with_task(&AsgiLayer::adapter(), body);
                let request = Request::builder().method(&method).body(Input::empty()).expect("a request");
                let mut body = reader(handler.call(request));
                go.send(()).expect("a task");
                assert_eq!(body.chunk().expect("the end"), None);
                assert!(done.is(), "{method}");
            }
        }
    });
}

#[test]
fn b4_the_end_of_a_body_with_trailers_waits() {
    watched(|| {
        let (handler, go, done) = with_task(&AsgiLayer::adapter(), || {
            let trailers = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"5d41\""))]);
            frames([Ok(Frame::data("hello".into())), Ok(Frame::trailers(trailers))])
        });
        let mut body = reader(handler.call(get()));
        assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"hello"[..]));
        go.send(()).expect("a task");
        assert_eq!(body.chunk().expect("the end"), None);
        assert_eq!(body.trailers().expect("trailers")["etag"], "\"5d41\"");
        assert!(done.is(), "the end came before the task was done");
    });
}

/// A layer with a `wait_time`, and a handler with a task that never ends. Tells when the task is dropped.
fn endless(wait_time: Duration) -> (impl SyncHandler, std_mpsc::Receiver<super::Dropped>) {
    let (tell, dropped) = Tell::new();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let handler = AsgiLayer::adapter().wait_time(wait_time).layer(service(move |tasks| {
        let tell = tell.lock().expect("a lock").take();
        tasks.spawn(async move {
            std::future::pending::<()>().await;
            drop(tell);
        });
        Body::from("hello")
    }));
    (handler, dropped)
}

#[test]
fn b4_a_task_that_goes_over_wait_time_is_cancelled_and_the_end_comes() {
    watched(|| {
        let (handler, dropped) = endless(MOMENT);
        let mut body = reader(handler.call(get()));
        assert!(body.chunk().expect("a chunk").is_some());
        let start = Instant::now();
        assert_eq!(body.chunk().expect("the end"), None);
        assert!(start.elapsed() >= MOMENT, "the end did not wait");
        assert!(super::next(&dropped).in_runtime);
    });
}

#[test]
fn b4_wait_time_counts_from_the_end_of_the_body() {
    watched(|| {
        let (handler, dropped) = endless(MOMENT);
        let mut body = reader(handler.call(get()));
        assert!(body.chunk().expect("a chunk").is_some());
        // However long it takes to send the bytes.
        thread::sleep(MOMENT * 3);
        assert!(dropped.try_recv().is_err());
        assert_eq!(body.chunk().expect("the end"), None);
        super::next(&dropped);
    });
}

#[test]
fn b4_without_wait_time_left_tasks_are_cancelled_at_the_end() {
    watched(|| {
        let (handler, dropped) = endless(Duration::ZERO);
        let mut body = reader(handler.call(get()));
        assert!(body.chunk().expect("a chunk").is_some());
        assert_eq!(body.chunk().expect("the end"), None);
        super::next(&dropped);
    });
}

#[test]
fn b4_a_long_wait_time_is_over_when_the_task_is() {
    watched(|| {
        let (handler, go, done) = with_task(&AsgiLayer::adapter().wait_time(LONG), || Body::from("hello"));
        let mut body = reader(handler.call(get()));
        assert!(body.chunk().expect("a chunk").is_some());
        go.send(()).expect("a task");
        assert_eq!(body.chunk().expect("the end"), None);
        assert!(done.is());
    });
}

#[test]
fn b4_without_tasks_nothing_waits() {
    watched(|| {
        for layer in [AsgiLayer::adapter(), AsgiLayer::adapter().wait_time(LONG)] {
            assert_eq!(answer(&layer.layer(service(|_| Body::from("hello")))), "hello");
            // Somebody may still spawn, but nobody has.
            let kept = Arc::new(Mutex::new(Vec::new()));
            let keep = kept.clone();
            let handler = layer.layer(service(move |tasks| {
                keep.lock().expect("a lock").push(tasks);
                chunks(["hel", "lo"])
            }));
            assert_eq!(answer(&handler), "hello");
            assert_eq!(kept.lock().expect("a lock").len(), 1);
        }
    });
}

#[test]
fn b4_a_task_spawned_while_the_body_streams_is_waited_for() {
    watched(|| {
        let done = Done::default();
        let told = done.clone();
        let handler = AsgiHandler::new(service(move |tasks| {
            let (mut left, told) = (3, told.clone());
            poll_body(move |_| {
                if left == 0 {
                    return Poll::Ready(None);
                }
                left -= 1;
                if left == 0 {
                    let (go, wait) = oneshot::channel();
                    tasks.spawn(told.after(wait));
                    drop(go);
                }
                Poll::Ready(Some(Ok(Frame::data("hello".into()))))
            })
        }));
        assert_eq!(answer(&handler), "hellohellohello");
        assert!(done.is());
    });
}

#[test]
fn b4_a_task_spawned_at_the_end_of_the_body_is_waited_for() {
    watched(|| {
        let done = Done::default();
        let told = done.clone();
        let handler = AsgiHandler::new(service(move |tasks| {
            let told = told.clone();
            poll_body(move |_| {
                tasks.spawn(told.after(oneshot::channel().1));
                Poll::Ready(None)
            })
        }));
        assert_eq!(answer(&handler), "");
        assert!(done.is());
    });
}

#[test]
fn b4_tasks_of_tasks_are_waited_for() {
    fn nest(tasks: BackgroundTasks, depth: usize, count: Arc<AtomicUsize>) {
        let inner = tasks.clone();
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            count.fetch_add(1, Ordering::SeqCst);
            if depth > 0 {
                // Twice, so that one of them ends last.
                nest(inner.clone(), depth - 1, count.clone());
                nest(inner, depth - 1, count);
            }
        });
    }

    watched(|| {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let handler = AsgiHandler::new(service(move |tasks| {
            nest(tasks, 4, counted.clone());
            Body::from("hello")
        }));
        assert_eq!(answer(&handler), "hello");
        assert_eq!(count.load(Ordering::SeqCst), 31);
    });
}

#[test]
fn b4_all_of_several_tasks_are_waited_for_also_those_that_panic() {
    watched(|| {
        let done: [Done; 3] = Default::default();
        let told = done.clone();
        let handler = AsgiHandler::new(service(move |tasks| {
            for (n, done) in told.iter().enumerate() {
                tasks.spawn(async move { panic!("task {n} fails") });
                tasks.spawn(done.after(oneshot::channel().1));
                // What a task returns is nobody's concern.
                tasks.spawn(async { Err::<(), _>("an error") });
            }
            Body::from("hello")
        }));
        assert_eq!(answer(&handler), "hello");
        assert!(done.iter().all(Done::is));
    });
}

#[test]
fn b4_a_task_that_panics_alone_ends_the_response_well() {
    watched(|| {
        let handler = AsgiHandler::new(service(|tasks| {
            tasks.spawn(async { panic!("a task fails") });
            Body::from("hello")
        }));
        assert_eq!(answer(&handler), "hello");
        assert_eq!(answer(&handler), "hello");
    });
}

#[test]
fn b4_tasks_of_a_failed_call_go_on() {
    watched(|| {
        let (go, wait) = oneshot::channel::<()>();
        let (sender, ended) = std_mpsc::channel();
        let task = Arc::new(Mutex::new(Some((wait, sender))));
        let handler = AsgiHandler::new(service_fn(move |request: Request<Body>| {
            let (wait, sender) = task.lock().expect("a lock").take().expect("one call");
            tasks_of(&request).spawn(async move {
                let _ = sender.send(wait.await);
            });
            async { Err::<Response<Body>, _>("the service fails") }
        }));
        assert!(handler.call(get()).is_err());
        go.send(()).expect("the task");
        super::next(&ended).expect("to go on");
    });
}

#[test]
fn b4_axum_handlers_get_them_by_extension() {
    watched(|| {
        let done = Done::default();
        let told = done.clone();
        let order = move |Extension(tasks): Extension<BackgroundTasks>| async move {
            tasks.spawn(told.after(oneshot::channel().1));
            "thank you"
        };
        let router = Router::<()>::new().route("/", axum::routing::get(order));
        assert_eq!(answer(&AsgiHandler::new(router)), "thank you");
        assert!(done.is());
    });
}

#[tokio::test]
async fn b4_one_router_has_its_tasks_waited_for_in_a_host_and_just_spawned_in_a_server() {
    let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
    let order = move |tasks: BackgroundTasks| async move {
        tasks.spawn(async { panic!("it is logged") });
        tasks.spawn(async move {
            tokio::task::yield_now().await;
            sender.send("done").expect("the test");
        });
        "thank you"
    };
    let router = Router::<()>::new().route("/", axum::routing::get(order));
    let response = router.clone().oneshot(Request::new(axum::body::Body::empty())).await.expect("a response");
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(text, "thank you");
    assert_eq!(soon(done.recv()).await, Some("done"));

    watched(move || {
        assert_eq!(answer(&AsgiHandler::new(router)), "thank you");
        assert_eq!(done.try_recv(), Ok("done"));
    });
}

#[tokio::test]
async fn b4_a_request_without_tasks_gets_some_where_a_runtime_is() {
    let (sender, done) = oneshot::channel();
    BackgroundTasks::of(&Request::new(())).spawn(async { sender.send(()).expect("the test") });
    soon(done).await.expect("to be run");
    watched(|| {
        let plain = std::panic::catch_unwind(|| BackgroundTasks::of(&Request::new(())));
        assert!(plain.is_err(), "there is no runtime here");
    });
}

#[test]
fn b4_middleware_can_spawn_and_wait() {
    watched(|| {
        let done = Done::default();
        let told = done.clone();
        // The end is held for who reads to it, also in the midst of a stack.
        let swap = sync_fn(|request, next: &dyn SyncHandler| {
            let text = std::io::read_to_string(next.call(request)?.into_body().into_reader())?;
            Ok::<_, BoxError>(Response::new(Output::from(text)))
        });
        let handler = swap.layer(AsgiHandler::new(service(move |tasks| {
            tasks.spawn(told.after(oneshot::channel().1));
            Body::from("hello")
        })));
        let response = handler.call(get()).expect("a response");
        assert!(done.is());
        assert_eq!(super::read(response).expect("a body"), "hello");
    });
}

#[tokio::test]
async fn b4_a_wsgi_service_holds_the_end_of_the_stream_and_no_bytes() {
    for version in VERSIONS {
        let (handler, go, done) = with_task(&AsgiLayer::adapter(), || chunks(["hel", "lo"]));
        let pool = WorkerPool::new(1);
        let server = serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler)).await;
        let mut body = server.ask(version, "GET", "/").await.into_body();
        let mut bytes = Vec::new();
        while bytes.len() < 5 {
            let frame = soon(body.frame()).await.expect("a frame").expect("a frame");
            bytes.extend_from_slice(&frame.into_data().expect("data"));
        }
        assert_eq!(bytes, b"hello", "{version:?}");
        // No worker waits with it.
        idle(&pool).await;
        go.send(()).expect("a task");
        // HTTP/2 tells the end by a frame without bytes.
        assert_eq!(soon(body.collect()).await.expect("the end").to_bytes(), "");
        assert!(done.is(), "{version:?}");
    }
}

#[tokio::test]
async fn b4_a_wsgi_service_sends_a_body_of_known_length_whole() {
    for version in VERSIONS {
        let (handler, go, done) = with_task(&AsgiLayer::adapter(), || Body::from("hello"));
        let server = serve(WsgiLayer::adapter().workers(1).layer(handler)).await;
        let mut body = server.ask(version, "GET", "/").await.into_body();
        let frame = soon(body.frame()).await.expect("a frame").expect("a frame");
        assert_eq!(frame.into_data().expect("data"), "hello", "{version:?}");
        go.send(()).expect("a task");
        assert!(soon(body.frame()).await.is_none_or(|last| last.is_ok()));
        eventually("the task is done", || done.is()).await;
    }
}

#[tokio::test]
async fn b4_a_response_to_head_waits_for_no_task_and_cancels_none() {
    for version in VERSIONS {
        let (handler, go, done) = with_task(&AsgiLayer::adapter(), || Body::from("hello"));
        let server = serve(WsgiLayer::adapter().workers(1).layer(handler)).await;
        let response = server.ask(version, "HEAD", "/").await;
        assert_eq!(response.headers()["content-length"], "5", "{version:?}");
        assert_eq!(soon(text(response)).await, "");
        go.send(()).expect("a task");
        eventually("the task is done", || done.is()).await;
    }
}

#[tokio::test]
async fn b4_a_wsgi_service_cancels_what_goes_over_wait_time() {
    let (handler, dropped) = endless(MOMENT);
    let server = serve(WsgiLayer::adapter().workers(1).layer(handler)).await;
    assert_eq!(ask(&server).await, "hello");
    blocking(move || super::next(&dropped)).await;
}

#[tokio::test]
async fn b4_tasks_over_wait_time_are_cancelled_at_the_end_and_not_when_the_body_goes() {
    let (handler, dropped) = endless(Duration::ZERO);
    let service = WsgiService::new(handler);
    let response = soon(service.oneshot(Request::new(Body::empty()))).await.expect("a response");
    let mut body = response.into_body();
    while let Some(frame) = soon(body.frame()).await {
        frame.expect("a frame");
    }
    blocking(move || super::next(&dropped)).await;
    drop(body);
}
