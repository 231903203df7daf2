//! A3 to A7: what a handler returns, on its way to the client.

use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_wsgi::{Body, BoxError, Error, Input, Output, SyncHandler, WorkerPool, WsgiLayer, WsgiService};

use crate::support::{Events, Gate, Probe, VERSIONS, eventually, idle, is_worker, serve, soon, text};

/// Makes an output, or one of the given bytes.
type Make = fn() -> Output;
type MakeOf = Box<dyn Fn(Bytes) -> Output + Send + Sync>;

/// A handler that answers each request with the output that `make` makes.
fn answer(make: impl Fn() -> Output + Send + Sync + 'static) -> impl SyncHandler {
    move |_: Request<Input>| Response::new(make())
}

fn with_length(length: &'static str, make: impl Fn() -> Output + Send + Sync + 'static) -> impl SyncHandler {
    move |_: Request<Input>| {
        let mut response = Response::new(make());
        response.headers_mut().insert("content-length", HeaderValue::from_static(length));
        response
    }
}

/// A request without a body, for a service in this process.
fn request() -> Request<Body> {
    Request::new(Body::empty())
}

#[tokio::test]
async fn a3_at_most_the_queue_is_ahead_of_the_client() {
    let produced = Arc::new(AtomicUsize::new(0));
    let counter = produced.clone();
    let pool = WorkerPool::new(2);
    let handler = answer(move || {
        let counter = counter.clone();
        Output::iter((0..99_999).map(move |n| {
            counter.fetch_add(1, Ordering::SeqCst);
            format!("{n}\n")
        }))
    });
    let service = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(10).layer(handler);
    let response = service.oneshot(request()).await.expect("a response");
    idle(&pool).await;
    assert_eq!(produced.load(Ordering::SeqCst), 10);

    let mut body = response.into_body();
    for taken in 1..=100 {
        soon(body.frame()).await.expect("a frame").expect("no error");
        idle(&pool).await;
        let ahead = produced.load(Ordering::SeqCst) - taken;
        assert!(ahead <= 10, "{ahead} chunks are ahead");
    }
    let rest = soon(body.collect()).await.expect("the rest").to_bytes();
    assert!(rest.ends_with(b"99997\n99998\n"));
    assert_eq!(produced.load(Ordering::SeqCst), 99_999);
}

#[tokio::test]
async fn a3_every_chunk_arrives_in_order_whatever_the_queue_size() {
    let expected: String = (0..5_000).map(|n| format!("{n}\n")).collect();
    for size in [1, 2, 3, 10] {
        let service = WsgiLayer::adapter()
            .send_queue_size(size)
            .layer(answer(|| Output::iter((0..5_000).map(|n| format!("{n}\n")))));
        let response = service.oneshot(request()).await.expect("a response");
        let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
        assert_eq!(body, expected, "queue of {size}");
    }
}

#[tokio::test]
async fn a3_a_writer_gathers_and_flush_sends() {
    let server = serve(WsgiService::new(answer(|| {
        Output::writer(|w| {
            write!(w, "a")?;
            write!(w, "b")?;
            w.flush()?;
            write!(w, "c")
        })
    })))
    .await;
    let request = server.request("GET", "/", Body::empty());
    let mut body = server.send(Version::HTTP_2, request).await.expect("a response").into_body();
    let mut frames = Vec::new();
    while let Some(frame) = soon(body.frame()).await {
        frames.extend(frame.expect("a frame").into_data().ok().filter(|data| !data.is_empty()));
    }
    assert_eq!(frames, ["ab", "c"]);
}

#[tokio::test]
async fn a3_a_flushed_chunk_arrives_while_the_writer_goes_on() {
    let gate = Gate::new();
    let inside = gate.clone();
    let server = serve(WsgiService::new(answer(move || {
        let gate = inside.clone();
        Output::writer(move |w| {
            write!(w, "progress")?;
            w.flush()?;
            gate.pass();
            w.send(" done")
        })
    })))
    .await;
    for version in VERSIONS {
        let request = server.request("GET", "/", Body::empty());
        let mut body = server.send(version, request).await.expect("a response").into_body();
        let first = soon(body.frame()).await.expect("a frame").expect("no error");
        assert_eq!(first.into_data().expect("data"), "progress");
        gate.open();
        assert_eq!(soon(body.collect()).await.expect("the rest").to_bytes(), " done");
    }
}

#[tokio::test]
async fn a3_a_writer_waits_for_its_client() {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let pool = WorkerPool::new(1);
    let handler = answer(move || {
        let counter = counter.clone();
        Output::writer(move |w| {
            for _ in 0..100 {
                w.send("0123456789")?;
                counter.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })
    });
    let service = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(4).layer(handler);
    let response = service.oneshot(request()).await.expect("a response");
    eventually("the queue is full", || written.load(Ordering::SeqCst) == 4).await;
    assert_eq!(pool.stats().busy, 1);
    let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
    assert_eq!(body.len(), 1_000);
}

#[tokio::test]
async fn a3_a_large_body_arrives_whole_by_every_kind_of_output() {
    const SIZE: usize = 8 << 20;
    let bytes: Bytes = (0..SIZE).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    let kinds: [(&str, MakeOf); 5] = [
        ("full", Box::new(Output::from)),
        (
            "chunks",
            Box::new(|b| Output::iter((0..SIZE / 4096).map(move |n| b.slice(n * 4096..(n + 1) * 4096)))),
        ),
        ("reader", Box::new(|b| Output::reader(io::Cursor::new(b)))),
        ("writer", Box::new(|b| Output::writer(move |w| b.chunks(1000).try_for_each(|c| w.write_all(c))))),
        ("async", Box::new(|b| Output::body(http_body_util::Full::new(b)))),
    ];
    for (kind, make) in kinds {
        let source = bytes.clone();
        let server = serve(WsgiService::new(answer(move || make(source.clone())))).await;
        for version in VERSIONS {
            let request = server.request("GET", "/", Body::empty());
            let response = soon(server.send(version, request)).await.expect("a response");
            let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
            assert!(body == bytes, "{kind} over {version:?}");
        }
    }
}

#[tokio::test]
async fn a5_a_failure_before_the_first_chunk_is_a_clean_500() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no disk"))
        }
    }
    let kinds: [(&str, Make); 6] = [
        ("chunks", || Output::try_iter([Ok(""), Err("no database")])),
        ("reader", || Output::reader(Broken)),
        ("writer", || {
            Output::writer(|w| {
                write!(w, "gathered, not sent")?;
                Err(io::Error::other("no disk"))
            })
        }),
        ("panicking chunks", || Output::iter((0..1).map(|_| -> &str { panic!("on purpose") }))),
        ("panicking writer", || Output::writer(|_| panic!("on purpose"))),
        ("panicking trailers", || Output::from("").with_trailers(|| panic!("on purpose"))),
    ];
    for (kind, make) in kinds {
        let server = serve(WsgiService::new(answer(make))).await;
        for version in VERSIONS {
            let request = server.request("GET", "/", Body::empty());
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.status(), 500, "{kind} over {version:?}");
            assert_eq!(text(response).await, "Internal Server Error\n");
        }
    }
}

#[tokio::test]
async fn a5_the_head_waits_for_the_first_chunk_that_is_not_empty() {
    let gate = Gate::new();
    let inside = gate.clone();
    let asked = Events::new();
    let tell = asked.teller();
    let service = WsgiService::new(answer(move || {
        let (gate, tell) = (inside.clone(), tell.clone());
        Output::iter((0..3).map(move |n| {
            tell(n);
            if n == 2 {
                gate.pass();
                "text"
            } else {
                ""
            }
        }))
    }));
    let mut response = tokio_test(service.oneshot(request()));
    assert!(response.is_pending());
    for n in 0..3 {
        assert_eq!(asked.next().await, n);
        assert!(response.is_pending(), "a head before the first bytes");
    }
    gate.open();
    let response = soon(response.finish()).await.expect("a response");
    assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "text");
}

#[tokio::test]
async fn a5_a_body_of_empty_chunks_is_an_empty_body() {
    let server = serve(WsgiService::new(answer(|| Output::iter(["", "", ""])))).await;
    let response = server.get("/").await;
    assert_eq!(response.headers()["content-length"], "0");
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn a6_what_ends_after_the_first_chunk_is_seen_by_the_client() {
    let kinds: [(&str, Make); 4] = [
        ("error", || Output::try_iter([Ok("half a page"), Err("no database")])),
        ("panic", || Output::iter((0..2).map(|n| if n == 0 { "half a page" } else { panic!("on purpose") }))),
        ("writer's error", || {
            Output::writer(|w| {
                w.send("half a page")?;
                Err(io::Error::other("no disk"))
            })
        }),
        ("writer's panic", || {
            Output::writer(|w| {
                w.send("half a page")?;
                panic!("on purpose")
            })
        }),
    ];
    for (kind, make) in kinds {
        let server = serve(WsgiService::new(answer(make))).await;
        for version in VERSIONS {
            let request = server.request("GET", "/", Body::empty());
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.status(), 200, "{kind} over {version:?}");
            let mut body = response.into_body();
            let first = soon(body.frame()).await.expect("a frame").expect("what came before");
            assert_eq!(first.into_data().expect("data"), "half a page", "{kind} over {version:?}");
            let rest = soon(body.collect()).await;
            assert!(rest.is_err(), "a clean end after a {kind} over {version:?}");
        }
    }
}

#[tokio::test]
async fn a6_a_body_that_fails_says_why_and_then_has_ended() {
    let service = WsgiService::new(answer(|| Output::try_iter([Ok("a"), Err("no database")])));
    let mut body = service.oneshot(request()).await.expect("a response").into_body();
    soon(body.frame()).await.expect("a frame").expect("the chunk");
    let error: BoxError = soon(body.frame()).await.expect("a frame").expect_err("the failure");
    let error = error.downcast_ref::<Error>().expect("the crate's error");
    assert!(error.is_handler());
    assert_eq!(std::error::Error::source(error).expect("a source").to_string(), "no database");
    assert!(http_body::Body::is_end_stream(&body));
    assert!(soon(body.frame()).await.is_none());
}

#[tokio::test]
async fn a7_what_goes_over_the_declared_length_is_cut_off() {
    let kinds: [(&str, Make); 4] = [
        ("full", || "foobar".into()),
        ("chunks", || Output::iter(["fo", "ob", "ar"])),
        ("writer", || {
            Output::writer(|w| {
                w.send("foobar").expect_err("more than declared");
                Ok(())
            })
        }),
        ("async", || Output::body(Unsized(vec!["foobar"]))),
    ];
    for (kind, make) in kinds {
        let server = serve(WsgiService::new(with_length("3", make))).await;
        // Two requests on one connection: what went over must not become the second response's head.
        let raw = server
            .raw("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await;
        let raw = String::from_utf8(raw).expect("text");
        let heads = raw.matches("HTTP/1.1 200 OK\r\n").count();
        assert_eq!((heads, raw.matches("\r\n\r\nfoo").count(), raw.contains("bar")), (2, 2, false), "{kind}");
        let response = server
            .send(Version::HTTP_2, server.request("GET", "/", Body::empty()))
            .await
            .expect("a response");
        assert_eq!(text(response).await, "foo", "{kind}");
    }
}

#[tokio::test]
async fn a7_what_falls_short_of_the_declared_length_is_aborted() {
    let kinds: [(&str, Make); 3] = [
        ("chunks", || Output::iter(["foo"])),
        ("writer", || Output::writer(|w| w.send("foo"))),
        ("async", || Output::body(Unsized(vec!["foo"]))),
    ];
    for (kind, make) in kinds {
        let server = serve(WsgiService::new(with_length("6", make))).await;
        for version in VERSIONS {
            let request = server.request("GET", "/", Body::empty());
            let response = soon(server.send(version, request)).await.expect("a response");
            assert!(soon(response.into_body().collect()).await.is_err(), "{kind} over {version:?}");
        }
    }
}

#[tokio::test]
async fn a7_a_length_that_is_known_to_be_wrong_beforehand_is_a_500() {
    let kinds: [(&str, &'static str, Make); 4] = [
        ("short", "6", || "foo".into()),
        ("empty", "6", || Output::iter([""; 0])),
        ("unflushed", "6", || Output::writer(|w| write!(w, "foo"))),
        ("no number", "+3", || "foo".into()),
    ];
    for (kind, length, make) in kinds {
        let server = serve(WsgiService::new(with_length(length, make))).await;
        assert_eq!(server.get("/").await.status(), 500, "{kind}");
    }
}

#[tokio::test]
async fn a7_two_declared_lengths_are_a_500() {
    let server = serve(WsgiService::new(|_: Request<Input>| {
        let mut response = Response::new(Output::from("foo"));
        response.headers_mut().append("content-length", HeaderValue::from_static("3"));
        response.headers_mut().append("content-length", HeaderValue::from_static("4"));
        response
    }))
    .await;
    assert_eq!(server.get("/").await.status(), 500);
}

#[tokio::test]
async fn a7_a_declared_length_that_is_kept_is_sent() {
    let server = serve(WsgiService::new(with_length("6", || Output::iter(["foo", "", "bar"])))).await;
    for version in VERSIONS {
        let request = server.request("GET", "/", Body::empty());
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(response.headers()["content-length"], "6");
        assert_eq!(text(response).await, "foobar");
    }
}

#[tokio::test]
async fn a7_a_body_that_went_over_its_length_is_asked_for_nothing_more() {
    for queue in 1..=3 {
        let make = || Output::try_iter([Ok("foobar"), Err("it was asked again")]);
        let service = WsgiLayer::adapter().send_queue_size(queue).layer(with_length("5", make));
        let response = service.oneshot(request()).await.expect("a response");
        let body = soon(response.into_body().collect()).await.expect("a whole body");
        assert_eq!(body.to_bytes(), "fooba", "with a queue of {queue}");
    }
}

#[tokio::test]
async fn a9_a_body_that_was_cut_off_by_its_length_is_dropped_on_a_worker() {
    let dropped = Events::new();
    let probe = Probe::new(&dropped);
    let probe = std::sync::Mutex::new(Some(probe));
    let handler = with_length("3", move || {
        let probe = probe.lock().expect("a lock").take();
        Output::iter((0..).map(move |_| {
            let _held = &probe;
            "foobar"
        }))
    });
    let response = WsgiService::new(handler).oneshot(request()).await.expect("a response");
    assert_eq!(soon(response.into_body().collect()).await.expect("a body").to_bytes(), "foo");
    assert!(is_worker(&dropped.next().await));
}

#[tokio::test]
async fn headers_that_no_client_may_be_sent_cannot_be_made() {
    assert!(HeaderValue::from_bytes(b"a\r\nset-cookie: b").is_err());
    let server = serve(WsgiService::new(|_: Request<Input>| {
        let mut response = Response::new("");
        response.headers_mut().insert("x-name", HeaderValue::from_bytes(b"caf\xe9").expect("latin-1"));
        response
    }))
    .await;
    let response = server.get("/").await;
    assert_eq!(response.headers()["x-name"].as_bytes(), b"caf\xe9");
}

/// An async body that does not know its size.
struct Unsized(Vec<&'static str>);

impl http_body::Body for Unsized {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let chunk = self.0.pop();
        std::task::Poll::Ready(chunk.map(|chunk| Ok(http_body::Frame::data(chunk.into()))))
    }
}

/// A future that the test polls by hand.
struct Polled<F>(std::pin::Pin<Box<F>>);

fn tokio_test<F: Future>(future: F) -> Polled<F> {
    Polled(Box::pin(future))
}

impl<F: Future> Polled<F> {
    fn is_pending(&mut self) -> bool {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        self.0.as_mut().poll(&mut cx).is_pending()
    }

    async fn finish(self) -> F::Output {
        self.0.await
    }
}

#[tokio::test]
async fn a3_small_writes_are_gathered() {
    let handler = |_: Request<Input>| {
        Response::new(Output::writer(|w| (0..40).try_for_each(|_| io::Write::write_all(w, &[b'x'; 1024]))))
    };
    let response = soon(WsgiLayer::adapter().layer(handler).oneshot(Request::new(Body::empty()))).await;
    let mut body = response.expect("a response").into_body();
    let mut lengths = Vec::new();
    while let Some(frame) = soon(body.frame()).await {
        lengths.extend(frame.expect("a frame").into_data().map(|data| data.len()));
    }
    assert_eq!(lengths, [16 * 1024, 16 * 1024, 8 * 1024]);
}

#[tokio::test]
async fn a8_a_writer_that_only_flushes_sees_its_client_leave() {
    let events = Events::new();
    let tell = events.teller();
    let handler = move |_: Request<Input>| {
        let tell = tell.clone();
        Response::new(Output::writer(move |w| {
            w.send("first")?;
            let left = loop {
                if let Err(left) = w.flush() {
                    break left;
                }
                std::thread::yield_now();
            };
            tell(left.kind());
            Err(left)
        }))
    };
    let response = soon(WsgiService::new(handler).oneshot(Request::new(Body::empty()))).await;
    drop(response.expect("a response"));
    assert_eq!(events.next().await, io::ErrorKind::BrokenPipe);
}
