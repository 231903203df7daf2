//! A synchronous application inside an axum app.
//!
//! ```text
//! cargo run --example quickstart
//! curl http://127.0.0.1:3000/legacy/hello
//! ```
//!
//! Everything under `/legacy` is plain blocking code. It runs on a bounded pool of threads, its bodies are streamed in both directions, and
//! nothing of it knows of async.
//!
//! Environment: `ADDR` (default `127.0.0.1:3000`), `WORKERS` (10), `MAX_QUEUED` (1000), `SEND_QUEUE_SIZE` (10), `STORE_DIR` (a fresh
//! temporary directory).

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{Method, Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_http::trace::TraceLayer;
use tower_wsgi::{BoxError, Input, Output, SyncHandler, Variables, WsgiLayer};

/// How long requests may take to finish after the signal to stop.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();

    let app = Legacy {
        store: match std::env::var_os("STORE_DIR") {
            Some(dir) => dir.into(),
            None => tempfile::tempdir()?.keep(),
        },
    };
    tracing::info!("uploads are stored in {}", app.store.display());

    let mut legacy = WsgiLayer::new(app)
        .at("/legacy")
        .workers(variable("WORKERS", 10)?)
        .send_queue_size(variable("SEND_QUEUE_SIZE", 10)?);
    if std::env::var_os("MAX_QUEUED").is_some() {
        legacy = legacy.max_queued(variable("MAX_QUEUED", 0)?);
    }

    let router = Router::new()
        .route("/", get(|| async { "Hello from async!\n" }))
        .layer(legacy)
        .layer(TraceLayer::new_for_http());

    let listener = TcpListener::bind(variable("ADDR", "127.0.0.1:3000".to_owned())?).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async {
        stop_signal().await;
        let _ = stopping.send(());
    });
    tokio::select! {
        served = server => served?,
        () = async {
            let _ = stopped.await;
            tokio::time::sleep(GRACE).await;
        } => tracing::warn!("some requests did not finish in time"),
    }
    Ok(())
}

/// The synchronous application: a router by hand, as old code has them.
struct Legacy {
    store: PathBuf,
}

impl SyncHandler for Legacy {
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = *request.method() == Method::POST;
        match request.uri().path() {
            "/hello" if get => Ok(text("Hello World!")),
            "/sha256" if post => Ok(text(sha256(request.into_body())?)),
            "/store" if post => Ok(text(self.store(request.into_body())?)),
            "/numbers" if get => Ok(parameter(&request, "n")
                .map_or_else(bad_request, |n: u64| text(Output::iter((1..=n).map(|n| format!("{n}\n")))))),
            "/environ" if get => Ok(text(environ(&request))),
            "/file" if get => Ok(parameter(&request, "size")
                .map_or_else(bad_request, |size| text(Output::reader(io::repeat(b'x').take(size))))),
            "/sleep" if get => Ok(parameter(&request, "ms").map_or_else(bad_request, |ms| {
                std::thread::sleep(Duration::from_millis(ms));
                text(format!("slept for {ms} ms\n"))
            })),
            "/panic" if get => panic!("as you wish"),
            "/fail-late" if get => {
                let rows = ["the first of many rows\n"].map(Ok);
                let failure = Err("the database went away");
                Ok(text(Output::try_iter(rows.into_iter().chain([failure]))))
            }
            "/hello" | "/sha256" | "/store" | "/numbers" | "/environ" | "/file" | "/sleep" | "/panic"
            | "/fail-late" => Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
            _ => Ok(status(StatusCode::NOT_FOUND)),
        }
    }
}

impl Legacy {
    /// Stores an upload. The file has its name only once all of it has arrived: a client that vanishes is an error here, and
    /// the unnamed rest goes with the guard.
    fn store(&self, mut body: Input) -> io::Result<String> {
        let mut file = tempfile::Builder::new().prefix(".incoming-").tempfile_in(&self.store)?;
        io::copy(&mut body, &mut file)?;
        let unique = file.path().to_string_lossy();
        let name = unique.rsplit("/.incoming-").next().unwrap_or_default();
        let name = format!("upload-{name}");
        file.persist_noclobber(self.store.join(&name))?;
        Ok(name + "\n")
    }
}

fn sha256(mut body: Input) -> io::Result<String> {
    let mut hash = Sha256::new();
    while let Some(chunk) = body.chunk()? {
        hash.update(&chunk);
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits + "\n")
}

fn environ(request: &Request<Input>) -> String {
    let variables = Variables::of(request);
    let lines = variables.iter().map(|(name, value)| format!("{name}={}\n", String::from_utf8_lossy(value)));
    lines.collect()
}

fn text(body: impl Into<Output>) -> Response<Output> {
    let mut response = Response::new(body.into());
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

fn status(status: StatusCode) -> Response<Output> {
    let mut response = text(format!("{status}\n"));
    *response.status_mut() = status;
    response
}

fn bad_request() -> Response<Output> {
    status(StatusCode::BAD_REQUEST)
}

/// A parameter of the query; `None` if it is missing or not what it should be.
fn parameter<T: FromStr>(request: &Request<Input>, name: &str) -> Option<T> {
    let pairs = request.uri().query()?.split('&');
    let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

/// A variable of the process's environment, or its default.
fn variable<T: FromStr<Err: std::fmt::Display>>(name: &str, default: T) -> Result<T, BoxError> {
    match std::env::var(name) {
        Ok(value) => value.parse().map_err(|error| format!("{name}={value}: {error}").into()),
        Err(_) => Ok(default),
    }
}

async fn stop_signal() {
    let interrupt = signal(SignalKind::interrupt());
    let terminate = signal(SignalKind::terminate());
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}
