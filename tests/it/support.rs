//! A real loopback server, clients for it, and the means to know what happened without waiting and hoping.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower::Service;
use tower_wsgi::{Body, BoxError, PoolStats, WorkerPool};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

/// How long anything may take before the test fails. Never waited for in a test that passes. Under Miri each step counts as so much time that 20 seconds are soon over.
pub(crate) const PATIENCE: Duration = Duration::from_secs(if cfg!(miri) { 2000 } else { 20 });

/// A server on a port of its own, speaking HTTP/1 and HTTP/2 with prior knowledge. It stops when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<()>,
}

/// Serves any tower service.
pub(crate) async fn serve<S, B>(service: S) -> Server
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                // What a client does to its connection is the tests' business.
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    Server { addr, accepting }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    /// Sends one request on a connection of its own.
    pub(crate) async fn send<B>(
        &self,
        version: Version,
        request: Request<B>,
    ) -> Result<Response<Incoming>, hyper::Error>
    where
        B: http_body::Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let stream = TcpStream::connect(self.addr).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            client.send_request(request).await
        } else {
            let (mut client, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            client.send_request(request).await
        }
    }

    /// GETs a path over HTTP/1.1.
    pub(crate) async fn get(&self, path: &str) -> Response<Incoming> {
        let request = self.request("GET", path, Body::empty());
        self.send(Version::HTTP_11, request).await.expect("a response")
    }

    /// A request to this server.
    pub(crate) fn request<B>(&self, method: &str, path: &str, body: B) -> Request<B> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
            .header("host", self.addr.to_string())
            .body(body)
            .expect("a request")
    }

    /// A blocking connection, for what no well-behaved client does. Use it inside [`blocking`].
    pub(crate) fn connect(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(self.addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        stream
    }

    /// Sends bytes as they are, and returns all that comes back until the server closes. Name `Connection: close` in them.
    pub(crate) async fn raw(&self, request: impl Into<Vec<u8>>) -> Vec<u8> {
        let (request, mut stream) = (request.into(), self.connect());
        blocking(move || {
            stream.write_all(&request).expect("to send");
            let mut response = Vec::new();
            // A cut connection may end in a reset.
            let _ = stream.read_to_end(&mut response);
            response
        })
        .await
    }
}

/// The whole body, as text.
pub(crate) async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Both versions, for promises that have to hold on each.
pub(crate) const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Runs blocking client code beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// Runs blocking code that must not hang: on a thread of its own, so that a hang fails the test instead of holding it for ever.
pub(crate) fn watched<T: Send + 'static>(code: impl FnOnce() -> T + Send + 'static) -> T {
    watched_for(PATIENCE, code)
}

/// Runs blocking code that may take longer than others.
pub(crate) fn watched_for<T: Send + 'static>(
    patience: Duration,
    code: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(code());
    });
    match receiver.recv_timeout(patience) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}

/// A future that must not hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("to end soon")
}

/// Waits until something is true; it is looked at again and again, since nothing announces it.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::task::yield_now().await;
    }
}

/// Waits until no worker of a pool does anything.
pub(crate) async fn idle(pool: &WorkerPool) -> PoolStats {
    eventually("the pool is idle", || {
        let stats = pool.stats();
        stats.busy + stats.lending + stats.queued + stats.resumed == 0
    })
    .await;
    pool.stats()
}

/// A channel on which handlers and values tell the test what happened.
pub(crate) struct Events<T> {
    sender: mpsc::Sender<T>,
    receiver: Arc<Mutex<mpsc::Receiver<T>>>,
}

impl<T: Send + 'static> Events<T> {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { sender, receiver: Arc::new(Mutex::new(receiver)) }
    }

    /// Something that tells an event when called.
    pub(crate) fn teller(&self) -> impl Fn(T) + Clone + Send + Sync + use<T> {
        let sender = Arc::new(Mutex::new(self.sender.clone()));
        move |event| {
            // The test may be over.
            let _ = sender.lock().expect("a lock").send(event);
        }
    }

    /// The next event.
    pub(crate) async fn next(&self) -> T {
        let receiver = self.receiver.clone();
        blocking(move || receiver.lock().expect("a lock").recv_timeout(PATIENCE).expect("an event")).await
    }

    /// The events that have come.
    pub(crate) fn drain(&self) -> Vec<T> {
        self.receiver.lock().expect("a lock").try_iter().collect()
    }
}

/// A gate that handlers wait at until the test opens it, for all and for ever.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(Mutex<bool>, std::sync::Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Mutex::new(false), std::sync::Condvar::new())))
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("a lock") = true;
        self.0.1.notify_all();
    }

    /// Blocks until the gate is open.
    pub(crate) fn pass(&self) {
        let closed = self.0.0.lock().expect("a lock");
        let (_open, result) = self.0.1.wait_timeout_while(closed, PATIENCE, |open| !*open).expect("a lock");
        assert!(!result.timed_out(), "the gate was never opened");
    }
}

/// A value that tells on which thread it was dropped.
#[derive(Clone)]
pub(crate) struct Probe(#[expect(dead_code, reason = "held for its drop")] Arc<ProbeInner>);

struct ProbeInner(Mutex<Box<dyn Fn(String) + Send>>);

impl Drop for ProbeInner {
    fn drop(&mut self) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().expect("a lock")(thread);
    }
}

impl Probe {
    /// A probe that tells `dropped`. Its clones count as one.
    pub(crate) fn new(dropped: &Events<String>) -> Self {
        Self(Arc::new(ProbeInner(Mutex::new(Box::new(dropped.teller())))))
    }
}

/// Whether a thread is one of a pool's (or the one that drops what vanished clients left).
pub(crate) fn is_worker(thread: &str) -> bool {
    matches!(thread, "tower-wsgi-worker" | "tower-wsgi-reaper")
}

/// Serves a router the way axum does.
pub(crate) async fn serve_axum(router: axum::Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let accepting = tokio::spawn(async move {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).await.expect("to serve");
    });
    Server { addr, accepting }
}

impl Server {
    /// Sends a request without a body.
    pub(crate) async fn ask(&self, version: Version, method: &str, path: &str) -> Response<Incoming> {
        let request = self.request(method, path, Body::empty());
        soon(self.send(version, request)).await.expect("a response")
    }
}

/// A body of these frames, each of which is ready when it is asked for. Of unknown length, it says that it has ended as soon as it has.
pub(crate) struct Scripted(VecDeque<Result<Frame<Bytes>, BoxError>>);

impl Scripted {
    pub(crate) fn new(frames: impl IntoIterator<Item = Result<Frame<Bytes>, BoxError>>) -> Self {
        Self(frames.into_iter().collect())
    }

    /// A body of chunks that all are well.
    pub(crate) fn of<const N: usize>(chunks: [&'static str; N]) -> Self {
        Self::new(chunks.map(|chunk| Ok(Frame::data(chunk.into()))))
    }
}

impl http_body::Body for Scripted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(self.0.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the crate has logged since the first [`collect`].
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Has spans and events collected, by one collector for all tests: workers look for one of all threads.
pub(crate) fn collect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let collector = tracing_subscriber::registry().with(Recorder);
        tracing::subscriber::set_global_default(collector).expect("no other collector");
    });
}

/// The lines of the log that hold `mark`: level, message and fields. Other tests' are there, too.
pub(crate) fn logged(mark: &str) -> Vec<String> {
    LOG.lock().expect("a lock").iter().filter(|line| line.contains(mark)).cloned().collect()
}

struct Recorder;

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Recorder {
    fn on_event(&self, event: &tracing::Event<'_>, context: tracing_subscriber::layer::Context<'_, S>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let name =
                    if field.name() == "message" { String::new() } else { format!("{}=", field.name()) };
                self.0 += &format!(" {name}{value:?}");
            }

            fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
                self.0 += &format!(" {}={value}", field.name());
            }
        }

        let target = event.metadata().target();
        // The steps of every request of all tests would be many: of them only those are kept whose span asks for it by its name.
        let span =
            context.event_span(event).map(|span| span.name()).filter(|name| name.starts_with("events_"));
        if target.starts_with("tower_wsgi") && (target != "tower_wsgi" || span.is_some()) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            if target == "tower_wsgi" {
                line.0 += &span.map(|name| format!(" in={name}")).unwrap_or_default();
            }
            LOG.lock().expect("a lock").push(line.0);
        }
    }
}
