//! `block_in_place` by hand: the runtime's thread itself blocks, after it gave its other tasks away.
//!
//! There is no upload that is read while it comes in: in place means in the task that also reads the connection, so that
//! nothing comes in. And no download by a function that writes, which has to run besides the response's body.

use std::error::Error;

use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures_util::stream;
use tokio::task::block_in_place;

use super::axum::{download, multi_thread, serve, tasks};
use super::work::Work;

pub(super) fn run(work: &'static Work) -> Result<(), Box<dyn Error + Send + Sync>> {
    let router = tasks(work, |work, task| async move { block_in_place(|| work.run(task)) })
        .route(
            "/echo",
            post(async |body: Bytes| Body::from(block_in_place(|| work.echo(&body).expect("JSON")))),
        )
        .route("/iterator", get(async || download(work, in_place(work.pieces()))))
        .route("/reader", get(async || download(work, in_place(work.copies()))));
    serve(multi_thread(), router)
}

/// Each piece is made in place.
fn in_place(
    mut pieces: impl Iterator<Item = Bytes> + Send + 'static,
) -> impl stream::Stream<Item = std::io::Result<Bytes>> + Send {
    stream::iter(std::iter::from_fn(move || block_in_place(|| pieces.next())).map(Ok))
}
