//! A1, of a body that the task which awaits the response reads ahead of a busy handler.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tower::{Layer, ServiceExt};
use tower_wsgi::{BoxError, Input, WsgiLayer};

use super::{Generated, whole};
use crate::support::{Events, Gate, PATIENCE, Probe, eventually, is_worker, soon};

const FRAME: usize = 64 * 1024;
/// 16 MiB. Miri is slow, and sees all that there is in less.
const FRAMES: usize = if cfg!(miri) { 6 } else { 256 };

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

#[tokio::test]
async fn a1_what_is_first_read_when_the_response_has_begun_waits_for_no_one_else() {
    let gate = Gate::new();
    let closed = gate.clone();
    let service = WsgiLayer::adapter().prefetch(0).layer(move |mut request: Request<Input>| {
        let closed = closed.clone();
        let rest = std::iter::from_fn(move || {
            closed.pass();
            request.body_mut().chunk().transpose()
        });
        Response::new(tower_wsgi::Output::try_iter(std::iter::once(Ok("first".into())).chain(rest)))
    });
    let body = Late::new();
    let length = body.body.length();
    let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
    gate.open();
    assert_eq!(soon(whole(response)).await.len() as u64, length + 5);
}

#[tokio::test]
async fn a1_a_handler_that_reads_on_is_read_ahead_of_no_further() {
    let (reading, steps) = (Events::new(), Arc::new((Mutex::new(0), Condvar::new())));
    let (tell, allowed) = (reading.teller(), steps.clone());
    let service = WsgiLayer::adapter().prefetch(0).layer(move |mut request: Request<Input>| {
        let mut taken = 0;
        while let Some(chunk) = request.body_mut().chunk()? {
            taken += chunk.len() as u64;
            tell(taken);
            let steps = allowed.0.lock().expect("a lock");
            let (mut steps, _) =
                allowed.1.wait_timeout_while(steps, PATIENCE, |steps| *steps == 0).expect("a lock");
            *steps -= 1;
        }
        Ok::<_, io::Error>(Response::new(taken.to_string()))
    });
    let body = Late::new();
    let (given, length) = (body.body.given.clone(), body.body.length());
    let (response, ()) = tokio::join!(soon(service.oneshot(Request::new(body))), async {
        for _ in 0..FRAMES {
            let taken = reading.next().await;
            // The task that reads ahead runs on this thread, and has its turns now.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            let ahead = given.load(Ordering::SeqCst) - taken;
            assert!(ahead <= AHEAD, "{ahead} bytes after {taken}");
            *steps.0.lock().expect("a lock") += 1;
            steps.1.notify_one();
        }
    });
    assert_eq!(whole(response.expect("a response")).await, length.to_string());
}

#[tokio::test]
async fn b7_a_body_that_is_read_ahead_says_when_it_is_over() {
    let service = WsgiLayer::adapter().prefetch(0).layer(|mut request: Request<Input>| {
        request.body_mut().read_exact(&mut [0])?;
        let mut body = request.into_body().into_body();
        let mut length = 1;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        while let Some(frame) = std::thread::scope(|scope| {
            let next = scope.spawn(|| {
                assert!(!body.is_end_stream());
                runtime.block_on(body.frame())
            });
            next.join().expect("no panic")
        }) {
            length += frame.expect("a frame").into_data().map_or(0, |data| data.len() as u64);
        }
        assert!(body.is_end_stream());
        Ok::<_, io::Error>(Response::new(length.to_string()))
    });
    let body = Late::new();
    let length = body.body.length();
    let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
    assert_eq!(whole(response).await, length.to_string());
}

#[tokio::test]
async fn a1_an_upload_may_come_in_thousands_of_pieces() {
    const PIECES: usize = if cfg!(miri) { 10 } else { 2000 };
    let (reading, service) = (Events::new(), WsgiLayer::adapter().prefetch(0));
    let tell = reading.teller();
    let service = service.layer(move |mut request: Request<Input>| {
        let mut pieces = 0;
        while request.body_mut().chunk()?.is_some() {
            pieces += 1;
            tell(());
        }
        Ok::<_, io::Error>(Response::new(pieces.to_string()))
    });
    let (feed, body) = super::fed();
    let (response, ()) = tokio::join!(soon(service.oneshot(Request::new(body))), async {
        for _ in 0..PIECES {
            let asked = feed.asked();
            feed.data("x");
            reading.next().await;
            eventually("the next one is waited for", || feed.asked() >= asked + 2).await;
        }
        drop(feed);
    });
    assert_eq!(whole(response.expect("a response")).await, PIECES.to_string());
}
