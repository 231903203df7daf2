//! The baseline: async handlers, with no blocking code and so no crossing.

use std::error::Error;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures_util::stream;
use http_body_util::BodyExt;
use tokio::io::{AsyncWriteExt, duplex};
use tokio_util::io::ReaderStream;

use super::axum::{download, multi_thread, one_thread, serve, tasks};
use super::work::Work;

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    serve(multi_thread(), router(work))
}

pub(super) fn run_on_one_thread(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    serve(one_thread(), router(work))
}

fn router(work: &'static Work) -> Router {
    // The route of the work that blocks is not used: a native handler has no way to do it.
    tasks(work, |work, task| async move { work.run(task) })
        .route("/echo", post(async |body: Bytes| Body::from(work.echo(&body).expect("JSON"))))
        .route("/upload", post(upload))
        .route("/iterator", get(async || download(work, stream::iter(work.pieces().map(Ok)))))
        .route("/reader", get(async || download(work, stream::iter(work.copies().map(Ok)))))
        .route("/writer", get(async move || writer(work)))
}

async fn upload(mut body: Body) -> String {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.expect("an upload").data_ref().map_or(0, Bytes::len);
    }
    length.to_string()
}

fn writer(work: &'static Work) -> http::Response<Body> {
    let (mut writer, reader) = duplex(work.settings.chunk);
    tokio::spawn(async move {
        for piece in work.pieces() {
            if writer.write_all(&piece).await.is_err() {
                // The client is gone.
                return;
            }
        }
    });
    download(work, ReaderStream::with_capacity(reader, work.settings.chunk))
}
