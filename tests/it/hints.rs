//! What bodies say of themselves, their length and their end: servers frame responses by it.

use std::convert::Infallible;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_wsgi::{AsgiHandler, Body, BoxError, Input, Output, SyncHandler, WsgiLayer, WsgiService};

use crate::support::{Scripted, eventually, soon};

/// Makes an output.
type Make = fn() -> Output;

/// A handler's response.
async fn answer<H: SyncHandler>(handler: H) -> Body {
    let response = soon(WsgiService::new(handler).oneshot(Request::new(Body::empty()))).await;
    response.expect("a response").into_body()
}

/// The body of a response of this output.
async fn answer_once(output: Output) -> Body {
    let output = Mutex::new(Some(output));
    answer(move |_: Request<Input>| {
        Response::new(output.lock().expect("a lock").take().expect("one request"))
    })
    .await
}

/// What a body says of its length before each of its frames, and at its end.
async fn lengths(body: &mut Body) -> Vec<Option<u64>> {
    let mut lengths = vec![body.size_hint().exact()];
    while let Some(frame) = soon(body.frame()).await {
        frame.expect("a frame");
        lengths.push(body.size_hint().exact());
    }
    lengths
}

/// What one poll gives, ready or not.
async fn poll_once(body: &mut Body) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().expect("a name"), "5d41".parse().expect("a value"))])
}

/// A response of ten bytes, as it declares, of a body that knows nothing of that.
fn ten(output: Output) -> Response<Output> {
    Response::builder().header("content-length", "10").body(output).expect("a response")
}

#[tokio::test]
async fn a7_a_body_of_declared_length_knows_what_is_left_of_it() {
    let outputs: [Make; 3] = [
        || Output::iter(["hello", "world"]),
        || Output::writer(|w| w.send("hello").and_then(|()| w.send("world"))),
        || Output::body(Scripted::of(["hello", "world"])),
    ];
    for output in outputs {
        let mut body = answer(move |_: Request<Input>| ten(output())).await;
        assert!(!body.is_end_stream());
        assert_eq!(lengths(&mut body).await, [Some(10), Some(5), Some(0)]);
        assert!(body.is_end_stream());
    }
}

#[tokio::test]
async fn a7_a_declared_length_leaves_room_for_trailers() {
    let frames = || ["hello", "world"].map(|chunk| Ok(Frame::data(chunk.into())));
    let body = move || Scripted::new(frames().into_iter().chain([Ok(Frame::trailers(trailers()))]));
    let body = answer(move |_: Request<Input>| ten(Output::body(body()))).await;
    let whole = soon(body.collect()).await.expect("a whole body");
    assert_eq!(whole.trailers(), Some(&trailers()));
    assert_eq!(whole.to_bytes(), "helloworld");
}

#[tokio::test]
async fn a7_an_iterator_of_declared_length_is_asked_to_its_end() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let handler = move |_: Request<Input>| {
        let tell = tell.lock().expect("a lock").clone();
        ten(Output::iter(["hello", "world"].into_iter().chain(std::iter::from_fn(move || {
            // What an application does behind its last chunk.
            tell.send(()).expect("the test waits");
            None
        }))))
    };
    assert_eq!(soon(answer(handler).await.collect()).await.expect("a whole body").to_bytes(), "helloworld");
    assert_eq!(told.try_iter().count(), 1);
}

#[tokio::test]
async fn a6_a_body_with_nothing_left_says_so() {
    let mut body = answer(|_: Request<Input>| Response::new(Output::iter(["hello"]))).await;
    assert!(!body.is_end_stream());
    soon(body.frame()).await.expect("a frame").expect("no error");
    eventually("the producer has ended", || body.is_end_stream()).await;

    let mut body = Body::new(Scripted::of(["hello"]));
    assert!(!body.is_end_stream());
    soon(body.frame()).await.expect("a frame").expect("no error");
    assert!(body.is_end_stream());

    let only_trailers = |_: Request<Input>| Response::new(Output::iter([""; 0]).with_trailers(trailers));
    let mut body = answer(only_trailers).await;
    assert!(!body.is_end_stream());
    soon(body.frame()).await.expect("a frame").expect("no error");
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn a15_a_body_with_trailers_has_not_ended_before_them() {
    let output = Output::body(Body::from("hello")).with_trailers(trailers);
    let mut body = answer_once(output).await;
    // A length that is exact would be declared, and trailers need a body of chunks.
    assert_eq!((body.size_hint().lower(), body.size_hint().exact()), (5, None));
    for _ in ["the data", "the trailers"] {
        assert!(!body.is_end_stream());
        soon(body.frame()).await.expect("a frame").expect("no error");
    }
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn b7_the_body_of_a_service_says_what_it_said_behind_a_crossing() {
    let service = service_fn(|request: Request<Body>| async move {
        // The tasks go with the request: none can come any more.
        drop(request);
        Ok::<_, Infallible>(Response::new(Body::new(Scripted::of(["hello", "world"]))))
    });
    let mut body = answer(AsgiHandler::new(service)).await;
    for _ in ["hello", "world"] {
        assert!(!body.is_end_stream());
        soon(body.frame()).await.expect("a frame").expect("no error");
    }
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn a6_a_body_that_is_about_to_fail_has_not_ended() {
    // Too short; failed by its own word; both, behind as many bytes as were declared.
    let outputs: [(&str, Make); 4] = [
        ("short", || Output::body(Scripted::of(["hello"]))),
        ("short iterator", || Output::iter(["hello"])),
        ("failing", || Output::body(Scripted::new([Ok(Frame::data("helloworld".into())), Err("no".into())]))),
        ("failing iterator", || Output::try_iter([Ok("hello"), Err("no")])),
    ];
    for (kind, output) in outputs {
        let mut body = answer(move |_: Request<Input>| ten(output())).await;
        soon(body.frame()).await.expect("a frame").expect("no error");
        loop {
            assert!(!body.is_end_stream(), "{kind}");
            match poll_once(&mut body).await {
                // It may not have come yet, and is held back once, so that the frame before it goes out.
                Poll::Pending => tokio::task::yield_now().await,
                Poll::Ready(Some(Err(_))) => break,
                other => panic!("{kind}: {other:?}"),
            }
        }
        assert!(matches!(poll_once(&mut body).await, Poll::Ready(None)), "{kind}");
    }
}

#[tokio::test]
async fn a6_a_failure_that_no_frame_comes_before_is_told_at_once() {
    let failing = || Output::body(Scripted::new([Err("no".into()), Ok(Frame::data("never".into()))]));
    let mut body = answer(move |_: Request<Input>| ten(failing())).await;
    assert!(matches!(poll_once(&mut body).await, Poll::Ready(Some(Err(_)))));
}

#[tokio::test]
async fn b7_what_is_left_of_a_request_knows_its_length() {
    // Five bytes are what the first read got, five were read ahead behind them, and five are to come.
    let handler = |mut request: Request<Input>| {
        let mut first = [0];
        request.body_mut().read_exact(&mut first).expect("a byte");
        let body = request.into_body().into_body();
        Response::new(format!("{:?}", body.size_hint().exact()))
    };
    for timeout in [None, Some(Duration::from_secs(3600))] {
        let layer = WsgiLayer::adapter().prefetch(10);
        let layer = timeout.into_iter().fold(layer, WsgiLayer::read_timeout);
        let body = Body::new(Scripted::of(["hello", "world", "again"]));
        let request = Request::post("/").header("content-length", "15").body(body).expect("a request");
        let response = soon(layer.layer(handler).oneshot(request)).await.expect("a response");
        let text = soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
        assert_eq!(text, "Some(14)", "{timeout:?}");
    }
}

#[tokio::test]
async fn b7_a_request_that_is_held_to_its_length_says_what_is_left() {
    let frames = ["hello", "world"].map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
    let frames = frames.into_iter().chain([Ok(Frame::trailers(trailers()))]);
    let mut body = Input::new(Scripted::new(frames)).with_length(10).into_body();
    assert!(!body.is_end_stream());
    assert_eq!(lengths(&mut body).await, [Some(10), Some(5), Some(0), Some(0)]);
    assert!(body.is_end_stream());

    let hint = |body: &Body| -> SizeHint { body.size_hint() };
    let body = Input::new(Scripted::of(["hello"])).into_body();
    assert_eq!((hint(&body).lower(), hint(&body).upper()), (0, None));
}

#[tokio::test]
async fn b7_a_request_that_says_that_it_is_over_does_so_on_the_other_side() {
    // A `Full` is over with its one frame; what is declared is over with its last byte, but not before, whatever the body says.
    for (declared, is_over) in [(None, true), (Some(5), true), (Some(6), false)] {
        let input = Input::new(Full::new(Bytes::from("hello")));
        let input = declared.into_iter().fold(input, Input::with_length);
        let mut body = input.into_body();
        assert!(!body.is_end_stream(), "{declared:?}");
        soon(body.frame()).await.expect("a frame").expect("no error");
        assert_eq!(body.is_end_stream(), is_over, "{declared:?}");
    }
}

#[test]
fn b7_an_input_that_is_all_here_stays_so() {
    let input = Input::from(Input::from("hello").into_body());
    assert!(input.is_complete());
    let body = Body::from(input);
    assert_eq!(body.size_hint().exact(), Some(5));
}
