//! The ways to call an async service.

use std::convert::Infallible;
use std::io;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tower::{Layer, Service, ServiceExt};
use tower_wsgi::{AsgiHandler, AsgiLayer, Body, Input, Output, SyncHandler};

use crate::bodies::{read_before, reader};
use crate::runtime_thread::RuntimeThread;

/// A contender's name, and a call by it.
pub(crate) type Way<'a> = (&'static str, Box<dyn Fn() + 'a>);

const BLOCK_ON: &str = "block_on";
const SPAWN: &str = "spawn and wait";
const THREAD: &str = "runtime thread";
const OURS: &str = "AsgiHandler";

pub(crate) trait Hello:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Hello for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

pub(crate) fn service<F, R>(handler: F) -> impl Hello
where
    F: Fn(Request<Body>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    tower::service_fn(move |request| {
        let response = handler(request);
        async move { Ok(response.await) }
    })
}

/// All of them, with the same service.
pub(crate) struct Contenders<S> {
    runtime: Handle,
    service: S,
    thread: RuntimeThread,
    handler: AsgiHandler<S>,
}

impl<S: Hello> Contenders<S> {
    pub(crate) fn new(runtime: &Handle, service: S) -> io::Result<Contenders<S>> {
        let runtime = runtime.clone();
        let thread = RuntimeThread::start(service.clone())?;
        let handler = AsgiLayer::adapter().runtime(runtime.clone()).layer(service.clone());
        Ok(Contenders { runtime, service, thread, handler })
    }

    /// With such a body in the request.
    pub(crate) fn ways<'a>(&'a self, body: impl Fn() -> Body + Copy + 'a) -> [Way<'a>; 4] {
        [
            (BLOCK_ON, Box::new(move || self.block_on(body()))),
            (SPAWN, Box::new(move || self.spawn(body()))),
            (THREAD, Box::new(move || self.thread.call(body()))),
            (OURS, Box::new(move || self.handle(Input::from(body())))),
        ]
    }

    /// With a blocking reader in the request.
    pub(crate) fn reading(&self) -> [Way<'_>; 4] {
        [
            (BLOCK_ON, Box::new(|| self.block_on(read_before()))),
            (SPAWN, Box::new(|| self.spawn(read_before()))),
            (THREAD, Box::new(|| self.thread.upload(reader()))),
            (OURS, Box::new(|| self.handle(Input::reader(reader())))),
        ]
    }

    /// What a user would write for a host that needs the body's frames one by one.
    fn block_on(&self, body: Body) {
        let Ok(response) = self.runtime.block_on(self.service.clone().oneshot(Request::new(body)));
        drain(&self.runtime, response.into_body());
    }

    /// The same with a task that is ahead of the host by up to ten frames.
    fn spawn(&self, body: Body) {
        let (head, got_head) = oneshot::channel();
        let (sender, mut frames) = mpsc::channel(10);
        let service = self.service.clone();
        self.runtime.spawn(async move {
            let Ok(response) = service.oneshot(Request::new(body)).await;
            let (parts, mut body) = response.into_parts();
            let _ = head.send(parts);
            while let Some(frame) = body.frame().await {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
        });
        got_head.blocking_recv().expect("a head");
        while let Some(frame) = frames.blocking_recv() {
            frame.expect("a frame");
        }
    }

    fn handle(&self, input: Input) {
        let response = self.handler.call(Request::new(input)).expect("a response");
        let mut body = response.map(Output::into_reader).into_body();
        while body.chunk().expect("a chunk").is_some() {}
    }
}

/// Polls a body on the calling thread.
pub(crate) fn drain(runtime: &Handle, mut body: Body) {
    while let Some(frame) = runtime.block_on(body.frame()) {
        frame.expect("a frame");
    }
}
