//! Tower layers that join synchronous and asynchronous HTTP code.
//!
//! A synchronous handler ([`SyncHandler`]: any `Fn(Request<Input>) -> Response<Output>`) becomes a tower service that axum, hyper and every other tower stack can
//! use, with its body streamed both ways and its work on a bounded pool of threads:
//!
//! ```
//! use axum::{Router, routing::get};
//! use http::{Request, Response};
//! use tower_wsgi::{Input, WsgiLayer};
//!
//! fn legacy(request: Request<Input>) -> Response<String> {
//!     Response::new(format!("{} the old way\n", request.uri().path()))
//! }
//!
//! let app: Router = Router::new()
//!     .route("/", get(|| async { "the new way\n" }))
//!     .layer(WsgiLayer::new(legacy).at("/legacy"));
//! ```
//!
//! | | |
//! | --- | --- |
//! | [`WsgiLayer`] | the layer: in front of a service, or around a handler |
//! | [`WsgiService`] | the service that a handler becomes |
//! | [`SyncHandler`] | a synchronous application |
//! | [`Input`], [`Output`], [`Writer`] | the request's and the response's body on the synchronous side |
//! | [`Body`] | the body on the asynchronous side |
//! | [`Environ`], [`Variables`] | the request as CGI and WSGI describe it |
//! | [`Scope`] | the request as ASGI describes it |
//! | [`Next`] | the service inside the layer, called from synchronous code |
//! | [`WorkerPool`] | the threads |
//!
//! # Two sides
//! The *async side* is where futures are polled; nothing of this crate blocks it. The *sync side* is a worker thread, inside the caller's runtime and
//! `tracing` span, where everything may block: the handler, its reads, the iterators and readers it returns, and the drop of all of these.
//!
//! # What a handler can rely on
//! - A read that returns `Ok(0)` is at the true end of the body. A client that vanished, or sent another length than it declared, is an error.
//! - The request, and the iterator, reader or function that it returns, are run and dropped on a worker, once, however the request ends. What is the async
//!   side's by nature is dropped there: an async body passed through, a request that was forwarded, the response's extensions.
//! - When nobody waits for the response any more, writes fail with `BrokenPipe`, reads fail, and [`Environ::is_disconnected`] says so.
//!
//! # What a client can rely on
//! - A response that arrived in full is one that the handler finished. A failure after the head cuts the connection or resets the stream.
//! - A failure before the first byte is a clean 500, too much load a 503 with `Retry-After`, at once.
//!
//! # Features
//! - `axum` (default): reads the client's address and nested prefixes from axum's `ConnectInfo` and `OriginalUri`, and turns
//!   [`Body`] into `axum::body::Body`. Without it, [`Scope`] carries them.

mod asgi;
mod body;
mod environ;
mod error;
mod exchange;
pub mod gateway;
mod handler;
mod input;
#[cfg(all(test, tower_wsgi_loom))]
mod models;
mod next;
mod output;
mod parker;
mod pool;
mod response;
mod scope;
mod source;
mod sync;
mod sync_fn;
mod trailed;
mod variables;
mod view;
mod wait;
mod writer;
mod wsgi;

pub use asgi::{Asgi, AsgiHandler, AsgiLayer, BackgroundTasks};
pub use body::Body;
pub use environ::Environ;
pub use error::{BoxError, Error};
pub use handler::{Adapter, IntoResult, SyncHandler};
pub use input::Input;
pub use next::Next;
pub use output::Output;
pub use pool::{PoolStats, WorkerPool};
pub use scope::Scope;
pub use sync_fn::{SyncFn, SyncFnLayer, sync_fn};
pub use variables::Variables;
pub use writer::Writer;
pub use wsgi::{ResponseFuture, Wsgi, WsgiFuture, WsgiLayer, WsgiService};

/// The code blocks of the README are tests.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
