//! What the servers are asked for, and what they must answer.

use tower_wsgi_benches::load::Exchange;

use crate::contenders::Interface;

/// An application and a request to it.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) interface: Interface,
    /// `module:attribute` in `benches/apps`.
    pub(crate) application: &'static str,
    pub(crate) exchange: Exchange,
}

pub(crate) fn workloads() -> Vec<Workload> {
    use Interface::{Asgi, Wsgi};
    let hello = || Exchange::get("/", b"Hello World!");
    let item = Exchange::get("/item", br#"{"name":"tower","price":1.5,"tags":["http","python"]}"#);
    let new = |name, interface, application, exchange| Workload { name, interface, application, exchange };
    vec![
        new("raw WSGI hello", Wsgi, "raw_wsgi:hello", hello()),
        new("raw WSGI echo of 64 KiB", Wsgi, "raw_wsgi:echo", Exchange::echo("/", 64 * 1024)),
        new("Flask hello", Wsgi, "with_flask:hello", hello()),
        new("raw ASGI hello", Asgi, "raw_asgi:hello", hello()),
        new("raw ASGI hello after receive", Asgi, "raw_asgi:receiving", hello()),
        new("FastAPI hello", Asgi, "with_fastapi:hello", hello()),
        new("FastAPI model", Asgi, "with_fastapi:hello", item),
    ]
}
