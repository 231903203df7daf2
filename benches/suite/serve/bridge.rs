//! tokio-util's `SyncIoBridge`, for the workloads that have a stream: a reader for the request's body, a writer for the response's.
//!
//! An iterator would have to be written into it, which is the writer's case.

use std::error::Error;
use std::io::{self, Read, Write};

use axum::body::Body;
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::TryStreamExt;
use tokio::io::{DuplexStream, duplex};
use tokio::task::spawn_blocking;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::axum::{download, multi_thread, serve};
use super::channel::PIECES;
use super::work::{Work, length};

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    let router = axum::Router::new()
        .route("/echo", post(move |body| echo(work, body)))
        .route("/upload", post(upload))
        .route(
            "/reader",
            get(async move || {
                written(work, move |to| work.copies().try_for_each(|piece| to.write_all(&piece)))
            }),
        )
        .route("/writer", get(async move || written(work, move |to| work.write(to))));
    serve(multi_thread(), router)
}

fn bridge(body: Body) -> impl Read + Send + 'static {
    let stream = body.into_data_stream().map_err(io::Error::other);
    SyncIoBridge::new(StreamReader::new(Box::pin(stream)))
}

async fn echo(work: &'static Work, body: Body) -> Body {
    let mut reader = bridge(body);
    let echo = spawn_blocking(move || {
        let mut body = Vec::new();
        reader.read_to_end(&mut body).expect("a body");
        work.echo(&body).expect("JSON")
    });
    Body::from(echo.await.expect("no panic"))
}

async fn upload(body: Body) -> String {
    let reader = bridge(body);
    let count = spawn_blocking(|| length(reader).expect("an upload"));
    count.await.expect("no panic").to_string()
}

fn written(
    work: &'static Work,
    write: impl FnOnce(&mut SyncIoBridge<DuplexStream>) -> io::Result<()> + Send + 'static,
) -> Response {
    // As much as may wait with us.
    let (writer, reader) = duplex(PIECES * work.settings.chunk);
    let mut writer = SyncIoBridge::new(writer);
    spawn_blocking(move || {
        // It fails if nobody wants the body any more.
        drop(write(&mut writer).and_then(|()| writer.flush()));
    });
    download(work, ReaderStream::with_capacity(reader, work.settings.chunk))
}
