//! astra: hyper on threads that block.
//!
//! It has no response by an iterator or by a function that writes, and no way to set `TCP_NODELAY`.

use std::error::Error;

use astra::{Body, ConnectionInfo, Request, Response, Server};
use tower_wsgi_benches::server::announce;

use super::axum::sized;
use super::work::{Task, Work};

/// A connection holds its thread as long as it is open, so with fewer threads than connections some get no answer at all.
const THREADS: usize = 1024;

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = Server::bind("127.0.0.1:0").max_workers(THREADS).http1_only();
    announce(server.local_addr()?)?;
    Ok(server.serve(move |request: Request, _: ConnectionInfo| respond(work, request))?)
}

fn respond(work: &Work, mut request: Request) -> Response {
    if let Some(task) = Task::of(request.uri().path()) {
        return Response::new(Body::new(work.run(task)));
    }
    let pieces = |request: &mut Request| {
        let body = std::mem::take(request.body_mut());
        body.map(|piece| piece.expect("a body"))
    };
    match request.uri().path() {
        "/echo" => {
            let body: Vec<u8> = pieces(&mut request).flatten().collect();
            Response::new(Body::new(work.echo(&body).expect("JSON")))
        }
        "/upload" => {
            let length: usize = pieces(&mut request).map(|piece| piece.len()).sum();
            Response::new(Body::new(length.to_string()))
        }
        "/reader" => sized(work, Body::wrap_reader(work.reader())),
        path => panic!("no route to {path}"),
    }
}
