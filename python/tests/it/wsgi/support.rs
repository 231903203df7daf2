//! Applications as text, a loopback server for them, clients, and what the log said.

use std::convert::Infallible;
use std::ffi::CString;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, OnceLock, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower::{Layer, Service};
use tower_wsgi::{BoxError, WorkerPool, WsgiLayer};
use tower_wsgi_python::{Import, PyApp, PyWsgi};

use crate::log;

/// How long anything may take before the test fails. Never waited for in a test that passes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test on a runtime of its own, and fails it if it hangs.
pub(crate) fn run(test: impl Future<Output = ()> + Send + 'static) {
    start_interpreter();
    watched(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test);
        runtime.shutdown_background();
    });
}

/// Runs code on a thread of its own, so that a hang fails the test instead of holding it for ever.
pub(crate) fn watched<T: Send + 'static>(code: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(code());
    });
    match receiver.recv_timeout(2 * PATIENCE) {
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
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs blocking client code beside the runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    soon(tokio::task::spawn_blocking(work)).await.expect("no panic")
}

/// Starts the interpreter, and the log that tests look into.
pub(crate) fn start_interpreter() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::start();
        Import::new("wsgiref.simple_server:demo_app").load().expect("a module of the standard library");
    });
}

/// Waits until the log holds a text.
pub(crate) async fn logged(text: &str) {
    eventually(&format!("{text} in the log"), || log::text().contains(text)).await;
}

/// A module of Python made of text.
pub(crate) struct Module(Py<PyModule>);

impl Module {
    /// Runs the text, which may be indented as a whole.
    pub(crate) fn new(source: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        start_interpreter();
        let name = CString::new(format!("app_{}", COUNT.fetch_add(1, Ordering::Relaxed))).unwrap();
        let module = Python::attach(|py| {
            let dedent = py.import("textwrap")?.getattr("dedent")?;
            let source = CString::new(dedent.call1((source,))?.extract::<String>()?)?;
            PyModule::from_code(py, &source, c"app.py", &name).map(Bound::unbind)
        });
        Self(module.expect("a test's own module"))
    }

    /// The module's `app`.
    pub(crate) fn app(&self) -> PyWsgi {
        self.wsgi("app")
    }

    pub(crate) fn wsgi(&self, name: &str) -> PyWsgi {
        PyWsgi::new(self.callable(name))
    }

    pub(crate) fn callable(&self, name: &str) -> PyApp {
        let callable = Python::attach(|py| self.0.bind(py).getattr(name).unwrap().unbind());
        PyApp::from_callable(name, callable)
    }

    /// An expression's value, as `str` shows it.
    pub(crate) fn show(&self, expression: &str) -> String {
        Python::attach(|py| {
            let globals: Bound<'_, PyDict> = self.0.bind(py).dict();
            let expression = CString::new(expression).unwrap();
            let value = py.eval(&expression, Some(&globals), None);
            value.and_then(|value| Ok(value.str()?.to_string())).unwrap_or_else(|error| panic!("{error}"))
        })
    }

    pub(crate) fn is(&self, expression: &str) -> bool {
        self.show(&format!("bool({expression})")) == "True"
    }
}

/// A server on a port of its own, speaking HTTP/1 and HTTP/2 with prior knowledge. It stops when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
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

/// A response, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// What came of the body, and whether it was whole.
    pub(crate) body: Result<Bytes, Bytes>,
}

impl Answer {
    /// The body as text; it has to be whole.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().expect("a whole body")).expect("text")
    }
}

/// Reads a response to its end.
pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (parts, mut body) = response.into_parts();
    let (mut data, mut whole) = (Vec::new(), true);
    while let Some(frame) = soon(body.frame()).await {
        match frame {
            Ok(frame) => data.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    let data = Bytes::from(data);
    let body = if whole { Ok(data) } else { Err(data) };
    Answer { status: parts.status, headers: parts.headers, body }
}

impl Server {
    /// A request to this server.
    pub(crate) fn request<B>(&self, method: &str, path: &str, body: B) -> Request<B> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
            .header("host", self.addr.to_string())
            .body(body)
            .unwrap()
    }

    /// Sends one request on a connection of its own; the head of its response.
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
        let stream = soon(TcpStream::connect(self.addr)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            soon(client.send_request(request)).await
        } else {
            let (mut client, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            soon(client.send_request(request)).await
        }
    }

    pub(crate) async fn ask(&self, version: Version, request: Request<Full<Bytes>>) -> Answer {
        read(self.send(version, request).await.expect("a response")).await
    }

    /// Asks for a response that breaks off after its head: what came of its body. Over HTTP/2 the reset may overtake even the head.
    pub(crate) async fn ask_broken(&self, version: Version, request: Request<Full<Bytes>>) -> Bytes {
        match self.send(version, request).await {
            Ok(response) => {
                let answer = read(response).await;
                assert_eq!(answer.status, StatusCode::OK);
                answer.body.expect_err("a broken transfer")
            }
            Err(error) => {
                assert_eq!(version, Version::HTTP_2, "{error}");
                Bytes::new()
            }
        }
    }

    /// GETs a path over HTTP/1.1.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Version::HTTP_11, self.request("GET", path, Full::default())).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(Version::HTTP_11, self.request("POST", path, Full::new(body.into()))).await
    }

    /// A blocking connection, for what no well-behaved client does. Use it inside [`blocking`].
    pub(crate) fn connect(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends bytes as they are, and returns all that comes back until the server closes. Name `Connection: close` in them.
    pub(crate) async fn raw(&self, request: impl Into<Vec<u8>>) -> Vec<u8> {
        let (request, mut stream) = (request.into(), self.connect());
        blocking(move || {
            stream.write_all(&request).unwrap();
            let mut response = Vec::new();
            // A cut connection may end in a reset.
            let _ = stream.read_to_end(&mut response);
            response
        })
        .await
    }
}

/// A body whose chunks come when they are sent; it ends when the sender is dropped.
pub(crate) fn pushed() -> (tokio::sync::mpsc::Sender<Bytes>, Pushed) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Pushed(receiver))
}

pub(crate) struct Pushed(tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Pushed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// An application on a server, with the pool that it runs on.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) module: Module,
    pub(crate) pool: WorkerPool,
}

impl std::ops::Deref for Site {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Serves `app` of the text, with ten workers.
pub(crate) async fn site(source: &str) -> Site {
    site_with(source, 10, |layer| layer).await
}

/// Serves `app` of the text, behind a layer with settings of its own.
pub(crate) async fn site_with(
    source: &str,
    workers: usize,
    settings: impl FnOnce(WsgiLayer) -> WsgiLayer,
) -> Site {
    let module = Module::new(source);
    let pool = WorkerPool::new(workers);
    let layer = settings(WsgiLayer::adapter().pool(pool.clone()));
    let server = serve(layer.layer(module.app())).await;
    Site { server, module, pool }
}

impl Site {
    /// Waits until an expression of the application's module is true.
    pub(crate) async fn becomes(&self, expression: &str) {
        eventually(expression, || self.module.is(expression)).await;
    }

    /// Waits until no worker does anything.
    pub(crate) async fn idle(&self) {
        eventually("the pool is idle", || {
            let stats = self.pool.stats();
            stats.busy + stats.lending + stats.queued + stats.resumed + stats.discards == 0
        })
        .await;
    }
}

/// How much memory the process has, in KiB.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Both versions, for promises that have to hold on each.
pub(crate) const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Runs one test of this binary in a process of its own, with something in its environment that tells it to do its part; what it printed. Fails if it fails.
pub(crate) fn alone(test: &str, set_up: impl FnOnce(&mut std::process::Command)) -> String {
    static BINARY: OnceLock<std::path::PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| std::env::current_exe().unwrap());
    let mut command = std::process::Command::new(binary);
    command.args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"]).env(ALONE, test);
    command.env_remove("VIRTUAL_ENV").env_remove("PYTHONPATH").env_remove("PYTHONHOME");
    set_up(&mut command);
    let output = command.output().unwrap();
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} fails when it is alone:\n{printed}");
    assert!(printed.contains("1 passed"), "there is no test {test}:\n{printed}");
    printed
}

const ALONE: &str = "TOWER_WSGI_TEST_ALONE";

/// Whether this process was started by [`alone`] for the sake of `test`.
pub(crate) fn is_alone(test: &str) -> bool {
    std::env::var(ALONE).is_ok_and(|alone| alone == test)
}
