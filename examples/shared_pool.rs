//! One pool of workers for several applications, and a second one for what is slow.
//!
//! ```text
//! cargo run --example shared_pool
//! for n in 1 2 3; do curl -m 5 'http://127.0.0.1:3000/reports?seconds=60' & done
//! curl http://127.0.0.1:3000/stats                       # all workers for reports are busy, one report waits
//! curl http://127.0.0.1:3000/shop                        # the shop does not notice
//! ```
//!
//! The shop and the blog ask the same database, with so many connections: so many workers for both of them together. Reports take minutes; in the same pool a few of them would keep
//! all others waiting. They have their own, and say so soon when it is full.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http::{Request, Response};
use tokio::net::TcpListener;
use tower_wsgi::{BoxError, Environ, Input, SyncHandler, WorkerPool, WsgiLayer};

/// Connections to the database, and so workers.
const CONNECTIONS: usize = 2;

/// Reports at once: they compute, and leave a core to the others.
const REPORTS: usize = 2;

/// An application that asks the database for as many `seconds` as the query says.
fn application(name: &'static str) -> impl SyncHandler {
    move |request: Request<Input>| -> Result<_, BoxError> {
        let seconds = request.uri().query().and_then(|query| query.strip_prefix("seconds="));
        let deadline = Instant::now() + Duration::from_secs(seconds.map_or(Ok(0), str::parse)?);
        let environ = Environ::of(&request);
        while Instant::now() < deadline && !environ.is_disconnected() {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Response::new(format!("the {name}\n")))
    }
}

fn router() -> Router {
    let database = WorkerPool::new(CONNECTIONS);
    let slow = WorkerPool::new(REPORTS);

    // The pool is shared, the other settings are each layer's own.
    let shop = WsgiLayer::new(application("shop")).at("/shop").pool(database.clone());
    let blog = WsgiLayer::new(application("blog")).at("/blog").pool(database.clone());
    // The queue is short: who asks for a report when so many wait is better told to come again.
    let reports = WsgiLayer::new(application("report")).at("/reports").pool(slow.clone()).max_queued(1);

    let stats = get(async move || {
        let line = |name: &str, pool: &WorkerPool| {
            let stats = pool.stats();
            format!("{name}: {} of {} busy, {} queued\n", stats.busy, pool.workers(), stats.queued)
        };
        line("database", &database) + &line("reports", &slow)
    });
    Router::new().route("/stats", stats).layer(shop).layer(blog).layer(reports)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router()).await?;
    Ok(())
}
