//! A pre-fork server, as gunicorn is one: the application is made once, in the parent; children that it forks accept connections from the listener that they share.
//!
//! ```text
//! cargo run --example prefork
//! curl http://127.0.0.1:3000/
//! curl http://127.0.0.1:3000/slow
//! ```
//!
//! The parent has one thread, and has to: others would not survive a fork. An [`AsgiHandler`] has none until it is first called, so that each child starts a runtime of its own, and timers and tasks work there.
//!
//! A child that ends is replaced. When the parent ends, whatever ended it, its end of a socket closes, and the children end too.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`), `WORKERS` (2 processes).

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use fork::Fork;
use tiny_http::Server;
use tower_wsgi::{AsgiHandler, BoxError, SyncHandler};

#[path = "tiny_http_host.rs"]
#[expect(dead_code, reason = "it is a program of its own")]
mod tiny_http_host;

fn main() -> Result<(), BoxError> {
    let handler = AsgiHandler::new(router());
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let workers: usize = std::env::var("WORKERS").map_or(Ok(2), |workers| workers.parse())?;
    let listener = TcpListener::bind(address)?;
    println!("listening on http://{}", listener.local_addr()?);

    // Nothing is ever written: the children wait for its end.
    let (parent, mine) = UnixStream::pair()?;
    let mut running = 0;
    loop {
        while running < workers {
            match fork::fork()? {
                Fork::Parent(_) => running += 1,
                Fork::Child => {
                    drop(mine);
                    return work(listener, parent, &handler);
                }
            }
        }
        let (child, status) = fork::wait_any()?;
        eprintln!("child {child} ended with status {status}");
        running -= 1;
        // One that cannot start must not be started all the time.
        thread::sleep(Duration::from_secs(1));
    }
}

/// What a child does, until its parent ends.
fn work(listener: TcpListener, mut parent: UnixStream, handler: &impl SyncHandler) -> Result<(), BoxError> {
    thread::spawn(move || {
        let _ = parent.read(&mut [0]);
        process::exit(0);
    });
    let server = Server::from_listener(listener, None)?;
    tiny_http_host::serve(&server, handler, 4);
    Ok(())
}

fn router() -> Router {
    Router::new().route("/", get(|| async { format!("{}\n", process::id()) })).route("/slow", get(slow))
}

/// Waits for a timer, inside a task.
async fn slow() -> String {
    let task = tokio::spawn(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        process::id()
    });
    match task.await {
        Ok(child) => format!("{child} took its time\n"),
        Err(error) => format!("{error}\n"),
    }
}
