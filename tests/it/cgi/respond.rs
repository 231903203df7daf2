//! `gateway::respond`, which every synchronous host stands on.

use std::io::{self, Read as _};

use axum::Router;
use http::{HeaderMap, Request, Response};
use tower_wsgi::{AsgiHandler, Error, Input, Output, SyncHandler, gateway};

use super::head::Guard;
use crate::support::{Events, watched};

fn ask<H: SyncHandler>(handler: H, method: &str) -> Response<Input> {
    let request = Request::builder().method(method).uri("/").body(Input::empty()).expect("a request");
    watched(move || gateway::respond(&handler, request))
}

fn text(response: &mut Response<Input>) -> io::Result<String> {
    let mut text = String::new();
    response.body_mut().read_to_string(&mut text).map(|_| text)
}

#[test]
fn a7_the_length_is_set_where_it_is_known() {
    let full = |_: Request<Input>| Response::new("hello");
    let router = AsgiHandler::new(Router::<()>::new().fallback(|| async { "hello" }));
    for mut response in [ask(full, "GET"), ask(router, "GET")] {
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(text(&mut response).expect("a whole body"), "hello");
    }
    let mut response = ask(|_: Request<Input>| Response::new(Output::iter(["hello"])), "GET");
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(text(&mut response).expect("a whole body"), "hello");
}

#[test]
fn a15_a_response_with_trailers_gets_no_length() {
    // HTTP/1 has trailers only behind a body of chunks.
    let full = |_: Request<Input>| Response::new(Output::from("hello").with_trailers(HeaderMap::new));
    let mut response = ask(full, "GET");
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(text(&mut response).expect("a whole body"), "hello");
}

#[test]
fn a7_a_declared_length_is_held_to() {
    let of = |length| {
        ask(
            move |_: Request<Input>| {
                Response::builder().header("content-length", length).body(Output::iter(["hel", "lo"]))
            },
            "GET",
        )
    };
    assert_eq!(text(&mut of("5")).expect("a whole body"), "hello");
    assert_eq!(text(&mut of("4")).expect("a whole body"), "hell");
    assert_eq!(text(&mut of("0")).expect("a whole body"), "");
    let short = text(&mut of("6")).expect_err("an error");
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(short.to_string(), "the response's body ended early: 5 of 6 bytes came");
}

#[test]
fn a12_a_failure_is_a_500_that_carries_its_error() {
    let failing = |_: Request<Input>| -> Result<Response<()>, &'static str> { Err("no rows") };
    let panicking = |_: Request<Input>| -> Response<()> { panic!("no luck") };
    let interim = |_: Request<Input>| Response::builder().status(103).body(());
    for (mut response, kind) in [
        (ask(failing, "GET"), "handler"),
        (ask(panicking, "GET"), "panic"),
        (ask(interim, "GET"), "response"),
    ] {
        assert_eq!(response.status(), 500);
        let error = response.extensions().get::<Error>().expect("an error");
        let kinds =
            [("handler", error.is_handler()), ("panic", error.is_panic()), ("response", error.is_response())];
        assert!(kinds.iter().all(|(other, is)| *is == (*other == kind)), "{error:?}");
        assert_eq!(text(&mut response).expect("a whole body"), "Internal Server Error\n");
    }
    let mut response = ask(failing, "HEAD");
    assert_eq!(response.status(), 500);
    assert_eq!(text(&mut response).expect("a whole body"), "");
}

#[test]
fn a12_a_body_that_fails_at_once_is_a_500_too() {
    let bodies: [fn() -> Output; 3] = [
        || Output::try_iter([Ok(""), Err("no rows")]),
        || Output::reader(Broken),
        || Output::writer(|_| Err(io::Error::other("no rows"))),
    ];
    for body in bodies {
        let response = ask(move |_: Request<Input>| Response::new(body()), "GET");
        assert_eq!(response.status(), 500);
        assert!(response.extensions().get::<Error>().expect("an error").is_handler());
    }
}

struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("no rows"))
    }
}

#[test]
fn a5_only_the_first_chunk_is_made_before_the_body_is_read() {
    let events = Events::<&'static str>::new();
    let tell = events.teller();
    let handler = move |_: Request<Input>| {
        let tell = tell.clone();
        Response::new(Output::iter(["", "one", "two"].into_iter().inspect(move |chunk| tell(chunk))))
    };
    let mut response = ask(handler, "GET");
    assert_eq!(events.drain(), ["", "one"]);
    assert_eq!(text(&mut response).expect("a whole body"), "onetwo");
    assert_eq!(events.drain(), ["two"]);
}

#[test]
fn a9_a_response_that_nobody_reads_drops_its_producer() {
    let events = Events::new();
    let tell = events.teller();
    let handler = move |_: Request<Input>| {
        let guard = Guard(Box::new(tell.clone()));
        Response::new(Output::iter(std::iter::repeat_with(move || {
            let _held = &guard;
            "more"
        })))
    };
    let response = ask(handler, "GET");
    assert_eq!(events.drain(), []);
    watched(move || drop(response));
    assert_eq!(events.drain(), [()]);
}

#[test]
fn a13_the_extensions_of_a_response_reach_the_host() {
    let handler = |_: Request<Input>| Response::builder().extension(7_u8).body("hello");
    assert_eq!(ask(handler, "GET").extensions().get::<u8>(), Some(&7));
}
