//! One request in the log, whichever side and thread its lines come from.
//!
//! ```text
//! cargo run --example spans
//! curl http://127.0.0.1:3000/ -H 'x-request-id: abc'
//! curl http://127.0.0.1:3000/rows -H 'x-request-id: abc'
//! ```
//!
//! `TraceLayer` stands outside and opens a span with the request's id. The span crosses to the workers and back without further ado: the sync middleware, the handler, the body that
//! it streams, and an async service inside of all that write their lines in it:
//!
//! ```text
//! INFO request{id="abc" path="/rows"}: sync middleware thread="tower-wsgi-worker"
//! INFO request{id="abc" path="/"}: async handler thread="tower-wsgi-worker"
//! INFO request{id="abc" path="/rows"}: a row of the body thread="tower-wsgi-worker"
//! INFO request{id="abc" path="/"}: a task thread="tokio-rt-worker"
//! INFO request{id="abc" path="/rows"}: a thread of its own thread="unnamed"
//! ```
//!
//! Two places need a word: a task that is spawned, and a thread that is started. The crate knows nothing of them.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, thread};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, Response};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::trace::TraceLayer;
use tower_wsgi::{AsgiLayer, BoxError, Input, Output, SyncHandler, WsgiLayer, WsgiService, sync_fn};
use tracing::{Instrument, Span, info, info_span};

/// The span of a request, with the id that a proxy gave it, or one of ours.
fn request_span<B>(request: &Request<B>) -> Span {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let id = id.unwrap_or_else(|| COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    info_span!("request", id, path = request.uri().path())
}

/// Sync middleware.
fn middleware(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
    info!(thread = thread_name(), "sync middleware");
    next.call(request)
}

/// An async handler inside of it.
async fn hello() -> &'static str {
    info!(thread = thread_name(), "async handler");
    tokio::spawn(
        async {
            info!(thread = thread_name(), "a task");
        }
        .in_current_span(),
    );
    "hello\n"
}

/// A sync handler, whose body is made after it has returned.
fn rows(_: Request<Input>) -> Response<Output> {
    info!(thread = thread_name(), "sync handler");
    let span = Span::current();
    thread::spawn(move || span.in_scope(|| info!(thread = thread_name(), "a thread of its own")));
    Response::new(Output::iter((1..=3).map(|row| {
        info!(thread = thread_name(), row, "a row of the body");
        format!("row {row}\n")
    })))
}

fn thread_name() -> String {
    thread::current().name().unwrap_or("unnamed").to_owned()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).init();

    let router = Router::<()>::new().route("/", get(hello)).route_service("/rows", WsgiService::new(rows));
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http().make_span_with(request_span::<Body>))
        .layer(WsgiLayer::adapter())
        .layer(sync_fn(middleware))
        .layer(AsgiLayer::adapter())
        .service(router);

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback_service(stack)).await?;
    Ok(())
}
