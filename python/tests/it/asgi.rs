//! ASGI applications as tower services.

#![allow(clippy::unwrap_used)]

mod errors;
mod http;
mod leaks;
mod lifespan;
mod loops;
mod mounts;
mod scope;
pub(crate) mod support;
mod waiting;
mod websocket;
