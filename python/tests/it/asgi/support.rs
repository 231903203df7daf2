//! What the tests share: applications from source text, and a server on loopback.

use std::ffi::CString;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use pyo3::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_wsgi::{Body, BoxError};
use tower_wsgi_python::{Import, PyApp, PyAsgi};

/// What every application here may use.
const PRELUDE: &str = r#"
import asyncio, contextlib, json

async def whole_body(receive):
    chunks = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        chunks.append(message["body"])
        if not message["more_body"]:
            return chunks

async def reply(send, value, status=200):
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})

def http_only(app):
    async def wrapped(scope, receive, send):
        assert scope["type"] != "lifespan"
        await app(scope, receive, send)
    return wrapped
"#;

/// The application `app` of a module of this text.
pub(super) fn load(code: &str) -> PyApp {
    static MODULES: AtomicUsize = AtomicUsize::new(0);

    // Starts the interpreter.
    Import::new("wsgiref.simple_server:demo_app").load().expect("an interpreter");
    let name = format!("app{}", MODULES.fetch_add(1, Ordering::Relaxed));
    let code = CString::new([PRELUDE, code].concat()).expect("no NUL");
    let module_name = CString::new(name.clone()).expect("no NUL");
    Python::attach(|py| {
        let module = PyModule::from_code(py, &code, &module_name, &module_name)
            .unwrap_or_else(|error| panic!("{error}"));
        PyApp::from_callable(name, module.getattr("app").expect("an app").unbind())
    })
}

pub(crate) fn start(code: &str) -> PyAsgi {
    PyAsgi::new(load(code)).unwrap_or_else(|error| panic!("{error}"))
}

/// An application without a lifespan.
pub(super) fn start_http(body: &str) -> PyAsgi {
    let body = body.lines().map(|line| format!("    {line}\n")).collect::<String>();
    start(&format!("@http_only\nasync def app(scope, receive, send):\n{body}"))
}

/// Runs a test, which fails rather than hangs.
pub(super) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let output = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await });
    runtime.shutdown_background();
    output.expect("the test does not hang")
}

pub(super) async fn call(app: &PyAsgi, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.expect("an infallible service")
}

pub(super) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

pub(super) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.into()).expect("text")
}

pub(super) async fn json(response: Response<Body>) -> serde_json::Value {
    let status = response.status();
    let text = text(response).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {status} {text}"))
}

/// A body that gives what it is sent; dropping the sender cuts it off.
pub(super) struct Channel {
    chunks: mpsc::UnboundedReceiver<Option<Bytes>>,
    ended: bool,
}

pub(super) fn channel() -> (mpsc::UnboundedSender<Option<Bytes>>, Body) {
    let (sender, chunks) = mpsc::unbounded_channel();
    (sender, Body::new(Channel { chunks, ended: false }))
}

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.chunks.poll_recv(cx).map(|chunk| match chunk {
            Some(Some(chunk)) => Some(Ok(Frame::data(chunk))),
            Some(None) => {
                self.ended = true;
                None
            }
            None => Some(Err("cut off".into())),
        })
    }
}

/// Serves an application over HTTP/1 and HTTP/2, for as long as the runtime lives.
pub(super) async fn serve(app: PyAsgi) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let app = app.clone();
            tokio::spawn(async move {
                let service =
                    hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
                        let scope = tower_wsgi::Scope::of(&request)
                            .with_client(peer)
                            .with_server("127.0.0.1", address.port());
                        request.extensions_mut().insert(scope);
                        app.clone().oneshot(request)
                    });
                let executor = hyper_util::rt::TokioExecutor::new();
                let mut builder = hyper_util::server::conn::auto::Builder::new(executor);
                builder.http2().enable_connect_protocol();
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = builder.serve_connection_with_upgrades(io, service).await;
            });
        }
    });
    address
}

/// Sends bytes and reads until the server closes the connection.
pub(super) async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("room");
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8_lossy(&response).into_owned()
}
