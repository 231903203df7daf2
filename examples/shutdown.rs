//! An orderly end: what was accepted is answered, also what still waits for a worker, and what takes too long is told.
//!
//! ```text
//! cargo run --example shutdown
//! curl -T . http://127.0.0.1:3000/upload       # type some lines, and leave it open
//! kill -TERM PROCESS                           # or press Ctrl-C where the server runs
//! ```
//!
//! Type on and end the upload with Ctrl-D within ten seconds: it is answered, and the server ends. Or let the time pass: the handler's read fails, it cleans up, and the server ends.
//!
//! 1. No more connections are accepted. Those that are idle are closed.
//! 2. Requests that run or wait for a worker go on, for `GRACE` at most.
//! 3. Those that are left lose their connections with the runtime. Handlers hear it: reads and writes fail, `is_disconnected` is true. Connections end one after the other, so that a request
//!    that waited may still get a worker which another one has left.
//! 4. They get a moment to clean up. A process that ends earlier would cut off a thread wherever it is.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`), `WORKERS` (10), `GRACE` (10000 milliseconds).

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tower::Layer;
use tower_wsgi::{BoxError, Input, WorkerPool, WsgiLayer};

/// How long handlers that were told may take.
const CLEANUP: Duration = Duration::from_secs(5);

/// Takes an upload, and what is half of one away again.
fn upload(request: Request<Input>) -> Result<Response<String>, BoxError> {
    struct Guard(bool);
    impl Drop for Guard {
        fn drop(&mut self) {
            eprintln!("{}", if self.0 { "kept" } else { "cleaned up" });
        }
    }

    let mut upload = Guard(false);
    let size = io::copy(&mut request.into_body(), &mut io::sink())?;
    upload.0 = true;
    Ok(Response::new(format!("{size} bytes\n")))
}

/// Serves until the signal; whether all requests were answered in time.
async fn serve(pool: WorkerPool, grace: Duration) -> Result<bool, BoxError> {
    let counted = pool.clone();
    let app = Router::new()
        .route_service("/upload", WsgiLayer::adapter().pool(pool).layer(upload))
        .route("/stats", get(async move || format!("{:?}\n", counted.stats())));

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stopping, stopped) = oneshot::channel();
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let _ = stopping.send(());
    });
    tokio::select! {
        served = server => served.map(|()| true).map_err(Into::into),
        () = async {
            let _ = stopped.await;
            tokio::time::sleep(grace).await;
        } => Ok(false),
    }
}

fn main() -> Result<ExitCode, BoxError> {
    let pool = WorkerPool::new(std::env::var("WORKERS").map_or(Ok(10), |workers| workers.parse())?);
    let grace = std::env::var("GRACE").map_or(Ok(10_000), |grace| grace.parse())?;

    let runtime = Runtime::new()?;
    let answered = runtime.block_on(serve(pool.clone(), Duration::from_millis(grace)))?;
    // The connections are tasks of the runtime, and end with it. `serve` has only lost sight of them.
    runtime.shutdown_timeout(CLEANUP);

    if !pool.wait_idle(CLEANUP) {
        eprintln!("handlers are cut off: {:?}", pool.stats());
    }
    eprintln!("{}", if answered { "all were answered" } else { "some were cut off" });
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
