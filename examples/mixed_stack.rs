//! One stack that crosses the boundary twice: async layers, then sync ones, then async ones again, around an axum router.
//!
//! ```text
//! cargo run --example mixed_stack
//! curl -i http://127.0.0.1:3000/whoami -H 'authorization: Bearer open-sesame'
//! curl -i http://127.0.0.1:3000/report --compressed
//! ```
//!
//! The sync layers in the middle may block: each request has a worker thread there. It polls what is inside of it in place, and it lends its place to other requests
//! while it waits.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::trace::TraceLayer;
use tower_wsgi::{AsgiLayer, BoxError, Environ, Input, Output, Scope, SyncHandler, WsgiLayer, sync_fn};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let router = Router::new()
        .route("/whoami", get(whoami))
        .route("/report", get(|| async { "All is well, and so it was the day before.\n".repeat(100) }));

    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http()) // async
        .layer(WsgiLayer::adapter().workers(15)) // async -> sync
        .layer(sync_fn(timing)) // sync
        .layer(sync_fn(authenticate)) // sync
        .layer(AsgiLayer::adapter()) // sync -> async
        .layer(CompressionLayer::new()) // async
        .service(router);

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = Router::new().fallback_service(stack);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// Tells the client how long the application took.
fn timing(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
    let start = Instant::now();
    let mut response = next.call(request)?;
    let value = format!("app;dur={}", start.elapsed().as_millis());
    response.headers_mut().insert("server-timing", HeaderValue::try_from(value)?);
    Ok(response)
}

/// Tells the application who is asking, by a variable of the environ.
fn authenticate(mut request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
    let credentials = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = credentials.and_then(|credentials| credentials.strip_prefix("Bearer "));
    if let Some(user) = token.and_then(user_of) {
        let mut environ = Environ::of(&request);
        environ.set("REMOTE_USER", user);
        request.extensions_mut().insert(environ);
    }
    next.call(request)
}

/// Looks a token up, and blocks as long as the database takes.
fn user_of(token: &str) -> Option<&'static str> {
    thread::sleep(Duration::from_millis(5));
    (token == "open-sesame").then_some("ali")
}

/// An async handler that sees what the sync middleware has set.
async fn whoami(request: axum::extract::Request) -> String {
    let scope = Scope::of(&request);
    let user = scope.environ().and_then(|environ| environ.get("REMOTE_USER"));
    let user = user.map_or("nobody".into(), String::from_utf8_lossy);
    let client = scope.client().map_or_else(|| "nowhere".into(), |client| client.ip().to_string());
    format!("{user} at {client}\n")
}
