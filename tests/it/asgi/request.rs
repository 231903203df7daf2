//! B6: the request's body inside the service, whatever it is and whatever the service does with it.

use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::{Arc, mpsc as std_mpsc};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use tokio::sync::Mutex;
use tower::service_fn;
use tower_wsgi::{AsgiHandler, Body, BoxError, Error, Input, SyncHandler};

use super::{Broken, answer, fed, frames, get, next, pipe, post, read, reader};
use crate::support::watched;

/// Collects its request and sends it back, or the error as text.
fn collecting() -> impl SyncHandler {
    AsgiHandler::new(service_fn(|request: Request<Body>| async {
        let text = match request.into_body().collect().await {
            Ok(body) => format!("{:?} {:?}", body.trailers().cloned(), body.to_bytes()),
            Err(error) => format!("error: {error}"),
        };
        Ok::<_, Infallible>(Response::new(Body::from(text)))
    }))
}

/// Collects its request, and fails with what that fails with.
fn whole() -> impl SyncHandler {
    AsgiHandler::new(service_fn(|request: Request<Body>| async {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, BoxError>(Response::new(Body::from(body)))
    }))
}

fn declared(length: &'static str, input: Input) -> Request<Input> {
    let mut request = post(input);
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(length));
    request
}

/// What reading `length` bytes of each kind of input gives the service.
fn upload(length: &'static str) -> Vec<Result<String, BoxError>> {
    let inputs = [
        Input::reader(io::Cursor::new("hello")),
        Input::new(super::chunks(["hel", "lo"])),
        Input::from("hello"),
    ];
    inputs.map(|input| Ok(read(whole().call(declared(length, input))?)?)).into()
}

#[test]
fn b6_a_body_of_unknown_length_arrives_whole() {
    watched(|| {
        for input in [Input::reader(io::Cursor::new("hello")), Input::new(super::chunks(["hel", "lo"]))] {
            let response = whole().call(post(input)).expect("a response");
            assert_eq!(read(response).expect("a body"), "hello");
        }
    });
}

#[test]
fn b6_a_body_of_the_declared_length_arrives_whole() {
    watched(|| {
        for result in upload("5") {
            assert_eq!(result.expect("a response"), "hello");
        }
    });
}

#[test]
fn b6_a_body_that_ends_early_is_an_error_in_the_service() {
    watched(|| {
        for result in upload("100") {
            let error = result.expect_err("an error");
            let error = super::cause::<Error>(error.downcast_ref().expect("an io::Error"));
            assert!(error.is_length(), "{error:?}");
            assert!(error.to_string().contains("5 of 100"), "{error}");
        }
    });
}

#[test]
fn b6_a_body_that_goes_on_is_an_error_in_the_service() {
    watched(|| {
        for result in upload("3").into_iter().chain(upload("0")) {
            let error = result.expect_err("an error");
            let error = super::cause::<Error>(error.downcast_ref().expect("an io::Error"));
            assert!(error.is_length(), "{error:?}");
        }
    });
}

#[test]
fn b6_a_body_that_ends_early_gives_what_came() {
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|request: Request<Body>| async {
            let mut body = request.into_body();
            let mut seen = Vec::new();
            while let Some(frame) = body.frame().await {
                seen.push(frame.is_ok());
            }
            // It is over with the error.
            assert!(body.frame().await.is_none());
            Ok::<_, Infallible>(Response::new(Body::from(format!("{seen:?}"))))
        }));
        let request = declared("100", Input::reader(io::Cursor::new("hello")));
        let response = handler.call(request).expect("a response");
        assert_eq!(read(response).expect("a body"), "[true, false]");
    });
}

#[test]
fn b6_the_length_is_known_to_the_service() {
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|request: Request<Body>| async move {
            let hint = request.body().size_hint().exact();
            let end = request.body().is_end_stream();
            Ok::<_, Infallible>(Response::new(Body::from(format!("{hint:?} {end}"))))
        }));
        let known = |request| read(handler.call(request).expect("a response")).expect("a body");
        assert_eq!(known(declared("5", Input::reader(io::Cursor::new("hello")))), "Some(5) false");
        assert_eq!(known(declared("5", Input::new(super::chunks(["hello"])))), "Some(5) false");
        assert_eq!(known(post(Input::reader(io::Cursor::new("hello")).with_length(5))), "Some(5) false");
        assert_eq!(known(post("hello")), "Some(5) false");
        assert_eq!(known(post(Input::reader(io::Cursor::new("hello")))), "None false");
        assert_eq!(known(get()), "Some(0) true");
    });
}

#[test]
fn b6_a_service_that_never_reads_never_runs_the_reader() {
    struct Unread;
    impl Read for Unread {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("it was read");
        }
    }

    watched(|| {
        let handler = AsgiHandler::new(service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::from("unread")))
        }));
        for request in [post(Input::reader(Unread)), declared("100", Input::reader(Unread))] {
            assert_eq!(read(handler.call(request).expect("a response")).expect("a body"), "unread");
        }
    });
}

#[test]
fn b6_reads_after_the_end_are_the_end() {
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|request: Request<Body>| async {
            let mut body = request.into_body();
            while body.frame().await.is_some() {}
            for _ in 0..3 {
                assert!(body.frame().await.is_none());
            }
            Ok::<_, Infallible>(Response::new(Body::from("over")))
        }));
        let requests = [
            get(),
            post("hello"),
            post(Input::reader(io::Cursor::new("hello"))),
            declared("5", Input::reader(io::Cursor::new("hello"))),
            post(Input::new(super::chunks(["hel", "lo"]))),
        ];
        for request in requests {
            assert_eq!(read(handler.call(request).expect("a response")).expect("a body"), "over");
        }
    });
}

#[test]
fn b6_a_request_can_be_read_after_its_response() {
    watched(|| {
        let (sender, received) = std_mpsc::channel();
        let handler = AsgiHandler::new(service_fn(move |request: Request<Body>| {
            let sender = sender.clone();
            tokio::spawn(async move {
                let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                sender.send(body.map_err(|error| error.to_string()))
            });
            async { Ok::<_, Infallible>(Response::new(Body::from("early"))) }
        }));
        let (feed, pipe) = pipe();
        assert_eq!(
            read(handler.call(post(Input::reader(pipe))).expect("a response")).expect("a body"),
            "early"
        );
        feed.send("la").expect("a reader");
        feed.send("te").expect("a reader");
        drop(feed);
        assert_eq!(next(&received), Ok(Bytes::from("late")));

        let (feed, body) = fed();
        assert_eq!(read(handler.call(post(Input::new(body))).expect("a response")).expect("a body"), "early");
        feed.send("late").expect("a body");
        drop(feed);
        assert_eq!(next(&received), Ok(Bytes::from("late")));
    });
}

#[test]
fn b6_two_readers_get_one_piece_each_in_order() {
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|request: Request<Body>| async {
            let body = Arc::new(Mutex::new(request.into_body()));
            let read = || {
                let body = body.clone();
                tokio::spawn(async move {
                    let frame = body.lock().await.frame().await.expect("a frame")?;
                    Ok::<_, BoxError>(frame.into_data().expect("data"))
                })
            };
            let (first, second) = tokio::join!(read(), read());
            let mut pieces = [first.expect("no panic")?, second.expect("no panic")?];
            pieces.sort();
            Ok::<_, BoxError>(Response::new(Body::from(format!("{pieces:?}"))))
        }));
        let (feed, pipe) = pipe();
        let input = Input::reader(pipe);
        let feeding = std::thread::spawn(move || ["1", "2", "3"].map(|piece| feed.send(piece)));
        let response = handler.call(post(input)).expect("a response");
        assert_eq!(read(response).expect("a body"), r#"[b"1", b"2"]"#);
        let _ = feeding.join().expect("no panic");
    });
}

#[test]
fn b6_a_reader_that_fails_is_the_services_error() {
    watched(|| {
        let reader =
            || io::Cursor::new("hello").chain(Fails(|| Err(io::Error::other(Broken("the line is cut")))));
        for request in [post(Input::reader(reader())), declared("100", Input::reader(reader()))] {
            let error = whole().call(request).expect_err("an error");
            let wrapped = io::Error::other(error);
            assert_eq!(super::cause::<Broken>(&wrapped), Broken("the line is cut"));
        }
    });
}

#[test]
fn b6_a_reader_that_panics_is_an_error_in_the_service() {
    watched(|| {
        let reader = || io::Cursor::new("hello").chain(Fails(|| panic!("the reader panics")));
        for request in [post(Input::reader(reader())), declared("100", Input::reader(reader()))] {
            let wrapped = io::Error::other(whole().call(request).expect_err("an error"));
            let error = super::cause::<Error>(&wrapped);
            assert!(error.is_panic() && error.to_string().contains("the reader panics"), "{error:?}");
        }
    });
}

/// A reader that fails.
struct Fails(fn() -> io::Result<usize>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        (self.0)()
    }
}

#[test]
fn b6_a_reader_that_is_interrupted_is_read_again() {
    struct Interrupted<R>(R, bool);
    impl<R: Read> Read for Interrupted<R> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(buf) }
        }
    }

    watched(|| {
        let input = Input::reader(Interrupted(io::Cursor::new("hello"), false));
        let response = whole().call(post(input)).expect("a response");
        assert_eq!(read(response).expect("a body"), "hello");
    });
}

#[test]
fn b6_a_body_that_fails_is_the_services_error() {
    watched(|| {
        let body = frames([Ok(Frame::data("hello".into())), Err(Broken("the stream is reset").into())]);
        let response = collecting().call(post(Input::new(body))).expect("a response");
        assert_eq!(read(response).expect("a body"), "error: the stream is reset");
    });
}

#[test]
fn b6_trailers_reach_the_service() {
    watched(|| {
        let trailers =
            HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("1"))]);
        for length in [None, Some("5")] {
            let trailers = trailers.clone();
            let input = Input::new(frames([Ok(Frame::data("hello".into())), Ok(Frame::trailers(trailers))]));
            let request = match length {
                Some(length) => declared(length, input),
                None => post(input),
            };
            let response = collecting().call(request).expect("a response");
            assert_eq!(read(response).expect("a body"), r#"Some({"x-sum": "1"}) b"hello""#);
        }
    });
}

#[test]
fn b6_what_sync_code_has_read_is_gone_and_the_rest_is_not() {
    watched(|| {
        for length in [None, Some("11")] {
            let inputs = [
                Input::reader(io::Cursor::new("hello world")),
                Input::new(super::chunks(["hel", "lo ", "wor", "ld"])),
                Input::from("hello world"),
            ];
            for mut input in inputs {
                input.read_exact(&mut [0; 5]).expect("five bytes");
                let request = match length {
                    Some(length) => declared(length, input),
                    None => post(input),
                };
                let response = whole().call(request).expect("a response");
                assert_eq!(read(response).expect("a body"), " world", "{length:?}");
            }
        }
    });
}

#[test]
fn b6_a_large_upload_arrives_whole() {
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|request: Request<Body>| async {
            let (mut body, mut sum) = (request.into_body(), 0);
            while let Some(frame) = body.frame().await {
                sum += frame?.into_data().map_or(0, |data| data.len());
            }
            Ok::<_, BoxError>(Response::new(Body::from(sum.to_string())))
        }));
        let request = declared("20000000", Input::reader(io::repeat(b'x').take(20_000_000)));
        assert_eq!(read(handler.call(request).expect("a response")).expect("a body"), "20000000");
    });
}

#[test]
fn b6_an_echo_of_a_reader_is_read_to_its_end() {
    watched(|| {
        let echo = AsgiHandler::new(service_fn(|request: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        }));
        let mut body = reader(echo.call(post(Input::reader(io::repeat(b'x').take(1_000_000)))));
        assert_eq!(io::copy(&mut body, &mut io::sink()).expect("a body"), 1_000_000);
        assert_eq!(answer(&echo), "");
    });
}
