//! Tower layers that join synchronous and asynchronous HTTP code, in both directions: blocking handlers inside axum, hyper and tower, and async services inside CGI programs, blocking servers and plain tests.
//! Bodies are streamed, threads and queues are bounded, clients who are slow hold no thread, and an end is only ever a true one.
//!
//! # Async to sync
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
//! # Sync to async
//! An async service (an axum router, any tower stack) becomes a synchronous handler, which a CGI program, a blocking server, a worker or a plain test calls like
//! a function. The calling thread polls it in place:
//!
//! ```
//! use axum::{Router, routing::get};
//! use http::Request;
//! use tower_wsgi::{AsgiHandler, Input, SyncHandler};
//!
//! let router = Router::<()>::new().route("/", get(|| async { "Hello World!" }));
//! let handler = AsgiHandler::new(router);
//!
//! let response = handler.call(Request::get("/").body(Input::empty())?)?;
//! assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "Hello World!");
//! # Ok::<(), tower_wsgi::BoxError>(())
//! ```
//!
//! # What there is
//! | item | what it is |
//! | --- | --- |
//! | [`WsgiLayer`], [`AsgiLayer`] | the layers: each in front of what is inside, or around it |
//! | [`WsgiService`], [`AsgiHandler`] | the service that a handler becomes, the handler that a service becomes |
//! | [`SyncHandler`] | a synchronous application |
//! | [`sync_fn`] | a synchronous middleware |
//! | [`Next`] | the service inside the layer, called from synchronous code |
//! | [`Input`], [`Output`], [`Writer`] | the request's and the response's body on the synchronous side |
//! | [`Body`] | the body on the asynchronous side |
//! | [`Early`] | a response that begins before its handler returns |
//! | [`Environ`], [`Variables`] | the request as CGI and WSGI describe it |
//! | [`Scope`] | the request as ASGI describes it |
//! | [`BackgroundTasks`] | work that outlives its response, known to the synchronous host |
//! | [`WorkerPool`] | the threads |
//! | [`gateway`] | synchronous hosts: CGI, and what others need |
//!
//! # Two sides
//! The *async side* is where futures are polled; nothing of this crate blocks it. The *sync side* is a worker thread, inside the caller's runtime and
//! `tracing` span, where everything may block: the handler, its reads, the iterators and readers it returns, and the drop of all of these.
//!
//! # Order across the boundary
//! Layers run in the order in which they are written, whatever side they are on, and a whole stack reads top to bottom:
//!
//! ```
//! use axum::{Router, routing::get};
//! use http::{Request, Response};
//! use tower::ServiceBuilder;
//! use tower_http::{compression::CompressionLayer, trace::TraceLayer};
//! use tower_wsgi::{AsgiLayer, BoxError, Environ, Input, Output, Scope, SyncHandler, WsgiLayer, sync_fn};
//!
//! /// A sync middleware: looks a session up, blocking, and tells the inside who it is.
//! fn session(mut request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
//!     let mut environ = Environ::of(&request);
//!     environ.set("REMOTE_USER", "alice");
//!     request.extensions_mut().insert(environ);
//!     next.call(request)
//! }
//!
//! async fn who(request: axum::extract::Request) -> String {
//!     let scope = Scope::of(&request);
//!     let user = scope.environ().and_then(|environ| environ.get("REMOTE_USER"));
//!     String::from_utf8_lossy(user.unwrap_or(b"nobody")).into_owned()
//! }
//!
//! let service = ServiceBuilder::new()
//!     .layer(TraceLayer::new_for_http())         // async
//!     .layer(WsgiLayer::adapter().workers(15))   // async -> sync
//!     .layer(sync_fn(session))                   // sync
//!     .layer(AsgiLayer::adapter())               // sync -> async
//!     .layer(CompressionLayer::new())            // async
//!     .service(Router::<()>::new().route("/who", get(who)));
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # use http_body_util::BodyExt;
//! # use tower::ServiceExt;
//! # let response = service.oneshot(Request::get("/who").body(tower_wsgi::Body::empty()).unwrap()).await.unwrap();
//! # assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "alice");
//! # });
//! ```
//!
//! What each layer sees of the request and of the response on either side, and what the place of a timeout, a limit or compression decides, is on a page of its own:
//! [`guide::order`]. In short:
//!
//! | what a layer sees | on the async side | on the sync side |
//! | --- | --- | --- |
//! | the request's view | [`Scope::of`]; the sync side around it is [`Scope::environ`] | [`Environ::of`]; the async side around it is [`Environ::scope`] |
//! | method, URI, headers, extensions | as the layers outside left them | the same |
//! | the bodies | [`Body`], polled | [`Input`], read; [`Output`], made |
//! | a failure inside | a 500 (or what [`Error::status`] says) with the [`Error`] as an extension, once it crossed to here | an `Err`, or the inner async side's own response |
//! | what cancels it | its future is dropped | [`Environ::is_disconnected`]; reads and writes fail |
//!
//! An error is an `Err` to the sync middleware around it, on whichever side it came up. Once it has crossed a [`WsgiService`] it is a response, and stays one.
//!
//! # What a handler can rely on
//! - A read that returns `Ok(0)` is at the true end of the body. A client that vanished, or sent another length than it declared, is an error.
//! - The request, and the iterator, reader or function that it returns, are run and dropped on a worker, once, however the request ends. What is the async
//!   side's by nature is dropped there: an async body passed through, a request that was forwarded, the response's extensions. (Where nobody waits any more when the handler returns, they go on the worker, too.)
//! - When nobody waits for the response any more, writes fail with `BrokenPipe`, reads fail, and [`Environ::is_disconnected`] says so.
//!
//! # What a client can rely on
//! - A response that arrived in full is one that the handler finished. A failure after the head cuts the connection or resets the stream.
//! - A failure before the first byte is a clean 500, too much load a 503 with `Retry-After`, at once.
//!
//! # Guide
//! How a crossing works, order of layers, sizes and limits, streaming, background tasks, testing, Python, and the way here from a2wsgi, asgiref or `spawn_blocking`: [`guide`].
//! How other projects do the same, and when to choose them: [COMPARE.md](https://docs.rs/crate/tower-wsgi/latest/source/COMPARE.md).
//!
//! # Features
//! | feature | default | |
//! | --- | --- | --- |
//! | `axum` | yes | reads the client's address and nested prefixes from axum's `ConnectInfo` and `OriginalUri`, and tells them to axum's extractors on the way back; turns [`Body`] into `axum::body::Body`; makes [`BackgroundTasks`] an extractor. Without it, [`Scope`] carries what is known of the connection |

#![forbid(unsafe_code)]
// Examples compile without warnings, as what is pasted from them does. What one only shows, it need not use.
#![doc(test(attr(deny(warnings), allow(dead_code, unused_variables))))]

mod asgi;
mod body;
mod early;
mod environ;
mod error;
mod exchange;
pub mod gateway;
// Pages of the documentation, and nothing else. Their code blocks need the feature, as the README's do.
#[cfg(all(doc, any(feature = "axum", not(doctest))))]
pub mod guide;
mod handler;
mod input;
#[cfg(all(test, tower_wsgi_loom))]
mod models;
mod nesting;
mod next;
mod output;
mod parker;
mod pool;
mod relay;
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
pub use early::{Early, EarlyResponse};
pub use environ::Environ;
pub use error::{BoxError, Error};
pub use handler::{Adapter, IntoResult, SyncHandler};
pub use input::Input;
pub use next::Next;
pub use output::Output;
pub use pool::{PoolStats, WorkerPool};
pub use scope::Scope;
pub use sync_fn::{SyncFn, SyncFnLayer, sync_fn};
pub use variables::{VariableName, Variables};
pub use writer::Writer;
pub use wsgi::{ResponseFuture, Wsgi, WsgiFuture, WsgiLayer, WsgiService};

/// The code blocks of the README are tests.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
