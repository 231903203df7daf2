//! A synchronous application in plain hyper, without axum.
//!
//! ```text
//! cargo run --example hyper
//! curl http://127.0.0.1:3000/hello
//! ```
//!
//! Nobody but this accept loop knows who is connected, so it says so with a [`Scope`]: the handler reads the client's address from
//! its [`Environ`].

use std::net::SocketAddr;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_wsgi::{BoxError, Environ, Input, Scope, WsgiLayer};

fn app(request: Request<Input>) -> Response<String> {
    let client = Environ::of(&request).remote().map(|remote| remote.ip());
    let client = client.map_or_else(|| "nobody".to_owned(), |ip| ip.to_string());
    Response::new(format!("Hello {client}, you asked for {}\n", request.uri()))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    println!("listening on http://{local}");

    let app = ServiceBuilder::new().layer(WsgiLayer::adapter()).service(app);
    loop {
        let (stream, peer) = listener.accept().await?;
        let service = ServiceBuilder::new()
            .map_request(move |request| with_scope(request, peer, local))
            .service(app.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            if let Err(error) = served.await {
                eprintln!("connection from {peer}: {error}");
            }
        });
    }
}

fn with_scope(mut request: Request<Incoming>, peer: SocketAddr, local: SocketAddr) -> Request<Incoming> {
    let scope = Scope::of(&request).with_client(peer).with_server(local.ip().to_string(), local.port());
    request.extensions_mut().insert(scope);
    request
}
