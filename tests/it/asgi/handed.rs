//! A4, A9, B6: bodies that a middleware hands on, that are declared late, that are read elsewhere, or whose drop panics.

use std::convert::Infallible;
use std::io::{self, BufRead as _, Read as _};
use std::sync::{Arc, mpsc as std_mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::post as on_post;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, Body, BoxError, Error, Input, Output, SyncHandler, WorkerPool, WsgiLayer, WsgiService,
    gateway, sync_fn,
};

use super::{Answer, cause, chunks, fed, get, poll_body, post, read};
use crate::support::{Events, Probe, Scripted, idle, is_worker, soon, watched};

/// How a middleware hands a body on.
type HandOn = fn(Output) -> Output;

const WAYS: [(&str, HandOn); 4] = [
    ("as it is", |body| Output::from(body.into_reader())),
    ("as a body", |body| Output::body(body.into_reader().into_body())),
    ("peeked at", |body| Output::from(peeked(body))),
    ("peeked at, as a body", |body| Output::body(peeked(body).into_body())),
];

/// A body whose first bytes somebody has looked at.
fn peeked(body: Output) -> Input {
    let mut input = body.into_reader();
    assert!(!input.fill_buf().expect("a chunk").is_empty());
    input
}

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a4_an_iterator_that_a_middleware_hands_on_holds_no_thread() {
    const STALLED: usize = if cfg!(miri) { 5 } else { 50 };

    for (way, hand_on) in WAYS {
        let (pool, made, dropped) = (WorkerPool::new(2), Events::new(), Arc::new(Events::new()));
        let (tell, drops) = (made.teller(), dropped.clone());
        let app = move |request: Request<Input>| {
            if request.uri().path() == "/small" {
                return Response::new(Output::from("small"));
            }
            let (tell, probe) = (tell.clone(), Probe::new(&drops));
            Response::new(Output::iter((0..1000).map(move |_| {
                let _held = &probe;
                tell(thread_name());
                "chunk"
            })))
        };
        let middleware = sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            next.call(request).map(|response| response.map(hand_on))
        });
        let service = WsgiLayer::adapter().pool(pool.clone()).layer(middleware.layer(app));
        let ask = |path: &str| {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let call = service.clone().oneshot(request);
            async { soon(call).await.expect("a response").into_body() }
        };
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            let mut body = ask("/").await;
            soon(body.frame()).await.expect("a frame").expect("no error");
            stalled.push(body);
        }
        // No worker waits with them, and others are served.
        idle(&pool).await;
        let small = soon(ask("/small").await.collect()).await.expect("a body").to_bytes();
        assert_eq!(small, "small", "{way}");
        drop(stalled);
        for _ in 0..STALLED {
            let thread = dropped.next().await;
            assert!(is_worker(&thread), "{way}: dropped on {thread:?}");
        }
        let threads = made.drain();
        assert!(threads.len() >= STALLED, "{way}");
        assert!(threads.iter().all(|thread| is_worker(thread)), "{way}: {threads:?}");
        idle(&pool).await;
        assert!(dropped.drain().is_empty(), "{way}: dropped twice");
    }
}

#[tokio::test]
async fn a9_an_iterator_that_a_middleware_hands_on_is_dropped_once_on_a_worker() {
    for (way, hand_on) in WAYS {
        let (pool, dropped) = (WorkerPool::new(1), Arc::new(Events::new()));
        let drops = dropped.clone();
        let app = move |_: Request<Input>| {
            let probe = Probe::new(&drops);
            Response::new(Output::iter((0..100).map(move |n| {
                let _held = &probe;
                format!("{n} ")
            })))
        };
        let middleware = sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            next.call(request).map(|response| response.map(hand_on))
        });
        let service = WsgiLayer::adapter().pool(pool.clone()).layer(middleware.layer(app));
        let response = soon(service.oneshot(Request::new(Body::empty()))).await.expect("a response");
        let bytes = soon(response.into_body().collect()).await.expect("a body").to_bytes();
        let expected: String = (0..100).map(|n| format!("{n} ")).collect();
        assert_eq!(bytes, expected, "{way}");
        let thread = dropped.next().await;
        assert!(is_worker(&thread), "{way}: dropped on {thread:?}");
        idle(&pool).await;
        assert!(dropped.drain().is_empty(), "{way}: dropped twice");
    }
}

#[test]
fn b6_an_iterator_that_a_middleware_hands_on_runs_on_the_thread_that_reads() {
    watched(|| {
        for (way, hand_on) in WAYS {
            let app = |_: Request<Input>| {
                Response::new(Output::iter((0..3).map(|_| format!("{:?}\n", thread::current().id()))))
            };
            let middleware = sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
                next.call(request).map(|response| response.map(hand_on))
            });
            let response = gateway::respond(&middleware.layer(app), get());
            let text = io::read_to_string(response.into_body()).expect("a body");
            assert_eq!(text, format!("{:?}\n", thread::current().id()).repeat(3), "{way}");
        }
    });
}

/// Gives so many chunks; its drop panics.
struct Bomb {
    left: usize,
    dropped: std_mpsc::Sender<()>,
}

impl Iterator for Bomb {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        self.left = self.left.checked_sub(1)?;
        Some("chunk ")
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        let _ = self.dropped.send(());
        panic!("a drop fails");
    }
}

#[test]
fn a11_a_panic_in_the_drop_of_an_iterator_that_has_ended_stays_inside() {
    watched(|| {
        for left in [0, 1, 3] {
            let (dropped, drops) = std_mpsc::channel();
            let app =
                move |_: Request<Input>| Response::new(Output::iter(Bomb { left, dropped: dropped.clone() }));
            let response = gateway::respond(&app, get());
            assert_eq!(response.status(), 200, "{left}");
            let text = io::read_to_string(response.into_body()).expect("a body");
            assert_eq!(text, "chunk ".repeat(left));
            super::next(&drops);
            assert!(drops.try_recv().is_err(), "dropped twice");
        }
    });
}

#[test]
fn a11_a_panic_in_the_drop_of_a_body_that_is_not_sent_stays_inside() {
    watched(|| {
        let (dropped, drops) = std_mpsc::channel();
        let app = move |request: Request<Input>| {
            let mut response = Response::new(Output::iter(Bomb { left: 1, dropped: dropped.clone() }));
            if request.method() == http::Method::GET {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("three"));
            }
            response
        };
        let response = gateway::respond(&app, get());
        assert_eq!(response.status(), 500);
        assert!(response.extensions().get::<Error>().expect("an error").is_response());
        super::next(&drops);
        let head = Request::head("/").body(Input::empty()).expect("a request");
        assert_eq!(gateway::respond(&app, head).status(), 200);
        super::next(&drops);
    });
}

#[test]
fn a7_a_response_that_gets_its_length_late_is_cut_off() {
    let body = || Output::iter(["0123456789", "abc"]).into_reader();
    // What was taken is gone; what was only looked at is not.
    let mut taken = body();
    assert_eq!(taken.chunk().expect("a chunk").as_deref(), Some(&b"0123456789"[..]));
    let mut over = taken.with_length(5);
    assert_eq!(over.chunk().expect("the end"), None);

    for (length, expected) in [(5, "01234"), (10, "0123456789"), (12, "0123456789ab"), (13, "0123456789abc")]
    {
        let mut looked_at = body();
        looked_at.fill_buf().expect("a chunk");
        let text = io::read_to_string(looked_at.with_length(length)).expect("a body");
        assert_eq!(text, expected, "{length}");
    }

    let mut short = body();
    io::copy(&mut short, &mut io::sink()).expect("a body");
    let error = short.with_length(14).chunk().expect_err("an error");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(cause::<Error>(&error).is_length());
}

#[test]
fn a2_a_request_that_gets_its_length_late_is_held_to_it() {
    watched(|| {
        let looked_at = || {
            let mut input = Input::from("0123456789");
            input.fill_buf().expect("a chunk");
            input
        };
        let taken = || {
            let mut input = Input::from("0123456789");
            input.chunk().expect("a chunk");
            input
        };
        for input in [Input::from("0123456789"), looked_at(), taken()] {
            let error = io::copy(&mut input.with_length(5), &mut io::sink()).expect_err("an error");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(cause::<Error>(&error).is_length());
        }
        for input in [Input::from("0123456789"), looked_at(), taken()] {
            let error = io::copy(&mut input.with_length(11), &mut io::sink()).expect_err("an error");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert!(cause::<Error>(&error).is_length());
        }
        assert_eq!(io::read_to_string(looked_at().with_length(10)).expect("a body"), "0123456789");
        assert_eq!(taken().with_length(10).chunk().expect("the end"), None);
    });
}

#[test]
fn b6_a_length_that_was_declared_holds_for_a_body_that_was_peeked_at() {
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|request: Request<Body>| async move {
            let text = match request.into_body().collect().await {
                Ok(body) => format!("{:?}", body.to_bytes()),
                Err(error) => {
                    assert!(cause::<Error>(&io::Error::other(error)).is_length());
                    "another length".to_owned()
                }
            };
            Ok::<_, Infallible>(Response::new(Body::from(text)))
        }));
        for (declared, expected) in [("3", "another length"), ("5", r#"b"hello""#), ("9", "another length")] {
            for peek in [false, true] {
                for mut input in [Input::from("hello"), Input::new(chunks(["hello"]))] {
                    if peek {
                        input.fill_buf().expect("a chunk");
                    }
                    let mut request = post(input);
                    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(declared));
                    let text = read(handler.call(request).expect("a response")).expect("a body");
                    assert_eq!(text, expected, "declared {declared}, peeked at: {peek}");
                }
            }
        }
    });
}

/// Reads its request, and passes its failure on.
async fn reads(request: Request<Body>) -> Answer {
    let bytes = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Body::from(bytes)))
}

fn hurried() -> WsgiLayer {
    WsgiLayer::adapter().workers(1).prefetch(0).read_timeout(Duration::from_millis(20))
}

#[tokio::test]
async fn a2_a_read_timeout_reaches_an_async_service() {
    let service = service_fn(|request: Request<Body>| async {
        let text = match request.into_body().collect().await {
            Ok(body) => format!("{:?}", body.to_bytes()),
            Err(error) => {
                assert!(cause::<Error>(&io::Error::other(error)).is_timed_out());
                "too late".to_owned()
            }
        };
        Ok::<_, Infallible>(Response::new(Body::from(text)))
    });
    let service = hurried().layer(AsgiHandler::new(service));
    for sent in [&[][..], &["some"]] {
        let (sender, body) = fed();
        for piece in sent {
            sender.send(piece).expect("a body");
        }
        let call = service.clone().oneshot(Request::post("/").body(body).expect("a request"));
        let body = soon(call).await.expect("a response").into_body();
        assert_eq!(body.collect().await.expect("a body").to_bytes(), "too late", "{sent:?}");
    }
    // One that is in time is none the wiser.
    let body = soon(service.oneshot(Request::new(chunks(["in ", "time"])))).await.expect("a response");
    assert_eq!(body.into_body().collect().await.expect("a body").to_bytes(), r#"b"in time""#);
}

#[tokio::test]
async fn a12_a_body_that_comes_too_slowly_to_an_async_service_is_a_408() {
    let service = hurried().layer(AsgiHandler::new(service_fn(reads)));
    let (_sender, body) = fed();
    let call = service.oneshot(Request::post("/").body(body).expect("a request"));
    let response = soon(call).await.expect("a response");
    let error = response.extensions().get::<Error>().expect("an error");
    assert!(error.is_handler(), "{error:?}");
    assert_eq!(response.status(), 408);
}

#[tokio::test]
async fn a12_a_body_that_breaks_off_under_an_async_service_is_a_400() {
    let service = WsgiLayer::adapter().workers(1).prefetch(0).layer(AsgiHandler::new(service_fn(reads)));
    let ends = [("fails", Some(Err("gone".into()))), ("ends", None)];
    for (how, end) in ends {
        let frames = [Ok(Frame::data("some".into()))].into_iter().chain(end);
        let mut request = Request::post("/");
        // One that only ends is whole, unless more was declared.
        if how == "ends" {
            request = request.header(CONTENT_LENGTH, 10);
        }
        let request = request.body(Body::new(Scripted::new(frames))).expect("a request");
        let response = soon(service.clone().oneshot(request)).await.expect("a response");
        assert_eq!(response.status(), 400, "{how}");
    }
}

#[tokio::test]
async fn a12_a_body_that_comes_too_slowly_to_an_extractor_is_its_to_answer() {
    let router = Router::<()>::new().route("/", on_post(|text: String| async move { text }));
    let service = hurried().layer(AsgiHandler::new(router));
    let (_sender, body) = fed();
    let call = service.oneshot(Request::post("/").body(body).expect("a request"));
    assert_eq!(soon(call).await.expect("a response").status(), 400);
}

#[tokio::test]
async fn b6_a_body_can_be_read_by_another_thread_than_the_worker() {
    let handler = AsgiHandler::new(service_fn(|_: Request<Body>| async {
        let mut timer = None;
        let mut text = Some("late");
        Ok::<_, Infallible>(Response::new(poll_body(move |cx| {
            // It needs its runtime, and not before it is read.
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(1))));
            match timer.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    Poll::Ready(text.take().map(|text| Ok(http_body::Frame::data(text.into()))))
                }
                Poll::Pending => Poll::Pending,
            }
        })))
    }));
    let app = move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let body = handler.call(request)?.into_body();
        let reading = thread::spawn(move || {
            let mut text = String::new();
            body.into_reader().read_to_string(&mut text).map(|_| text)
        });
        Ok(Response::new(reading.join().expect("no panic")?.into()))
    };
    let response =
        soon(WsgiService::new(app).oneshot(Request::new(Body::empty()))).await.expect("a response");
    assert_eq!(response.status(), 200, "{:?}", response.extensions().get::<Error>());
    assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "late");
}
