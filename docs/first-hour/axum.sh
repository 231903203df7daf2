#!/usr/bin/env bash
# The first hour of somebody with blocking Rust code who moves to axum. From an empty directory: `bash docs/first-hour/axum.sh`; takes a Rust toolchain and curl.
source "$(dirname "$0")/common.sh"

say "A new project"
try cargo new --quiet shop
cd shop
try cargo add --quiet axum http
try cargo add --quiet tokio --features full
try cargo add --quiet tower-wsgi --path "$crates"

say "The old code, as it is, below a prefix of the new app"
cat >src/main.rs <<'RUST'
use std::{thread, time::Duration};

use axum::{Router, routing::get};
use http::{Request, Response};
use tower_wsgi::{Input, WsgiLayer};

/// What blocks: a query, a template, an old library.
fn legacy(request: Request<Input>) -> Response<String> {
    thread::sleep(Duration::from_millis(10));
    Response::new(format!("{} the old way", request.uri().path()))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(|| async { "the new way" }))
        .layer(WsgiLayer::new(legacy).at("/legacy").workers(15));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
RUST
try cargo build --quiet
serve "$CARGO_TARGET_DIR/debug/shop"
expect "the new way" /
expect "/cart the old way" /legacy/cart
stop

say "An upload is a reader, a download an iterator; what fails is a 500, and what panics too"
cat >src/main.rs <<'RUST'
use std::io::{BufRead, BufReader};

use axum::{Router, routing::get};
use http::{Request, Response};
use tower_wsgi::{BoxError, Input, Output, WsgiLayer};

fn legacy(request: Request<Input>) -> Result<Response<Output>, BoxError> {
    Ok(Response::new(match request.uri().path() {
        // A client that breaks off is an error here, and never the end of the file.
        "/lines" => {
            let lines = BufReader::new(request.into_body()).lines().collect::<Result<Vec<_>, _>>()?;
            format!("{} lines", lines.len()).into()
        }
        "/count" => Output::iter((1..=3).map(|n| n.to_string())),
        "/panic" => panic!("no luck"),
        path => return Err(format!("no {path}").into()),
    }))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(|| async { "the new way" }))
        .layer(WsgiLayer::new(legacy).at("/legacy"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await
}
RUST
try cargo build --quiet
serve "$CARGO_TARGET_DIR/debug/shop"
expect "3 lines" /legacy/lines --data-binary $'one\ntwo\nthree\n'
expect "123" /legacy/count
expect "Internal Server Error" /legacy/panic
expect "Internal Server Error" /legacy/nowhere
expect "the new way" /
stop
