//! ASGI applications as tower services.

mod errors;
mod http;
mod leaks;
mod lifespan;
mod loops;
mod mounts;
mod scope;
mod support;
mod waiting;
mod websocket;
