//! x

mod body;
mod environ;
mod error;
mod exchange;
mod handler;
mod input;
#[cfg(all(test, tower_wsgi_loom))]
mod models;
mod next;
mod output;
mod parker;
mod pool;
mod scope;
mod sync;
mod variables;
mod view;
mod writer;
mod wsgi;

pub use body::Body;
pub use environ::Environ;
pub use error::{BoxError, Error};
pub use handler::{IntoResult, SyncHandler};
pub use input::Input;
pub use next::Next;
pub use output::Output;
pub use pool::{PoolStats, WorkerPool};
pub use scope::Scope;
pub use variables::Variables;
pub use writer::Writer;
pub use wsgi::{Adapter, ResponseFuture, Wsgi, WsgiFuture, WsgiLayer, WsgiService};
