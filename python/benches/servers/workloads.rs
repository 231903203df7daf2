//! What the servers are asked for, and what they must answer.

use crate::contenders::Interface;

/// A request and the body of its answer, whose status is 200.
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    pub(crate) answer: Vec<u8>,
}

impl Exchange {
    pub(crate) fn get(path: &str, answer: &[u8]) -> Exchange {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        Exchange { request: request.into_bytes(), answer: answer.to_vec() }
    }

    fn echo(length: usize) -> Exchange {
        // No power of two, so that pieces in the wrong order are noticed.
        let body: Vec<u8> = (0_u8..251).cycle().take(length).collect();
        let head = format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        Exchange { request: [head.as_bytes(), &body].concat(), answer: body }
    }
}

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
        new("raw WSGI echo of 64 KiB", Wsgi, "raw_wsgi:echo", Exchange::echo(64 * 1024)),
        new("Flask hello", Wsgi, "with_flask:hello", hello()),
        new("raw ASGI hello", Asgi, "raw_asgi:hello", hello()),
        new("raw ASGI hello after receive", Asgi, "raw_asgi:receiving", hello()),
        new("FastAPI hello", Asgi, "with_fastapi:hello", hello()),
        new("FastAPI model", Asgi, "with_fastapi:hello", item),
    ]
}
