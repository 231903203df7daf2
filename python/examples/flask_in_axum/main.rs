//! A Flask site inside an axum router: below `/shop` Flask answers, everything else is Rust.
//!
//! ```text
//! python3 -m venv venv && . venv/bin/activate && pip install flask
//! cargo run -p tower-wsgi-python --example flask_in_axum
//! curl http://127.0.0.1:3000/
//! curl http://127.0.0.1:3000/shop/
//! curl http://127.0.0.1:3000/shop/items -d name=tea
//! curl -N http://127.0.0.1:3000/shop/countdown
//! ```
//!
//! What Flask builds a URL for begins with `/shop`, since the mount is its `SCRIPT_NAME`. `shop.py` knows nothing of it.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`), `VIRTUAL_ENV` (set by `activate`).

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_wsgi::{BoxError, WsgiLayer};
use tower_wsgi_python::{Import, PyWsgi};

fn main() -> Result<(), BoxError> {
    // Before the runtime is there: an import is Python code, which runs for as long as it likes.
    let shop = Import::new("shop:app").path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flask_in_axum"));
    serve(PyWsgi::new(shop.load()?))
}

#[tokio::main]
async fn serve(shop: PyWsgi) -> Result<(), BoxError> {
    let app = Router::new()
        .route("/", get(|| async { "Rust; the shop is at /shop/\n" }))
        .layer(WsgiLayer::new(shop).at("/shop"));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // With it, the application knows its client's address.
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}
