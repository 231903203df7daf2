//! Any service whose request body can be made of ours is a sync handler: what people have, behind sync hosts.

mod grpc;
mod middleware;
mod plain;
mod proxy;
mod router;

use http::{Request, Response};
use tower::Layer as _;
use tower_wsgi::{BoxError, Input, SyncHandler, WorkerPool, WsgiLayer};

use crate::support::{Server, serve};

/// A real server whose application is synchronous: `handler`, on a pool.
async fn host(pool: &WorkerPool, handler: impl SyncHandler) -> Server {
    serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler)).await
}

/// Calls a handler as a host on a plain thread does, and reads the whole body.
fn ask(handler: &impl SyncHandler, request: Request<Input>) -> Result<Response<String>, BoxError> {
    let (parts, body) = handler.call(request)?.into_parts();
    Ok(Response::from_parts(parts, std::io::read_to_string(body.into_reader())?))
}
