//! A thread with a current-thread runtime of its own, to which callers send their requests, as `reqwest::blocking` does it.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;
use tower_wsgi::{Body, BoxError};

use crate::bodies::CHUNK;
use crate::contenders::{Hello, drain};

type Call = (Request<Body>, oneshot::Sender<Response<Body>>);

/// The thread ends when this is dropped and its requests have been answered.
pub(crate) struct RuntimeThread {
    calls: mpsc::UnboundedSender<Call>,
    runtime: Handle,
}

impl RuntimeThread {
    pub(crate) fn start<S: Hello>(service: S) -> io::Result<RuntimeThread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (calls, mut received) = mpsc::unbounded_channel::<Call>();
        thread::Builder::new().name("runtime".to_owned()).spawn(move || {
            runtime.block_on(async {
                while let Some((request, answer)) = received.recv().await {
                    let service = service.clone();
                    tokio::spawn(async move {
                        let Ok(response) = service.oneshot(request).await;
                        let _ = answer.send(response);
                    });
                }
            });
        })?;
        Ok(RuntimeThread { calls, runtime: handle })
    }

    fn send(&self, body: Body) -> oneshot::Receiver<Response<Body>> {
        let (answer, answered) = oneshot::channel();
        self.calls.send((Request::new(body), answer)).expect("a thread");
        answered
    }

    /// The caller polls the response's body itself.
    pub(crate) fn call(&self, body: Body) {
        let response = self.send(body).blocking_recv().expect("a response");
        drain(&self.runtime, response.into_body());
    }

    /// The caller reads, and sends what it has read.
    pub(crate) fn upload(&self, mut reader: impl Read) {
        let (chunks, received) = mpsc::channel(1);
        let answered = self.send(Body::new(Received(received)));
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = reader.read(&mut chunk).expect("bytes");
            if length == 0 {
                break;
            }
            chunk.truncate(length);
            chunks.blocking_send(Bytes::from(chunk)).expect("a service that reads");
        }
        drop(chunks);
        let response = answered.blocking_recv().expect("a response");
        drain(&self.runtime, response.into_body());
    }
}

/// A body that another thread sends.
struct Received(mpsc::Receiver<Bytes>);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
