//! B2 and B3: the calling thread polls the service itself, and request and response flow at the same time.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Read as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tower::{Layer as _, Service, service_fn};
use tower_wsgi::{AsgiHandler, AsgiLayer, Body, BoxError, Input, SyncHandler as _, WsgiService};

use super::{Answer, Tell, driven, fed, get, pipe, poll_body, post, read, reader};
use crate::support::{VERSIONS, serve, soon, text, watched};

/// Where the parts of a service ran.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(&'static str, ThreadId)>>>);

impl Seen {
    fn note(&self, what: &'static str) {
        self.0.lock().expect("a lock").push((what, thread::current().id()));
    }
}

#[derive(Clone)]
struct Noting(Seen);

impl Service<Request<Body>> for Noting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.note("poll_ready");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.note("call");
        let (seen, mut request) = (self.0.clone(), request.into_body());
        ready(Ok(Response::new(poll_body(move |cx| {
            seen.note("body");
            Pin::new(&mut request).poll_frame(cx)
        }))))
    }
}

#[test]
fn b2_all_of_a_ready_service_runs_on_the_calling_thread() {
    watched(|| {
        let seen = Seen::default();
        let response = AsgiHandler::new(Noting(seen.clone())).call(post("hello"));
        assert_eq!(read(response.expect("a response")).expect("a body"), "hello");
        let here = thread::current().id();
        let seen = seen.0.lock().expect("a lock");
        let expected = ["poll_ready", "call", "body", "body"].map(|what| (what, here));
        assert_eq!(*seen, expected);
    });
}

#[test]
fn b2_a_service_that_waits_stays_on_the_calling_thread() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            let before = thread::current().id();
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::spawn(async {}).await.expect("no panic");
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert([before, thread::current().id()]);
            Ok::<_, Infallible>(response)
        });
        let here = Some([thread::current().id(); 2]);
        let response = AsgiHandler::new(service).call(get()).expect("a response");
        assert_eq!(response.extensions().get().copied(), here);
        for runtime in driven() {
            let handler = AsgiLayer::adapter().runtime(runtime.handle.clone()).layer(service);
            let response = handler.call(get()).expect("a response");
            assert_eq!(response.extensions().get().copied(), here, "{}", runtime.name);
        }
    });
}

#[test]
fn b2_the_body_is_polled_by_the_thread_that_reads_it() {
    watched(|| {
        let seen = Seen::default();
        let input = reader(AsgiHandler::new(Noting(seen.clone())).call(post("hello")));
        let read = thread::spawn(move || {
            assert_eq!(std::io::read_to_string(input).expect("a body"), "hello");
            thread::current().id()
        });
        let there = read.join().expect("no panic");
        let seen = seen.0.lock().expect("a lock");
        assert_eq!(seen[2..], [("body", there), ("body", there)]);
    });
}

#[test]
fn b2_what_a_service_drops_it_drops_in_place() {
    watched(|| {
        let (tell, dropped) = Tell::new();
        let tell = Arc::new(Mutex::new(Some(tell)));
        let service = service_fn(move |_: Request<Body>| {
            let tell = tell.lock().expect("a lock").take();
            async move {
                tokio::task::yield_now().await;
                drop(tell);
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        reader(AsgiHandler::new(service).call(get()));
        let told = super::next(&dropped);
        assert_eq!(told.thread, thread::current().id());
        assert!(told.in_runtime);
    });
}

#[tokio::test]
async fn b2_a_worker_polls_the_service_itself() {
    let service = service_fn(|_: Request<Body>| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let name = thread::current().name().unwrap_or_default().to_owned();
        Ok::<_, Infallible>(Response::new(Body::from(name)))
    });
    let server = serve(WsgiService::new(AsgiHandler::new(service))).await;
    for version in VERSIONS {
        let response = server.ask(version, "GET", "/").await;
        assert_eq!(soon(text(response)).await, "tower-wsgi-worker", "{version:?}");
    }
}

/// Sends back what comes, as it comes.
async fn echo(request: Request<Body>) -> Answer {
    Ok(Response::new(request.into_body()))
}

/// Sends back what comes, by way of a task and another type of body.
async fn echo_by_task(request: Request<Body>) -> Answer {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let mut body = request.into_body();
    tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            if sender.send(frame).await.is_err() {
                break;
            }
        }
    });
    Ok(Response::new(poll_body(move |cx| receiver.poll_recv(cx))))
}

const PIECES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// Feeds each piece only when the one before has come back, then the end.
fn converse(mut response: Input, mut feed: impl FnMut(Option<&'static str>)) {
    for piece in PIECES {
        feed(Some(piece));
        let mut back = vec![0; piece.len()];
        response.read_exact(&mut back).expect("an echo");
        assert_eq!(back, piece.as_bytes());
    }
    feed(None);
    assert_eq!(response.chunk().expect("the end"), None);
}

fn converse_with<S>(service: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + 'static,
{
    let driven = driven();
    let [multi, current] = &driven;
    let layers = [
        AsgiLayer::adapter(),
        AsgiLayer::adapter().runtime(multi.handle.clone()),
        AsgiLayer::adapter().runtime(current.handle.clone()),
    ];
    for layer in layers {
        let handler = layer.layer(service.clone());
        let whole = PIECES.concat().len() as u64;
        for length in [None, Some(whole)] {
            let declare = |input: Input| match length {
                Some(length) => input.with_length(length),
                None => input,
            };
            let (feed, pipe) = pipe();
            let mut feed = Some(feed);
            let response = reader(handler.call(post(declare(Input::reader(pipe)))));
            converse(response, |piece| match piece {
                Some(piece) => feed.as_ref().expect("a feed").send(piece).expect("a reader"),
                None => feed = None,
            });
            let (feed, body) = fed();
            let mut feed = Some(feed);
            let response = reader(handler.call(post(declare(Input::new(body)))));
            converse(response, |piece| match piece {
                Some(piece) => feed.as_ref().expect("a feed").send(piece).expect("a body"),
                None => feed = None,
            });
        }
    }
}

#[test]
fn b3_an_echo_comes_back_piece_by_piece() {
    watched(|| converse_with(service_fn(echo)));
}

#[test]
fn b3_an_echo_by_a_task_comes_back_piece_by_piece() {
    watched(|| converse_with(service_fn(echo_by_task)));
}

#[test]
fn b3_an_echo_inside_the_callers_runtime_comes_back_piece_by_piece() {
    watched(|| {
        for runtime in driven() {
            let _inside = runtime.handle.enter();
            converse_with(service_fn(echo));
        }
    });
}

#[test]
fn b3_a_service_that_waits_on_its_request_goes_on_with_its_response() {
    /// Ticks until the request is complete.
    async fn ticking(request: Request<Body>) -> Answer {
        let (sender, mut receiver) = oneshot::channel();
        tokio::spawn(async move {
            let _ = sender.send(request.into_body().collect().await.map(http_body_util::Collected::to_bytes));
        });
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut over = false;
        Ok(Response::new(poll_body(move |cx| {
            if over {
                return Poll::Ready(None);
            }
            if let Poll::Ready(request) = Pin::new(&mut receiver).poll(cx) {
                over = true;
                return Poll::Ready(Some(request.map_err(Into::into).flatten().map(Frame::data)));
            }
            ticks.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from("tick")))))
        })))
    }

    watched(|| {
        let requests: [fn() -> (Feeder, Input); 2] = [
            || {
                let (feed, pipe) = pipe();
                (Box::new(move |piece| feed.send(piece).expect("a reader")), Input::reader(pipe))
            },
            || {
                let (feed, body) = fed();
                (Box::new(move |piece| feed.send(piece).expect("a body")), Input::new(body))
            },
        ];
        for make in requests {
            let (feed, input) = make();
            let mut response = reader(AsgiHandler::new(service_fn(ticking)).call(post(input)));
            for piece in ["hel", "lo"] {
                for _ in 0..3 {
                    assert_eq!(response.chunk().expect("a tick").as_deref(), Some(&b"tick"[..]));
                }
                feed(piece);
            }
            drop(feed);
            let rest = std::io::read_to_string(response).expect("the rest");
            assert_eq!(rest.trim_start_matches("tick"), "hello");
        }
    });
}

/// Gives a request its next piece; its drop ends the request.
type Feeder = Box<dyn Fn(&'static str)>;

#[test]
fn b3_a_service_waits_for_its_request_before_its_head() {
    watched(|| {
        let service = service_fn(|request: Request<Body>| async {
            let body = request.into_body().collect().await?.to_bytes();
            Ok::<_, BoxError>(Response::new(Body::from(body)))
        });
        let (feed, pipe) = pipe();
        let sender = thread::spawn(move || PIECES.map(|piece| feed.send(piece).expect("a reader")));
        let response = AsgiHandler::new(service).call(post(Input::reader(pipe)));
        assert_eq!(read(response.expect("a response")).expect("a body"), PIECES.concat());
        sender.join().expect("no panic");
    });
}

#[test]
fn b3_a_response_can_end_before_its_request() {
    watched(|| {
        let service = service_fn(|request: Request<Body>| async {
            let mut body = request.into_body();
            let first = body.frame().await.expect("a frame")?;
            Ok::<_, BoxError>(Response::new(Body::from(first.into_data().expect("data"))))
        });
        let (feed, pipe) = pipe();
        feed.send("first").expect("a reader");
        let response = AsgiHandler::new(service).call(post(Input::reader(pipe)));
        assert_eq!(read(response.expect("a response")).expect("a body"), "first");
        drop(feed);
    });
}

#[tokio::test]
async fn b3_an_echo_through_a_worker_is_full_duplex() {
    for by_task in [false, true] {
        let service = service_fn(move |request| async move {
            if by_task { echo_by_task(request).await } else { echo(request).await }
        });
        let server = serve(WsgiService::new(AsgiHandler::new(service))).await;
        for version in VERSIONS {
            let (feed, body) = fed();
            // hyper's client and server each wait for a first piece.
            feed.send(PIECES[0]).expect("a body");
            let request = server.request("POST", "/", body);
            let mut back = soon(server.send(version, request)).await.expect("a response").into_body();
            for (back_now, next) in PIECES.iter().zip(&PIECES[1..]) {
                let frame = soon(back.frame()).await.expect("a frame").expect("a frame");
                assert_eq!(frame.into_data().expect("data"), back_now, "{version:?}");
                feed.send(next).expect("a body");
            }
            drop(feed);
            assert_eq!(soon(back.collect()).await.expect("a whole body").to_bytes(), PIECES[4]);
        }
    }
}
