//! Timing middleware, async around sync and sync around async.
//!
//! ```text
//! cargo run --example timing
//! curl -i http://127.0.0.1:3000/async-around-sync
//! curl -i http://127.0.0.1:3000/sync-around-sync
//! curl -i http://127.0.0.1:3000/sync-around-async
//! ```
//!
//! The sync middleware is one function, [`timing`]. What it calls is a `&dyn SyncHandler`: a handler of the same sync stack, or [`Next`], behind which an async service is.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use http::{HeaderValue, Request, Response};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_wsgi::{BoxError, Input, Next, Output, SyncHandler, WsgiLayer, WsgiService, sync_fn};

/// A synchronous application.
fn sync_app(_: Request<Input>) -> Response<&'static str> {
    thread::sleep(Duration::from_millis(20));
    Response::new("sync\n")
}

/// An asynchronous one.
async fn async_app() -> &'static str {
    tokio::time::sleep(Duration::from_millis(20)).await;
    "async\n"
}

/// The middleware, sync.
fn timing(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
    let start = Instant::now();
    let mut response = next.call(request)?;
    response.headers_mut().insert("server-timing", server_timing("sync", start));
    Ok(response)
}

/// The middleware, async.
async fn async_timing(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let start = Instant::now();
    let mut response = next.run(request).await;
    response.headers_mut().insert("server-timing", server_timing("async", start));
    response
}

/// [`timing`] as an application that stands in front of an async service.
fn timing_in_front(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let next = request.extensions_mut().remove::<Next>().ok_or("not behind WsgiLayer::new")?;
    timing(request, &next)
}

fn server_timing(name: &str, start: Instant) -> HeaderValue {
    let value = format!("{name};dur={}", start.elapsed().as_millis());
    HeaderValue::try_from(value).expect("letters and digits")
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let async_around_sync =
        ServiceBuilder::new().layer(from_fn(async_timing)).service(WsgiService::new(sync_app));

    let sync_around_sync =
        ServiceBuilder::new().layer(WsgiLayer::adapter()).layer(sync_fn(timing)).service(sync_app);

    let sync_around_async = get(async_app).layer(WsgiLayer::new(timing_in_front));

    let app = Router::new()
        .route_service("/async-around-sync", async_around_sync)
        .route_service("/sync-around-sync", sync_around_sync)
        .route("/sync-around-async", sync_around_async);

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
