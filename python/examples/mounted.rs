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

use axum::Router;
use axum::routing::get;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_wsgi::{BoxError, WsgiLayer};
use tower_wsgi_python::{Import, Interface, PyAsgi, PyAsgiLayer, PyWsgi, run_exit_handlers};
use tracing::Level;

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

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    // Exceptions of the application are among it.
    tracing_subscriber::fmt().with_max_level(Level::WARN).with_writer(io::stderr).init();

    let mut import = Import::new(&args.target).chdir(&args.chdir);
    if let Some(venv) = &args.venv {
        import = import.venv(venv);
    }
    // Imports may take seconds, and nothing else is to be done before they are.
    let app = import.load()?;

    let router = Router::new().route("/rust", get(|| async { "Hello from Rust\n" }));
    match app.interface() {
        Interface::Wsgi => {
            let site = WsgiLayer::new(PyWsgi::new(app)).at(&args.prefix);
            serve(router.layer(site)).await?;
        }
        Interface::Asgi => {
            // With its lifespan's startup: before it listens, it is ready.
            let site = PyAsgi::new(app)?;
            serve(router.layer(PyAsgiLayer::new(site.clone()).at(&args.prefix))).await?;
            site.shutdown().await;
        }
    }

    run_exit_handlers();
    Ok(())
}

/// Serves until the process is told to stop, and what was begun to its end.
async fn serve(router: Router) -> Result<(), BoxError> {
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let mut told = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = told.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    // With it, the application knows its client's address.
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    Ok(())
}
