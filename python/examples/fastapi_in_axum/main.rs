//! A FastAPI application inside an axum router, WebSocket included: below `/api` FastAPI answers, everything else is Rust.
//!
//! ```text
//! python3 -m venv venv && . venv/bin/activate && pip install fastapi
//! cargo run -p tower-wsgi-python --example fastapi_in_axum
//! curl http://127.0.0.1:3000/
//! curl http://127.0.0.1:3000/api/square/12
//! curl http://127.0.0.1:3000/api/docs                # its links begin with /api
//! python3 -m websockets ws://127.0.0.1:3000/api/echo # pip install websockets
//! ```
//!
//! The application's lifespan runs: its startup before the server listens, its shutdown after Ctrl-C.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`), `VIRTUAL_ENV` (set by `activate`).

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
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
    axum::serve(listener, app).with_graceful_shutdown(interrupted()).await?;
    api.shutdown().await;
    Ok(())
}

async fn interrupted() {
    // Where signals cannot be had, the server only ends with its process.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
