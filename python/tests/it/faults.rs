//! What goes wrong, at each moment at which it can: clients that vanish, lengths that are no lengths, applications that fail, resources that run out. The server is a process of its own; it answers the next request,
//! and nothing is left of what went wrong.
//!
//! `FAULTS=all` tries what takes long, too.

pub(crate) mod asgi;
mod clients;
mod http2;
mod lengths;
mod lifespan;
mod recursion;
mod resources;
pub(crate) mod support;
mod websocket;
mod wsgi;
