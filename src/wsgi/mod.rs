//! The crossing from async to sync.
//!
//! A request's trip: [`WsgiService`] or [`Wsgi`] makes a `Call` (`call.rs`), the [`ResponseFuture`] reads ahead and submits it to the
//! pool (`future.rs`), a worker runs the handler (`call.rs`) and delivers what it returned (`deliver.rs`), chunk by chunk where it has to
//! (`produce.rs`). A response may begin before that (`begun.rs`). What `tracing` hears of it is in `events.rs`.

mod begun;
mod call;
mod deliver;
mod events;
mod future;
mod layer;
mod meter;
mod produce;
mod service;
mod settings;

pub use future::{ResponseFuture, WsgiFuture};
pub use layer::WsgiLayer;
pub use service::{Wsgi, WsgiService};
