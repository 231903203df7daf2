//! The request that a CGI program makes of its variables and its input.

use std::io::{self, Cursor, Read as _};
use std::sync::mpsc;

use axum::body::{Body as AxumBody, Bytes as AxumBytes};
use axum::routing::post;
use axum::{Extension, Router};
use http::{Method, Request, Response, Version};
use tower_wsgi::gateway::cgi;
use tower_wsgi::{AsgiHandler, BoxError, Environ, Input, Scope, Variables};

use super::head::Told;
use super::{Untouched, serve};
use crate::support::{Events, watched};

/// A handler that sends back what it read.
fn echo(mut request: Request<Input>) -> io::Result<Response<Vec<u8>>> {
    let mut bytes = Vec::new();
    request.body_mut().read_to_end(&mut bytes)?;
    Ok(Response::new(bytes))
}

fn echo_async() -> AsgiHandler<Router> {
    AsgiHandler::new(Router::new().fallback(|body: AxumBytes| async { body }))
}

/// Must not be called.
fn never(_: Request<Input>) -> Response<&'static str> {
    panic!("the handler was called");
}

const POST: (&str, &str) = ("REQUEST_METHOD", "POST");

#[test]
fn a2_no_more_is_read_than_was_declared() {
    for length in ["5", "05"] {
        let input = || Cursor::new("hello").chain(Untouched);
        let variables = [POST, ("CONTENT_LENGTH", length)];
        let (answer, served) = serve(echo, &variables, input());
        served.expect("no error");
        assert_eq!(answer.text(), "hello");
        // Here a thread reads on behalf of the service.
        let (answer, served) = serve(echo_async(), &variables, input());
        served.expect("no error");
        assert_eq!(answer.text(), "hello");
    }
    // One read may bring more than was declared.
    let (answer, served) = serve(echo, &[POST, ("CONTENT_LENGTH", "5")], Cursor::new("hello, you"));
    served.expect("no error");
    assert_eq!(answer.text(), "hello");
}

#[test]
fn a2_a_length_that_is_empty_or_missing_or_zero_means_no_body() {
    for variables in [&[POST][..], &[POST, ("CONTENT_LENGTH", "")], &[POST, ("CONTENT_LENGTH", "0")]] {
        let (answer, served) = serve(echo, variables, Untouched);
        served.expect("no error");
        assert_eq!(answer.text(), "");
        let (answer, served) = serve(echo_async(), variables, Untouched);
        served.expect("no error");
        assert_eq!(answer.text(), "");
    }
}

#[test]
fn a2_a_length_that_is_none_is_a_bad_request() {
    for length in ["five", "-1", "+5", "5, 5", "5 ", "0x5", "5.0", "99999999999999999999"] {
        let (answer, served) = serve(never, &[POST, ("CONTENT_LENGTH", length)], Untouched);
        assert_eq!(answer.status, "400 Bad Request", "{length}");
        assert!(served.expect_err("an error").is_request(), "{length}");
    }
}

#[test]
fn a2_a_short_input_is_an_error_and_no_end() {
    let kinds = Events::new();
    let tell = kinds.teller();
    let handler = move |mut request: Request<Input>| {
        let mut bytes = Vec::new();
        let read = request.body_mut().read_to_end(&mut bytes);
        tell((bytes, read.as_ref().map_err(io::Error::kind).map(drop)));
        read.map(|_| Response::new("a whole body"))
    };
    let variables = [POST, ("CONTENT_LENGTH", "10")];
    let (answer, served) = serve(handler, &variables, Cursor::new("hello"));
    assert_eq!(kinds.drain(), [(b"hello".to_vec(), Err(io::ErrorKind::UnexpectedEof))]);
    // It is no failure of the program's that the host broke off.
    assert_eq!(answer.status, "400 Bad Request");
    served.expect_err("an error");

    let (answer, _) = serve(echo_async(), &variables, Cursor::new("hello"));
    assert_eq!(answer.status, "400 Bad Request");
}

#[test]
fn a2_an_input_that_fails_is_an_error() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let variables = [POST, ("CONTENT_LENGTH", "10")];
    let (answer, served) = serve(echo, &variables, Cursor::new("hello").chain(Broken));
    assert_eq!(answer.status, "400 Bad Request");
    served.expect_err("an error");
    let (answer, _) = serve(echo_async(), &variables, Cursor::new("hello").chain(Broken));
    assert_eq!(answer.status, "400 Bad Request");
}

#[test]
fn a1_a_body_in_chunks_goes_to_the_end_of_the_input() {
    for encoding in ["chunked", "Chunked", "gzip, chunked"] {
        let variables = [POST, ("HTTP_TRANSFER_ENCODING", encoding)];
        let (answer, served) = serve(echo, &variables, Cursor::new("hello"));
        served.expect("no error");
        assert_eq!(answer.text(), "hello", "{encoding}");
        let (answer, _) = serve(echo_async(), &variables, Cursor::new("hello"));
        assert_eq!(answer.text(), "hello", "{encoding}");
    }
    // A host that has gathered it knows better.
    let variables = [POST, ("HTTP_TRANSFER_ENCODING", "chunked"), ("CONTENT_LENGTH", "5")];
    let (answer, served) = serve(echo, &variables, Cursor::new("hello").chain(Untouched));
    served.expect("no error");
    assert_eq!(answer.text(), "hello");
}

/// A reader that waits for the test.
struct Piped(mpsc::Receiver<&'static str>);

impl io::Read for Piped {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.recv().map_or(Ok(0), |piece| piece.as_bytes().read(buf))
    }
}

#[tokio::test]
async fn b3_a_response_goes_out_while_the_request_comes_in() {
    let events = Events::new();
    let tell = events.teller();
    let (feed, input) = mpsc::channel();
    let router = Router::<()>::new().route("/", post(|body: AxumBody| async { body }));
    let serving = std::thread::spawn(move || {
        let variables = [POST, ("PATH_INFO", "/"), ("CONTENT_LENGTH", "9")].into_iter().collect();
        cgi::serve(&AsgiHandler::new(router), variables, Piped(input), Told(Vec::new(), tell))
    });
    assert!(events.next().await.ends_with(b"\r\n\r\n"));
    for piece in ["one", "two", "six"] {
        feed.send(piece).expect("somebody who reads");
        assert_eq!(events.next().await, piece.as_bytes());
    }
    // It knows the end: the feed is still there.
    watched(move || serving.join().expect("no panic").expect("no error"));
}

#[test]
fn c1_variables_that_are_no_request_are_refused() {
    for (name, value) in [
        ("REQUEST_METHOD", "GET IT"),
        ("REQUEST_METHOD", ""),
        ("PATH_INFO", "no-slash"),
        ("SCRIPT_NAME", "app"),
        ("SERVER_PORT", "http"),
        ("REMOTE_PORT", "-1"),
        ("HTTP_X_A", "two\r\nlines"),
    ] {
        let variables =
            [("REQUEST_METHOD", "GET"), ("REMOTE_ADDR", "10.0.0.1"), ("SERVER_NAME", "a"), (name, value)];
        let (answer, served) = serve(never, &variables, Untouched);
        assert_eq!(answer.status, "400 Bad Request", "{name}={value}");
        assert_eq!(answer.text(), "Bad Request\n");
        let error = served.expect_err("an error");
        assert!(error.is_request(), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// What a handler was given.
struct Seen {
    request: Request<()>,
    environ: Environ,
    variables: Variables,
}

fn seen(variables: &[(&'static str, &'static str)]) -> Seen {
    let events = Events::new();
    let tell = events.teller();
    let handler = move |request: Request<Input>| {
        let (environ, variables) = (Environ::of(&request), Variables::of(&request));
        tell(Seen { request: request.map(drop), environ, variables });
        Response::new("")
    };
    let (_, served) = serve(handler, variables, Untouched);
    served.expect("no error");
    events.drain().pop().expect("a request")
}

#[test]
fn c1_the_request_is_the_one_that_the_variables_describe() {
    let seen = seen(&[
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "PROPFIND"),
        ("SERVER_PROTOCOL", "HTTP/1.0"),
        ("SCRIPT_NAME", "/app"),
        ("PATH_INFO", "/a/b"),
        ("PATH_TRANSLATED", "/var/www/a/b"),
        ("QUERY_STRING", "c=d"),
        ("CONTENT_TYPE", "text/csv"),
        ("CONTENT_LENGTH", "0"),
        ("HTTP_HOST", "example.org"),
        ("HTTP_ACCEPT_LANGUAGE", "de, en"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("REMOTE_ADDR", "2001:db8::1"),
        ("REMOTE_PORT", "4000"),
        ("REMOTE_USER", "alice"),
        ("AUTH_TYPE", "Basic"),
        ("SERVER_NAME", "example.org"),
        ("SERVER_PORT", "8080"),
        ("SERVER_SOFTWARE", "lighttpd"),
        ("HTTPS", "on"),
        ("NOTE_FILE", "/tmp/note"),
    ]);
    let request = &seen.request;
    assert_eq!(request.method(), Method::from_bytes(b"PROPFIND").expect("a method"));
    assert_eq!(request.version(), Version::HTTP_10);
    assert_eq!(request.uri(), "/a/b?c=d");
    assert_eq!(request.headers()["content-type"], "text/csv");
    assert_eq!(request.headers()["accept-language"], "de, en");
    assert_eq!(request.headers()["cookie"], "a=1; b=2");
    assert_eq!(&*seen.environ.script_name(), b"/app");
    assert_eq!(&*seen.environ.path_info(), b"/a/b");
    assert_eq!(seen.environ.remote(), "[2001:db8::1]:4000".parse().ok());
    assert_eq!(seen.environ.server(), Some(("example.org", 8080)));
    assert_eq!(seen.environ.url_scheme(), "https");
    // What only the host knows.
    for (name, value) in [
        ("REMOTE_USER", "alice"),
        ("AUTH_TYPE", "Basic"),
        ("PATH_TRANSLATED", "/var/www/a/b"),
        ("SERVER_SOFTWARE", "lighttpd"),
        ("NOTE_FILE", "/tmp/note"),
    ] {
        assert_eq!(seen.environ.get(name), Some(value.as_bytes()), "{name}");
        assert_eq!(seen.variables.get(name), Some(value.as_bytes()), "{name}");
    }
    assert_eq!(seen.variables.get("REMOTE_ADDR"), Some(&b"2001:db8::1"[..]));
    assert_eq!(seen.variables.get("HTTP_HOST"), Some(&b"example.org"[..]));
}

/// What hosts say that is not quite RFC 3875.
#[test]
fn c1_odd_variables_of_real_hosts_are_taken() {
    let seen = seen(&[
        ("REQUEST_METHOD", "GET"),
        ("SERVER_PROTOCOL", "INCLUDED"),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("REMOTE_ADDR", "unix:"),
        ("REMOTE_PORT", ""),
        ("SERVER_NAME", ""),
        ("SERVER_PORT", ""),
        ("REMOTE_USER", ""),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", ""),
        ("HTTPS", ""),
    ]);
    assert_eq!(seen.request.version(), Version::HTTP_11);
    assert_eq!(seen.request.uri(), "/");
    assert!(seen.request.headers().is_empty(), "{:?}", seen.request.headers());
    assert_eq!(seen.environ.remote(), None);
    assert_eq!(seen.environ.server(), None);
    assert_eq!(seen.environ.url_scheme(), "http");
    assert_eq!(seen.variables.get("REMOTE_ADDR"), Some(&b"unix:"[..]));
}

#[test]
fn c1_the_target_keeps_its_encoding() {
    for (target, info, uri) in [
        ("/app/a%2Fb?x=%2F", "/a/b", "/a%2Fb?x=%2F"),
        ("/app/a%2fb", "/a/b", "/a%2fb?x=%2F"),
        ("/app/caf%C3%A9", "/café", "/caf%C3%A9?x=%2F"),
        // What does not fit is not believed.
        ("/other/a%2Fb", "/a/b", "/a/b?x=%2F"),
        ("", "/a b", "/a%20b?x=%2F"),
    ] {
        let seen = seen(&[
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", target),
            ("SCRIPT_NAME", "/app"),
            ("PATH_INFO", info),
            ("QUERY_STRING", "x=%2F"),
        ]);
        assert_eq!(seen.request.uri(), uri, "{target}");
        assert_eq!(&*seen.environ.path_info(), info.as_bytes(), "{target}");
    }
}

#[test]
fn c2_the_script_name_is_the_mount_on_both_sides() {
    let scopes = Events::new();
    let tell = scopes.teller();
    let router = Router::<()>::new().fallback(move |Extension(scope): Extension<Scope>| async move {
        tell(scope);
    });
    let variables = [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/cgi-bin/app"),
        ("PATH_INFO", "/users/1"),
        ("REMOTE_USER", "alice"),
    ];
    let (_, served) = serve(AsgiHandler::new(router), &variables, Untouched);
    served.expect("no error");
    let scope = scopes.drain().pop().expect("a scope");
    assert_eq!(scope.root_path(), "/cgi-bin/app");
    assert_eq!(scope.path(), "/cgi-bin/app/users/1");
    let environ = scope.environ().expect("an environ");
    assert_eq!(&*environ.script_name(), b"/cgi-bin/app");
    assert_eq!(environ.get("REMOTE_USER"), Some(&b"alice"[..]));
}

/// CVE-2016-5385: a client's `Proxy` header is `HTTP_PROXY` to a host that knows no better.
#[test]
fn c3_http_proxy_is_not_believed() {
    let seen = seen(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil.example"), ("HTTP_X_A", "1")]);
    assert_eq!(seen.request.headers().len(), 1);
    assert_eq!(seen.environ.get("HTTP_PROXY"), None);
    assert_eq!(seen.variables.get("HTTP_PROXY"), None);
}

#[test]
fn c3_a_doubled_content_length_has_no_second_way_in() {
    let variables = [POST, ("CONTENT_LENGTH", "5"), ("HTTP_CONTENT_LENGTH", "500")];
    let (answer, served) = serve(echo, &variables, Cursor::new("hello").chain(Untouched));
    served.expect("no error");
    assert_eq!(answer.text(), "hello");
}

#[test]
fn a1_an_upload_is_read_as_it_is_asked_for() -> Result<(), BoxError> {
    let read = Events::new();
    let tell = read.teller();
    let handler = |mut request: Request<Input>| -> io::Result<Response<String>> {
        let mut first = [0; 10];
        request.body_mut().read_exact(&mut first)?;
        Ok(Response::new(String::from_utf8_lossy(&first).into_owned()))
    };
    struct Counted<F>(F);
    impl<F: Fn(usize)> io::Read for Counted<F> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            buf.fill(b'x');
            (self.0)(buf.len());
            Ok(buf.len())
        }
    }
    let (answer, served) = serve(handler, &[POST, ("CONTENT_LENGTH", "1000000000")], Counted(tell));
    served?;
    assert_eq!(answer.text(), "xxxxxxxxxx");
    let total: usize = read.drain().into_iter().sum();
    assert!(total <= 64 * 1024, "{total} bytes were read");
    Ok(())
}
