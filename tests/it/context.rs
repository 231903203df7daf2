//! A13 to A15: what crosses beside the body, responses without one, and trailers.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, mpsc};

use axum::Router;
use axum::middleware::{Next, from_fn};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, TE, TRAILER};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tower::{Layer as _, Service as _, ServiceBuilder};
use tower_http::trace::TraceLayer;
use tower_wsgi::{Body, BoxError, Input, Output, WorkerPool, WsgiLayer, WsgiService};
use tracing::Instrument;

use crate::support::{
    Events, PATIENCE, Probe, VERSIONS, collect, idle, is_worker, serve, serve_axum, soon, text,
};

#[derive(Clone, Debug, PartialEq)]
struct User(&'static str);

#[derive(Clone, Debug, PartialEq)]
struct Rows(usize);

#[tokio::test]
async fn a13_extensions_go_in_and_come_back() {
    let events = Events::new();
    let tell = events.teller();
    let handler = |request: Request<Input>| {
        let user = request.extensions().get::<User>().expect("a user").0;
        let body = match request.uri().path() {
            "/full" => Output::from(user),
            "/iter" => Output::iter([user]),
            "/writer" => Output::writer(move |w| w.write_all(user.as_bytes()).and_then(|()| w.flush())),
            _ => Output::body(Body::from(user)),
        };
        let mut response = Response::new(body);
        response.extensions_mut().insert(Rows(3));
        response
    };
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<_>| {
            request.extensions_mut().insert(User("alice"));
            request
        })
        .map_response(move |response: Response<Body>| {
            tell(response.extensions().get::<Rows>().cloned());
            response
        })
        .layer(WsgiLayer::adapter())
        .service(handler);
    let server = serve(service).await;
    for path in ["/full", "/iter", "/writer", "/body"] {
        assert_eq!(text(server.get(path).await).await, "alice");
        assert_eq!(events.next().await, Some(Rows(3)));
    }
}

/// Has a task of the current runtime make a value, and blocks for it.
fn from_a_task() -> &'static str {
    let (sender, receiver) = mpsc::channel();
    Handle::current().spawn(async move {
        tokio::task::yield_now().await;
        sender.send("from a task")
    });
    receiver.recv_timeout(PATIENCE).expect("the task to run")
}

async fn with_a_runtime() {
    let handler = |request: Request<Input>| match request.uri().path() {
        "/handler" => Response::new(Output::from(from_a_task())),
        "/writer" => Response::new(Output::writer(|w| w.write_all(from_a_task().as_bytes()))),
        _ => Response::new(Output::iter(std::iter::once_with(from_a_task))),
    };
    let server = serve(WsgiService::new(handler)).await;
    for path in ["/handler", "/writer", "/iter"] {
        assert_eq!(text(server.get(path).await).await, "from a task", "{path}");
    }
}

#[tokio::test]
async fn a13_the_runtime_is_there() {
    with_a_runtime().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_the_runtime_is_there_on_many_threads() {
    with_a_runtime().await;
}

/// Tells, when dropped, where it is and whether a task can be spawned from there.
struct OnDrop<F: Fn((String, bool))>(F);

impl<F: Fn((String, bool))> Drop for OnDrop<F> {
    fn drop(&mut self) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let runs = Handle::try_current().is_ok() && from_a_task() == "from a task";
        (self.0)((thread, runs));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a13_the_runtime_is_there_when_a_body_is_dropped() {
    let events = Events::new();
    let tell = events.teller();
    let handler = move |request: Request<Input>| {
        let on_drop = OnDrop(tell.clone());
        let count = if request.uri().path() == "/endless" { usize::MAX } else { 3 };
        let chunks = (0..count).map(move |_| {
            let _held = &on_drop;
            vec![b'x'; 16 * 1024]
        });
        Response::new(Output::iter(chunks))
    };
    let server = serve(WsgiLayer::adapter().send_queue_size(1).layer(handler)).await;
    text(server.get("/").await).await;
    let endless = server.get("/endless").await;
    drop(endless);
    drop(server.ask(Version::HTTP_11, "HEAD", "/").await);
    for _ in 0..3 {
        let (thread, runs) = events.next().await;
        assert!(is_worker(&thread) && runs, "{thread} {runs}");
    }
}

fn span_name() -> String {
    let span = tracing::Span::current();
    span.metadata().map_or("none", |metadata| metadata.name()).to_owned()
}

#[tokio::test]
async fn a13_the_callers_span_is_current() {
    collect();
    let handler = |request: Request<Input>| match request.uri().path() {
        "/handler" => Response::new(Output::from(span_name())),
        "/writer" => Response::new(Output::writer(|w| w.write_all(span_name().as_bytes()))),
        _ => Response::new(Output::iter((0..4).map(|_| span_name()))),
    };
    let trace = TraceLayer::new_for_http().make_span_with(|_: &Request<_>| tracing::info_span!("outer;"));
    let layer = WsgiLayer::adapter().workers(1);
    let server = serve(ServiceBuilder::new().layer(trace).layer(layer.clone()).service(handler)).await;
    let bare = serve(layer.layer(handler)).await;
    for (path, times) in [("/handler", 1), ("/writer", 1), ("/iter", 4)] {
        assert_eq!(text(server.get(path).await).await, "outer;".repeat(times), "{path}");
        // Nothing of it stays behind on the worker.
        assert_eq!(text(bare.get(path).await).await, "none".repeat(times), "{path}");
    }
}

/// A body's chunks, each taken when the worker has put the rest aside: the next is made by one that resumes it.
async fn piecemeal(pool: &WorkerPool, mut body: Body) -> Result<Vec<Bytes>, BoxError> {
    let mut chunks = Vec::new();
    loop {
        idle(pool).await;
        match soon(body.frame()).await.transpose()? {
            Some(frame) => chunks.extend(frame.into_data()),
            None => return Ok(chunks),
        }
    }
}

#[tokio::test]
async fn a13_the_callers_span_is_current_when_a_body_goes_on() {
    collect();
    let pool = WorkerPool::new(1);
    let layer = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(1);
    let mut service =
        layer.layer(|_: Request<Input>| Response::new(Output::iter((0..4).map(|_| span_name()))));
    // As middleware does that is written by hand: the call outside the span, its future inside.
    let response = service.call(Request::new(Body::empty())).instrument(tracing::info_span!("outer"));
    let body = soon(response).await.expect("a response").into_body();
    assert_eq!(piecemeal(&pool, body).await.expect("a whole body"), ["outer"; 4]);
}

tokio::task_local! { static USER: String; }

fn user() -> String {
    USER.try_with(String::clone).unwrap_or_else(|_| "nobody".into())
}

fn with_user(layer: WsgiLayer) -> WsgiLayer {
    layer.context(|| {
        let user = user();
        move |run: &mut dyn FnMut()| USER.sync_scope(user.clone(), run)
    })
}

#[tokio::test]
async fn a13_the_hook_carries_a_task_local() {
    let handler = |request: Request<Input>| match request.uri().path() {
        "/handler" => Response::new(Output::from(user())),
        "/writer" => Response::new(Output::writer(|w| w.write_all(user().as_bytes()))),
        _ => Response::new(Output::iter(std::iter::once_with(user))),
    };
    let scoped = |request: axum::extract::Request, next: Next| {
        let name = request.headers()["x-user"].to_str().expect("a name").to_owned();
        USER.scope(name, next.run(request))
    };
    let service = with_user(WsgiLayer::adapter().workers(1)).layer(handler);
    let server = serve_axum(Router::new().fallback_service(service).layer(from_fn(scoped))).await;
    for name in ["alice", "bob"] {
        for path in ["/handler", "/writer", "/iter"] {
            let mut request = server.request("GET", path, Body::empty());
            request.headers_mut().insert("x-user", name.parse().expect("a value"));
            let response = soon(server.send(Version::HTTP_11, request)).await.expect("a response");
            assert_eq!(text(response).await, name, "{path}");
        }
    }
}

#[tokio::test]
async fn a13_the_hook_carries_a_task_local_to_a_body_that_goes_on() {
    let pool = WorkerPool::new(1);
    let layer = with_user(WsgiLayer::adapter()).pool(pool.clone()).send_queue_size(1);
    let mut service = layer.layer(|_: Request<Input>| Response::new(Output::iter((0..4).map(|_| user()))));
    let response = USER.scope("alice".into(), service.call(Request::new(Body::empty())));
    let body = soon(response).await.expect("a response").into_body();
    assert_eq!(piecemeal(&pool, body).await.expect("a whole body"), ["alice"; 4]);
}

#[tokio::test]
async fn a13_a_hook_that_does_not_do_its_part_is_a_500() {
    let lazy = WsgiLayer::adapter().workers(1).context(|| |_: &mut dyn FnMut()| {});
    let panics = WsgiLayer::adapter().workers(1).context(|| |_: &mut dyn FnMut()| panic!("no luck"));
    for layer in [lazy, panics] {
        let dropped = Events::new();
        let probe = Arc::new(Mutex::new(Some(Probe::new(&dropped))));
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(probe.lock().expect("a lock").take());
                request
            })
            .layer(layer)
            .service(|_: Request<Input>| Response::new("never"));
        let server = serve(service).await;
        for version in VERSIONS {
            let response = server.ask(version, "GET", "/").await;
            assert_eq!(response.status(), 500);
            assert_eq!(text(response).await, "Internal Server Error\n");
        }
        assert!(is_worker(&dropped.next().await));
    }
}

#[tokio::test]
async fn a13_a_hook_that_fails_after_its_part_loses_nothing() {
    let dropped = Events::new();
    let probe = Arc::new(Mutex::new(Some(Probe::new(&dropped))));
    let layer = WsgiLayer::adapter().workers(1).send_queue_size(2).context(|| {
        |run: &mut dyn FnMut()| {
            run();
            panic!("on purpose")
        }
    });
    let mut service = layer.layer(move |_: Request<Input>| {
        let probe = probe.lock().expect("a lock").take();
        Response::new(Output::iter((0..50).map(move |_| {
            let _held = &probe;
            "x"
        })))
    });
    let response = soon(service.call(Request::new(Body::empty()))).await.expect("a response");
    let body = soon(response.into_body().collect()).await.expect("a whole body");
    assert_eq!(body.to_bytes().len(), 50);
    assert!(is_worker(&dropped.next().await));
}

#[tokio::test]
async fn a13_a_hook_that_stops_doing_its_part_cuts_the_body_off() {
    let pool = WorkerPool::new(1);
    let layer = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(1).context(|| {
        let mut first = true;
        move |run: &mut dyn FnMut()| {
            if std::mem::take(&mut first) {
                run();
            }
        }
    });
    let dropped = Events::new();
    let probe = Mutex::new(Some(Probe::new(&dropped)));
    let mut service = layer.layer(move |_: Request<Input>| {
        let probe = probe.lock().expect("a lock").take();
        Response::new(Output::iter((0..4).map(move |_| {
            let _held = &probe;
            "chunk"
        })))
    });
    let response = soon(service.call(Request::new(Body::empty()))).await.expect("a response");
    piecemeal(&pool, response.into_body()).await.expect_err("a body that was cut off");
    assert!(is_worker(&dropped.next().await));
}

/// Bodies whose producers tell when they run, and when and where they are dropped.
fn producer(kind: &str, events: &Events<String>) -> Output {
    let (probe, ran) = (Probe::new(events), events.teller());
    let ran = move || {
        let _held = &probe;
        ran("ran".to_owned());
    };
    match kind {
        "iter" => Output::iter((0..3).map(move |_| {
            ran();
            "chunk"
        })),
        "reader" => Output::reader(Reader(ran)),
        "writer" => Output::writer(move |_| {
            ran();
            Ok(())
        }),
        _ => Output::from("full").with_trailers(move || {
            ran();
            HeaderMap::new()
        }),
    }
}

struct Reader<F: FnMut()>(F);

impl<F: FnMut()> io::Read for Reader<F> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        (self.0)();
        Ok(0)
    }
}

const KINDS: [&str; 4] = ["iter", "reader", "writer", "trailers"];

#[tokio::test]
async fn a14_a_producer_that_nobody_wants_is_dropped_without_being_run() {
    for version in VERSIONS {
        for kind in KINDS {
            for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404), ("POST", 204)]
            {
                let events = Arc::new(Events::new());
                let shared = events.clone();
                let server = serve(WsgiService::new(move |_: Request<Input>| {
                    Response::builder().status(status).body(producer(kind, &shared))
                }))
                .await;
                let response = server.ask(version, method, "/").await;
                assert_eq!(response.status(), status);
                assert_eq!(text(response).await, "", "{version:?} {method} {status}");
                assert!(is_worker(&events.next().await), "{version:?} {method} {status} {kind}");
                assert!(events.drain().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a14_head_tells_the_length_where_it_is_known() {
    let declared =
        |body: Output| Response::builder().header(CONTENT_LENGTH, 7).body(body).expect("a response");
    let handler = move |request: Request<Input>| match request.uri().path() {
        "/full" => Response::new("hello".into()),
        "/empty" => Response::new(Output::empty()),
        "/async" => Response::new(Output::body(Body::from("hello!"))),
        "/iter" => Response::new(Output::iter(["hello"])),
        "/declared/full" => declared("1234567".into()),
        "/declared/iter" => declared(Output::iter(["1234", "567"])),
        // A handler that knows of HEAD makes no body.
        _ => declared(Output::empty()),
    };
    let server = serve(WsgiService::new(handler)).await;
    for version in VERSIONS {
        for (path, expected) in [
            ("/full", Some("5")),
            ("/empty", Some("0")),
            ("/async", Some("6")),
            ("/iter", None),
            ("/declared/full", Some("7")),
            ("/declared/iter", Some("7")),
            ("/declared/empty", Some("7")),
        ] {
            let response = server.ask(version, "HEAD", path).await;
            let length = response.headers().get(CONTENT_LENGTH).cloned();
            assert_eq!(length, expected.map(HeaderValue::from_static), "{version:?} {path}");
            assert_eq!(text(response).await, "");
        }
    }
}

#[tokio::test]
async fn a14_a_head_request_that_fails_has_no_body_either() {
    let server = serve(WsgiService::new(|_: Request<Input>| Err::<Response<()>, _>("no database"))).await;
    for version in VERSIONS {
        let response = server.ask(version, "HEAD", "/").await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_LENGTH], "22", "{version:?}");
        assert_eq!(text(response).await, "");
    }
    let lazy = WsgiLayer::adapter().context(|| |_: &mut dyn FnMut()| {});
    let server = serve(lazy.layer(|_: Request<Input>| Response::new("never"))).await;
    for version in VERSIONS {
        let response = server.ask(version, "HEAD", "/").await;
        assert_eq!(response.status(), 500);
        assert_eq!(text(response).await, "");
    }
}

#[tokio::test]
async fn a14_head_with_not_modified_invents_no_length() {
    let server =
        serve(WsgiService::new(|_: Request<Input>| Response::builder().status(304).body(Output::empty())))
            .await;
    for version in VERSIONS {
        let response = server.ask(version, "HEAD", "/").await;
        assert_eq!(response.status(), 304);
        assert!(!response.headers().contains_key("content-length"), "{version:?}");
    }
}

#[tokio::test]
async fn a12_a_status_that_ends_nothing_is_a_500() {
    let server =
        serve(WsgiService::new(|_: Request<Input>| Response::builder().status(103).body(Output::empty())))
            .await;
    for version in VERSIONS {
        assert_eq!(server.ask(version, "GET", "/").await.status(), 500, "{version:?}");
    }
}

#[tokio::test]
async fn a14_no_content_has_no_length_and_not_modified_keeps_it() {
    let handler = |request: Request<Input>| {
        let status = request.uri().path()[1..].parse::<u16>().expect("a status");
        let response = Response::builder().status(status).header(CONTENT_LENGTH, 5).header(ETAG, "\"a\"");
        response.body(Output::from("hello"))
    };
    let server = serve(WsgiService::new(handler)).await;
    for version in VERSIONS {
        for method in ["GET", "HEAD"] {
            let response = server.ask(version, method, "/204").await;
            assert_eq!(response.status(), 204);
            assert!(!response.headers().contains_key(CONTENT_LENGTH), "{version:?} {method}");
            assert_eq!(text(response).await, "");

            let response = server.ask(version, method, "/304").await;
            assert_eq!(response.status(), 304);
            // hyper leaves it out of an answer to GET over HTTP/1.
            if version == Version::HTTP_2 || method == "HEAD" {
                assert_eq!(response.headers()[CONTENT_LENGTH], "5", "{version:?} {method}");
            }
            assert_eq!(response.headers()[ETAG], "\"a\"");
            assert_eq!(text(response).await, "");
        }
    }
}

#[tokio::test]
async fn a14_a_connection_goes_on_after_a_response_without_a_body() {
    let server = serve(WsgiService::new(|request: Request<Input>| {
        let status = request.uri().path()[1..].parse::<u16>().expect("a status");
        Response::builder().status(status).body(Output::iter(["hello"]))
    }))
    .await;
    let lines = ["HEAD /200", "GET /204", "GET /304", "HEAD /404", "GET /200"];
    let mut requests: Vec<_> = lines.map(|line| format!("{line} HTTP/1.1\r\nhost: a\r\n")).into();
    requests[4] += "connection: close\r\n";
    let responses = server.raw(requests.join("\r\n") + "\r\n").await;
    let responses = String::from_utf8(responses).expect("text");
    let mut heads = responses.split("HTTP/1.1 ").skip(1);
    for status in ["200", "204", "304", "404"] {
        let head = heads.next().expect("a response");
        assert!(head.starts_with(status) && head.ends_with("\r\n\r\n"), "{head}");
    }
    assert!(heads.next().expect("a response").ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
}

fn checksum() -> HeaderMap {
    HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"5d41\""))])
}

/// A response with trailers, of each kind there is.
fn trailed(request: Request<Input>) -> http::Result<Response<Output>> {
    let body = match request.uri().path() {
        "/full" => Output::from("hello").with_trailers(checksum),
        "/empty" => Output::empty().with_trailers(checksum),
        "/iter" => Output::iter(["hel", "lo"]).with_trailers(checksum),
        "/iter/empty" => Output::iter(["", ""]).with_trailers(checksum),
        "/reader" => Output::reader(&b"hello"[..]).with_trailers(checksum),
        "/writer" => Output::writer(|w| w.write_all(b"hello")).with_trailers(checksum),
        "/writer/own" => Output::writer(|w| {
            w.write_all(b"hel")?;
            w.flush()?;
            w.set_trailers(checksum());
            w.write_all(b"lo")
        }),
        "/writer/own/full" => Output::writer(|w| {
            w.set_trailers(checksum());
            w.write_all(b"hello")
        })
        .with_trailers(HeaderMap::new),
        _ => Output::body(Body::from("hello")).with_trailers(checksum),
    };
    Response::builder().header(TRAILER, "etag").body(body)
}

const TRAILED: [&str; 9] = [
    "/full",
    "/empty",
    "/iter",
    "/iter/empty",
    "/reader",
    "/writer",
    "/writer/own",
    "/writer/own/full",
    "/async",
];

#[tokio::test]
async fn a15_trailers_follow_the_body() {
    let service =
        ServiceBuilder::new().layer(WsgiLayer::adapter().workers(1).send_queue_size(1)).service(trailed);
    let server = serve(service).await;
    for version in VERSIONS {
        for path in TRAILED {
            let mut request = server.request("GET", path, Body::empty());
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
            let response = soon(server.send(version, request)).await.expect("a response");
            let body = soon(response.into_body().collect()).await.expect("a whole body");
            assert_eq!(body.trailers(), Some(&checksum()), "{version:?} {path}");
            let expected = if path.ends_with("/empty") { "" } else { "hello" };
            assert_eq!(body.to_bytes(), expected, "{version:?} {path}");
        }
    }
}

#[tokio::test]
async fn a15_over_http1_trailers_go_to_those_who_ask() {
    let server = serve(WsgiService::new(trailed)).await;
    for (asked, end) in [("te: trailers\r\n", "0\r\netag: \"5d41\"\r\n\r\n"), ("", "0\r\n\r\n")] {
        let request = format!("GET /iter HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{asked}\r\n");
        let response = String::from_utf8(server.raw(request).await).expect("text");
        assert!(response.ends_with(&format!("lo\r\n{end}")), "{response}");
    }
}

#[tokio::test]
async fn a15_a_body_that_fails_has_no_trailers() {
    let events = Events::new();
    let tell = events.teller();
    let server = serve(WsgiService::new(move |_: Request<Input>| {
        let tell = tell.clone();
        let body = Output::try_iter([Ok("half"), Err("no database")]);
        Response::new(body.with_trailers(move || {
            tell(());
            checksum()
        }))
    }))
    .await;
    let response = server.ask(Version::HTTP_2, "GET", "/").await;
    soon(response.into_body().collect()).await.expect_err("a body that was cut off");
    assert_eq!(events.drain(), [(); 0]);
}

#[tokio::test]
async fn a11_trailers_that_panic_cut_the_body_off() {
    let handler = |request: Request<Input>| {
        let body = match request.uri().path() {
            "/iter" => Output::iter(["hello"]),
            _ => Output::body(Body::from("hello")),
        };
        Response::new(body.with_trailers(|| panic!("no luck")))
    };
    let server = serve(WsgiService::new(handler)).await;
    for version in VERSIONS {
        for path in ["/iter", "/async"] {
            // Over HTTP/1 a failure may come before the head is on its way.
            let request = server.request("GET", path, Body::empty());
            if let Ok(response) = soon(server.send(version, request)).await {
                soon(response.into_body().collect()).await.expect_err("a body that was cut off");
            }
        }
    }
}
