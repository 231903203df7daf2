//! axum routers, with their state, extractors and responses.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{ConnectInfo, Extension, Form, Json, Multipart, OriginalUri, Path, Query, State};
use axum::handler::HandlerWithoutStateExt as _;
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, Environ, Input, Output, Scope, SyncHandler, Variables, WorkerPool,
    WsgiService, sync_fn,
};

use super::{ask, host};
use crate::support::{VERSIONS, idle, serve_axum, soon, text, watched};

#[derive(Clone, Default)]
struct Visits(Arc<AtomicUsize>);

#[derive(Deserialize, Serialize)]
struct Item {
    name: String,
    count: u32,
}

async fn json(Json(item): Json<Item>) -> Json<Item> {
    Json(Item { count: item.count + 1, ..item })
}

async fn form(Form(item): Form<Item>) -> String {
    format!("{} {}", item.name, item.count)
}

async fn query(Path(id): Path<u32>, Query(item): Query<Item>) -> String {
    format!("{id} {} {}", item.name, item.count)
}

async fn visits(State(visits): State<Visits>) -> String {
    visits.0.fetch_add(1, Ordering::Relaxed).to_string()
}

async fn multipart(mut parts: Multipart) -> Result<String, StatusCode> {
    let mut told = Vec::new();
    while let Some(field) = parts.next_field().await.map_err(|_| StatusCode::BAD_REQUEST)? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|_| StatusCode::BAD_REQUEST)?;
        told.push(format!("{name}={}", bytes.len()));
    }
    Ok(told.join(" "))
}

fn router() -> Router {
    Router::new()
        .route("/json", post(json))
        .route("/form", post(form))
        .route("/items/{id}", get(query))
        .route("/visits", get(visits))
        .route("/multipart", post(multipart))
        .route("/old", get(|| async { Redirect::to("/new") }))
        .route("/html", get(|| async { axum::response::Html("<p>") }))
        .route("/fails", get(|| async { (StatusCode::IM_A_TEAPOT, "short and stout").into_response() }))
        .nest(
            "/nested",
            Router::new()
                .route("/uri", get(|OriginalUri(uri): OriginalUri| async move { uri.path().to_owned() })),
        )
        .with_state(Visits::default())
}

/// Method, path, content type and body of a request; status and body of its response.
type Case = (&'static str, &'static str, &'static str, String, u16, &'static str);

fn cases() -> Vec<Case> {
    let form = "application/x-www-form-urlencoded";
    let part = |name, value: String| {
        format!("--xx\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let parts = [part("first", "1".repeat(10)), part("second", "2".repeat(100_000)), "--xx--\r\n".into()];
    vec![
        (
            "POST",
            "/json",
            "application/json",
            r#"{"name":"a","count":1}"#.into(),
            200,
            r#"{"name":"a","count":2}"#,
        ),
        (
            "POST",
            "/json",
            "text/plain",
            "{}".into(),
            415,
            "Expected request with `Content-Type: application/json`",
        ),
        ("POST", "/form", form, "name=a%20b&count=3".into(), 200, "a b 3"),
        ("GET", "/items/7?name=x&count=2", "", String::new(), 200, "7 x 2"),
        (
            "POST",
            "/multipart",
            "multipart/form-data; boundary=xx",
            parts.concat(),
            200,
            "first=10 second=100000",
        ),
        ("POST", "/multipart", "multipart/form-data; boundary=xx", parts[0].clone(), 400, ""),
        ("GET", "/old", "", String::new(), 303, ""),
        ("GET", "/html", "", String::new(), 200, "<p>"),
        ("GET", "/fails", "", String::new(), 418, "short and stout"),
        ("GET", "/nested/uri", "", String::new(), 200, "/nested/uri"),
        ("GET", "/nowhere", "", String::new(), 404, ""),
        ("DELETE", "/html", "", String::new(), 405, ""),
    ]
}

/// The redirect's target, or else nothing.
fn location<B>(response: &Response<B>) -> Option<&str> {
    response.headers().get(LOCATION).map(|value| value.to_str().expect("text"))
}

#[test]
fn b2_a_router_and_its_extractors_on_a_plain_thread() {
    watched(|| {
        let handler = AsgiHandler::new(router());
        for (method, path, kind, body, status, expected) in cases() {
            let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
            let request = request.body(Input::from(body)).expect("a request");
            let response = ask(&handler, request).expect("a response");
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            assert_eq!(response.body(), expected, "{method} {path}");
            assert_eq!(location(&response), (status == 303).then_some("/new"));
        }
        // The state is one for all calls, and for all clones of the handler.
        for (handler, expected) in [(handler.clone(), "0"), (handler, "1")] {
            let request = Request::get("/visits").body(Input::empty()).expect("a request");
            assert_eq!(ask(&handler, request).expect("a response").body(), expected);
        }
    });
}

async fn over_http() {
    let pool = WorkerPool::new(2);
    let server = host(&pool, AsgiHandler::new(router())).await;
    for version in VERSIONS {
        for (method, path, kind, body, status, expected) in cases() {
            let mut request = server.request(method, path, tower_wsgi::Body::from(body));
            request.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a value"));
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.status().as_u16(), status, "{version:?} {method} {path}");
            assert_eq!(location(&response), (status == 303).then_some("/new"));
            assert_eq!(text(response).await, expected, "{version:?} {method} {path}");
        }
    }
}

#[tokio::test]
async fn b2_a_router_and_its_extractors_in_a_sync_host() {
    over_http().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_a_router_and_its_extractors_in_a_sync_host_on_many_threads() {
    over_http().await;
}

async fn who(info: Option<Extension<ConnectInfo<SocketAddr>>>, Extension(scope): Extension<Scope>) -> String {
    let info = info.map(|Extension(ConnectInfo(address))| address.ip());
    format!("{info:?} {:?}", scope.client().map(|address| address.ip()))
}

#[tokio::test]
async fn c4_a_clients_address_is_in_the_scope_and_connect_info_where_the_server_gave_it() {
    let inner = Router::new().route("/", get(who));
    let service = WsgiService::new(AsgiHandler::new(inner));
    let server = serve_axum(Router::new().fallback_service(service)).await;
    for version in VERSIONS {
        let answer = text(server.ask(version, "GET", "/").await).await;
        assert_eq!(answer, "Some(127.0.0.1) Some(127.0.0.1)", "{version:?}");
    }
}

#[test]
fn c4_what_a_sync_host_knows_reaches_axums_extractors() {
    watched(|| {
        let handler = AsgiHandler::new(Router::new().route("/", get(who)));
        let mut request = Request::get("/").body(Input::empty()).expect("a request");
        let scope = Scope::of(&request).with_client(SocketAddr::from(([192, 0, 2, 1], 80)));
        request.extensions_mut().insert(scope);
        assert_eq!(ask(&handler, request).expect("a response").body(), "Some(192.0.2.1) Some(192.0.2.1)");
        let mut request = Request::get("/").body(Input::empty()).expect("a request");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 2], 80))));
        assert_eq!(ask(&handler, request).expect("a response").body(), "Some(192.0.2.2) Some(192.0.2.2)");

        let original = |OriginalUri(uri): OriginalUri| async move { uri.to_string() };
        let api = Router::new().route("/users", get(original));
        let handler = AsgiLayer::new(api).at("/api").layer(|_: Request<Input>| Response::new("outside"));
        let request = Request::get("/api/users?id=1").body(Input::empty()).expect("a request");
        assert_eq!(ask(&handler, request).expect("a response").body(), "/api/users?id=1");
    });
}

/// An address from which no request comes by itself.
fn told(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 80))
}

type Tell = fn(&mut Request<Input>);

/// The ways in which a sync middleware behind a proxy may say who the client is.
const WAYS: [(&str, Tell); 4] = [
    ("a scope of the request", |request| {
        let scope = Scope::of(request).with_client(told(9));
        request.extensions_mut().insert(scope);
    }),
    ("the scope of the environ", |request| {
        let scope = Environ::of(request).scope().with_client(told(9));
        request.extensions_mut().insert(scope);
    }),
    ("both", |request| {
        let scope = Environ::of(request).scope().with_client(told(9));
        request.extensions_mut().insert(Environ::from(&scope));
        request.extensions_mut().insert(scope);
    }),
    ("ConnectInfo", |request| {
        request.extensions_mut().insert(ConnectInfo(told(9)));
    }),
];

#[tokio::test]
async fn c4_scope_and_connect_info_agree_on_the_client_that_a_middleware_tells() {
    for (way, tell) in WAYS {
        let stack = move || {
            sync_fn(move |mut request: Request<Input>, next: &dyn SyncHandler| {
                tell(&mut request);
                next.call(request)
            })
            .layer(AsgiHandler::new(Router::new().route("/", get(who))))
        };
        let expected = "Some(192.0.2.9) Some(192.0.2.9)";

        let server = serve_axum(Router::new().fallback_service(WsgiService::new(stack()))).await;
        let answer = text(server.ask(VERSIONS[0], "GET", "/").await).await;
        assert_eq!(answer, expected, "{way}, in a server that has told it by ConnectInfo");

        watched(move || {
            let request = || Request::get("/").body(Input::empty()).expect("a request");
            assert_eq!(ask(&stack(), request()).expect("a response").body(), expected, "{way}, nothing told");
            let mut known = request();
            let scope = Scope::of(&known).with_client(told(1));
            known.extensions_mut().insert(scope);
            // A scope that was there before is the host's word, which only another scope takes back.
            let expected = if way == "ConnectInfo" { "Some(192.0.2.1) Some(192.0.2.1)" } else { expected };
            assert_eq!(ask(&stack(), known).expect("a response").body(), expected, "{way}, in a host");
        });
    }
}

#[tokio::test]
async fn c4_sync_code_inside_hears_what_a_sync_middleware_tells_of_the_client() {
    for (way, tell) in WAYS {
        let seen = |request: Request<Input>| {
            let remote = Environ::of(&request).remote().map(|remote| remote.ip());
            let variables = Variables::of(&request);
            let address =
                variables.get("REMOTE_ADDR").map(|address| String::from_utf8_lossy(address).into_owned());
            let around = Environ::of(&request).scope().client().map(|client| client.ip());
            Response::new(format!("{remote:?} {address:?} {around:?}"))
        };
        let stack = move || {
            sync_fn(move |mut request: Request<Input>, next: &dyn SyncHandler| {
                let mut environ = Environ::of(&request);
                environ.set("REMOTE_USER", "ada");
                request.extensions_mut().insert(environ);
                tell(&mut request);
                next.call(request)
            })
            .layer(seen)
        };
        let server = serve_axum(Router::new().fallback_service(WsgiService::new(stack()))).await;
        let answer = text(server.ask(VERSIONS[0], "GET", "/").await).await;
        let told = r#"Some(192.0.2.9) Some("192.0.2.9") "#;
        assert!(answer.starts_with(told), "{way}: {answer}");
        // What is around it is not what is told inside, unless all of the environ was made anew.
        assert_eq!(answer.ends_with(" Some(127.0.0.1)"), way != "both", "{way}: {answer}");
    }
}

#[tokio::test]
async fn c4_an_async_layers_scope_is_what_connect_info_says_inside() {
    // What the server has told is the proxy's address. A scope is a layer's word, and so is one that was there before.
    let service = WsgiService::new(AsgiHandler::new(Router::new().route("/", get(who))));
    for (scope, info, expected) in [
        (Some(9), Some(1), "Some(192.0.2.9) Some(192.0.2.9)"),
        (Some(9), None, "Some(192.0.2.9) Some(192.0.2.9)"),
        (None, Some(1), "Some(192.0.2.1) Some(192.0.2.1)"),
        (None, None, "None None"),
    ] {
        for scope_first in [false, true] {
            let mut request = Request::get("/").body(Body::empty()).expect("a request");
            let mut tell = |scope_now: bool| match (scope_now, scope, info) {
                (true, Some(host), _) => {
                    let scope = Scope::of(&request).with_client(told(host));
                    request.extensions_mut().insert(scope);
                }
                (false, _, Some(host)) => {
                    request.extensions_mut().insert(ConnectInfo(told(host)));
                }
                _ => {}
            };
            tell(scope_first);
            tell(!scope_first);
            let response = soon(service.clone().oneshot(request)).await.expect("a response");
            let answer = response.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(answer, expected, "{scope:?} {info:?} {scope_first}");
        }
    }
}

/// A router whose events come through a channel.
fn events() -> (mpsc::Sender<Result<Event, Infallible>>, Router) {
    let (sender, receiver) = mpsc::channel(1);
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let router = Router::new().route(
        "/",
        get(move || async move {
            Sse::new(ReceiverStream::new(receiver.lock().expect("a lock").take().expect("one request")))
        }),
    );
    (sender, router)
}

#[tokio::test]
async fn a3_server_sent_events_arrive_one_by_one_through_a_sync_host() {
    for version in VERSIONS {
        let (sender, router) = events();
        let pool = WorkerPool::new(1);
        let server = host(&pool, AsgiHandler::new(router)).await;
        let response = server.ask(version, "GET", "/").await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let mut body = response.into_body();
        for n in 1..=3 {
            soon(sender.send(Ok(Event::default().data(n.to_string())))).await.expect("a listener");
            let frame = soon(body.frame()).await.expect("a frame").expect("no error");
            assert_eq!(frame.into_data().expect("data"), format!("data: {n}\n\n"), "{version:?}");
            // The stream holds no worker in between.
            idle(&pool).await;
        }
        drop(sender);
        // HTTP/2 ends with an empty frame.
        assert_eq!(soon(body.collect()).await.expect("a whole body").to_bytes(), "");
    }
}

#[test]
fn b2_server_sent_events_are_read_one_by_one_on_a_plain_thread() {
    watched(|| {
        let (sender, router) = events();
        let request = Request::get("/").body(Input::empty()).expect("a request");
        let response = AsgiHandler::new(router).call(request).expect("a response");
        let mut lines = BufReader::new(response.into_body().into_reader()).lines();
        for n in 1..=3 {
            sender.blocking_send(Ok(Event::default().data(n.to_string()))).expect("a listener");
            let line = lines.next().expect("a line").expect("no error");
            assert_eq!(line, format!("data: {n}"));
            assert_eq!(lines.next().expect("a line").expect("no error"), "");
        }
        drop(sender);
        assert!(lines.next().is_none());
    });
}

#[test]
fn b5_server_sent_events_end_when_the_host_leaves() {
    watched(|| {
        let (sender, router) = events();
        let request = Request::get("/").body(Input::empty()).expect("a request");
        let response = AsgiHandler::new(router).call(request).expect("a response");
        drop(response);
        assert!(sender.is_closed());
    });
}

#[test]
fn b2_parts_of_a_router_are_services_too() {
    watched(|| {
        let request = || Request::get("/x").body(Input::empty()).expect("a request");
        let method_router = AsgiHandler::new(get(|| async { "a method router" }));
        assert_eq!(ask(&method_router, request()).expect("a response").body(), "a method router");
        let handler = (|| async { "a handler" }).into_service();
        assert_eq!(ask(&AsgiHandler::new(handler), request()).expect("a response").body(), "a handler");
    });
}

/// A service that takes axum's own body and no other.
async fn takes_axums(request: Request<axum::body::Body>) -> Result<Response<axum::body::Body>, Infallible> {
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    Ok(Response::new(body.into()))
}

#[test]
fn b7_a_service_that_takes_axums_body() {
    async fn shout(request: axum::extract::Request, next: Next) -> axum::response::Response {
        let mut response = next.run(request).await;
        response.headers_mut().insert("x-shout", "yes".parse().expect("a value"));
        response
    }
    watched(|| {
        let adapter = || AsgiLayer::adapter().request_body::<axum::body::Body>();
        let request = || Request::post("/").body(Input::from("hello")).expect("a request");
        let bare = adapter().layer(service_fn(takes_axums));
        assert_eq!(ask(&bare, request()).expect("a response").body(), "hello");

        let router = Router::new().route("/", post(|body: Bytes| async move { body }));
        let layered = ServiceBuilder::new().layer(adapter()).layer(from_fn(shout)).service(router);
        let response = ask(&layered, request()).expect("a response");
        assert_eq!(response.headers()["x-shout"], "yes");
        assert_eq!(response.body(), "hello");

        let mounted = AsgiLayer::new(service_fn(takes_axums)).request_body::<axum::body::Body>().at("/a");
        let mounted = mounted.layer(|_: Request<Input>| Response::new("beside"));
        assert_eq!(ask(&mounted, request()).expect("a response").body(), "beside");
        let inside = Request::post("/a/b").body(Input::from("hello")).expect("a request");
        assert_eq!(ask(&mounted, inside).expect("a response").body(), "hello");
    });
}

#[tokio::test]
async fn b7_a_router_in_a_sync_host_in_a_router() {
    // A body limit of axum's, set outside, holds for the extractor inside: it goes with the request.
    let inner = Router::new().route("/inner", post(|body: Bytes| async move { body }));
    let sync_host = move |request: Request<Input>| -> Result<Response<Output>, tower_wsgi::BoxError> {
        AsgiHandler::new(inner.clone()).call(request)
    };
    let router = Router::new()
        .route_service("/inner", WsgiService::new(sync_host))
        .layer(axum::extract::DefaultBodyLimit::max(4));
    let server = serve_axum(router).await;
    for version in VERSIONS {
        for (body, status) in [("hell", 200), ("hello", 413)] {
            let request = server.request("POST", "/inner", tower_wsgi::Body::from(body));
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.status().as_u16(), status, "{version:?}");
        }
    }
}
