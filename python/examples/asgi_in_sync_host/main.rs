//! An ASGI application behind a server that blocks: `tiny_http` calls it like a function, on each of its threads.
//!
//! ```text
//! cargo run -p tower-wsgi-python --example asgi_in_sync_host
//! curl http://127.0.0.1:3000/who
//! curl -N http://127.0.0.1:3000/countdown
//! ```
//!
//! The application needs no package. Its `scope["wsgi_environ"]` is the request as the synchronous side has it. The adapter to `tiny_http` is that of the core crate's cookbook.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

#[expect(dead_code, reason = "it is an example of its own")]
#[path = "../../../examples/tiny_http_host.rs"]
mod tiny_http_host;

use tiny_http::Server;
use tower_wsgi::{AsgiHandler, BoxError};
use tower_wsgi_python::{Import, PyAsgi};

fn main() -> Result<(), BoxError> {
    let app = Import::new("app:app").path(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/asgi_in_sync_host"));
    let handler = AsgiHandler::new(PyAsgi::new(app.load()?)?);

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let server = Server::http(address)?;
    println!("listening on http://{}", server.server_addr());
    tiny_http_host::serve(&server, &handler, 10);
    Ok(())
}
