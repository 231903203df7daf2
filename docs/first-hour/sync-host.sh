#!/usr/bin/env bash
# The first hour of somebody who has to call an axum router from synchronous code. From an empty directory: `bash docs/first-hour/sync-host.sh`; takes a Rust toolchain and curl.
source "$(dirname "$0")/common.sh"

say "A new project"
try cargo new --quiet --lib shop
cd shop
try cargo add --quiet axum http tiny_http
try cargo add --quiet tower-wsgi --path "$crates"

say "A router, and a plain test that calls it: no runtime, no attribute"
cat >src/lib.rs <<'RUST'
use axum::{Router, extract::Path, routing::{get, post}};

pub fn router() -> Router {
    Router::new()
        .route("/hello/{name}", get(|Path(name): Path<String>| async move { format!("Hello {name}!") }))
        .route("/shout", post(|text: String| async move { text.to_uppercase() }))
}

#[test]
fn it_says_hello() -> Result<(), tower_wsgi::BoxError> {
    use http::Request;
    use tower_wsgi::{AsgiHandler, Input, SyncHandler};

    let handler = AsgiHandler::new(router());
    let response = handler.call(Request::get("/hello/world").body(Input::empty())?)?;
    assert_eq!(response.status(), 200);
    assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "Hello world!");

    let response = handler.call(Request::post("/shout").body("quiet".into())?)?;
    assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "QUIET");
    Ok(())
}
RUST
try cargo test --quiet

say "The same router as a CGI program"
mkdir -p src/bin
cat >src/bin/cgi.rs <<'RUST'
use tower_wsgi::{AsgiHandler, gateway::cgi};

fn main() -> std::process::ExitCode {
    cgi::run(AsgiHandler::new(shop::router()))
}
RUST
try cargo build --quiet --bin cgi
got=$(REQUEST_METHOD=GET SERVER_NAME=localhost SERVER_PORT=80 SERVER_PROTOCOL=HTTP/1.1 SCRIPT_NAME= PATH_INFO=/hello/cgi "$CARGO_TARGET_DIR/debug/cgi" | tr -d '\r')
printf '%s\n' "$got"
grep -q '^Status: 200 OK' <<<"$got"
grep -q '^Hello cgi!' <<<"$got"

say "And inside a server that blocks"
cat >src/bin/blocking.rs <<'RUST'
use tower_wsgi::{AsgiHandler, BoxError, Input, gateway};

fn main() -> Result<(), BoxError> {
    let handler = AsgiHandler::new(shop::router());
    let server = tiny_http::Server::http("127.0.0.1:0")?;
    println!("listening on http://{}", server.server_addr());
    for mut request in server.incoming_requests() {
        let length = request.body_length().unwrap_or(0);
        let mut body = Vec::with_capacity(length);
        request.as_reader().read_to_end(&mut body)?;
        let asked = http::Request::builder().method(request.method().as_str()).uri(request.url()).body(Input::from(body))?;
        let response = gateway::respond(&handler, asked);
        let status = response.status().as_u16();
        // For a first look: headers both ways, uploads that stream, bodies that break off and slow clients are in examples/tiny_http_host.rs.
        request.respond(tiny_http::Response::new(status.into(), vec![], response.into_body(), None, None))?;
    }
    Ok(())
}
RUST
try cargo build --quiet --bin blocking
serve "$CARGO_TARGET_DIR/debug/blocking"
expect "Hello thread!" /hello/thread
expect "LOUD" /shout --data loud
stop
