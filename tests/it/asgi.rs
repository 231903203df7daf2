//! The promises of the way back: async services in synchronous hosts.

mod background;
mod cancel;
mod contexts;
mod errors;
mod fork;
mod handed;
mod layer;
mod lingering;
mod misuse;
mod nested;
mod outputs;
mod passing;
mod place;
mod request;
mod views;
mod waits;

use std::fmt;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::mpsc as std_mpsc;
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tower_wsgi::{Body, BoxError, Error, Input, Output, SyncHandler};

use crate::support::{PATIENCE, Server, soon, text};

/// What a service of these tests returns.
type Answer = Result<Response<Body>, BoxError>;

type PollFrame = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// GETs the root.
fn get() -> Request<Input> {
    Request::new(Input::empty())
}

/// POSTs a body.
fn post(input: impl Into<Input>) -> Request<Input> {
    Request::post("/").body(input.into()).expect("a request")
}

/// The whole body of a response.
fn read(response: Response<Output>) -> io::Result<String> {
    io::read_to_string(response.into_body().into_reader())
}

/// A response's body, ready to be read.
fn reader(response: Result<Response<Output>, BoxError>) -> Input {
    response.expect("a response").into_body().into_reader()
}

/// What a handler answers to a GET of the root.
fn answer(handler: &impl SyncHandler) -> String {
    read(handler.call(get()).expect("a response")).expect("a whole body")
}

/// What a server answers to a GET of the root.
async fn ask(server: &Server) -> String {
    soon(text(soon(server.get("/")).await)).await
}

/// The crate's error that a call failed with.
fn refusal(result: Result<Response<Output>, BoxError>) -> Error {
    *result.expect_err("a refusal").downcast::<Error>().expect("an error of this crate")
}

/// The error of type `E` that a read failed with.
fn cause<E: std::error::Error + Clone + 'static>(error: &io::Error) -> E {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return found.clone();
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    panic!("another error: {error:?}");
}

/// An error that tests know again.
#[derive(Clone, Debug, PartialEq)]
struct Broken(&'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// A body made of the function that is polled for its frames.
struct PollBody<F>(F);

impl<F> http_body::Body for PollBody<F>
where
    F: FnMut(&mut Context<'_>) -> PollFrame + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        (self.0)(cx)
    }
}

/// A body of unknown length.
fn poll_body(poll: impl FnMut(&mut Context<'_>) -> PollFrame + Send + Unpin + 'static) -> Body {
    Body::new(PollBody(poll))
}

/// A body of these frames, each of which is ready when it is asked for.
fn frames<I>(frames: I) -> Body
where
    I: IntoIterator<Item = Result<Frame<Bytes>, BoxError>, IntoIter: Send + Unpin + 'static>,
{
    let mut frames = frames.into_iter();
    poll_body(move |_| Poll::Ready(frames.next()))
}

/// A body of unknown length with nothing to wait for.
fn chunks<const N: usize>(chunks: [&'static str; N]) -> Body {
    frames(chunks.map(|chunk| Ok(Frame::data(Bytes::from(chunk)))))
}

/// A body that gives what is sent, and ends when the sender is dropped.
fn fed() -> (mpsc::UnboundedSender<&'static str>, Body) {
    let (sender, mut pieces) = mpsc::unbounded_channel::<&'static str>();
    let body = poll_body(move |cx| {
        pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    });
    (sender, body)
}

/// A reader that blocks for what is sent, and ends when the sender is dropped.
fn pipe() -> (std_mpsc::Sender<&'static str>, impl Read + Send + 'static) {
    struct Pipe(std_mpsc::Receiver<&'static str>, &'static [u8]);

    impl Read for Pipe {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.1.is_empty() {
                self.1 = self.0.recv().unwrap_or_default().as_bytes();
            }
            self.1.read(buf)
        }
    }

    let (sender, receiver) = std_mpsc::channel();
    (sender, Pipe(receiver, b""))
}

/// The next event; they are told on other threads.
fn next<T>(events: &std_mpsc::Receiver<T>) -> T {
    events.recv_timeout(PATIENCE).expect("an event")
}

/// Tells on which thread it was dropped, and whether that was inside a runtime.
struct Tell(std_mpsc::Sender<Dropped>);

#[derive(Debug, PartialEq)]
struct Dropped {
    thread: ThreadId,
    in_runtime: bool,
}

impl Tell {
    fn new() -> (Self, std_mpsc::Receiver<Dropped>) {
        let (sender, receiver) = std_mpsc::channel();
        (Self(sender), receiver)
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        let dropped = Dropped { thread: thread::current().id(), in_runtime: Handle::try_current().is_ok() };
        // The test may be over.
        let _ = self.0.send(dropped);
    }
}

/// A runtime that a thread of its own drives, up to the drop of this.
struct Driven {
    handle: Handle,
    name: &'static str,
    _stop: oneshot::Sender<()>,
}

/// What the threads of a [`Driven`] runtime are called.
const DRIVER: &str = "driver";

fn drive(name: &'static str, runtime: Runtime) -> Driven {
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let driver = move || {
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    };
    thread::Builder::new().name(DRIVER.into()).spawn(driver).expect("a thread");
    Driven { handle, name, _stop: stop }
}

/// A runtime of each flavour.
fn driven() -> [Driven; 2] {
    let multi = Builder::new_multi_thread().worker_threads(1).thread_name(DRIVER).enable_all().build();
    [drive("multi-thread", multi.expect("a runtime")), drive("current-thread", current())]
}

fn multi() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn current() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
