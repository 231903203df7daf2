//! A FastAPI application inside an axum router, WebSocket included: below `/api` FastAPI answers, everything else is Rust.
//!
//! ```text
//! python3 -m venv venv && . venv/bin/activate && pip install fastapi
//! cargo run -p tower-wsgi-python --example fastapi_in_axum
//! curl http://127.0.0.1:3000/
//! curl http://127.0.0.1:3000/api/square/12
//! curl -N http://127.0.0.1:3000/api/clock
//! curl http://127.0.0.1:3000/api/docs                # its links begin with /api
//! python3 -m websockets ws://127.0.0.1:3000/api/echo # pip install websockets
//! ```
//!
//! The application's lifespan runs: its startup before the server listens, its shutdown after Ctrl-C or SIGTERM. `/api/clock` never ends by itself, and does not keep the program from its end.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`), `GRACE` (30 seconds for what runs when it is told to stop), `VIRTUAL_ENV` (set by `activate`).

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tower_wsgi::BoxError;
use tower_wsgi_python::{Import, PyAsgi, PyAsgiLayer, run_exit_handlers};

fn main() -> Result<(), BoxError> {
    // Before the runtime is there: the import and the startup are Python code, which runs for as long as it likes.
    let api = Import::new("api:app").path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fastapi_in_axum"));
    serve(PyAsgi::new(api.load()?)?)?;
    run_exit_handlers();
    Ok(())
}

#[tokio::main]
async fn serve(api: PyAsgi) -> Result<(), BoxError> {
    let app = Router::new()
        .route("/", get(|| async { "Rust; the API is at /api/\n" }))
        .layer(PyAsgiLayer::new(api.clone()).at("/api"));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // How long requests may go on after the signal, and the lifespan's shutdown after that.
    let grace = std::env::var("GRACE").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(30);
    let grace = Duration::from_secs(grace);
    // With it, the application knows its client's address.
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, service).with_graceful_shutdown(told()) => served?,
        // A response without an end would keep it for ever: it is cut off when the runtime ends.
        () = async { told().await; sleep(grace).await } => {}
    }
    if timeout(grace, api.shutdown()).await.is_err() {
        eprintln!("the API takes too long to close");
    }
    Ok(())
}

/// Ends when the process is told to stop: by Ctrl-C, or by SIGTERM, as systemd and Docker do it.
async fn told() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler can be installed");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
