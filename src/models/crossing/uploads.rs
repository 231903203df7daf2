//! Requests that are read as they come, or not to their end.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use loom::thread;
use tower_service::Service as _;

use super::{Probe, look, request, service, trip};
use crate::body::{Body, PollFrame};
use crate::error::BoxError;
use crate::input::Input;
use crate::models::{Tally, block_on};
use crate::output::Output;

/// An upload whose second chunk comes from another thread.
struct Upload {
    given: usize,
    second: Arc<loom::sync::Mutex<(bool, Option<Waker>)>>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        let mut second = self.second.lock().expect("a lock");
        if self.given == 1 && !second.0 {
            second.1 = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(second);
        self.given += 1;
        Poll::Ready((self.given <= 2).then(|| Ok(Frame::data(Bytes::from_static(b"chunk")))))
    }
}

/// Serves an upload, whose second chunk comes if it does, and which the client may give up.
fn with_upload(comes: bool, stays: bool) {
    let dropped = Arc::new(Tally::default());
    let mut service = service(|mut request: Request<Input>| -> io::Result<Response<Output>> {
        let mut read = Vec::new();
        request.body_mut().read_to_end(&mut read)?;
        assert_eq!(read, b"chunkchunk");
        Ok(Response::new(Output::from("thank you")))
    });
    let second = Arc::new(loom::sync::Mutex::new((false, None::<Waker>)));
    let mut request = request(Body::new(Upload { given: 0, second: second.clone() }));
    request.extensions_mut().insert(Arc::new(Probe(dropped.clone())));
    let mut future = service.call(request);
    drop(service);
    if comes {
        thread::spawn(move || {
            let mut second = second.lock().expect("a lock");
            second.0 = true;
            let waker = second.1.take();
            drop(second);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
    }
    if stays {
        let Ok(response) = block_on(future);
        assert_eq!(response.status(), 200);
    } else {
        drop(look(&mut future));
        drop(future);
    }
    dropped.wait_for(1);
}

/// An upload is read by whoever is there: the handler waits for ever if a chunk's wake is lost on its way from the task to the thread.
#[test]
fn an_upload_is_read() {
    trip(|| with_upload(true, true));
}

/// A client that gives up its upload: the handler waits for ever for the rest if it is not told.
#[test]
fn an_upload_is_given_up() {
    trip(|| with_upload(false, false));
    trip(|| with_upload(true, false));
}
