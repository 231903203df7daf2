//! Services of tower and hyper without a framework.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full, Limited};
use tower::util::BoxCloneService;
use tower::{Service, service_fn};
use tower_wsgi::{AsgiHandler, Body, BoxError, Input, SyncHandler, WorkerPool};

use super::{ask, host};
use crate::support::{VERSIONS, soon, text, watched};

async fn echo(request: Request<Body>) -> Result<Response<Full<Bytes>>, BoxError> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(body)))
}

fn post(body: &'static str) -> Request<Input> {
    Request::post("/").body(Input::from(body)).expect("a request")
}

#[tokio::test]
async fn b2_a_function_as_a_service() {
    let server = host(&WorkerPool::new(1), AsgiHandler::new(service_fn(echo))).await;
    for version in VERSIONS {
        let request = server.request("POST", "/", Body::from("hello"));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(text(response).await, "hello", "{version:?}");
    }
}

#[test]
fn b2_a_service_of_hypers_own_trait() {
    // Its `call` takes no more than a shared reference: a closure is all the adapter that it needs.
    struct Hyper;
    impl hyper::service::Service<Request<Body>> for Hyper {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn call(&self, request: Request<Body>) -> Self::Future {
            ready(Ok(Response::new(Full::new(request.uri().path().to_owned().into()))))
        }
    }
    watched(|| {
        let hyper = std::sync::Arc::new(Hyper);
        let handler =
            AsgiHandler::new(service_fn(move |request| hyper::service::Service::call(&*hyper, request)));
        assert_eq!(ask(&handler, post("")).expect("a response").body(), "/");
    });
}

#[test]
fn b2_a_service_whose_type_is_erased() {
    watched(|| {
        let handler = AsgiHandler::new(BoxCloneService::new(service_fn(echo)));
        assert_eq!(ask(&handler, post("hello")).expect("a response").body(), "hello");
    });
}

#[test]
fn b2_a_future_that_cannot_leave_its_thread() {
    // It is polled where it was made, so that it may hold what is not `Send`.
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|_: Request<Body>| async {
            let local = Rc::new(7);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(local.to_string()))))
        }));
        assert_eq!(ask(&handler, post("")).expect("a response").body(), "7");
    });
}

/// A service that is `Send` and not `Sync`, and that only a clone that was polled ready may be called of.
struct Picky {
    ready: Cell<bool>,
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        Self { ready: Cell::new(false) }
    }
}

impl Service<Request<Body>> for Picky {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Ready the second time.
        if self.ready.replace(true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        assert!(self.ready.replace(false), "called without being ready");
        ready(Ok(Response::new(Empty::new())))
    }
}

#[test]
fn b2_each_call_is_of_a_clone_that_was_polled_ready() {
    watched(|| {
        let handler = std::sync::Arc::new(AsgiHandler::new(Picky { ready: Cell::new(false) }));
        let threads = [(); 4].map(|()| {
            let handler = handler.clone();
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(handler.call(post("")).expect("a response").status(), 200);
                }
            })
        });
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
}

#[test]
fn b6_a_service_that_fails_to_get_ready() {
    #[derive(Clone)]
    struct Never;
    impl Service<Request<Body>> for Never {
        type Response = Response<Empty<Bytes>>;
        type Error = std::io::Error;
        type Future = Ready<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Err(std::io::ErrorKind::ConnectionRefused.into()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    watched(|| {
        let error = AsgiHandler::new(Never).call(post("")).expect_err("an error");
        let error: &std::io::Error = error.downcast_ref().expect("the service's own");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[tokio::test]
async fn b7_bodies_of_any_kind_are_responses() {
    let service = service_fn(|request: Request<Body>| async move {
        let text = Full::new(Bytes::from("hello"));
        Ok::<_, Infallible>(Response::new(match request.uri().path() {
            "/boxed" => text.map_err(BoxError::from).boxed_unsync(),
            "/limited" => Limited::new(text, 3).boxed_unsync(),
            _ => {
                let rest = text.map_frame(|frame| frame.map_data(|data| data.slice(1..)));
                rest.map_err(BoxError::from).boxed_unsync()
            }
        }))
    });
    let server = host(&WorkerPool::new(1), AsgiHandler::new(service)).await;
    for version in VERSIONS {
        assert_eq!(text(server.ask(version, "GET", "/boxed").await).await, "hello");
        assert_eq!(text(server.ask(version, "GET", "/mapped").await).await, "ello");
    }
    // A body that fails at its first frame, before the head is on its way or after it.
    for version in VERSIONS {
        let request = server.request("GET", "/limited", Body::empty());
        if let Ok(response) = soon(server.send(version, request)).await {
            soon(response.into_body().collect()).await.expect_err("a body that was cut off");
        }
    }
}
