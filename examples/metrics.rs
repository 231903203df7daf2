//! Metrics: what requests did, from a tower layer, and what the pool does, from [`WorkerPool::stats`], as a page that Prometheus reads.
//!
//! ```text
//! cargo run --example metrics
//! curl http://127.0.0.1:3000/report
//! curl http://127.0.0.1:3000/metrics
//! ```
//!
//! The layer stands outside of the crossing: what it counts is what clients saw, a 503 of a full pool too. The books of the pool are read when the page is asked for; reading them takes a lock for a moment and costs
//! requests nothing.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tower_wsgi::{BoxError, Input, PoolStats, WorkerPool, WsgiLayer};

/// Blocking work.
fn report(_: http::Request<Input>) -> http::Response<&'static str> {
    thread::sleep(Duration::from_millis(20));
    http::Response::new("all is well\n")
}

#[derive(Default)]
struct Metrics {
    /// Responses, by the first digit of their status.
    responses: [AtomicU64; 6],
    /// How long they took up to their head.
    micros: AtomicU64,
}

#[derive(Clone)]
struct Observed {
    metrics: Arc<Metrics>,
    pool: WorkerPool,
}

/// The layer.
async fn count(State(observed): State<Observed>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let response = next.run(request).await;
    let metrics = &observed.metrics;
    let class = usize::from(response.status().as_u16() / 100);
    if let Some(responses) = metrics.responses.get(class) {
        responses.fetch_add(1, Ordering::Relaxed);
    }
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    metrics.micros.fetch_add(micros, Ordering::Relaxed);
    response
}

/// The page.
async fn metrics(State(observed): State<Observed>) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: f64| page += &format!("{name} {value}\n");
    for (class, responses) in observed.metrics.responses.iter().enumerate().skip(1) {
        line(
            &format!("http_responses_total{{status=\"{class}xx\"}}"),
            responses.load(Ordering::Relaxed) as f64,
        );
    }
    line("http_response_seconds_total", observed.metrics.micros.load(Ordering::Relaxed) as f64 / 1e6);
    let PoolStats { busy, idle, threads, queued, resumed, lending, rejected, .. } = observed.pool.stats();
    line("pool_workers", observed.pool.workers() as f64);
    for (name, value) in [
        ("pool_threads", threads),         // alive
        ("pool_threads_busy", busy),       // at `pool_workers`, and requests queued: too few workers
        ("pool_threads_idle", idle),       // they end after ten seconds
        ("pool_threads_lending", lending), // wait for an inner service
        ("pool_requests_queued", queued),  // what `max_queued` bounds
        ("pool_bodies_queued", resumed),   // downloads that have room again
    ] {
        line(name, value as f64);
    }
    line("pool_requests_rejected_total", rejected as f64);
    page
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let pool = WorkerPool::new(4);
    let observed = Observed { metrics: Arc::default(), pool: pool.clone() };

    let app = Router::new()
        .route("/", get(|| async { "see /report and /metrics\n" }))
        .layer(WsgiLayer::new(report).at("/report").pool(pool).max_queued(2))
        .layer(from_fn_with_state(observed.clone(), count))
        // Inside of no layer: who reads the page is not counted.
        .route("/metrics", get(metrics).with_state(observed));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
