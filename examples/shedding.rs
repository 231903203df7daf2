//! Four limits around a synchronous application: which of them answers, when, and what the application hears of it.
//!
//! ```text
//! cargo run --example shedding
//! curl -m 1 'http://127.0.0.1:3000/timeout?seconds=60'      # the client gives up after a second ...
//! curl -i 'http://127.0.0.1:3000/timeout?seconds=60'        # ... or the server after five: 504
//! curl http://127.0.0.1:3000/stats                          # both were told
//! for n in 1 2 3 4; do curl -s -o /dev/null -w '%{http_code}\n' 'http://127.0.0.1:3000/queue?seconds=3' & done; wait
//! ```
//!
//! | path | limit | over it |
//! | --- | --- | --- |
//! | `/queue` | `max_queued`: how many wait for a worker | 503 with `Retry-After`, at once |
//! | `/patience` | `queue_timeout`: how long one waits for a worker | 503 with `Retry-After`, then |
//! | `/shed` | `ConcurrencyLimit` and `LoadShed`: how many are inside, whether they wait or run | 503, at once |
//! | `/timeout` | `TimeoutLayer`: how long it all may take | 504, then |
//!
//! Each is on a path of its own here, so that it is seen alone; they go together well. A thread cannot be stopped from outside: who timed out, or left, is *told*, by `Environ::is_disconnected`.
//! The worker is free when the handler has heard it, and not before.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::{BoxError, Layer, ServiceBuilder};
use tower_http::timeout::TimeoutLayer;
use tower_wsgi::{Environ, Input, WorkerPool, WsgiLayer};

/// Searches for as many `seconds` as the query says, or until nobody waits for it any more.
fn search(told: &AtomicUsize, request: &Request<Input>) -> Result<Response<String>, BoxError> {
    let seconds = request.uri().query().and_then(|query| query.strip_prefix("seconds="));
    let deadline = Instant::now() + Duration::from_secs(seconds.map_or(Ok(0), str::parse)?);
    let environ = Environ::of(request);
    while Instant::now() < deadline {
        if environ.is_disconnected() {
            told.fetch_add(1, Ordering::Relaxed);
            return Err("nobody waits for it any more".into());
        }
        // One step of the work.
        thread::sleep(Duration::from_millis(10));
    }
    Ok(Response::new("found\n".into()))
}

fn router(patience: Duration) -> Router {
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    let search = Arc::new(move |request: Request<Input>| search(&told, &request));

    let pool = WorkerPool::new(2);
    let crossing = WsgiLayer::adapter().pool(pool.clone());
    let queue = crossing.max_queued(1).layer(search.clone());

    let crossing = WsgiLayer::adapter().pool(pool.clone());
    let waits = crossing.queue_timeout(patience).layer(search.clone());

    let crossing = WsgiLayer::adapter().pool(pool.clone());
    let shed = ServiceBuilder::new()
        // Its error becomes an answer outside of it.
        .layer(HandleErrorLayer::new(async |error: BoxError| {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
        }))
        // Not ready is an error: without this, who comes too much would wait for the limit, and without an end.
        .layer(LoadShedLayer::new())
        // One limit for however many services the layer makes: `Router::layer` makes one for each route.
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .layer(crossing.clone())
        .service(search.clone());

    let timeout = ServiceBuilder::new()
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, patience))
        .layer(crossing)
        .service(search);

    let stats = get(async move || {
        let (stats, told) = (pool.stats(), counted.load(Ordering::Relaxed));
        format!("busy {}, queued {}, told {told}\n", stats.busy, stats.queued)
    });
    Router::new()
        .route_service("/queue", queue)
        .route_service("/patience", waits)
        .route_service("/shed", shed)
        .route_service("/timeout", timeout)
        .route("/stats", stats)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // How long `/patience` and `/timeout` wait, in milliseconds.
    let patience = std::env::args().nth(1).map_or(Ok(5000), |patience| patience.parse())?;

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router(Duration::from_millis(patience))).await?;
    Ok(())
}
