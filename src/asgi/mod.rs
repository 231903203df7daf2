//! The crossing from sync to async.
//!
//! A request's trip: [`AsgiHandler`] or [`Asgi`] (`layer.rs`) finds the runtime (`runtime.rs`), turns the environ into a scope and the input into an async body, and polls the service
//! on the calling thread until its response is there. Its body goes back inside that runtime, with its end held back by background tasks (`background.rs`), if there are any (`body.rs`).

mod background;
mod body;
mod layer;
mod runtime;
pub(crate) mod tasks;

pub use background::BackgroundTasks;
pub(crate) use background::Lingering;
pub use layer::{Asgi, AsgiHandler, AsgiLayer};
