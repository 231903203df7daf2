//! A synchronous and an asynchronous application side by side, each under its prefix, and 404 for all else: once in an async host,
//! and once in a sync one.
//!
//! ```text
//! cargo run --example mixed_router            # or: cargo run --example mixed_router -- sync
//! curl http://127.0.0.1:3000/wsgi/hello
//! curl http://127.0.0.1:3000/asgi/hello
//! curl -i http://127.0.0.1:3000/elsewhere
//! ```
//!
//! Both answer the same. What differs is where the crossing is: the async host has a worker only for `/wsgi`, the sync host has one for every request.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use axum::Router;
use axum::extract::Request as AsyncRequest;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_wsgi::{AsgiLayer, BoxError, Environ, Input, Output, Scope, SyncHandler, WsgiLayer, WsgiService};

/// The synchronous application.
fn wsgi_app(request: Request<Input>) -> Response<Output> {
    let environ = Environ::of(&request);
    let (script_name, path) = (environ.script_name(), request.uri().path());
    let mount = String::from_utf8_lossy(&script_name);
    Response::new(format!("sync: {path} below {mount}\n").into())
}

/// The asynchronous application.
fn asgi_app() -> Router {
    async fn describe(request: AsyncRequest) -> String {
        let scope = Scope::of(&request);
        format!("async: {} below {}\n", request.uri().path(), scope.root_path())
    }
    Router::new().route("/{*path}", get(describe))
}

/// An async router; the sync application is mounted in it.
fn async_host() -> Router {
    Router::new().nest("/asgi", asgi_app()).layer(WsgiLayer::new(wsgi_app).at("/wsgi"))
}

/// A sync router; the async application is mounted in it.
fn sync_host() -> impl SyncHandler {
    let router = |mut request: Request<Input>| {
        if Environ::shift(&mut request, "/wsgi") {
            return wsgi_app(request);
        }
        let mut response = Response::new(Output::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    };
    ServiceBuilder::new().layer(AsgiLayer::new(asgi_app()).at("/asgi")).service(router)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let app = match std::env::args().nth(1).as_deref() {
        None | Some("async") => async_host(),
        // Any synchronous server would do; see the example `tiny_http_host` for one.
        Some("sync") => Router::new().fallback_service(WsgiService::new(sync_host())),
        Some(other) => return Err(format!("`sync` or `async`, not `{other}`").into()),
    };
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
