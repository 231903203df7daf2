//! rouille, with a pool of ten threads. It stands on `tiny_http`, without access to its socket (and so to `TCP_NODELAY`) or to its
//! responses (so that long ones are chunked).
//!
//! It has no response by an iterator or by a function that writes.

use std::error::Error;
use std::io::Read;

use rouille::{Request, Response, ResponseBody, Server};
use tower_wsgi_benches::server::announce;

use super::THREADS;
use super::work::{Task, Work, length};

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = Server::new("127.0.0.1:0", move |request: &Request| respond(work, request))?;
    announce(server.server_addr())?;
    server.pool_size(THREADS).run();
    Ok(())
}

fn respond(work: &Work, request: &Request) -> Response {
    let path = request.raw_url();
    if let Some(task) = Task::of(path) {
        return response(ResponseBody::from_data(work.run(task)));
    }
    let mut body = request.data().expect("nobody has taken it");
    match path {
        "/echo" => {
            let mut json = Vec::new();
            body.read_to_end(&mut json).expect("a body");
            response(ResponseBody::from_data(work.echo(&json).expect("JSON")))
        }
        "/upload" => response(ResponseBody::from_string(length(body).expect("an upload").to_string())),
        "/reader" => response(ResponseBody::from_reader_and_size(work.reader(), work.length())),
        path => panic!("no route to {path}"),
    }
}

fn response(data: ResponseBody) -> Response {
    Response { status_code: 200, headers: Vec::new(), data, upgrade: None }
}
