//! `WsgiService` with its default settings, unless the suite varies one.

use std::error::Error;
use std::io::Read;

use axum::Router;
use http::{Request, Response};
use tower::Layer;
use tower_wsgi::{BoxError, Input, Output, WorkerPool, WsgiLayer};

use super::axum::{multi_thread, one_thread, serve, sized};
use super::work::{Task, Work};

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    serve(multi_thread(), router(work))
}

pub(super) fn run_on_one_thread(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    serve(one_thread(), router(work))
}

fn router(work: &'static Work) -> Router {
    let settings = &work.settings;
    let layer = WsgiLayer::adapter()
        // All routes draw on the same workers.
        .pool(WorkerPool::new(settings.workers))
        .send_queue_size(settings.send_queue_size)
        .max_queued(settings.max_queued);
    let download =
        |output: fn(&'static Work) -> Output| layer.layer(move |_: Request<Input>| sized(work, output(work)));
    let router = Task::ALL.into_iter().fold(Router::new(), |router, task| {
        let handler = move |_: Request<Input>| Response::new(work.run(task));
        router.route_service(task.path(), layer.layer(handler))
    });
    router
        .route_service("/echo", layer.layer(move |request| echo(work, request)))
        .route_service("/upload", layer.layer(upload))
        .route_service("/iterator", download(|work| Output::iter(work.pieces())))
        .route_service("/reader", download(|work| Output::reader(work.reader())))
        .route_service("/writer", download(|work| Output::writer(|to| work.write(to))))
}

fn echo(work: &Work, request: Request<Input>) -> Result<Response<Vec<u8>>, BoxError> {
    let mut body = Vec::new();
    request.into_body().read_to_end(&mut body)?;
    Ok(Response::new(work.echo(&body)?))
}

fn upload(request: Request<Input>) -> Result<Response<String>, BoxError> {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(chunk) = body.chunk()? {
        length += chunk.len();
    }
    Ok(Response::new(length.to_string()))
}
