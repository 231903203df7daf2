//! A1, of a body that the task which awaits the response reads ahead of a busy handler.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tower::{Layer, ServiceExt};
use tower_wsgi::{BoxError, Input, WsgiLayer};

use super::{Generated, whole};
use crate::support::{Events, Gate, Probe, is_worker, soon};

const FRAME: usize = 64 * 1024;
/// 16 MiB.
const FRAMES: usize = 256;

/// What is documented of [`Input`].
const AHEAD: u64 = 256 * 1024;

/// A body that is not there when it is first asked for, so that its reader has to wait.
struct Late {
    is_asked: bool,
    body: Generated,
    /// Held for its drop.
    probe: Option<Probe>,
}

impl Late {
    fn new() -> Self {
        Self { is_asked: false, body: Generated::new(FRAMES, FRAME), probe: None }
    }
}

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.is_asked {
            self.is_asked = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

#[tokio::test]
async fn a1_what_is_read_ahead_of_a_busy_handler_is_bounded() {
    let (reading, gate) = (Events::new(), Gate::new());
    let (tell, closed) = (reading.teller(), gate.clone());
    let service = WsgiLayer::adapter().prefetch(0).layer(move |mut request: Request<Input>| {
        let input = request.body_mut();
        input.read_exact(&mut [0])?;
        tell(());
        closed.pass();
        let rest = io::copy(input, &mut io::sink())?;
        Ok::<_, io::Error>(Response::new((1 + rest).to_string()))
    });
    let body = Late::new();
    let (given, length) = (body.body.given.clone(), body.body.length());
    let (response, ()) = tokio::join!(soon(service.oneshot(Request::new(body))), async {
        reading.next().await;
        // The body has more whenever it is asked. One frame is the handler's.
        let ahead = given.load(Ordering::SeqCst) - FRAME as u64;
        assert!((1..=AHEAD).contains(&ahead), "{ahead} bytes");
        gate.open();
    });
    assert_eq!(whole(response.expect("a response")).await, length.to_string());
    assert_eq!(given.load(Ordering::SeqCst), length);
}

#[tokio::test]
async fn a1_a_body_that_is_read_ahead_goes_when_the_handler_lets_go_of_it() {
    let (dropped, gate) = (Events::new(), Gate::new());
    let closed = gate.clone();
    let service = WsgiLayer::adapter().prefetch(0).layer(move |mut request: Request<Input>| {
        request.body_mut().read_exact(&mut [0])?;
        drop(request);
        closed.pass();
        Ok::<_, io::Error>(Response::new("enough"))
    });
    let mut body = Late::new();
    body.probe = Some(Probe::new(&dropped));
    let (response, ()) = tokio::join!(soon(service.oneshot(Request::new(body))), async {
        let thread = dropped.next().await;
        assert!(is_worker(&thread), "on {thread}");
        gate.open();
    });
    assert_eq!(whole(response.expect("a response")).await, "enough");
}

#[tokio::test]
async fn a1_a_reader_goes_on_by_itself_once_the_response_has_begun() {
    let service = WsgiLayer::adapter().prefetch(0).layer(move |mut request: Request<Input>| {
        request.body_mut().read_exact(&mut [0])?;
        let rest =
            tower_wsgi::Output::try_iter(std::iter::from_fn(move || request.body_mut().chunk().transpose()));
        Ok::<_, io::Error>(Response::new(rest))
    });
    let body = Late::new();
    let length = body.body.length();
    let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
    assert_eq!(whole(response).await.len() as u64, length - 1);
}
