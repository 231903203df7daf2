//! A layer moved across the boundary: what it sees, and what it does, on one side and on the other.

use std::convert::Infallible;
use std::io::Read as _;
use std::time::Duration;

use axum::Router;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tower::{Layer as _, Service as _, ServiceBuilder, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_wsgi::{
    AsgiLayer, Body, BoxError, Environ, Error, Input, Next, Output, SyncFnLayer, SyncHandler, WorkerPool,
    WsgiLayer, sync_fn,
};

use super::{Frames, Log, Seen, SyncMiddleware, on_worker, views};
use crate::support::{Events, Gate, Probe, Server, VERSIONS, eventually, idle, serve, soon, text};

/// What the layer `m` saw, of what depends on where it stands.
fn seen(log: &Log) -> (Vec<&'static str>, bool, Option<String>, Vec<&'static str>) {
    let (mut seen, _) = log.take();
    assert_eq!(seen.len(), 1);
    let Seen { views, on_worker, user, passed, .. } = seen.remove(0);
    (views, on_worker, user, passed)
}

#[tokio::test]
async fn c4_an_async_layer_moved_over_a_crossing() {
    let log = Log::default();
    let user = || {
        sync_fn(|mut request: Request<Input>, next: &dyn SyncHandler| {
            let mut environ = Environ::of(&request);
            environ.set("REMOTE_USER", "alice");
            request.extensions_mut().insert(environ);
            next.call(request)
        })
    };
    let app = || service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let request = || Request::new(Body::empty());

    let mut outside = ServiceBuilder::new()
        .layer(log.mark("m"))
        .layer(WsgiLayer::adapter().workers(1))
        .layer(user())
        .layer(AsgiLayer::adapter())
        .service(app());
    soon(outside.call(request())).await.expect("a response");
    assert_eq!(seen(&log), (vec![], false, None, vec![]));

    let mut inside = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(user())
        .layer(AsgiLayer::adapter())
        .layer(log.mark("m"))
        .service(app());
    soon(inside.call(request())).await.expect("a response");
    // Polled in place: by the worker on which the sync middleware waits.
    let expected = (vec!["Scope", "BackgroundTasks"], true, Some("alice".to_owned()), vec![]);
    assert_eq!(seen(&log), expected);
}

#[tokio::test]
async fn c4_a_sync_middleware_moved_over_two_crossings() {
    let log = Log::default();
    let app = |_: Request<Input>| Response::new(());
    let request = || Request::new(Body::empty());

    let mut outer = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(log.mark("m").sync())
        .layer(AsgiLayer::adapter())
        .layer(WsgiLayer::adapter().workers(1))
        .service(app);
    soon(outer.call(request())).await.expect("a response");
    assert_eq!(seen(&log), (vec!["Environ"], true, None, vec![]));

    let mut inner = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(AsgiLayer::adapter())
        .layer(WsgiLayer::adapter().workers(1))
        .layer(log.mark("m").sync())
        .service(app);
    soon(inner.call(request())).await.expect("a response");
    // It can hand work to the async service's background tasks: they are the request's.
    assert_eq!(seen(&log), (vec!["Environ", "BackgroundTasks"], true, None, vec![]));
}

#[tokio::test]
async fn c4_next_is_there_on_the_sync_side_that_it_was_made_for_alone() {
    let events = Events::new();
    let [at_a, inside, again] = [(); 3].map(|()| events.teller());
    let inner = ServiceBuilder::new()
        .map_request(move |request: Request<Body>| {
            inside(views(request.extensions()));
            request
        })
        .layer(WsgiLayer::adapter().workers(1))
        .service(move |request: Request<Input>| {
            again(views(request.extensions()));
            Response::new("inner")
        });
    // A middleware that leaves its `Next` in the request and calls another service.
    let app = sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        at_a(views(request.extensions()));
        next.call(request)
    })
    .layer(AsgiLayer::adapter().layer(inner));
    let mut service = WsgiLayer::new(app).workers(1).layer(Router::<()>::new());
    let request = Request::new(axum::body::Body::empty());
    soon(service.call(request)).await.expect("a response");
    let expected: [&[&str]; 3] =
        [&["Environ", "Next"], &["Scope", "BackgroundTasks"], &["Environ", "BackgroundTasks"]];
    assert_eq!(events.drain(), expected);
}

#[tokio::test]
async fn c4_one_function_serves_as_middleware_in_front_of_either_kind() {
    fn middleware(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
        let mut response = next.call(request)?;
        response.headers_mut().insert("x-on-worker", HeaderValue::from(u16::from(on_worker())));
        Ok(response)
    }
    // In a sync stack, and as the application of a layer in front of an async service.
    let in_stack =
        WsgiLayer::adapter().layer(sync_fn(middleware).layer(|_: Request<Input>| Response::new("in")));
    let in_front = ServiceBuilder::new()
        .map_request(|request: Request<Incoming>| request.map(Body::new))
        .layer(WsgiLayer::new(|mut request: Request<Input>| {
            let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
            middleware(request, &next)
        }))
        .service(service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::from("in")))
        }));
    for server in [serve(in_stack).await, serve(in_front).await] {
        let response = server.get("/").await;
        assert_eq!(response.headers()["x-on-worker"], "1");
        assert_eq!(text(response).await, "in");
    }
}

const TEXT: &str = "Hello World! Hello World! Hello World! Hello World! Hello World! Hello World!";

/// What a sync middleware sees of a response: `Content-Encoding`, `Content-Length`, and whether the body is the text.
type Coded = (Option<HeaderValue>, Option<HeaderValue>, bool);

/// A sync middleware that tells what it sees of a response's body, and passes it on.
fn looks(tell: impl Fn(Coded) + Send + Sync + 'static) -> SyncFnLayer<impl SyncMiddleware> {
    sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        let (parts, body) = next.call(request)?.into_parts();
        let mut bytes = Vec::new();
        body.into_reader().read_to_end(&mut bytes)?;
        let header = |name| parts.headers.get(name).cloned();
        tell((header(CONTENT_ENCODING), header(CONTENT_LENGTH), bytes == TEXT.as_bytes()));
        Ok(Response::from_parts(parts, Output::from(bytes)))
    })
}

#[tokio::test]
async fn c4_compression_inside_gives_sync_middleware_the_compressed_body_and_outside_the_plain_one() {
    let events = Events::new();
    let app = || Router::new().fallback(|| async { TEXT });
    let inside = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(looks(events.teller()))
        .layer(AsgiLayer::adapter())
        .layer(CompressionLayer::new())
        .service(app());
    let outside = ServiceBuilder::new()
        .layer(CompressionLayer::new())
        .layer(WsgiLayer::adapter().workers(1))
        .layer(looks(events.teller()))
        .layer(AsgiLayer::adapter())
        .service(app());
    let gzip = Some(HeaderValue::from_static("gzip"));
    let length = Some(HeaderValue::from(TEXT.len()));
    let servers =
        [(serve(inside).await, (gzip.clone(), None, false)), (serve(outside).await, (None, length, true))];
    for (server, expected) in servers {
        for version in VERSIONS {
            let mut request = server.request("GET", "/", Body::empty());
            request.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.headers().get(CONTENT_ENCODING), gzip.as_ref(), "{version:?}");
            assert_eq!(events.drain(), std::slice::from_ref(&expected), "{version:?}");
        }
    }
}

/// Long enough for what is ready, and short for a test.
const SHORT: Duration = Duration::from_millis(30);

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, SHORT)
}

/// An async service that never answers. It tells `started` that it was called; `probe` is dropped with the first future.
fn stuck(
    probe: Probe,
    started: &Events<()>,
) -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    let probe = std::sync::Arc::new(std::sync::Mutex::new(Some(probe)));
    let started = started.teller();
    service_fn(move |_: Request<Body>| {
        started(());
        let probe = probe.lock().expect("a lock").take();
        async move {
            let _held = probe;
            std::future::pending().await
        }
    })
}

/// A sync middleware that tells the status that it got, or the error.
fn tells(tell: impl Fn(Result<u16, bool>) + Send + Sync + 'static) -> SyncFnLayer<impl SyncMiddleware> {
    sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        let result = next.call(request);
        tell(match &result {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(error.downcast_ref::<Error>().is_some_and(Error::is_disconnected)),
        });
        result
    })
}

/// Asks until a request reached the application before its time was over: on a busy machine one may never get a worker.
async fn times_out(server: &Server, started: &Events<()>) {
    loop {
        assert_eq!(server.get("/").await.status(), 408);
        if !started.drain().is_empty() {
            return;
        }
    }
}

#[tokio::test]
async fn c4_a_timeout_outside_takes_the_response_from_all_that_is_inside() {
    let (events, started, dropped) = (Events::new(), Events::new(), Events::new());
    let pool = WorkerPool::new(1);
    let service = ServiceBuilder::new()
        .layer(timeout())
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .layer(tells(events.teller()))
        .layer(AsgiLayer::adapter())
        .service(stuck(Probe::new(&dropped), &started));
    let server = serve(service).await;
    times_out(&server, &started).await;
    // The async service is dropped, and the middleware that waits for it gets an error: nobody wants the response.
    assert_eq!(dropped.next().await, "tower-wsgi-worker");
    assert_eq!(events.next().await, Err(true));
    idle(&pool).await;
}

#[tokio::test]
async fn c4_a_timeout_inside_takes_the_async_service_alone() {
    let (events, started, dropped) = (Events::new(), Events::new(), Events::new());
    let pool = WorkerPool::new(1);
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .layer(tells(events.teller()))
        .layer(AsgiLayer::adapter())
        .layer(timeout())
        .service(stuck(Probe::new(&dropped), &started));
    let server = serve(service).await;
    times_out(&server, &started).await;
    assert_eq!(dropped.next().await, "tower-wsgi-worker");
    // The middleware goes on, with the timeout's response.
    assert_eq!(events.next().await, Ok(408));
    idle(&pool).await;
}

#[tokio::test]
async fn c4_a_timeout_outside_answers_but_cannot_stop_sync_code_that_blocks() {
    let (events, started, gate) = (Events::new(), Events::new(), Gate::new());
    let (tell, starts, closed) = (events.teller(), started.teller(), gate.clone());
    let pool = WorkerPool::new(1);
    let service = ServiceBuilder::new()
        .layer(timeout())
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .service(move |request: Request<Input>| {
            starts(());
            closed.pass();
            tell(Environ::of(&request).is_disconnected());
            Response::new(())
        });
    let server = serve(service).await;
    times_out(&server, &started).await;
    assert_eq!(pool.stats().busy, 1);
    gate.open();
    // It is told, if it asks.
    assert!(events.next().await);
    idle(&pool).await;
}

#[tokio::test]
async fn c4_a_timeout_inside_does_not_count_the_time_of_the_sync_side() {
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
            // What a slow query would take.
            std::thread::sleep(SHORT * 2);
            next.call(request)
        }))
        .layer(AsgiLayer::adapter())
        .layer(timeout())
        .service(Router::new().fallback(|| async { "in time" }));
    let server = serve(service).await;
    let response = server.get("/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(text(response).await, "in time");
}

/// A sync middleware that tells that it was reached, reads the whole body and passes it on.
fn reads(tell: impl Fn(Option<usize>) + Send + Sync + 'static) -> SyncFnLayer<impl SyncMiddleware> {
    sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        let (parts, mut body) = request.into_parts();
        let mut bytes = Vec::new();
        let read = body.read_to_end(&mut bytes);
        tell(read.as_ref().ok().copied());
        read?;
        next.call(Request::from_parts(parts, Input::from(bytes)))
    })
}

#[tokio::test]
async fn c4_a_body_limit_outside_holds_for_the_sync_side_and_one_inside_does_not() {
    let events = Events::new();
    let app = || Router::new().fallback(|body: String| async move { body });
    let outside = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(4))
        .layer(WsgiLayer::adapter().workers(1))
        .layer(reads(events.teller()))
        .layer(AsgiLayer::adapter())
        .service(app());
    let inside = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(reads(events.teller()))
        .layer(AsgiLayer::adapter())
        .layer(RequestBodyLimitLayer::new(4))
        .service(app());
    let frames = |text: &'static str| Frames::new([http_body::Frame::data(text.into())]);

    let server = serve(outside).await;
    for version in VERSIONS {
        // Declared: refused before the sync side is asked. Not declared: the read fails, which stays the client's fault.
        let request = server.request("POST", "/", Body::from("hello"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!((response.status().as_u16(), events.drain()), (413, vec![]), "{version:?}");
        let request = server.request("POST", "/", frames("hello"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!((response.status().as_u16(), events.drain()), (413, vec![None]), "{version:?}");
        let request = server.request("POST", "/", frames("hell"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!((response.status().as_u16(), events.drain()), (200, vec![Some(4)]), "{version:?}");
    }

    let server = serve(inside).await;
    for version in VERSIONS {
        // The sync middleware has the whole body; what it passes on is refused, and it sees that as a response.
        for declared in [true, false] {
            let body = if declared { Body::from("hello") } else { Body::new(frames("hello")) };
            let request = server.request("POST", "/", body);
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!((response.status().as_u16(), events.drain()), (413, vec![Some(5)]), "{version:?}");
        }
    }
}

#[tokio::test]
async fn c4_an_err_of_a_sync_middleware_is_seen_by_sync_ones_as_err_and_by_async_ones_as_a_500() {
    let (events, log) = (Events::new(), Log::default());
    let outer = events.teller();
    let result = move |tell: &dyn Fn(Result<u16, String>), result: &Result<Response<Output>, BoxError>| {
        tell(match result {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(error.to_string()),
        });
    };
    let beside = events.teller();
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            let response = next.call(request);
            result(&outer, &response);
            response
        }))
        .layer(AsgiLayer::adapter())
        .layer(log.mark("c"))
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            let response = next.call(request);
            result(&beside, &response);
            response
        }))
        .layer(sync_fn(|_: Request<Input>, _: &dyn SyncHandler| Err::<Response<()>, _>("no database")))
        .layer(AsgiLayer::adapter())
        .service(stuck(Probe::new(&Events::new()), &Events::new()));
    let server = serve(service).await;
    assert_eq!(server.get("/").await.status(), 501);
    // The one beside it gets what it returned; beyond the crossing there is a response, which stays one on the next sync side.
    assert_eq!(events.drain(), [Err("no database".to_owned()), Ok(501)]);
    let answers = log.answers();
    assert_eq!((answers.len(), answers[0].status), (1, 500));
    assert_eq!(answers[0].error.as_deref(), Some("the handler failed"));
}

#[tokio::test]
async fn c4_a_mount_of_an_async_service_passes_the_inner_handlers_err_untouched() {
    let events = Events::new();
    let app = AsgiLayer::new(Router::new().fallback(|| async { "async" }))
        .at("/async")
        .layer(|_: Request<Input>| Err::<Response<()>, _>("no database"));
    let tell = events.teller();
    let service = WsgiLayer::adapter().workers(1).layer(
        sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            let response = next.call(request);
            tell(response.as_ref().err().map(ToString::to_string));
            response
        })
        .layer(app),
    );
    let server = serve(service).await;
    assert_eq!(server.get("/else").await.status(), 500);
    assert_eq!(events.drain(), [Some("no database".to_owned())]);
    assert_eq!(text(server.get("/async").await).await, "async");
    assert_eq!(events.drain(), [None]);
}

#[tokio::test]
async fn c4_a_client_that_leaves_ends_every_side() {
    for version in VERSIONS {
        let (events, started, dropped) = (Events::new(), Events::new(), Events::new());
        let (outer, inner) = (WorkerPool::new(1), WorkerPool::new(1));
        let service = ServiceBuilder::new()
            .layer(WsgiLayer::adapter().pool(outer.clone()))
            .layer(tells(events.teller()))
            .layer(AsgiLayer::adapter())
            .layer(WsgiLayer::adapter().pool(inner.clone()))
            .layer(tells(events.teller()))
            .layer(AsgiLayer::adapter())
            .service(stuck(Probe::new(&dropped), &started));
        let server = serve(service).await;
        let request = server.request("GET", "/", Body::empty());
        let mut response = Box::pin(server.send(version, request));
        let both = || outer.stats().lending + inner.stats().lending == 2;
        tokio::select! {
            _ = &mut response => panic!("a response of a service that never answers"),
            () = eventually("both sides wait", both) => {}
        }
        drop(response);
        assert_eq!(dropped.next().await, "tower-wsgi-worker");
        assert_eq!([events.next().await, events.next().await], [Err(true), Err(true)]);
        idle(&outer).await;
        idle(&inner).await;
    }
}
