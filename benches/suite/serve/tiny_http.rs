//! `tiny_http`, with ten threads that take requests, as its documentation has it. It reads each connection on a thread besides those.
//!
//! It has no response by an iterator; one by a function that writes would have to write the head, too.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;

use tiny_http::{Request, Response, Server, StatusCode};

use super::work::{Task, Work, length};
use super::{THREADS, announced};

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = Arc::new(Server::from_listener(announced()?, None)?);
    let serve = |server: Arc<Server>| {
        thread::spawn(move || {
            for request in server.incoming_requests() {
                // It fails if the client is gone.
                drop(respond(work, request));
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(|_| serve(server.clone())).collect();
    threads.into_iter().try_for_each(thread::JoinHandle::join).map_err(|_| "a thread panicked".into())
}

fn respond(work: &Work, mut request: Request) -> io::Result<()> {
    if let Some(task) = Task::of(request.url()) {
        return request.respond(Response::from_data(work.run(task)));
    }
    match request.url() {
        "/echo" => {
            let mut body = Vec::new();
            request.as_reader().read_to_end(&mut body)?;
            // In chunks, which is its default for long bodies, it would be slower.
            request.respond(Response::from_data(work.echo(&body)?).with_chunked_threshold(usize::MAX))
        }
        "/upload" => {
            let length = length(request.as_reader())?;
            request.respond(Response::from_string(length.to_string()))
        }
        "/reader" => {
            let response =
                Response::new(StatusCode(200), Vec::new(), work.reader(), Some(work.length()), None);
            request.respond(response.with_chunked_threshold(usize::MAX))
        }
        path => panic!("no route to {path}"),
    }
}
