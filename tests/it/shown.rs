//! What `{:?}` shows of the crate's types: enough to know one from another in a log, and no more than is theirs to show.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Write as _};
use std::pin::pin;
use std::sync::{Arc, Mutex};

use axum::Router;
use http::uri::Scheme;
use http::{HeaderMap, Request, Response};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiLayer, BackgroundTasks, Body, BoxError, Environ, Input, Next, Output, Scope, SyncHandler, Variables,
    WorkerPool, WsgiLayer, WsgiService, gateway, sync_fn,
};

use crate::support::{Scripted, soon};

fn hello(_: Request<Input>) -> Response<&'static str> {
    Response::new("hello")
}

#[test]
fn c1_what_is_known_of_a_request_is_shown() {
    let mut request = Request::get("/shop/a%20b?c=d").body(()).expect("a request");
    let scope = Scope::of(&request)
        .with_client(([10, 0, 0, 1], 4000).into())
        .with_server("example.org", 443)
        .with_scheme(Scheme::HTTPS);
    request.extensions_mut().insert(scope);
    assert!(Scope::shift(&mut request, "/shop"));
    assert_eq!(
        format!("{:?}", Scope::of(&request)),
        r#"Scope { root_path: "/shop", uri: /shop/a%20b?c=d, client: Some(10.0.0.1:4000), server: Some(("example.org", 443)), scheme: "https", environ: false, .. }"#
    );
    let mut environ = Environ::of(&request);
    environ.set("REMOTE_USER", "ada");
    assert_eq!(
        format!("{environ:?}"),
        r#"Environ { script_name: "/shop", path_info: "/a b", server: Some(("example.org", 443)), remote: Some(10.0.0.1:4000), url_scheme: "https", extra: {"REMOTE_USER": [97, 100, 97]}, .. }"#
    );
    let variables: Variables = [("A", "b"), ("C", "d")].into_iter().collect();
    assert_eq!(format!("{variables:?}"), r#"{"A": "b", "C": "d"}"#);
}

#[test]
fn a12_an_error_shows_its_kind_its_message_and_its_cause() {
    let failing = |_: Request<Input>| -> Result<Response<()>, &'static str> { Err("no rows") };
    let response = gateway::respond(&failing, Request::new(Input::empty()));
    let error = response.extensions().get::<tower_wsgi::Error>().expect("an error");
    assert_eq!(
        format!("{error:?}"),
        r#"Error { kind: Handler, message: "the handler failed", source: Some("no rows") }"#
    );
}

#[test]
fn a7_bodies_show_their_lengths() {
    let mut input = Input::from("hello").with_length(5);
    assert_eq!(format!("{input:?}"), "Input { length: Some(5), received: 0, .. }");
    input.chunk().expect("a body");
    assert_eq!(format!("{input:?}"), "Input { length: Some(5), received: 5, .. }");
    let body = format!("{:?}", Body::from("hello"));
    assert!(body.starts_with("Body { size_hint: SizeHint") && body.contains('5'), "{body}");

    let outputs: [(Output, _); 5] = [
        ("hello".into(), r#"Output { kind: "full", length: Some(5), trailers: false }"#),
        (Output::iter(["hello"]), r#"Output { kind: "chunks", length: None, trailers: false }"#),
        (Output::reader(io::empty()), r#"Output { kind: "reader", length: None, trailers: false }"#),
        (Output::writer(|_| Ok(())), r#"Output { kind: "writer", length: None, trailers: false }"#),
        (
            Output::body(Body::from("hello")).with_trailers(HeaderMap::new),
            r#"Output { kind: "async body", length: Some(5), trailers: true }"#,
        ),
    ];
    for (output, shown) in outputs {
        assert_eq!(format!("{output:?}"), shown);
    }
    let writer = Output::writer(|w| {
        write!(w, "hello")?;
        let shown = format!("{w:?}");
        w.write_all(shown.as_bytes())
    });
    let text = io::read_to_string(writer.into_reader()).expect("a body");
    assert_eq!(text, "helloWriter { gathered: 5, .. }");
}

#[tokio::test]
async fn a10_layers_and_services_show_their_settings() {
    let pool = WorkerPool::new(3);
    let idle = "WorkerPool { workers: 3, stats: PoolStats { busy: 0, idle: 0, lending: 0, threads: 0, queued: 0, resumed: 0, discards: 0, rejected: 0 } }";
    assert_eq!(format!("{pool:?}"), idle);
    let layer = WsgiLayer::adapter().pool(pool.clone()).max_queued(7);
    let settings = format!(
        "Settings {{ pool: {idle}, max_queued: 7, queue_timeout: None, send_queue_size: 10, prefetch: 65536, read_timeout: None, .. }}"
    );
    assert_eq!(format!("{layer:?}"), format!("WsgiLayer {{ prefix: \"\", settings: {settings}, .. }}"));
    let service = layer.layer(hello);
    assert_eq!(format!("{service:?}"), format!("WsgiService {{ settings: {settings}, .. }}"));
    let mounted = WsgiLayer::new(hello).pool(pool).max_queued(7).at("/api").layer("inner");
    assert_eq!(
        format!("{mounted:?}"),
        format!("Wsgi {{ prefix: \"/api\", settings: {settings}, inner: \"inner\", .. }}")
    );

    let layer = AsgiLayer::new(Router::<()>::new()).at("/api");
    let settings = "Settings { runtime: None, wait_time: None }";
    assert_eq!(format!("{layer:?}"), format!("AsgiLayer {{ prefix: \"/api\", settings: {settings}, .. }}"));
    let handler = AsgiLayer::adapter().layer(Router::<()>::new());
    assert_eq!(format!("{handler:?}"), format!("AsgiHandler {{ settings: {settings}, .. }}"));
    let mounted = layer.layer(handler);
    assert_eq!(
        format!("{mounted:?}"),
        format!(
            "Asgi {{ prefix: \"/api\", settings: {settings}, inner: AsgiHandler {{ settings: {settings}, .. }}, .. }}"
        )
    );

    let through = sync_fn(through);
    let shown = format!("{through:?}");
    assert!(shown.starts_with("SyncFnLayer { function: ") && shown.contains("through"), "{shown}");
    let shown = format!("{:?}", through.layer(AsgiLayer::adapter().layer(Router::<()>::new())));
    assert!(shown.starts_with("SyncFn { function: ") && shown.contains("next: AsgiHandler"), "{shown}");
}

fn through(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
    next.call(request)
}

#[tokio::test]
async fn a8_a_response_to_come_shows_how_far_it_is() {
    let mut service = WsgiService::new(hello);
    let mut response = pin!(service.call(Request::new(Body::empty())));
    assert_eq!(format!("{response:?}"), r#"ResponseFuture { stage: "held", .. }"#);
    // Its worker may be done already.
    let done = std::future::poll_fn(|cx| std::task::Poll::Ready(response.as_mut().poll(cx).is_ready())).await;
    if !done {
        assert_eq!(format!("{response:?}"), r#"ResponseFuture { stage: "submitted", .. }"#);
        soon(response.as_mut()).await.expect("a response");
    }
    assert_eq!(format!("{response:?}"), r#"ResponseFuture { stage: "done", .. }"#);
    // Only what is not here yet has to be read ahead.
    let here = service.call(Request::new(Body::from("hello")));
    assert_eq!(format!("{here:?}"), r#"ResponseFuture { stage: "held", .. }"#);
    let to_come = service.call(Request::new(Body::new(Scripted::of(["hello"]))));
    assert_eq!(format!("{to_come:?}"), r#"ResponseFuture { stage: "prefetch", .. }"#);

    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let mut mounted = WsgiLayer::new(hello).at("/api").layer(inner);
    let mut get = |path| mounted.call(Request::get(path).body(Body::empty()).expect("a request"));
    assert_eq!(format!("{:?}", get("/api")), r#"WsgiFuture { state: "crossing", .. }"#);
    assert_eq!(format!("{:?}", get("/")), r#"WsgiFuture { state: "inner", .. }"#);
}

#[tokio::test]
async fn a13_what_a_request_carries_is_shown() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (shown, asked) = (seen.clone(), seen.clone());
    let service = service_fn(move |request: Request<Body>| {
        let tasks = request.extensions().get::<BackgroundTasks>().map(|tasks| {
            tasks.spawn(std::future::pending::<()>());
            format!("{tasks:?}")
        });
        asked.lock().expect("a lock").extend(tasks);
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let app = move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next = request.extensions().get::<Next>().expect("a Next");
        shown.lock().expect("a lock").push(format!("{next:?}"));
        let early = Environ::of(&request).early().expect("a WsgiService");
        shown.lock().expect("a lock").push(format!("{early:?}"));
        let response = early.begin(Response::builder().status(201).body(())?)?;
        shown.lock().expect("a lock").push(format!("{response:?}"));
        let response = response.finish();
        shown.lock().expect("a lock").push(format!("{:?}", response.body()));
        let wait_time = std::time::Duration::ZERO;
        drop(
            AsgiLayer::adapter()
                .wait_time(wait_time)
                .layer(service.clone())
                .call(Request::new(Input::empty())),
        );
        Ok(response)
    };
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let service = WsgiLayer::new(app).layer(inner);
    soon(service.oneshot(Request::new(Body::empty()))).await.expect("a response");
    let seen = seen.lock().expect("a lock");
    assert_eq!(seen[0], "Next { .. }");
    assert_eq!(seen[1], "Early { .. }");
    assert!(seen[2].starts_with("EarlyResponse { head: Response { status: 201"), "{}", seen[2]);
    assert_eq!(seen[3], r#"Output { kind: "begun", length: None, trailers: false }"#);
    assert_eq!(seen[4], "BackgroundTasks { running: 1, .. }");
}
