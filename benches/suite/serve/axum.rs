//! What all servers on axum have in common. They differ in nothing but how a request gets to blocking code.

use std::error::Error;
use std::io;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::Stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use tokio::runtime::{Builder, Runtime};

use super::announced;
use super::work::{Task, Work};

pub(crate) fn multi_thread() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

pub(crate) fn one_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

pub(super) fn serve(
    runtime: io::Result<Runtime>,
    router: Router,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = announced()?;
    listener.set_nonblocking(true)?;
    runtime?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(axum::serve(listener, router).await?)
    })
}

/// Routes for the work without a request's body, done by `handler`.
pub(super) fn tasks<R>(
    work: &'static Work,
    handler: impl Fn(&'static Work, Task) -> R + Clone + Send + Sync + 'static,
) -> Router
where
    R: Future<Output = Bytes> + Send + 'static,
{
    Task::ALL.into_iter().fold(Router::new(), |router, task| {
        let handler = handler.clone();
        let respond = move || {
            let answer = handler(work, task);
            async move { Response::new(Body::from(answer.await)) }
        };
        router.route(task.path(), get(respond))
    })
}

/// The response of a download.
pub(super) fn download(
    work: &Work,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    sized(work, Body::from_stream(pieces))
}

/// A response that declares the length of a download.
pub(super) fn sized<B>(work: &Work, body: B) -> Response<B> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(work.length()));
    response
}
