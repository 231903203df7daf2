//! What the log has: A11's panics, A12's errors and A7's excess, and nothing at the level of an error that only a client did.

use std::io::{self, Read as _};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tower::{Layer as _, ServiceExt as _};
use tower_wsgi::{Body, BoxError, Input, Output, SyncHandler, WorkerPool, WsgiLayer, gateway};

use crate::support::{Events, Gate, Scripted, collect, idle, logged, soon};

/// Makes an output of so many chunks.
type Make = fn(usize) -> Output;

/// What the log has of a request to a handler, in the lines that hold `mark`. The response is read to its end, whatever that is.
async fn lines<H: SyncHandler>(handler: H, body: Body, mark: &str) -> Vec<String> {
    collect();
    let service = WsgiLayer::adapter().prefetch(0).layer(handler);
    let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
    let _ = soon(response.into_body().collect()).await;
    logged(mark)
}

#[tokio::test]
async fn a11_the_log_has_the_message_of_a_panic() {
    let handler = |_: Request<Input>| -> Response<()> { panic!("mark 4f1a") };
    let lines = lines(handler, Body::empty(), "mark 4f1a").await;
    assert_eq!(lines, ["ERROR handler failed error=the application panicked: mark 4f1a"]);
}

#[tokio::test]
async fn a11_a_panic_is_in_the_log_where_the_client_is_gone_too() {
    collect();
    for panics in [false, true] {
        let (events, gate, pool) = (Events::new(), Gate::new(), WorkerPool::new(1));
        let (tell, closed) = (events.teller(), gate.clone());
        let handler = move |_: Request<Input>| -> Result<Response<()>, &'static str> {
            tell(());
            closed.pass();
            assert!(!panics, "mark 51d0");
            Err("mark 51d1")
        };
        let service = WsgiLayer::adapter().pool(pool.clone()).layer(handler);
        let call = tokio::spawn(service.oneshot(Request::new(Body::empty())));
        events.next().await;
        call.abort();
        let _ = call.await;
        gate.open();
        idle(&pool).await;
    }
    // Nobody is there to be answered: what a handler makes of that is no failure.
    assert_eq!(logged("mark 51d1"), [""; 0]);
    assert_eq!(logged("mark 51d0"), ["ERROR handler failed error=the application panicked: mark 51d0"]);
}

#[tokio::test]
async fn a12_the_log_has_an_error_and_its_cause() {
    let handler = |_: Request<Input>| -> Result<Response<()>, &'static str> { Err("mark 77c2") };
    let expected = ["ERROR handler failed error=the handler failed source=mark 77c2"];
    assert_eq!(lines(handler, Body::empty(), "mark 77c2").await, expected);
    let handler = |_: Request<Input>| -> Result<Response<()>, &'static str> { Err("mark 77c3") };
    gateway::respond(&handler, Request::new(Input::empty()));
    assert_eq!(logged("mark 77c3"), ["ERROR handler failed error=the handler failed source=mark 77c3"]);
}

#[tokio::test]
async fn a12_what_fails_because_of_the_client_is_no_error_of_the_servers() {
    let handler = |mut request: Request<Input>| -> io::Result<Response<String>> {
        let mut text = String::new();
        request.body_mut().read_to_string(&mut text)?;
        Ok(Response::new(text))
    };
    let frames = [Ok(Frame::data(Bytes::from("some"))), Err(BoxError::from("mark 0be9"))];
    let body = Body::new(Scripted::new(frames));
    assert_eq!(lines(handler, body, "mark 0be9").await, ["DEBUG the request's body failed source=mark 0be9"]);
}

#[tokio::test]
async fn a7_the_log_has_each_response_that_is_too_long_once() {
    fn chunks(n: usize) -> impl Iterator<Item = Bytes> + Send + 'static {
        std::iter::repeat_n(Bytes::from(vec![b'x'; 1009]), n)
    }
    let bodies: [(&str, Make); 3] = [
        ("iterator", |n| Output::iter(chunks(n))),
        ("writer", |n| Output::writer(move |w| chunks(n).try_for_each(|chunk| w.send(chunk)))),
        ("async body", |n| Output::body(Scripted::new(chunks(n).map(|chunk| Ok(Frame::data(chunk)))))),
    ];
    for (at, (kind, body)) in bodies.into_iter().enumerate() {
        // Lengths that no other test declares.
        let (exact, over) = (1009 * (301 + at), 1009 * (311 + at) - 9);
        for (length, times) in [(exact, 0), (over, 1)] {
            let handler = move |_: Request<Input>| {
                Response::builder()
                    .header("content-length", length)
                    .body(body(length.div_ceil(1009) + 3 * times))
            };
            let mark = format!("declared={length}");
            let lines = lines(handler, Body::empty(), &mark).await;
            assert_eq!(lines.len(), times, "{kind} {lines:?}");
            assert!(
                lines.iter().all(|line| line.starts_with("ERROR a response's body went over")),
                "{lines:?}"
            );
        }
    }
}
