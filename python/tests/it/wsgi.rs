//! Python WSGI applications behind a `WsgiLayer`, over real sockets. Applications are given as text, so that a test shows both sides.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod environ;
mod hosts;
mod input;
mod manners;
mod response;
mod start;
pub(crate) mod support;
