//! The servers under test, and what is left of what was done to them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, Read, Write as _};
use std::iter;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tower::{Layer as _, Service, ServiceBuilder, service_fn};
use tower_wsgi::{AsgiLayer, Body, BoxError, Input, Output, WorkerPool, WsgiLayer};

use super::census::{Census, Held};
use super::wire;
use crate::support::{Events, PATIENCE, eventually};

/// What is behind the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A synchronous application behind a `WsgiService`.
    Sync,
    /// An asynchronous one behind an `AsgiHandler` behind a `WsgiService`.
    Nested,
    /// A synchronous one behind two crossings more, all on one pool.
    Deep,
}

pub(super) const SHAPES: [Shape; 3] = [Shape::Sync, Shape::Nested, Shape::Deep];

/// How much a connection gathers before it asks for no more.
const ROOM: usize = 16 * 1024;

/// What an application read of a request's body.
#[derive(Debug)]
pub(super) struct Reading {
    /// Which request it was.
    pub(super) query: String,
    pub(super) bytes: Vec<u8>,
    /// Whether it was told that this was all.
    pub(super) is_whole: bool,
}

/// A server with little room for what goes out, and all there is to know of it.
pub(super) struct Site {
    pub(super) addr: SocketAddr,
    pub(super) pool: WorkerPool,
    pub(super) app: App,
    accepting: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The application: its paths are those of [`App::call`].
#[derive(Clone)]
pub(super) struct App {
    pub(super) census: Census,
    /// How many requests came.
    pub(super) started: Arc<AtomicUsize>,
    /// How many bytes of bodies were read.
    pub(super) progress: Arc<AtomicUsize>,
    tell: Arc<dyn Fn(Reading) + Send + Sync>,
    pub(super) readings: Arc<Events<Reading>>,
}

impl Site {
    /// Serves the application in one of its shapes, on a pool of two workers.
    pub(super) async fn new(shape: Shape, layer: impl Fn(WsgiLayer) -> WsgiLayer) -> Self {
        let app = App::new();
        let pool = WorkerPool::new(2);
        let adapter = || layer(WsgiLayer::adapter().pool(pool.clone()));
        let sync = app.clone();
        let handler = move |request: Request<Input>| sync.call(request);
        match shape {
            Shape::Sync => Self::serve(adapter().layer(handler), pool.clone(), app).await,
            Shape::Nested => {
                let inner = app.clone();
                let service = service_fn(move |request| inner.clone().answer(request));
                let service =
                    ServiceBuilder::new().layer(adapter()).layer(AsgiLayer::adapter()).service(service);
                Self::serve(service, pool.clone(), app).await
            }
            Shape::Deep => {
                let service =
                    ServiceBuilder::new().layer(adapter()).layer(AsgiLayer::adapter()).layer(adapter());
                Self::serve(service.service(handler), pool.clone(), app).await
            }
        }
    }

    /// Serves a service over HTTP/1.1 and HTTP/2.
    pub(super) async fn serve<S, B>(service: S, pool: WorkerPool, app: App) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_send_buffer_size(4096).expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(1024).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                stream.set_nodelay(true).expect("a socket");
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http1().max_buf_size(ROOM);
                    builder.http2().max_send_buf_size(ROOM);
                    // What a client does to its connection is the tests' business.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { addr, pool, app, accepting }
    }

    /// Waits until nothing is left of any request or connection, and asserts that the server still answers.
    pub(super) async fn settle(&self, what: &str) {
        self.cleared(what).await;
        let answer = wire::raw(
            self.addr,
            b"POST /echo?after HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 4\r\n\r\nhere",
        )
        .await;
        let replies = wire::Replies::parse(&answer);
        assert_eq!(replies.whole.len(), 1, "{what}: {replies:?}");
        assert_eq!((replies.whole[0].status, &*replies.whole[0].body), (200, &b"here"[..]), "{what}");
        self.cleared(what).await;
    }

    /// Waits until nothing is left of any request or connection.
    pub(super) async fn cleared(&self, what: &str) {
        let left = || {
            let stats = self.pool.stats();
            let pool = stats.busy + stats.lending + stats.queued + stats.resumed + stats.discards;
            (pool, self.app.census.alive(), alive_tasks())
        };
        let deadline = Instant::now() + PATIENCE;
        // One task accepts connections.
        while left() != (0, 0, 1) {
            assert!(
                Instant::now() < deadline,
                "{what}: in the pool, alive, tasks: {:?}, {:?}",
                left(),
                self.pool
            );
            tokio::task::yield_now().await;
        }
        let astray = self.app.census.astray();
        assert!(astray.is_empty(), "{what}: dropped on {astray:?}");
        // Those that lend their place come on top: four for each worker at the most.
        assert!(self.pool.stats().threads <= 5 * self.pool.workers(), "{what}: {:?}", self.pool);
    }

    /// Waits until no thread works for any request, while the requests go on.
    pub(super) async fn at_rest(&self, what: &str) {
        eventually(what, || {
            let stats = self.pool.stats();
            stats.busy + stats.lending + stats.queued + stats.resumed == 0
        })
        .await;
    }
}

/// The tasks of the test's own runtime.
pub(super) fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

impl App {
    pub(super) fn new() -> Self {
        let readings = Arc::new(Events::new());
        let tell = Arc::new(readings.teller());
        Self { census: Census::default(), started: Arc::default(), progress: Arc::default(), tell, readings }
    }

    /// Synchronous: reads a body in one of three ways, or makes one in one of five.
    pub(super) fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let held = self.census.hold();
        self.started.fetch_add(1, Ordering::SeqCst);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path = request.uri().path().to_owned();
        let mut input = request.into_body();
        let mut reading = Reading { query, bytes: Vec::new(), is_whole: false };
        match &*path {
            "/echo" => {
                let mut buf = [0; 3];
                let end = loop {
                    match input.read(&mut buf) {
                        Ok(0) => break Ok(()),
                        Ok(length) => self.note(&mut reading, &buf[..length]),
                        Err(error) => break Err(error),
                    }
                };
                let bytes = reading.bytes.clone();
                (self.tell)(Reading { is_whole: end.is_ok(), ..reading });
                end?;
                Ok(Response::new(bytes.into()))
            }
            "/relay" => {
                let app = self.clone();
                Ok(Response::new(Output::try_iter(iter::from_fn(move || {
                    let _held = &held;
                    let chunk = input.chunk().transpose();
                    match &chunk {
                        Some(Ok(chunk)) => app.note(&mut reading, chunk),
                        end => (app.tell)(Reading {
                            query: reading.query.clone(),
                            bytes: reading.bytes.clone(),
                            is_whole: end.is_none(),
                        }),
                    }
                    chunk
                }))))
            }
            "/iter" => Ok(Response::new(Output::iter(pieces().inspect(move |_| {
                let _held = &held;
            })))),
            "/reader" => Ok(Response::new(Output::reader(Pieces(held, Box::new(pieces()), Bytes::new())))),
            "/writer" => Ok(Response::new(Output::writer(move |w| {
                let _held = &held;
                pieces().try_for_each(|piece| w.write_all(&piece).and_then(|()| w.flush()))
            }))),
            "/body" => Ok(Response::new(Output::body(AsyncPieces(self.census.hold_anywhere(), pieces())))),
            "/full" => Ok(Response::new("all of it".into())),
            other => Err(format!("no such path: {other}").into()),
        }
    }

    /// Asynchronous, the same.
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let held = self.census.hold_anywhere();
        self.started.fetch_add(1, Ordering::SeqCst);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut reading = Reading { query, bytes: Vec::new(), is_whole: false };
        match &*path {
            "/echo" => {
                let end = loop {
                    match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                        None => break Ok(()),
                        Some(Ok(frame)) => {
                            if let Some(data) = frame.data_ref() {
                                self.note(&mut reading, data);
                            }
                        }
                        Some(Err(error)) => break Err(error),
                    }
                };
                let bytes = reading.bytes.clone();
                (self.tell)(Reading { is_whole: end.is_ok(), ..reading });
                end?;
                Ok(Response::new(bytes.into()))
            }
            "/relay" => Ok(Response::new(Body::new(Relayed { app: self, reading, body, _held: held }))),
            "/body" => Ok(Response::new(Body::new(AsyncPieces(held, pieces())))),
            "/full" => Ok(Response::new("all of it".into())),
            other => Err(format!("no such path: {other}").into()),
        }
    }

    fn note(&self, reading: &mut Reading, bytes: &[u8]) {
        reading.bytes.extend_from_slice(bytes);
        self.progress.fetch_add(bytes.len(), Ordering::SeqCst);
    }
}

/// A download without an end: four small pieces, then large ones, so that the room on the way is soon full.
fn pieces() -> impl Iterator<Item = Bytes> + Send {
    iter::repeat_n(Bytes::from_static(b"abc"), 4).chain(iter::repeat(Bytes::from_static(&[b'x'; 4096])))
}

struct Pieces(
    #[expect(dead_code, reason = "held for its drop")] Held,
    Box<dyn Iterator<Item = Bytes> + Send>,
    Bytes,
);

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.2.is_empty() {
            self.2 = self.1.next().unwrap_or_default();
        }
        let piece = self.2.split_to(buf.len().min(self.2.len()));
        buf[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

struct AsyncPieces<I>(#[expect(dead_code, reason = "held for its drop")] Held, I);

impl<I: Iterator<Item = Bytes> + Unpin> http_body::Body for AsyncPieces<I> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.1.next().map(|piece| Ok(Frame::data(piece))))
    }
}

/// A request's body on its way back.
struct Relayed {
    app: App,
    reading: Reading,
    body: Body,
    _held: Held,
}

impl http_body::Body for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let is_whole = match &polled {
            Poll::Pending => return polled,
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) => {
                    this.app.note(&mut this.reading, data);
                    return polled;
                }
                // Nobody asks for what is behind the trailers.
                None => true,
            },
            Poll::Ready(end) => end.is_none(),
        };
        let (query, bytes) = (this.reading.query.clone(), this.reading.bytes.clone());
        (this.app.tell)(Reading { query, bytes, is_whole });
        polled
    }
}
