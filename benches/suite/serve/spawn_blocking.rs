//! `spawn_blocking` by hand: what most users write today.

use std::error::Error;

use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::axum::{download, multi_thread, serve, tasks};
use super::channel::{self, Download};
use super::work::Work;

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    let router =
        tasks(
            work,
            |work, task| async move { spawn_blocking(move || work.run(task)).await.expect("no panic") },
        );
    let router = router.route("/echo", post(move |body| echo(work, body))).route("/upload", post(upload));
    let router = Download::ALL.into_iter().fold(router, |router, kind| {
        let respond = move || async move {
            let (pieces, produce) = channel::body(work, kind);
            spawn_blocking(produce);
            download(work, pieces)
        };
        router.route(kind.path(), get(respond))
    });
    serve(multi_thread(), router)
}

async fn echo(work: &'static Work, body: Bytes) -> Body {
    let echo = spawn_blocking(move || work.echo(&body).expect("JSON")).await;
    Body::from(echo.expect("no panic"))
}

async fn upload(body: Body) -> String {
    spawn_blocking(|| blocking_length(body)).await.expect("no panic").to_string()
}

/// Reads a body on a thread that may block.
fn blocking_length(mut body: Body) -> usize {
    let runtime = Handle::current();
    let mut length = 0;
    while let Some(frame) = runtime.block_on(body.frame()) {
        length += frame.expect("an upload").data_ref().map_or(0, Bytes::len);
    }
    length
}
