//! A Django site inside an axum router, on its way to Rust: one of its URLs is taken over by a Rust route, which knows the visitor by Django's own session.
//!
//! ```text
//! python3 -m venv venv && . venv/bin/activate && pip install django
//! cargo run -p tower-wsgi-python --example django_in_axum
//! curl -c jar -b jar http://127.0.0.1:3000/visit     # Django: counts in its session
//! curl -c jar -b jar http://127.0.0.1:3000/visits    # Rust: reads the count
//! ```
//!
//! axum's routes come first and Django is what is left: a URL moves to Rust when a route is written for it, and back when the route is taken out. Django has `/visits` as well, so that both answers can be
//! compared: `curl http://127.0.0.1:3000/django/visits`.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`), `VIRTUAL_ENV` (set by `activate`), `DATABASE` (`sessions.sqlite3` in the directory for temporary files).

use std::net::SocketAddr;

use axum::Router;
use http::header::COOKIE;
use http::{HeaderMap, Request, Response};
use pyo3::prelude::*;
use tokio::net::TcpListener;
use tower::Layer;
use tower_wsgi::{BoxError, Input, WorkerPool, WsgiLayer};
use tower_wsgi_python::{Import, PyWsgi};

/// The Rust route. It runs on a worker: Django's session may come from a database, and Python's lock may have to be waited for.
fn visits(request: Request<Input>) -> Result<Response<String>, BoxError> {
    let count = match cookie(request.headers(), "sessionid") {
        Some(key) => Python::attach(|py| session_value(py, key, "visits"))?,
        None => None,
    };
    Ok(Response::new(format!("{} visits, says Rust\n", count.unwrap_or(0))))
}

/// A value of a Django session, from whatever `SESSION_ENGINE` keeps them.
fn session_value(py: Python<'_>, key: &str, name: &str) -> PyResult<Option<u64>> {
    let engine = py.import("django.conf")?.getattr("settings")?.getattr("SESSION_ENGINE")?;
    let engine = py.import(engine.extract::<String>()?.as_str())?;
    let session = engine.call_method1("SessionStore", (key,))?;
    session.call_method1("get", (name,))?.extract()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(key, value)| (key == name).then_some(value))
}

fn main() -> Result<(), BoxError> {
    // Before the runtime is there: an import is Python code, which runs for as long as it likes.
    let site = Import::new("site_settings:application")
        .path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/django_in_axum"));
    serve(PyWsgi::new(site.load()?))
}

#[tokio::main]
async fn serve(site: PyWsgi) -> Result<(), BoxError> {
    // The same threads for both: they wait for the same interpreter.
    let pool = WorkerPool::default();
    let django = WsgiLayer::adapter().pool(pool.clone()).layer(site);
    let app = Router::new()
        .route_service("/visits", WsgiLayer::adapter().pool(pool).layer(visits))
        .nest_service("/django", django.clone())
        .fallback_service(django);

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // With it, the application knows its client's address.
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}
