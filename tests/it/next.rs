//! `Next`: the inner service, called from sync code.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, Body, BoxError, Environ, Error, Input, Next, Output, Scope, SyncHandler as _, WorkerPool,
    WsgiLayer, WsgiService,
};

use crate::support::{
    Events, Gate, Probe, Server, VERSIONS, blocking, eventually, idle, is_worker, serve, serve_axum, soon,
    text,
};

type App = fn(Request<Input>) -> Result<Response<Output>, BoxError>;

fn next_of(request: &mut Request<Input>) -> Result<Next, BoxError> {
    request.extensions_mut().remove::<Next>().ok_or_else(|| "no Next".into())
}

fn run(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    request.headers_mut().insert("x-in", "sync".parse()?);
    let next = next_of(&mut request)?;
    let mut response = next.run(request)?;
    response.headers_mut().insert("x-out", "sync".parse()?);
    response.extensions_mut().insert(Mark("run"));
    Ok(response)
}

fn forward(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    request.headers_mut().insert("x-in", "sync".parse()?);
    let next = next_of(&mut request)?;
    let mut response = next.forward(request);
    response.headers_mut().insert("x-out", "sync".parse()?);
    response.extensions_mut().insert(Mark("forward"));
    Ok(response)
}

const APPS: [App; 2] = [run, forward];

#[derive(Clone, Debug, PartialEq)]
struct Mark(&'static str);

/// Serves a service behind a layer.
async fn behind<S, B>(layer: WsgiLayer<App>, service: S) -> Server
where
    S: tower::Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    let builder = ServiceBuilder::new().map_request(|request: Request<Incoming>| request.map(Body::new));
    serve(builder.layer(layer).service(service)).await
}

#[tokio::test]
async fn next_passes_request_and_response_through() {
    async fn inner(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let text = format!("{} {} {:?} {body:?}", parts.method, parts.uri.path(), parts.headers["x-in"]);
        let response = Response::builder().status(StatusCode::IM_A_TEAPOT).header("x-out", "async");
        Ok(response.header("x-inner", "yes").body(Body::from(text)).expect("a response"))
    }
    for app in APPS {
        for layer in [WsgiLayer::new(app), WsgiLayer::new(app).at("/mount")] {
            let server = behind(layer, service_fn(inner)).await;
            for version in VERSIONS {
                let request = server.request("POST", "/mount/x", Body::from("hello"));
                let response = soon(server.send(version, request)).await.expect("a response");
                assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
                assert_eq!(response.headers()["x-inner"], "yes");
                // What the sync side sets takes the place of what was there.
                assert!(response.headers().get_all("x-out").iter().eq(["sync"]));
                assert_eq!(text(response).await, "POST /mount/x \"sync\" b\"hello\"");
            }
        }
    }
}

#[tokio::test]
async fn a13_extensions_cross_next_in_both_directions() {
    async fn inner(request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let seen = request.extensions().get::<u8>().copied();
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(seen.map(u16::from));
        Ok(response)
    }
    for (app, name) in [(run as App, "run"), (forward, "forward")] {
        let mut service = WsgiLayer::new(app).layer(service_fn(inner));
        let request = Request::builder().extension(7_u8).body(Body::empty()).expect("a request");
        let response = soon(service.call(request)).await.expect("a response");
        assert_eq!(response.extensions().get(), Some(&Some(7_u16)));
        assert_eq!(response.extensions().get(), Some(&Mark(name)));
    }
}

#[tokio::test]
async fn next_does_not_wait_for_the_body() {
    for app in APPS {
        let gate = Gate::new();
        let closed = gate.clone();
        let chunks = move |_: Request<Input>| {
            let closed = closed.clone();
            let rest = std::iter::once_with(move || {
                closed.pass();
                "second"
            });
            Response::new(Output::iter(std::iter::once("first").chain(rest)))
        };
        let pool = WorkerPool::new(1);
        let server = behind(WsgiLayer::new(app).pool(pool.clone()), WsgiService::new(chunks)).await;
        let mut body = server.get("/").await.into_body();
        let first = soon(body.frame()).await.expect("a frame").expect("a frame");
        assert_eq!(first.into_data().expect("data"), "first");
        idle(&pool).await;
        gate.open();
        assert_eq!(soon(body.collect()).await.expect("a whole body").to_bytes(), "second");
    }
}

#[tokio::test]
async fn forward_gives_the_worker_back_at_once() {
    let (entered, go) = (Events::new(), Arc::new(Notify::new()));
    let (tell, wait) = (entered.teller(), go.clone());
    let inner = service_fn(move |request: Request<Body>| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            if request.uri().path() == "/slow" {
                tell(());
                wait.notified().await;
            }
            Ok::<_, Infallible>(Response::new(Body::from("done")))
        }
    });
    let pool = WorkerPool::new(1);
    let server = behind(WsgiLayer::new(forward as App).pool(pool.clone()), inner).await;
    let (slow, ()) = tokio::join!(server.get("/slow"), async {
        entered.next().await;
        let stats = idle(&pool).await;
        assert!(stats.threads <= 1, "{stats:?}");
        assert_eq!(text(server.get("/fast").await).await, "done");
        go.notify_one();
    });
    assert_eq!(text(slow).await, "done");
}

#[tokio::test]
async fn run_lends_its_place_while_it_waits() {
    let (entered, go) = (Events::new(), Arc::new(Notify::new()));
    let (tell, wait) = (entered.teller(), go.clone());
    let inner = service_fn(move |request: Request<Body>| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            if request.uri().path() == "/slow" {
                tell(());
                wait.notified().await;
            }
            Ok::<_, Infallible>(Response::new(Body::from("done")))
        }
    });
    let server = behind(WsgiLayer::new(run as App).workers(1), inner).await;
    let (slow, ()) = tokio::join!(server.get("/slow"), async {
        entered.next().await;
        assert_eq!(text(server.get("/fast").await).await, "done");
        go.notify_one();
    });
    assert_eq!(text(slow).await, "done");
}

/// Sends as many requests at once, all of which go through the pool twice.
async fn nested(workers: usize, requests: usize) {
    let pool = WorkerPool::new(workers);
    let inner = WsgiLayer::adapter().pool(pool.clone()).layer(|_: Request<Input>| Response::new("inner"));
    let gate = Gate::new();
    let closed = gate.clone();
    let app = move |request: Request<Input>| {
        closed.pass();
        run(request)
    };
    let service = WsgiLayer::new(app).pool(pool.clone()).layer(inner);
    let mut calls = JoinSet::new();
    for _ in 0..requests {
        calls.spawn(service.clone().oneshot(Request::new(Body::empty())));
    }
    // All of them are ahead of the first that comes back for a worker.
    eventually("all are there", || pool.stats().busy + pool.stats().queued == requests).await;
    gate.open();
    while let Some(response) = soon(calls.join_next()).await {
        let response = response.expect("no panic").expect("a response");
        let body = soon(response.into_body().collect()).await.expect("a whole body");
        assert_eq!(body.to_bytes(), "inner");
    }
    let stats = idle(&pool).await;
    assert!(stats.threads <= workers * 5, "{stats:?}");
}

#[tokio::test]
async fn b8_requests_that_need_their_own_pool_again_do_not_wait_for_each_other() {
    nested(1, 1).await;
    nested(1, 4).await;
    nested(2, 8).await;
    // More than may lend their places at once.
    nested(1, 50).await;
    nested(2, 50).await;
}

#[tokio::test]
async fn mounts_that_share_one_worker_can_be_nested() {
    let pool = WorkerPool::new(1);
    let inner = service_fn(|_: Request<Body>| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Response::new(Body::from("done")))
    });
    for (outer, middle) in [(run as App, run as App), (run, forward), (forward, run), (forward, forward)] {
        let middle = WsgiLayer::new(middle).pool(pool.clone()).layer(inner);
        let server = behind(WsgiLayer::new(outer).pool(pool.clone()), middle).await;
        assert_eq!(text(server.get("/").await).await, "done");
    }
}

#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

#[tokio::test]
async fn a12_an_error_of_the_inner_service_is_the_handlers_own() {
    for app in APPS {
        let events = Events::new();
        let tell = events.teller();
        let service = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(|_: Broken| async { StatusCode::BAD_GATEWAY }))
            .map_request(|request: Request<Incoming>| request.map(Body::new))
            .map_response(move |response: Response<Body>| {
                tell(response.extensions().get::<Error>().cloned());
                response
            })
            .layer(WsgiLayer::new(app).at("/mount"))
            .service(service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(Broken) }));
        let server = serve(service).await;
        for version in VERSIONS {
            // Beside the mount it stays what it is.
            assert_eq!(server.ask(version, "GET", "/").await.status(), 502);
            assert_eq!(server.ask(version, "GET", "/mount").await.status(), 500);
            let error = events.next().await.expect("an error");
            assert!(error.is_handler());
            assert!(std::error::Error::source(&error).expect("a source").is::<Broken>());
        }
    }
}

#[tokio::test]
async fn a12_on_error_answers_for_the_inner_service_too() {
    let dropped = Events::new();
    for app in APPS {
        let probe = Probe::new(&dropped);
        let layer = WsgiLayer::new(app).workers(1).on_error(move |error| {
            let worker = std::thread::current().name().is_some_and(is_worker);
            let _probe = &probe;
            let page = format!("{error}, on a worker: {worker}");
            let mut response = Response::new(Output::iter([page]));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        });
        let service = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(|_: Broken| async { StatusCode::BAD_GATEWAY }))
            .map_request(|request: Request<Incoming>| request.map(Body::new))
            .layer(layer)
            .service(service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(Broken) }));
        let server = serve(service).await;
        for version in VERSIONS {
            let response = server.ask(version, "GET", "/").await;
            assert_eq!(response.status(), 503, "{version:?}");
            assert_eq!(text(response).await, "the handler failed, on a worker: true");
        }
    }
}

#[tokio::test]
async fn a8_dropping_the_response_ends_the_read_of_an_inner_body() {
    async fn never(_: Request<Body>) -> Result<Response<Body>, Infallible> {
        Ok(Response::new(Body::new(Never)))
    }
    for asgi in [false, true] {
        let (events, pool) = (Events::new(), WorkerPool::new(1));
        let (tell, service) = (events.teller(), AsgiHandler::new(service_fn(never)));
        let app = move |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
            let next = next_of(&mut request)?;
            let response = if asgi { service.call(request)? } else { next.run(request)? };
            tell(None);
            let read = response.into_body().into_reader().read(&mut [0]);
            tell(Some(read.expect_err("nobody waits").kind()));
            Ok(Response::new(Output::empty()))
        };
        let service = WsgiLayer::new(app).pool(pool.clone()).layer(service_fn(never));
        let response = tokio::spawn(service.oneshot(Request::new(Body::empty())));
        assert_eq!(events.next().await, None);
        eventually("it waits", || pool.stats().lending == 1).await;
        response.abort();
        assert_eq!(events.next().await, Some(io::ErrorKind::ConnectionAborted), "{asgi}");
    }
}

/// A body of which nothing ever comes.
struct Never;

impl http_body::Body for Never {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn a8_dropping_the_response_ends_what_run_waits_for() {
    let (entered, ended) = (Events::new(), Events::new());
    let (dropped, tell) = (Events::new(), entered.teller());
    let probe = Arc::new(std::sync::Mutex::new(Some(Probe::new(&dropped))));
    let inner = service_fn(move |_: Request<Body>| {
        let (tell, probe) = (tell.clone(), probe.lock().expect("a lock").take());
        async move {
            tell(());
            let () = pending().await;
            drop(probe);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let told = ended.teller();
    let app = move |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let environ = Environ::of(&request);
        let result = next_of(&mut request)?.run(request);
        let error = result.expect_err("nobody waits");
        let gone = error.downcast_ref::<Error>().is_some_and(Error::is_disconnected);
        told(gone && environ.is_disconnected());
        Err(error)
    };
    let pool = WorkerPool::new(1);
    let mut service = WsgiLayer::new(app).pool(pool.clone()).layer(inner);
    let response = tokio::spawn(service.call(Request::new(Body::empty())));
    entered.next().await;
    // It most likely sleeps once it has lent its place; what wakes it is what this is about.
    eventually("it waits", || pool.stats().lending == 1).await;
    (0..100).for_each(|_| std::thread::yield_now());
    response.abort();
    assert!(is_worker(&dropped.next().await));
    assert!(ended.next().await);
    idle(&pool).await;
}

#[tokio::test]
async fn a8_dropping_the_response_drops_what_was_forwarded() {
    let (entered, dropped) = (Events::new(), Events::new());
    let tell = entered.teller();
    let probe = Arc::new(std::sync::Mutex::new(Some(Probe::new(&dropped))));
    let inner = service_fn(move |_: Request<Body>| {
        let (tell, probe) = (tell.clone(), probe.lock().expect("a lock").take());
        async move {
            tell(());
            let () = pending().await;
            drop(probe);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let mut service = WsgiLayer::new(forward as App).layer(inner);
    let response = tokio::spawn(service.call(Request::new(Body::empty())));
    entered.next().await;
    assert!(dropped.drain().is_empty());
    response.abort();
    dropped.next().await;
}

#[tokio::test]
async fn a8_what_was_forwarded_can_see_that_nobody_waits() {
    let environs = Events::new();
    let tell = environs.teller();
    let inner = service_fn(move |request: Request<Body>| {
        tell(Scope::of(&request).environ().expect("it came through a sync application").clone());
        pending::<Result<Response<Body>, Infallible>>()
    });
    let mut service = WsgiLayer::new(forward as App).layer(inner);
    let response = tokio::spawn(service.call(Request::new(Body::empty())));
    let environ = environs.next().await;
    assert!(!environ.is_disconnected());
    response.abort();
    response.await.expect_err("an aborted task");
    assert!(environ.is_disconnected());
}

#[tokio::test]
async fn a_request_made_from_nothing_can_be_run() {
    let app: App = |mut request| {
        let next = next_of(&mut request)?;
        let mut said = String::new();
        for path in ["/a", "/b"] {
            let request = Request::post(path).body(Input::from("sub"))?;
            next.run(request)?;
            said += path;
        }
        Ok(Response::new(said.into()))
    };
    let events = Events::new();
    let tell = events.teller();
    let inner = service_fn(move |request: Request<Body>| {
        tell(request.uri().path().to_owned());
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let server = behind(WsgiLayer::new(app).at("/mount"), inner).await;
    assert_eq!(text(server.get("/mount").await).await, "/a/b");
    assert_eq!(events.drain(), ["/mount/a", "/mount/b"]);
}

#[tokio::test]
async fn a_crossing_without_an_inner_service_has_no_next() {
    let has_next =
        |request: Request<Input>| Response::new(request.extensions().get::<Next>().is_some().to_string());
    // Not even when one is around it.
    let server = behind(WsgiLayer::new(forward as App), WsgiService::new(has_next)).await;
    assert_eq!(text(server.get("/").await).await, "false");
    let sneaky: App = |mut request| {
        let next = next_of(&mut request)?;
        request.extensions_mut().insert(next.clone());
        Ok(next.forward(request))
    };
    let server = behind(WsgiLayer::new(sneaky), WsgiService::new(has_next)).await;
    assert_eq!(text(server.get("/").await).await, "false");
}

async fn shout(mut request: axum::extract::Request) -> Response<axum::body::Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.expect("an upgrade"));
        let mut word = [0; 5];
        io.read_exact(&mut word).await.expect("a word");
        io.write_all(&word.to_ascii_uppercase()).await.expect("to answer");
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "shouting")
        .body(axum::body::Body::empty())
        .expect("a response")
}

#[tokio::test]
async fn an_upgrade_goes_through() {
    for app in APPS {
        let router = Router::new().route("/socket", axum::routing::get(shout)).layer(WsgiLayer::new(app));
        let server = serve_axum(router).await;
        let mut stream = server.connect();
        let talk = blocking(move || {
            let request =
                "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: shouting\r\n\r\n";
            stream.write_all(request.as_bytes()).expect("to send");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a head");
                head.extend(byte);
            }
            stream.write_all(b"hello").expect("to send");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            (String::from_utf8(head).expect("text"), answer)
        });
        let (head, answer) = soon(talk).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for line in ["connection: upgrade\r\n", "upgrade: shouting\r\n", "x-out: sync\r\n"] {
            assert!(head.contains(line), "{head}");
        }
        assert_eq!(answer, b"HELLO");
    }
}

#[tokio::test]
async fn a_service_of_another_body_type_is_called_all_the_same() {
    // axum's own body on the way in, its error type on the way out.
    let inner = service_fn(|request: axum::extract::Request| async move {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    for app in APPS {
        let service = ServiceBuilder::new()
            .map_request(|request: Request<Incoming>| request.map(axum::body::Body::new))
            .layer(WsgiLayer::new(app))
            .service(inner);
        let server = serve(service).await;
        let request = server.request("POST", "/", Body::from("hello"));
        let response = soon(server.send(Version::HTTP_2, request)).await.expect("a response");
        assert_eq!(text(response).await, "hello");
    }
}

/// Not ready before it is told so.
#[derive(Clone)]
struct ReadyLater(Arc<Notify>, Option<Arc<()>>);

impl tower::Service<Request<Body>> for ReadyLater {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        let mut ready = std::pin::pin!(self.0.notified());
        let polled = ready.as_mut().poll(cx).map(Ok);
        if polled.is_ready() {
            self.1 = Some(Arc::new(()));
        }
        polled
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(self.1.take().is_some(), "called without being ready");
        std::future::ready(Ok(Response::new(Body::from("ready"))))
    }
}

#[tokio::test]
async fn the_inner_service_is_called_when_it_is_ready() {
    let ready = Arc::new(Notify::new());
    for app in APPS {
        let server = behind(WsgiLayer::new(app).at("/mount"), ReadyLater(ready.clone(), None)).await;
        for path in ["/mount", "/beside"] {
            ready.notify_one();
            assert_eq!(text(server.get(path).await).await, "ready");
        }
    }
}

#[tokio::test]
async fn a7_forward_leaves_the_length_to_the_inner_service() {
    fn declares(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let mut response = next_of(&mut request)?.forward(request);
        response.headers_mut().insert("content-length", "3".parse()?);
        Ok(response)
    }
    let inner =
        service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from("0123456789"))) });
    let server = behind(WsgiLayer::new(declares as App), inner).await;
    for version in VERSIONS {
        let response = server.ask(version, "GET", "/").await;
        assert_eq!(response.headers()["content-length"], "10");
        assert_eq!(text(response).await, "0123456789");
    }
}

#[tokio::test]
async fn c2_a_shift_by_the_mounts_own_name_is_not_taken_for_the_mount() {
    fn shifts(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
        assert!(Environ::shift(&mut request, "/a"));
        Ok(next_of(&mut request)?.forward(request))
    }
    let inner = service_fn(|request: Request<Body>| async move {
        let seen = format!("{} below {}", request.uri().path(), Scope::of(&request).root_path());
        Ok::<_, Infallible>(Response::new(Body::from(seen)))
    });
    let server = behind(WsgiLayer::new(shifts as App).at("/a"), inner).await;
    assert_eq!(text(server.get("/a/a/x").await).await, "/x below /a/a");
}

#[tokio::test]
async fn a8_every_thread_that_waits_in_run_hears_of_the_end() {
    let (entered, ended) = (Events::new(), Events::new());
    let (enter, end) = (entered.teller(), ended.teller());
    let inner = service_fn(move |_: Request<Body>| {
        enter(());
        pending::<Result<Response<Body>, Infallible>>()
    });
    let app = move |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next = next_of(&mut request)?;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| end(next.run(Request::new(Input::empty())).is_err()));
            }
        });
        Ok(Response::new(Output::empty()))
    };
    let mut service = WsgiLayer::new(app).layer(inner);
    let response = tokio::spawn(service.call(Request::new(Body::empty())));
    for _ in 0..3 {
        entered.next().await;
    }
    response.abort();
    for _ in 0..3 {
        assert!(ended.next().await);
    }
}
