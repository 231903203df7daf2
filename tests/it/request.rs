//! A1, A2, A15 and the reading half of A8: the request's body, on its way to the handler.

mod ends;
mod model;
mod places;
mod reading;
mod relayed;
mod streaming;

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower_wsgi::{Body, BoxError, Input};

/// A handler that sends back what it read.
fn echo(mut request: Request<Input>) -> io::Result<Response<Vec<u8>>> {
    let mut bytes = Vec::new();
    request.body_mut().read_to_end(&mut bytes)?;
    Ok(Response::new(bytes))
}

/// The whole body of a response that came through no server.
async fn whole(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.expect("a whole body").to_bytes()
}

/// Polls once, so that what was Pending is known to be.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// One trailer.
fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().expect("a name"), "5d41".parse().expect("a value"))])
}

/// A body of frames that the test gives one by one, and the means to give them. It ends when the [`Feed`] is dropped.
fn fed() -> (Feed, Fed) {
    let (sender, frames) = mpsc::unbounded_channel();
    let asked = Arc::new(AtomicUsize::new(0));
    (Feed { sender, asked: asked.clone() }, Fed { frames, asked, length: None })
}

struct Feed {
    sender: mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    asked: Arc<AtomicUsize>,
}

struct Fed {
    frames: mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>,
    asked: Arc<AtomicUsize>,
    length: Option<u64>,
}

impl Feed {
    fn data(&self, data: impl Into<Bytes>) {
        self.send(Ok(Frame::data(data.into())));
    }

    fn trailers(&self) {
        self.send(Ok(Frame::trailers(trailers())));
    }

    fn fail(&self, error: impl Into<BoxError>) {
        self.send(Err(error.into()));
    }

    fn send(&self, frame: Result<Frame<Bytes>, BoxError>) {
        // The body may have been dropped.
        let _ = self.sender.send(frame);
    }

    /// How often the body was polled.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.frames.poll_recv(cx);
        self.asked.fetch_add(1, Ordering::SeqCst);
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// A body that has the next frame ready whenever it is asked, and counts what it gave.
struct Generated {
    left: usize,
    frame: Bytes,
    given: Arc<AtomicU64>,
    declared: bool,
}

impl Generated {
    fn new(frames: usize, frame: usize) -> Self {
        let frame = Bytes::from(vec![b'x'; frame]);
        Self { left: frames, frame, given: Arc::default(), declared: false }
    }

    fn length(&self) -> u64 {
        (self.left * self.frame.len()) as u64
    }
}

impl http_body::Body for Generated {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.given.fetch_add(self.frame.len() as u64, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.declared { SizeHint::with_exact(self.length()) } else { SizeHint::new() }
    }
}
