#!/usr/bin/env bash
# The first hour of somebody with a Flask site who moves to Rust route by route. From an empty directory: `bash docs/first-hour/python.sh`; takes a Rust toolchain, curl, and a Python with its shared library
# (on Debian: python3-dev, python3-venv).
source "$(dirname "$0")/common.sh"

say "The site, and its virtual environment"
try python3 -m venv venv
try venv/bin/pip install --quiet flask
cat >site_app.py <<'PYTHON'
from flask import Flask, request

app = Flask(__name__)

@app.get("/")
def index():
    return f"Flask below {request.script_root or '/'}"

@app.get("/price/<int:item>")
def price(item):
    return f"{item * 3} from Python"
PYTHON

say "Behind the server tower-wsgi, with no Rust at all"
try cargo install --quiet --debug --root "$work/tools" --path "$crates/python"
. venv/bin/activate
serve "$work/tools/bin/tower-wsgi" --bind 127.0.0.1:0 site_app:app
expect "Flask below /" /
expect "12 from Python" /price/4
stop

say "Inside an axum app, where one route is Rust's now"
try cargo new --quiet shop
cd shop
try cargo add --quiet axum
try cargo add --quiet tokio --features full
try cargo add --quiet pyo3@0.30
try cargo add --quiet --build pyo3-build-config@0.30
try cargo add --quiet tower-wsgi --path "$crates"
try cargo add --quiet tower-wsgi-python --no-default-features --path "$crates/python"
cat >build.rs <<'RUST'
fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
RUST
cat >src/main.rs <<'RUST'
use axum::{Router, extract::Path, routing::get};
use tower_wsgi::{BoxError, WsgiService};
use tower_wsgi_python::PyWsgi;

fn main() -> Result<(), BoxError> {
    serve(PyWsgi::import("site_app:app")?)
}

#[tokio::main]
async fn serve(site: PyWsgi) -> Result<(), BoxError> {
    let app = Router::new()
        .route("/price/{item}", get(|Path(item): Path<u64>| async move { format!("{} from Rust", item * 3) }))
        .fallback_service(WsgiService::new(site));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<std::net::SocketAddr>()).await?)
}
RUST
try cargo build --quiet
cd ..
serve "$CARGO_TARGET_DIR/debug/shop"
expect "Flask below /" /
expect "12 from Rust" /price/4
stop
