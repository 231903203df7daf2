//! B6: a service that fails or panics is an error from the call, and a body that does is one from the read.

use std::convert::Infallible;
use std::future::{Ready, pending, poll_fn, ready};
use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use tower::timeout::TimeoutLayer;
use tower::{Layer as _, Service, ServiceBuilder, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_wsgi::{AsgiHandler, AsgiLayer, Body, BoxError, Error, Input, SyncHandler, WsgiService};

use super::{Broken, answer, cause, chunks, driven, frames, get, poll_body, post, read, reader, refusal};
use crate::support::{VERSIONS, serve, watched};

/// Where and how a [`Failing`] service fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Nowhere,
    ReadyError,
    ReadyPanic,
    CallPanic,
    FutureError,
    FuturePanic,
    DropPanic,
    CloneDropPanic,
}

#[derive(Clone)]
struct Failing(At, bool);

struct Future(At, bool);

impl Service<Request<Body>> for Failing {
    type Response = Response<Body>;
    type Error = Broken;
    type Future = Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.1 {
            self.1 = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.0 {
            At::ReadyError => Poll::Ready(Err(Broken("in poll_ready"))),
            At::ReadyPanic => panic!("a panic in poll_ready"),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: Request<Body>) -> Future {
        assert_ne!(self.0, At::CallPanic, "a panic in call");
        Future(self.0, true)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // Not the one in the handler, whose drop is the test's.
        if self.0 == At::CloneDropPanic && !std::thread::panicking() {
            panic!("a panic in a service's drop");
        }
    }
}

impl std::future::Future for Future {
    type Output = Result<Response<Body>, Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.1 {
            self.1 = false;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.0 {
            At::FutureError => Poll::Ready(Err(Broken("in the future"))),
            At::FuturePanic => panic!("a panic in the future"),
            _ => Poll::Ready(Ok(Response::new(Body::from("fine")))),
        }
    }
}

impl Drop for Future {
    fn drop(&mut self) {
        if self.0 == At::DropPanic {
            panic!("a panic in the future's drop");
        }
    }
}

/// The message of the failure.
fn failure(at: At, layer: &AsgiLayer) -> String {
    let handler = layer.layer(Failing(at, true));
    let failed = handler.call(get()).expect_err("an error");
    // It can be called again, and the thread is as it was.
    let again = handler.call(get()).expect_err("an error again");
    assert_eq!(failed.to_string(), again.to_string(), "{at:?}");
    let fine = layer.layer(Failing(At::Nowhere, true));
    assert_eq!(answer(&fine), "fine", "after {at:?}");
    if at == At::CloneDropPanic {
        std::mem::forget(handler);
    }
    match failed.downcast::<Broken>() {
        Ok(broken) => broken.0.to_owned(),
        Err(other) => {
            let error = *other.downcast::<Error>().expect("an error of this crate");
            assert!(error.is_panic(), "{error:?}");
            error.to_string()
        }
    }
}

#[test]
fn b6_what_fails_before_the_head_is_an_error_from_the_call() {
    watched(|| {
        let runtimes = driven();
        let mut layers = vec![AsgiLayer::adapter()];
        layers.extend(runtimes.each_ref().map(|one| AsgiLayer::adapter().runtime(one.handle.clone())));
        for layer in layers {
            assert_eq!(failure(At::ReadyError, &layer), "in poll_ready");
            assert_eq!(failure(At::FutureError, &layer), "in the future");
            for (at, message) in [
                (At::ReadyPanic, "a panic in poll_ready"),
                (At::CallPanic, "a panic in call"),
                (At::FuturePanic, "a panic in the future"),
                (At::DropPanic, "a panic in the future's drop"),
                (At::CloneDropPanic, "a panic in a service's drop"),
            ] {
                let failure = failure(at, &layer);
                assert!(failure.contains(message), "{at:?}: {failure}");
            }
        }
    });
}

#[test]
fn b6_a_panic_in_the_clone_of_a_service_is_an_error_each_time() {
    struct Single;
    impl Clone for Single {
        fn clone(&self) -> Self {
            panic!("a panic in clone");
        }
    }
    impl Service<Request<Body>> for Single {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Response::new(Body::empty())))
        }
    }

    watched(|| {
        let handler = AsgiHandler::new(Single);
        for _ in 0..2 {
            let error = refusal(handler.call(get()));
            assert!(error.is_panic() && error.to_string().contains("a panic in clone"), "{error:?}");
        }
    });
}

#[test]
fn b6_a_boxed_error_stays_what_it_is() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            let error: BoxError = Broken("boxed").into();
            Err::<Response<Body>, _>(error)
        });
        let error = AsgiHandler::new(service).call(get()).expect_err("an error");
        assert_eq!(*error.downcast::<Broken>().expect("the service's own"), Broken("boxed"));
    });
}

#[tokio::test]
async fn b6_a_wsgi_service_around_makes_a_response_of_it() {
    for at in [At::ReadyError, At::ReadyPanic, At::CallPanic, At::FutureError, At::FuturePanic, At::DropPanic]
    {
        let service = WsgiService::new(AsgiHandler::new(Failing(at, true)));
        let server = serve(service).await;
        for version in VERSIONS {
            let response = server.ask(version, "GET", "/").await;
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{at:?}");
        }
    }
}

#[test]
fn b6_a_body_that_fails_gives_its_bytes_and_then_its_error() {
    watched(|| {
        let runtimes = driven();
        let mut layers = vec![AsgiLayer::adapter(), AsgiLayer::adapter().wait_time(Duration::ZERO)];
        layers.extend(runtimes.each_ref().map(|one| AsgiLayer::adapter().runtime(one.handle.clone())));
        let service = service_fn(|_: Request<Body>| async {
            let frames = [Ok(Bytes::from("one")), Ok(Bytes::from("two")), Err(Broken("in the body"))];
            let body = super::frames(frames.map(|frame| frame.map(Frame::data).map_err(Into::into)));
            Ok::<_, Infallible>(Response::new(body))
        });
        for layer in layers {
            let mut body = reader(layer.layer(service).call(get()));
            assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"one"[..]));
            assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"two"[..]));
            // Now and ever after.
            for _ in 0..3 {
                let error = body.chunk().expect_err("an error");
                assert_eq!(cause::<Broken>(&error), Broken("in the body"));
                assert!(body.read(&mut [0]).is_err());
            }
        }
    });
}

#[test]
fn b6_a_body_that_panics_gives_its_bytes_and_then_an_error() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            let mut first = Some("first");
            Ok::<_, Infallible>(Response::new(poll_body(move |_| {
                let first = first.take().expect("a panic in the body");
                Poll::Ready(Some(Ok(Frame::data(first.into()))))
            })))
        });
        let mut body = reader(AsgiHandler::new(service).call(get()));
        assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"first"[..]));
        for _ in 0..3 {
            let error = cause::<Error>(&body.chunk().expect_err("an error"));
            assert!(error.is_panic() && error.to_string().contains("a panic in the body"), "{error:?}");
        }
    });
}

#[test]
fn b6_a_panic_in_the_drop_of_a_finished_body_is_an_error_of_the_read() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a drop fails");
        }
    }

    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            let mut bomb = Some(Bomb);
            Ok::<_, Infallible>(Response::new(poll_body(move |_| {
                let _bomb = bomb.as_mut();
                Poll::Ready(None)
            })))
        });
        let mut body = reader(AsgiHandler::new(service).call(get()));
        for _ in 0..2 {
            let error = cause::<Error>(&body.chunk().expect_err("an error"));
            assert!(error.is_panic(), "{error:?}");
        }
    });
}

#[test]
fn b6_a_body_that_falls_short_of_what_it_said_is_an_error() {
    struct Short;
    impl http_body::Body for Short {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(10)
        }
    }

    watched(|| {
        let service = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Short)) });
        let response = AsgiHandler::new(service).call(get()).expect("a response");
        let error = cause::<Error>(&read(response).expect_err("an error"));
        assert!(error.is_length(), "{error:?}");
    });
}

#[test]
fn b6_empty_frames_and_trailers_alone_are_no_end_and_no_bytes() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            let empty = (0..100).map(|_| Ok(Frame::data(Bytes::new())));
            let rest = [Ok(Frame::data("bytes".into())), Ok(Frame::trailers(HeaderMap::new()))];
            Ok::<_, Infallible>(Response::new(frames(empty.chain(rest))))
        });
        let mut body = reader(AsgiHandler::new(service).call(get()));
        assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"bytes"[..]));
        assert_eq!(body.chunk().expect("the end"), None);
        assert!(body.trailers().is_some_and(HeaderMap::is_empty));
    });
}

#[test]
fn b6_a_service_that_is_never_ready_and_keeps_no_waker_is_stuck() {
    #[derive(Clone)]
    struct Never;
    impl Service<Request<Body>> for Never {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Pending
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            unreachable!("it is not ready")
        }
    }

    watched(|| {
        assert!(refusal(AsgiHandler::new(Never).call(get())).is_stuck());
        for runtime in driven() {
            let handler = AsgiLayer::adapter().runtime(runtime.handle.clone()).layer(Never);
            assert!(refusal(handler.call(get())).is_stuck(), "{}", runtime.name);
        }
        let answers_never = service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        assert!(refusal(AsgiHandler::new(answers_never).call(get())).is_stuck());
    });
}

#[test]
fn b6_a_service_that_gives_up_after_it_has_waited_is_stuck() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            // Real wakers were made and dropped before.
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::spawn(tokio::task::yield_now()).await.expect("no panic");
            pending::<Result<Response<Body>, Infallible>>().await
        });
        assert!(refusal(AsgiHandler::new(service).call(get())).is_stuck());
    });
}

#[test]
fn b6_a_service_whose_waker_is_let_go_of_later_is_stuck() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| {
            poll_fn(|cx| {
                let waker = cx.waker().clone();
                std::thread::spawn(move || {
                    // Nothing tells that the other thread sleeps by now; most likely it does.
                    std::thread::sleep(Duration::from_millis(20));
                    drop(waker);
                });
                Poll::<Result<Response<Body>, Infallible>>::Pending
            })
        });
        assert!(refusal(AsgiHandler::new(service).call(get())).is_stuck());
    });
}

#[test]
fn b6_a_body_that_is_never_ready_and_keeps_no_waker_is_stuck() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            let mut first = Some("first");
            Ok::<_, Infallible>(Response::new(poll_body(move |_| match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first.into())))),
                None => Poll::Pending,
            })))
        });
        let mut body = reader(AsgiHandler::new(service).call(get()));
        assert!(body.chunk().expect("a chunk").is_some());
        let error = cause::<Error>(&body.chunk().expect_err("an error"));
        assert!(error.is_stuck(), "{error:?}");
    });
}

#[test]
fn b6_a_timeout_ends_a_service_that_waits_for_ever() {
    watched(|| {
        let kept = std::sync::Arc::new(std::sync::Mutex::new(None));
        let keep = kept.clone();
        let service = service_fn(move |_: Request<Body>| {
            let keep = keep.clone();
            poll_fn(move |cx| {
                *keep.lock().expect("a lock") = Some(cx.waker().clone());
                Poll::<Result<Response<Body>, BoxError>>::Pending
            })
        });
        let runtimes = driven();
        let mut layers = vec![AsgiLayer::adapter()];
        layers.extend(runtimes.each_ref().map(|one| AsgiLayer::adapter().runtime(one.handle.clone())));
        for layer in layers {
            let handler = ServiceBuilder::new()
                .layer(layer)
                .layer(TimeoutLayer::new(Duration::from_millis(5)))
                .service(service.clone());
            let error = handler.call(get()).expect_err("an error");
            assert!(error.is::<tower::timeout::error::Elapsed>(), "{error:?}");
        }
        assert!(kept.lock().expect("a lock").is_some());
    });
}

#[test]
fn b6_a_panic_can_be_caught_inside() {
    watched(|| {
        let handler = ServiceBuilder::new()
            .layer(AsgiLayer::adapter())
            .layer(CatchPanicLayer::new())
            .service(Failing(At::FuturePanic, false));
        let response = handler.call(get()).expect("a response");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(read(response).expect("a body"), "Service panicked");
    });
}

#[test]
fn b6_a_service_that_fails_after_it_has_read_half_lets_go_of_the_rest() {
    watched(|| {
        let (tell, dropped) = super::Tell::new();
        let mut held = Some(tell);
        let mut pieces = vec!["three", "two", "one"];
        let body = poll_body(move |_| {
            let _held = held.as_mut();
            Poll::Ready(pieces.pop().map(|piece| Ok(Frame::data(piece.into()))))
        });
        let service = service_fn(|request: Request<Body>| async {
            use http_body_util::BodyExt;
            let mut body = request.into_body();
            assert!(body.frame().await.is_some());
            Err::<Response<Body>, _>(Broken("half way"))
        });
        let failed = AsgiHandler::new(service).call(post(Input::new(body)));
        assert!(failed.expect_err("an error").is::<Broken>());
        assert!(dropped.try_recv().is_ok(), "the request is still held");
    });
}

#[test]
fn b6_what_is_read_beyond_the_end_is_the_end() {
    watched(|| {
        for body in [|| Body::from("hello"), || chunks(["hel", "lo"]), Body::empty] {
            let service =
                service_fn(move |_: Request<Body>| async move { Ok::<_, Infallible>(Response::new(body())) });
            let mut body = reader(AsgiHandler::new(service).call(get()));
            body.read_to_end(&mut Vec::new()).expect("a whole body");
            for _ in 0..3 {
                assert_eq!(body.read(&mut [0; 8]).expect("the end"), 0);
                assert_eq!(body.chunk().expect("the end"), None);
            }
        }
    });
}
