//! The server, a process of its own: all crossings behind one port, the synchronous host behind another.

use std::future::ready;
use std::io::{self, Read, Write};
use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tower::service_fn;
use tower_wsgi::{AsgiHandler, BoxError, WorkerPool, WsgiLayer};
use tower_wsgi_python::{Import, PyAsgi, PyAsgiLayer, PyWsgi};

use crate::{host, sites};

/// What a server says first: its two addresses follow.
pub(crate) const LISTENING: &str = "listening on ";

/// What a server says last: the number of requests follows.
pub(crate) const TAKEN_UP: &str = "requests taken up: ";

/// How long a client may be silent in the midst of its request.
const SILENCE: Duration = Duration::from_secs(10);

/// How long between two requests: longer than it takes a slow machine to open thousands of connections.
const IDLE: Duration = Duration::from_secs(300);

/// How long a request waits for the pool that is too small.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long it may take from the signal to the last byte of the last response.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Serves until it is told to stop, by `SIGTERM` or by the end of its standard input.
pub(crate) fn run() -> Result<(), BoxError> {
    thread::spawn(|| {
        // It ends with its parent, however that ends.
        drop(io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    // Nobody wants to read a hundred thousand times that there was a panic where one was asked for.
    panic::set_hook(Box::new(|_| ()));
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps");
    let wsgi = PyWsgi::new(Import::new("sites:wsgi").chdir(&apps).load()?);
    let asgi = PyAsgi::new(Import::new("sites:asgi").chdir(&apps).load()?)?;
    let host = host::start(AsgiHandler::new(service_fn(sites::asynchronous)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let taken_up = Arc::new(AtomicU64::new(0));
    let router = router(wsgi, asgi.clone(), taken_up.clone());
    runtime.block_on(async {
        let listener = listen()?;
        say(&format!("{LISTENING}{} {host}", listener.local_addr()?))?;
        serve(listener, router).await?;
        asgi.shutdown().await;
        say(&format!("{TAKEN_UP}{}", taken_up.load(Ordering::Relaxed)))?;
        Ok(())
    })
}

fn router(wsgi: PyWsgi, asgi: PyAsgi, taken_up: Arc<AtomicU64>) -> Router {
    let (pool, pythons, bounded) = (WorkerPool::new(4), WorkerPool::new(2), WorkerPool::new(1));
    let pools = [pool.clone(), pythons.clone(), bounded.clone()];
    Router::new()
        .route("/state", get(move || ready(state(&pools))))
        .layer(WsgiLayer::new(sites::sync).at("/sync").pool(pool.clone()).read_timeout(SILENCE))
        .layer(WsgiLayer::new(AsgiHandler::new(service_fn(sites::asynchronous))).at("/nested").pool(pool))
        .layer(WsgiLayer::new(sites::sync).at("/bounded").pool(bounded).max_queued(4).queue_timeout(PATIENCE))
        .layer(WsgiLayer::new(wsgi).at("/wsgi").pool(pythons).read_timeout(SILENCE))
        .layer(PyAsgiLayer::new(asgi).at("/asgi"))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            taken_up.fetch_add(1, Ordering::Relaxed);
            next.run(request)
        }))
}

/// What work there is at this moment.
fn state(pools: &[WorkerPool]) -> String {
    let work: usize = pools
        .iter()
        .map(WorkerPool::stats)
        .map(|stats| stats.busy + stats.lending + stats.queued + stats.resumed + stats.discards)
        .sum();
    format!("work={work} tasks={}", Handle::current().metrics().num_alive_tasks())
}

/// Listens. Each connection has room for so little that a thousand downloads that stall leave the kernel memory for all others: where it has none it drops what they send.
fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(128 * 1024)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    socket.listen(1024)
}

/// Serves until the signal, and what was begun to its end.
async fn serve(listener: TcpListener, router: Router) -> Result<(), BoxError> {
    let service = TowerToHyperService::new(router);
    let graceful = GracefulShutdown::new();
    let mut told = signal(SignalKind::terminate())?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = told.recv() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("a connection was not accepted: {error}");
                tokio::task::yield_now().await;
                continue;
            }
        };
        stream.set_nodelay(true)?;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
        builder.http2().timer(TokioTimer::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // What became of the connection is the client's to see.
            drop(connection.await);
        });
    }
    drop(listener);
    tokio::time::timeout(SHUTDOWN, graceful.shutdown()).await?;
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
