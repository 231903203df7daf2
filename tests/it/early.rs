//! Responses that begin before their handler returns: `Environ::early`.

use std::io;
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_wsgi::{
    Body, BoxError, EarlyResponse, Environ, Input, Output, SyncHandler, WorkerPool, WsgiLayer, sync_fn,
};

use crate::support::{PATIENCE, eventually, idle, soon};

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

fn begin(request: &Request<Input>, head: Response<()>) -> Result<EarlyResponse, BoxError> {
    let early = Environ::of(request).early().ok_or("behind a WsgiService")?;
    Ok(early.begin(head)?)
}

async fn text(body: Body) -> Bytes {
    soon(body.collect()).await.expect("an end").to_bytes()
}

async fn answer(handler: impl SyncHandler) -> Response<Body> {
    let service = WsgiLayer::adapter().layer(handler);
    soon(service.oneshot(request())).await.expect("a response")
}

#[tokio::test]
async fn a3_what_is_sent_early_arrives_while_the_handler_runs() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let response = answer(move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let head = Response::builder().status(201).header("x-early", "yes").body(())?;
        let mut response = begin(&request, head)?;
        response.send("first")?;
        wait.lock().expect("a lock").recv_timeout(PATIENCE)?;
        response.send("second")?;
        Ok(response.finish())
    })
    .await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["x-early"], "yes");
    let mut body = response.into_body();
    let first = soon(body.frame()).await.expect("a frame").expect("no error");
    assert_eq!(first.into_data().expect("data"), "first");
    go.send(()).expect("the handler waits");
    assert_eq!(soon(body.collect()).await.expect("an end").to_bytes(), "second");
}

#[tokio::test]
async fn a3_early_chunks_wait_for_room() {
    let pool = WorkerPool::new(1);
    let sent = Arc::new(Mutex::new(0));
    let count = sent.clone();
    let handler = move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let mut response = begin(&request, Response::new(()))?;
        for _ in 0..100 {
            response.send(Bytes::from_static(b"x"))?;
            *count.lock().expect("a lock") += 1;
        }
        Ok(response.finish())
    };
    let service = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(10).layer(handler);
    let response = soon(service.oneshot(request())).await.expect("a response");
    // Ten wait in the queue, and the handler with the eleventh.
    eventually("ten chunks are sent", || *sent.lock().expect("a lock") == 10).await;
    assert_eq!(soon(response.into_body().collect()).await.expect("an end").to_bytes().len(), 100);
    idle(&pool).await;
    assert_eq!(*sent.lock().expect("a lock"), 100);
}

#[tokio::test]
async fn a5_nothing_sent_is_a_response_as_any_other() {
    let response = answer(|request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let head = Response::builder().status(StatusCode::ACCEPTED).body(())?;
        Ok(begin(&request, head)?.finish())
    })
    .await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(text(response.into_body()).await, "");
}

#[tokio::test]
async fn a5_an_error_before_the_first_byte_is_a_clean_500() {
    let response = answer(|request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let _begun = begin(&request, Response::new(()))?;
        Err("too early".into())
    })
    .await;
    assert_eq!(response.status(), 500);
}

#[tokio::test]
async fn a6_an_error_after_it_cuts_the_response_off() {
    for panics in [false, true] {
        let response = answer(move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
            let mut response = begin(&request, Response::new(()))?;
            response.send("half")?;
            if panics {
                panic!("in the middle");
            }
            Err("in the middle".into())
        })
        .await;
        assert_eq!(response.status(), 200);
        soon(response.into_body().collect()).await.expect_err("a body that was cut off");
    }
}

#[tokio::test]
async fn a6_another_response_than_the_begun_one_cuts_it_off() {
    for keeps in [false, true] {
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        let response = answer(move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
            let mut response = begin(&request, Response::new(()))?;
            response.send("half")?;
            if keeps {
                *keep.lock().expect("a lock") = Some(response);
            }
            Ok(Response::new("another".into()))
        })
        .await;
        let error = soon(response.into_body().collect()).await.expect_err("a body that was cut off");
        assert!(error.to_string().contains("another response"), "{error}");
        // It holds its handler, which holds it.
        drop(kept.lock().expect("a lock").take());
    }
}

#[tokio::test]
async fn a6_a_begun_response_that_outlives_its_handler_sends_nothing() {
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let response = answer(move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
        *keep.lock().expect("a lock") = Some(begin(&request, Response::new(()))?);
        Ok(Response::new("another".into()))
    })
    .await;
    assert_eq!(text(response.into_body()).await, "another");
    let mut late = kept.lock().expect("a lock").take().expect("the begun one");
    assert_eq!(late.send("late").expect_err("too late").kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a7_early_chunks_are_kept_to_the_declared_length() {
    let sized = |length: &'static str, body: &'static str| {
        move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
            let mut response =
                begin(&request, Response::builder().header("content-length", length).body(())?)?;
            for chunk in body.split_inclusive(' ') {
                response.send(chunk)?;
            }
            Ok(response.finish())
        }
    };
    assert_eq!(text(answer(sized("5", "a b c")).await.into_body()).await, "a b c");
    soon(answer(sized("6", "a b c")).await.into_body().collect()).await.expect_err("too short");
    soon(answer(sized("4", "a b c")).await.into_body().collect()).await.expect_err("too long");
}

#[tokio::test]
async fn a8_a_client_that_left_is_a_broken_pipe() {
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let response = answer(move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let mut response = begin(&request, Response::new(()))?;
        response.send("first")?;
        wait.lock().expect("a lock").recv_timeout(PATIENCE)?;
        let sent = response.send("second");
        tell.send(sent.expect_err("nobody listens").kind())?;
        Ok(response.finish())
    })
    .await;
    drop(response);
    go.send(()).expect("the handler waits");
    let kind = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE)).await.expect("a thread");
    assert_eq!(kind.expect("an error"), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a8_a_client_that_left_is_told_where_nothing_is_sent_too() {
    // An empty chunk, and one that a response to HEAD does not send.
    for (method, chunk) in [("GET", ""), ("HEAD", "never")] {
        let (tell, told) = mpsc::channel();
        let handler = move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
            let mut response = begin(&request, Response::new(()))?;
            tell.send(None)?;
            let left = loop {
                if let Err(left) = response.send(chunk) {
                    break left;
                }
                std::thread::yield_now();
            };
            tell.send(Some(left.kind()))?;
            Ok(response.finish())
        };
        let service = WsgiLayer::adapter().layer(handler);
        let request = Request::builder().method(method).body(Body::empty()).expect("a request");
        let call = tokio::spawn(service.oneshot(request));
        let mut told =
            tokio::task::spawn_blocking(move || (told.recv_timeout(PATIENCE), told)).await.expect("no panic");
        assert_eq!(told.0, Ok(None), "{method}");
        call.abort();
        told = tokio::task::spawn_blocking(move || (told.1.recv_timeout(PATIENCE), told.1))
            .await
            .expect("no panic");
        assert_eq!(told.0, Ok(Some(io::ErrorKind::BrokenPipe)), "{method}");
    }
}

#[tokio::test]
async fn a7_a_response_that_sends_nothing_is_held_to_its_length_if_it_has_a_body() {
    for (method, status) in [("HEAD", 200), ("GET", 500)] {
        let service = WsgiLayer::adapter().layer(|request: Request<Input>| -> Result<_, BoxError> {
            let head = Response::builder().header("content-length", "5").body(())?;
            Ok(begin(&request, head)?.finish())
        });
        let request = Request::builder().method(method).body(Body::empty()).expect("a request");
        let response = soon(service.oneshot(request)).await.expect("a response");
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-length"] == "5", method == "HEAD");
    }
}

#[tokio::test]
async fn a14_head_and_204_have_no_body() {
    for (method, status) in [("HEAD", 200), ("GET", 204)] {
        let service = WsgiLayer::adapter().layer(move |request: Request<Input>| {
            let mut response = begin(&request, Response::builder().status(status).body(())?)?;
            response.send("never")?;
            Ok::<_, BoxError>(response.finish())
        });
        let request = Request::builder().method(method).body(Body::empty()).expect("a request");
        let response = soon(service.oneshot(request)).await.expect("a response");
        assert_eq!(response.status(), status);
        assert_eq!(text(response.into_body()).await, "");
    }
}

#[tokio::test]
async fn a_second_begin_is_an_error_and_a_sync_middleware_sees_the_head() {
    let seen = Arc::new(Mutex::new(None));
    let see = seen.clone();
    let middleware = sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        let response = next.call(request)?;
        *see.lock().expect("a lock") = Some(response.status());
        Ok::<_, BoxError>(response)
    });
    let handler = middleware.layer(|request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let mut response = begin(&request, Response::builder().status(202).body(())?)?;
        assert!(begin(&request, Response::new(())).is_err());
        response.send("once")?;
        Ok(response.finish())
    });
    assert_eq!(text(answer(handler).await.into_body()).await, "once");
    assert_eq!(*seen.lock().expect("a lock"), Some(StatusCode::ACCEPTED));
}

#[tokio::test]
async fn a_begun_body_that_a_middleware_reads_says_why_it_is_not_there() {
    let (tell, told) = mpsc::channel();
    let middleware = sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        let response = next.call(request)?;
        let error = io::read_to_string(response.into_body().into_reader()).expect_err("it is not here");
        tell.send(error.to_string())?;
        Ok::<_, BoxError>(Response::new(Output::empty()))
    });
    let handler = middleware.layer(|request: Request<Input>| -> Result<Response<Output>, BoxError> {
        Ok(begin(&request, Response::new(()))?.finish())
    });
    answer(handler).await;
    let told = told.recv().expect("the middleware ran");
    assert_eq!(told, "the response was sent while its handler ran: its body is not here");
}

#[test]
fn a_handler_that_is_called_directly_cannot_begin() {
    assert!(Environ::of(&Request::new(Input::empty())).early().is_none());
}
