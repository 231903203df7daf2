//! A small JSON API, synchronous, in axum and in plain hyper: the same application, the same stack.
//!
//! ```text
//! cargo run --example json_api            # or: cargo run --example json_api -- hyper
//! curl http://127.0.0.1:3000/health
//! curl http://127.0.0.1:3000/echo -H 'content-type: application/json' -d '{"message": "hello", "times": 2}'
//! curl -i http://127.0.0.1:3000/echo -d '{"message"'
//! ```
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::io;

use axum::Router;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::limit::RequestBodyLimitLayer;
use tower_wsgi::{BoxError, Input, Output, WsgiService};

/// The longest body that is taken; over it: 413.
const LIMIT: usize = 64 * 1024;

#[derive(Deserialize)]
struct Echo {
    message: String,
    #[serde(default = "once")]
    times: u8,
}

fn once() -> u8 {
    1
}

/// The application.
fn api(request: Request<Input>) -> Result<Response<Output>, BoxError> {
    match (request.uri().path(), request.method()) {
        ("/health", &Method::GET | &Method::HEAD) => json(StatusCode::OK, &json!({ "status": "ok" })),
        ("/echo", &Method::POST) => match serde_json::from_reader(request.into_body()) {
            Ok(Echo { message, times }) => {
                json(StatusCode::OK, &json!({ "echo": vec![message; times.into()] }))
            }
            // The body's error, not the JSON's: the crossing knows which status is right for it.
            Err(error) if error.is_io() => Err(io::Error::from(error).into()),
            Err(error) => json(StatusCode::BAD_REQUEST, &json!({ "error": error.to_string() })),
        },
        ("/health", _) => method_not_allowed("GET, HEAD"),
        ("/echo", _) => method_not_allowed("POST"),
        _ => json(StatusCode::NOT_FOUND, &json!({ "error": "not found" })),
    }
}

fn method_not_allowed(allowed: &'static str) -> Result<Response<Output>, BoxError> {
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "method not allowed" }))?;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Ok(response)
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Response<Output>, BoxError> {
    let mut response = Response::new(serde_json::to_vec(value)?.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let service =
        ServiceBuilder::new().layer(RequestBodyLimitLayer::new(LIMIT)).service(WsgiService::new(api));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);

    match std::env::args().nth(1).as_deref() {
        None | Some("axum") => axum::serve(listener, Router::new().fallback_service(service)).await?,
        Some("hyper") => loop {
            let (stream, peer) = listener.accept().await?;
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    eprintln!("connection from {peer}: {error}");
                }
            });
        },
        Some(other) => return Err(format!("`axum` or `hyper`, not `{other}`").into()),
    }
    Ok(())
}
