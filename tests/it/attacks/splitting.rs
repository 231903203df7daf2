//! Strings that an application, or a client through it, puts where a line's end would start another header, another response or another request.

use std::io::{Cursor, empty};
use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse as _;
use http::header::{LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;
use proptest::collection::vec;
use proptest::prelude::*;
use tower::{Layer as _, ServiceBuilder};
use tower_wsgi::gateway::{self, cgi};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, BoxError, Environ, Error, Input, Next, Output, Scope, SyncHandler,
    Variables, WorkerPool, WsgiLayer, WsgiService, sync_fn,
};

use super::{Answer, answers, cgi_get, raw, send};
use crate::support::{Events, serve, soon, watched};

/// What would be a line of its own, or the end of a head.
const LINES: [&str; 8] = [
    "a\r\nevil: 1",
    "a\nevil: 1",
    "a\revil: 1",
    "a\0evil: 1",
    "\r\n\r\nevil",
    "a\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil",
    "a\x0b\x0c\x08evil",
    "a\x7fevil",
];

/// The request path that decodes to such a text.
fn path(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02x}")
                }
            },
        )
        .collect()
}

/// What an application does with a text that a client gave it.
fn say(what: &str, text: &str) -> Result<Response<Output>, BoxError> {
    let text = text.to_owned();
    let response = Response::builder();
    let response = match what {
        "name" => response.header(text, "1"),
        "value" => response.header("x-value", text),
        "cookie" => response.header(SET_COOKIE, format!("session={text}; HttpOnly")),
        "location" => response.status(302).header(LOCATION, format!("/next/{text}")),
        "cgi-location" => response.header("Location", text),
        "cgi-status" => response.header("Status", text),
        "status" => response.status(text.as_str()),
        "reason" => response.extension(ReasonPhrase::try_from(text)?),
        "inserted" => {
            let mut response = Response::new(Output::from("body"));
            response
                .headers_mut()
                .insert(HeaderName::from_bytes(b"x-value")?, HeaderValue::from_bytes(text.as_bytes())?);
            return Ok(response);
        }
        "trailer" => {
            let value = HeaderValue::from_bytes(text.as_bytes())?;
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-trailer"), value)]);
            return Ok(response.body(Output::from("body").with_trailers(move || trailers))?);
        }
        "error" => return Err(text.into()),
        "panic" => panic!("{text}"),
        "body-error" => return Ok(response.body(Output::try_iter([Err::<&str, _>(text)]))?),
        "body-panic" => {
            return Ok(
                response.body(Output::iter(std::iter::once_with(move || -> &str { panic!("{text}") })))?
            );
        }
        other => return Err(format!("nothing to do: {other}").into()),
    };
    Ok(response.body(Output::from("body"))?)
}

const PLACES: [&str; 14] = [
    "name",
    "value",
    "cookie",
    "location",
    "cgi-location",
    "cgi-status",
    "status",
    "reason",
    "inserted",
    "trailer",
    "error",
    "panic",
    "body-error",
    "body-panic",
];

/// Does what the query says, with the decoded path.
fn app(request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let info = Environ::of(&request).path_info().into_owned();
    say(request.uri().query().unwrap_or_default(), &String::from_utf8(info)?[1..])
}

/// The same as an async service.
async fn async_app(request: axum::extract::Request) -> axum::response::Response {
    let path = Scope::of(&request).path().into_owned();
    match say(request.uri().query().unwrap_or_default(), &path[1..]) {
        Ok(response) => response.map(|output| axum::body::Body::new(output.into_reader().into_body())),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Nothing of the text is in the head, and there is one answer, a plain failure.
fn refused(answers: &[Answer], case: &str) {
    let [answer] = answers else { panic!("{case}: {answers:?}") };
    assert_eq!(answer.status, 500, "{case}: {answer:?}");
    assert_eq!(answer.body, "Internal Server Error\n", "{case}");
    assert!(!answer.head.iter().any(|line| line.contains("evil")), "{case}: {answer:?}");
}

#[tokio::test]
async fn c3_no_text_of_a_client_makes_another_line_of_a_response() {
    let server = serve(WsgiService::new(app)).await;
    for line in LINES {
        for place in PLACES {
            let head =
                format!("GET /{}?{place} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path(line));
            refused(&send(&server, head).await, &format!("{place}: {line:?}"));
        }
    }
}

/// What a CGI program writes for a request.
fn program(handler: impl SyncHandler, variables: Variables) -> (Vec<u8>, Result<(), Error>) {
    watched(move || {
        let mut output = Vec::new();
        let served = cgi::serve(&handler, variables, empty(), &mut output);
        (output, served)
    })
}

/// The same response as HTTP/1 has it, for the reader of that.
fn from_program(output: &[u8]) -> Vec<Answer> {
    let output = String::from_utf8_lossy(output);
    let rest = output.strip_prefix("Status: ").expect("a status first");
    answers(format!("HTTP/1.1 {rest}").as_bytes())
}

#[test]
fn c3_no_text_of_a_client_makes_another_line_of_a_cgi_programs_output() {
    for line in LINES {
        for place in PLACES {
            let case = format!("{place}: {line:?}");
            let variables = cgi_get(&format!("/{line}"), [("QUERY_STRING", place.as_bytes())]);
            let (output, served) = program(app, variables.clone());
            refused(&from_program(&output), &case);
            served.expect_err("an error");
            // `gateway::respond`, for other hosts: what is in its response is typed, and its error is no part of the head.
            let request = variables.into_request().expect("a request").map(|()| Input::empty());
            let response = watched(move || gateway::respond(&app, request));
            assert_eq!(response.status(), 500, "{case}");
            assert!(response.extensions().get::<Error>().is_some(), "{case}");
        }
    }
}

#[test]
fn c3_an_async_service_in_a_cgi_program_splits_no_output_either() {
    for line in LINES {
        // A service that catches its own errors tells them in its body, which is its own to do.
        for place in ["name", "value", "cookie", "location", "status", "reason", "inserted", "trailer"] {
            let variables = cgi_get(&format!("/{line}"), [("QUERY_STRING", place.as_bytes())]);
            let (output, _) = program(AsgiHandler::new(Router::<()>::new().fallback(async_app)), variables);
            let answers = from_program(&output);
            assert_eq!(answers.len(), 1, "{place}: {line:?}");
            assert_eq!(answers[0].status, 500, "{place}: {line:?}");
            let names: Vec<_> = answers[0]
                .head
                .iter()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(names, ["content-type", "content-length"], "{place}: {line:?}");
        }
    }
}

#[tokio::test]
async fn c3_an_on_error_that_repeats_the_error_splits_nothing() {
    let layer = WsgiLayer::adapter().on_error(|error: &Error| {
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        match Response::builder().status(500).header("x-error", why).body(Output::from("on_error")) {
            Ok(response) => response,
            Err(error) => panic!("{error}"),
        }
    });
    let server = serve(layer.layer(app)).await;
    for line in LINES {
        for place in ["error", "panic", "body-error", "body-panic"] {
            let head =
                format!("GET /{}?{place} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path(line));
            refused(&send(&server, head).await, &format!("{place}: {line:?}"));
        }
    }
    let head = "GET /harmless?error HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(send(&server, head).await[0].all("x-error"), ["harmless"]);
}

#[tokio::test]
async fn c3_a_reason_that_can_be_sent_is_one_line() {
    let server = serve(WsgiService::new(|_: Request<Input>| -> Result<_, BoxError> {
        let reason = ReasonPhrase::try_from(b"All's \xe9vil: yes\tno".as_slice())?;
        Ok(Response::builder().extension(reason).body("body")?)
    }))
    .await;
    let bytes = soon(raw(&server, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    assert!(bytes.starts_with(b"HTTP/1.1 200 All's \xe9vil: yes\tno\r\n"), "{}", bytes.escape_ascii());
    assert_eq!(answers(&bytes).len(), 1);
    // A CGI program's status has the reason that belongs to its number.
    let (output, _) = program(
        |_: Request<Input>| Response::builder().extension(ReasonPhrase::from_static(b"Evil")).body("body"),
        cgi_get("/", []),
    );
    assert!(output.starts_with(b"Status: 200 OK\r\n"));
}

#[tokio::test]
async fn c3_forbidden_trailers_do_not_reach_the_client() {
    let trailers = || {
        let pairs = [
            ("content-length", "0"),
            ("transfer-encoding", "chunked"),
            ("host", "evil"),
            ("set-cookie", "evil=1"),
            ("content-type", "text/html"),
            ("trailer", "evil"),
            ("te", "trailers"),
            ("authorization", "evil"),
            ("x-fine", "1"),
        ];
        HeaderMap::from_iter(
            pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        )
    };
    let server = serve(WsgiService::new(move |_: Request<Input>| {
        let names = "content-length, transfer-encoding, host, set-cookie, content-type, trailer, te, authorization, x-fine";
        Response::builder().header("trailer", names).body(Output::iter(["body"]).with_trailers(trailers))
    }))
    .await;
    let head = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n";
    let bytes = soon(raw(&server, head)).await;
    let text = String::from_utf8_lossy(&bytes);
    let (_, end) = text.split_once("\r\n0\r\n").expect("the last chunk");
    assert_eq!(end, "x-fine: 1\r\n\r\n");
}

/// Redirects to where it is mounted, as applications do.
async fn redirect(request: axum::extract::Request) -> axum::response::Response {
    let scope = Scope::of(&request);
    match HeaderValue::try_from(format!("{}/login", scope.root_path())) {
        Ok(location) => (StatusCode::FOUND, [(LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[tokio::test]
async fn c3_what_a_middleware_says_of_the_request_splits_nothing_inside() {
    for line in LINES {
        // Words of a sync middleware, as the async service inside has them, and what comes of them on the sync side again.
        let told = Events::new();
        let tell = told.teller();
        let stack = ServiceBuilder::new()
            .layer(WsgiLayer::adapter().workers(1))
            .layer(sync_fn(move |mut request: Request<Input>, next: &dyn SyncHandler| {
                let mut environ = Environ::of(&request);
                for name in [
                    "REMOTE_USER",
                    "SCRIPT_NAME",
                    "PATH_INFO",
                    "QUERY_STRING",
                    "REQUEST_URI",
                    "SERVER_NAME",
                    "HTTP_X_A",
                    "X",
                ] {
                    environ.set(name, line);
                }
                request.extensions_mut().insert(environ);
                next.call(request)
            }))
            .layer(AsgiLayer::adapter())
            .layer(WsgiLayer::adapter().workers(1))
            .service(move |request: Request<Input>| {
                tell((request.uri().clone(), request.headers().clone(), Variables::of(&request)));
                Response::new("")
            });
        let request = Request::get("/a").body(Body::empty()).expect("a request");
        assert_eq!(super::call(stack, request).await.0, 200);
        let (uri, headers, variables) = told.drain().pop().expect("a request");
        // The request itself is as it was: a variable is no header and no target.
        assert_eq!((uri, headers.len()), (Uri::from_static("/a"), 0));
        assert_eq!(variables.get("HTTP_X_A"), Some(line.as_bytes()));
        // To make a request of them is an error.
        assert!(variables.into_request().expect_err("an error").is_request(), "{line:?}");
    }
}

#[test]
fn c3_variables_that_become_a_request_stay_one_request() {
    for line in LINES {
        // What is a path or a query is encoded; what is a head's is refused; what is neither is passed on as bytes.
        for (name, taken) in [
            ("PATH_INFO", true),
            ("SCRIPT_NAME", true),
            ("QUERY_STRING", true),
            ("REQUEST_URI", true),
            ("REMOTE_USER", true),
            ("REMOTE_ADDR", true),
            ("SERVER_NAME", true),
            ("SERVER_PROTOCOL", true),
            ("X", true),
            ("REQUEST_METHOD", false),
            ("HTTP_X_A", false),
            ("HTTP_HOST", false),
            ("CONTENT_TYPE", false),
            ("wsgi.url_scheme", false),
        ] {
            let mut variables = cgi_get("/a", []);
            let value =
                if taken && (name.ends_with("NAME") || name.starts_with("PATH")) && name != "SERVER_NAME" {
                    format!("/{line}")
                } else {
                    line.to_owned()
                };
            variables.set(name, value);
            let request = variables.into_request();
            assert_eq!(request.is_ok(), taken, "{name}: {line:?}");
            let Ok(request) = request else { continue };
            let target = request.uri().to_string();
            assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{name}: {target:?}");
            assert!(request.headers().is_empty());
            let scope = Scope::of(&request);
            assert!(scope.uri().to_string().bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
        }
    }
}

#[test]
fn c3_a_redirect_to_a_mount_that_holds_a_line_is_no_second_line() {
    for line in LINES {
        let mut variables = cgi_get("/x", []);
        variables.set("SCRIPT_NAME", format!("/{line}"));
        let (output, _) = program(AsgiHandler::new(Router::<()>::new().fallback(redirect)), variables);
        let answers = from_program(&output);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [400], "{line:?}");
    }
    // In the form that it was sent in, it is a fine one.
    let mut request = Request::get("/x%0d%0aevil/y").body(()).expect("a request");
    assert!(Environ::shift(&mut request, "/x%0d%0aevil"));
    let scope = Scope::from(&Environ::of(&request));
    assert_eq!(scope.root_path(), "/x\r\nevil");
    assert_eq!(scope.uri().path(), "/x%0d%0aevil/y");
}

#[tokio::test]
async fn c3_a_path_that_is_put_back_into_a_target_is_still_one() {
    let inner = tower::service_fn(|request: Request<Body>| async move {
        Ok::<_, std::convert::Infallible>(Response::new(Body::from(request.uri().to_string())))
    });
    let app = |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next: Next = request.extensions().get().cloned().ok_or("no inner service")?;
        let to = request.headers_mut().remove("x-to").ok_or("no target")?;
        *request.uri_mut() = Uri::try_from(to.as_bytes())?;
        Ok(next.forward(request))
    };
    let service = WsgiLayer::new(app).at("/mount").layer(inner);
    for (to, expected) in [
        ("/a%0d%0aevil", "/mount/a%0d%0aevil"),
        ("//evil.example/x", "/mount//evil.example/x"),
        ("http://evil.example/x", "http://evil.example/mount/x"),
        ("/../../x", "/mount/../../x"),
        ("/\\evil.example", "/mount/\\evil.example"),
        ("/?//evil", "/mount/?//evil"),
    ] {
        let request = Request::get("/mount/x").header("x-to", to).body(Body::empty()).expect("a request");
        assert_eq!(super::call(service.clone(), request).await, (200, expected.to_owned()), "{to}");
    }
    for to in ["/a b", "/a\tb", "a b", ""] {
        let request = Request::get("/mount/x").header("x-to", to).body(Body::empty()).expect("a request");
        assert_eq!(super::call(service.clone(), request).await.0, 500, "{to:?}");
    }
}

#[test]
fn c3_a_body_says_nothing_to_a_cgi_host() {
    // The head is over, whatever the body begins with.
    for body in ["Status: 500 evil\r\n\r\n", "\r\n\r\nevil", "Location: /evil\r\n\r\n"] {
        let (output, _) =
            program(move |_: Request<Input>| Response::new(Output::iter([body])), cgi_get("/", []));
        let [answer] = &from_program(&output)[..] else { panic!("{body:?}") };
        assert_eq!((answer.status, &*answer.body), (200, body));
        assert!(answer.all("location").is_empty());
    }
    // One that fails first, too.
    let fails = |_: Request<Input>| Response::new(Output::reader(Cursor::new("Status: 500 evil\r\n\r\n")));
    assert_eq!(from_program(&program(fails, cgi_get("/", [])).0)[0].status, 200);
}

/// The workers of all cases.
static POOL: std::sync::LazyLock<WorkerPool> = std::sync::LazyLock::new(|| WorkerPool::new(1));

/// A response of any headers that the types let through.
fn head() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
    let name =
        vec(any::<u8>(), 1..12).prop_filter_map("no name", |bytes| HeaderName::from_bytes(&bytes).ok());
    let own = "[a-z][a-z0-9-]{0,6}".prop_filter_map("no name", |name| HeaderName::try_from(name).ok());
    let likely = prop_oneof![b' '..=b'~', Just(b'\r'), Just(b'\n'), Just(b'\t'), Just(0), 0x80..=0xffu8];
    let value = vec(likely, 0..8).prop_filter_map("no value", |bytes| HeaderValue::from_bytes(&bytes).ok());
    vec((prop_oneof![name, own], value), 0..6)
}

/// The headers of an answer, but for those that a host sets.
fn own(answer: &Answer) -> Vec<(String, String)> {
    let split = answer.head.iter().map(|line| line.split_once(':').expect("a header"));
    let all = split.map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    let mut all: Vec<_> = all.filter(|(name, _)| !is_the_hosts(name)).collect();
    all.sort();
    all
}

fn is_the_hosts(name: &str) -> bool {
    let names = [
        "status",
        "content-length",
        "content-type",
        "date",
        "connection",
        "transfer-encoding",
        "te",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "trailer",
    ];
    names.contains(&name)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c3_the_headers_that_go_out_are_those_that_were_set(head in head(), body in vec(any::<u8>(), 0..10)) {
        let mut expected: Vec<(String, String)> = head
            .iter()
            .filter(|(name, _)| !is_the_hosts(name.as_str()))
            .map(|(name, value)| {
                let value: String = value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
                (name.to_string(), value.trim_matches([' ', '\t']).to_owned())
            })
            .collect();
        expected.sort();
        let handler = {
            let head = head.clone();
            move |_: Request<Input>| {
                let mut response = Response::new(body.clone());
                for (name, value) in &head {
                    if !is_the_hosts(name.as_str()) {
                        response.headers_mut().append(name.clone(), value.clone());
                    }
                }
                response
            }
        };
        let handler = Arc::new(handler);
        // A CGI program.
        let mut output = Vec::new();
        cgi::serve(&handler, cgi_get("/", []), empty(), &mut output).expect("no error");
        let mut rest = &output[..];
        let mut lines: Vec<_> = std::iter::from_fn(|| super::line(&mut rest).filter(|line| !line.is_empty())).collect();
        prop_assert_eq!(lines.remove(0), "Status: 200 OK");
        let answer = Answer { status: 200, head: lines, body: String::new() };
        prop_assert_eq!(own(&answer), expected.clone());
        // hyper, over a pipe.
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let bytes = runtime.block_on(over_http(WsgiLayer::adapter().pool(POOL.clone()).layer(handler)));
        let mut rest = &bytes[..];
        let mut lines: Vec<_> = std::iter::from_fn(|| super::line(&mut rest).filter(|line| !line.is_empty())).collect();
        prop_assert_eq!(lines.remove(0), "HTTP/1.1 200 OK");
        let answer = Answer { status: 200, head: lines, body: String::new() };
        prop_assert_eq!(own(&answer), expected);
    }
}

/// What hyper sends for a GET.
async fn over_http<H: SyncHandler>(service: WsgiService<H>) -> Vec<u8> {
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let (mut client, server) = tokio::io::duplex(1 << 20);
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("to send");
    let mut bytes = Vec::new();
    let (served, read) = tokio::join!(connection, client.read_to_end(&mut bytes));
    served.expect("no error");
    read.expect("to read");
    bytes
}

#[tokio::test]
async fn c3_headers_over_http2_hold_no_lines_either() {
    let server = serve(WsgiService::new(app)).await;
    for line in LINES {
        for place in PLACES {
            let response =
                server.ask(http::Version::HTTP_2, "GET", &format!("/{}?{place}", path(line))).await;
            assert_eq!(response.status(), 500, "{place}: {line:?}");
            assert!(!format!("{:?}", response.headers()).contains("evil"), "{place}: {line:?}");
            let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
            assert_eq!(body, "Internal Server Error\n");
        }
    }
}
