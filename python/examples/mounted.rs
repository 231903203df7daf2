//! A Python application below a prefix of an axum app: what is under `/site` is Python's, and everything else is Rust's.
//!
//! ```text
//! cargo run -p tower-wsgi-python --example mounted -- --venv .venv --chdir shop shop.wsgi:application
//! curl http://127.0.0.1:3000/rust http://127.0.0.1:3000/site/
//! ```
//!
//! The application knows where it is mounted: its redirects and its links have the prefix.
//!
//! Environment: `ADDR` (default `127.0.0.1:3000`).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tower_wsgi::{BoxError, WsgiLayer};
use tower_wsgi_python::{Import, Interface, PyAsgi, PyAsgiLayer, PyWsgi, run_exit_handlers};
use tracing::Level;

/// How long requests may go on after the signal, and a lifespan's shutdown after that.
const GRACE: Duration = Duration::from_secs(30);

/// Serves a Python application below a prefix.
#[derive(Parser)]
struct Args {
    /// MODULE:ATTRIBUTE
    target: String,
    /// The virtual environment; by default the active one
    #[arg(long)]
    venv: Option<PathBuf>,
    /// The working directory of the application
    #[arg(long, default_value = ".")]
    chdir: PathBuf,
    /// Where to mount it
    #[arg(long, default_value = "/site")]
    prefix: String,
}

fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    // Exceptions of the application are among it.
    tracing_subscriber::fmt().with_max_level(Level::WARN).with_writer(io::stderr).init();

    let mut import = Import::new(&args.target).chdir(&args.chdir);
    if let Some(venv) = &args.venv {
        import = import.venv(venv);
    }
    // Before a runtime is there: the import and a lifespan's startup are Python code, which runs for as long as it likes.
    let app = import.load()?;

    let router = Router::new().route("/rust", get(|| async { "Hello from Rust\n" }));
    match app.interface() {
        Interface::Wsgi => serve(router.layer(WsgiLayer::new(PyWsgi::new(app)).at(&args.prefix)), None)?,
        Interface::Asgi => {
            let site = PyAsgi::new(app)?;
            serve(router.layer(PyAsgiLayer::new(site.clone()).at(&args.prefix)), Some(site))?;
        }
    }
    run_exit_handlers();
    Ok(())
}

/// Serves until the process is told to stop, what was begun to its end, and then ends the ASGI application, if it is one.
#[tokio::main]
async fn serve(router: Router, site: Option<PyAsgi>) -> Result<(), BoxError> {
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);

    // With it, the application knows its client's address.
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        served = axum::serve(listener, service).with_graceful_shutdown(told()) => served?,
        // A response without an end would keep it for ever: it is cut off when the runtime ends.
        () = async { told().await; sleep(GRACE).await } => {}
    }
    if let Some(site) = site
        && timeout(GRACE, site.shutdown()).await.is_err()
    {
        eprintln!("the application takes too long to close");
    }
    Ok(())
}

/// Ends when the process is told to stop: by Ctrl-C, or by SIGTERM, as systemd and Docker do it.
async fn told() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler can be installed");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
