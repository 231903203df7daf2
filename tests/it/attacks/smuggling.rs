//! Requests that two readers could take for another number of requests, over HTTP/1. Each is refused, or the answers to what follows on its connection show where it ended.

use std::io::{Read as _, Write as _};

use axum::Router;
use http::{Request, Response, StatusCode};
use tower::Layer as _;
use tower_wsgi::{Input, Output, WsgiLayer, WsgiService};

use super::{Answer, answers, raw, send};
use crate::support::{Events, Server, blocking, serve, serve_axum, soon};

/// A request that must not be taken for one: it stands where a body, or a mangled head, should be.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

/// The request that follows.
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Tells what it was asked for, and the body below `/read`; elsewhere it leaves the body alone.
fn app(mut request: Request<Input>) -> std::io::Result<Response<String>> {
    let mut text = format!("{} {}", request.method(), request.uri().path());
    if request.uri().path().ends_with("/read") {
        text.push(' ');
        request.body_mut().read_to_string(&mut text)?;
    }
    Ok(Response::new(text))
}

/// The same handler in plain hyper and in axum.
async fn servers() -> [Server; 2] {
    let router = Router::new().fallback_service(WsgiService::new(app));
    [serve(WsgiService::new(app)).await, serve_axum(router).await]
}

/// The status and the body of each answer.
fn told(answers: &[Answer]) -> Vec<String> {
    answers.iter().map(|answer| format!("{} {}", answer.status, answer.body)).collect()
}

/// What must come of bytes on one connection.
#[derive(Clone, Copy)]
enum Comes {
    /// A refusal, and the connection's end.
    Refused,
    /// These answers, and the connection's end.
    Only(&'static [&'static str]),
    /// This answer, and then the one to [`AFTER`].
    Then(&'static str),
}

/// Sends each head with a body, and the request that follows.
async fn check(cases: &[(&str, String, Comes)]) {
    for server in servers().await {
        for (name, bytes, comes) in cases {
            let bytes = [bytes.as_str(), AFTER].concat();
            let answers = told(&send(&server, &bytes).await);
            match *comes {
                Comes::Refused => assert_eq!(answers, ["400 "], "{name}"),
                Comes::Only(expected) => assert_eq!(answers, expected, "{name}"),
                Comes::Then(first) => assert_eq!(answers, [first, "200 GET /after"], "{name}"),
            }
        }
    }
}

/// A POST to `/read` with these header lines and this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /read HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")
}

#[tokio::test]
async fn c3_a_length_beside_chunks_is_the_chunks_and_ends_the_connection() {
    let chunked = format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}");
    let cases = [
        ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked"),
        ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 6"),
        ("CL.TE in capitals", "CONTENT-LENGTH: 6\r\nTRANSFER-ENCODING: CHUNKED"),
        ("two lengths beside it", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nContent-Length: 7"),
        ("a length of none beside it", "Transfer-Encoding: chunked\r\nContent-Length: 0x6"),
    ];
    // What follows the last chunk is not looked at, whatever it is.
    let cases =
        cases.map(|(name, lines)| (name, post(lines, &chunked), Comes::Only(&["200 POST /read hello"])));
    check(&cases).await;
}

#[tokio::test]
async fn c3_a_transfer_encoding_that_does_not_end_in_chunked_is_refused() {
    let lines = [
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding:",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\x0c",
        "Transfer-Encoding: c\u{212a}hunked",
        "Transfer-Encoding: chunked\r\n chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding : chunked",
        "Transfer\rEncoding: chunked",
        "Transfer-Encoding\0: chunked",
        ": chunked",
    ];
    let cases = lines.map(|lines| {
        let body = format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}");
        (lines, post(lines, &body), Comes::Refused)
    });
    check(&cases).await;
}

#[tokio::test]
async fn c3_a_header_that_only_looks_like_transfer_encoding_is_one_of_its_own() {
    let cases = [
        ("underscore", "Transfer_Encoding: chunked"),
        ("another word", "X-Transfer-Encoding: chunked"),
        ("its value elsewhere", "TE: chunked"),
    ];
    let cases = cases.map(|(name, line)| {
        let head = format!("{line}\r\nContent-Length: 5");
        (name, post(&head, "0\r\n\r\n"), Comes::Then("200 POST /read 0\r\n\r\n"))
    });
    check(&cases).await;
}

#[tokio::test]
async fn c3_codings_before_chunked_are_told_and_not_undone() {
    for coding in
        ["gzip, chunked", "identity, chunked", "gzip,\tchunked", "gzip\r\nTransfer-Encoding: chunked"]
    {
        let lines = format!("Transfer-Encoding: {coding}");
        let body = "5\r\nhello\r\n0\r\n\r\n";
        check(&[(coding, post(&lines, body), Comes::Then("200 POST /read hello"))]).await;
    }
}

#[tokio::test]
async fn c3_a_length_that_is_not_one_number_is_refused() {
    let lengths = [
        "+5",
        "-5",
        "5 5",
        "5, 5",
        "5,6",
        "0x5",
        "5.0",
        "5e0",
        "five",
        "٥",
        "",
        " ",
        "5;",
        "\"5\"",
        "5_0",
        "18446744073709551616",
        "99999999999999999999999",
        "5\r\nContent-Length: 6",
        "5\r\nContent-Length: +5",
        "5\r\n 6",
        "5\x0b",
        "5\0",
    ];
    let cases = lengths.map(|length| {
        let line = format!("Content-Length: {length}");
        (length, post(&line, &format!("hello{HIDDEN}")), Comes::Refused)
    });
    check(&cases).await;
}

#[tokio::test]
async fn c3_the_same_length_twice_is_that_length() {
    let hidden = format!("{HIDDEN}{HIDDEN}");
    let length = hidden.len();
    let cases = ["\r\n", "\r\nX: y\r\n"].map(|between| {
        let lines = format!("Content-Length: {length}{between}Content-Length: {length}");
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{hidden}");
        ("twice", request, Comes::Then("200 POST /"))
    });
    check(&cases).await;
    let zeros = post("Content-Length: 0005", "hello");
    check(&[("zeros in front", zeros, Comes::Then("200 POST /read hello"))]).await;
}

#[tokio::test]
async fn c3_chunks_end_where_their_sizes_say() {
    let cases = [
        ("extensions", "5;a=b;c=\"d\"\r\nhello\r\n0;last\r\n\r\n", Some("hello")),
        ("zeros in front", "0005\r\nhello\r\n000\r\n\r\n", Some("hello")),
        ("capital digits", "A\r\n0123456789\r\n0\r\n\r\n", Some("0123456789")),
        ("trailers", "5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n", Some("hello")),
        ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n", None),
        ("a size of less than nothing", "-5\r\nhello\r\n0\r\n\r\n", None),
        ("a size as in a program", "0x5\r\nhello\r\n0\r\n\r\n", None),
        ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n", None),
        ("a size of two numbers", "5 5\r\nhello\r\n0\r\n\r\n", None),
        ("no size", "\r\nhello\r\n0\r\n\r\n", None),
        ("a size over 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n", None),
        ("a newline alone after a size", "5\nhello\r\n0\r\n\r\n", None),
        ("a return alone after a size", "5\rhello\r\n0\r\n\r\n", None),
        ("a newline in an extension", "5;a\nhello\r\n0\r\n\r\n", None),
        ("a return in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", None),
        ("a longer chunk than its size", "3\r\nhello\r\n0\r\n\r\n", None),
        ("no line's end after a chunk", "5\r\nhello0\r\n\r\n", None),
        ("a newline alone after a chunk", "5\r\nhello\n0\r\n\r\n", None),
        ("two other bytes after a chunk", "5\r\nhelloXX0\r\n\r\n", None),
    ];
    for server in servers().await {
        for (name, chunks, body) in cases {
            let request = [&post("Transfer-Encoding: chunked", chunks), HIDDEN, AFTER].concat();
            let answers = told(&send(&server, request).await);
            match body {
                // The hidden one is one here: it stands where a request may stand.
                Some(body) => {
                    let first = format!("200 POST /read {body}");
                    assert_eq!(answers, [&first, "200 GET /hidden", "200 GET /after"], "{name}");
                }
                None => assert_eq!(answers, ["400 Bad Request\n"], "{name}"),
            }
        }
    }
}

#[tokio::test]
async fn c3_a_body_that_the_handler_leaves_alone_is_no_request() {
    // It is read over, or the connection ends; up to now, and beyond what is read ahead.
    let many = HIDDEN.repeat(10_000);
    for hidden in [HIDDEN, &many] {
        let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        let bodies = [
            (format!("Content-Length: {}", hidden.len()), hidden.to_owned()),
            ("Transfer-Encoding: chunked".to_owned(), chunk),
        ];
        for (line, body) in bodies {
            for method in ["POST", "GET", "DELETE", "OPTIONS", "X-OWN"] {
                let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n{body}{AFTER}");
                for server in servers().await {
                    let answers = told(&send(&server, &request).await);
                    let first = format!("200 {method} /");
                    let whole = [first.as_str(), "200 GET /after"];
                    assert!(answers == whole || answers == [first.as_str()], "{method} {line}: {answers:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn c3_a_body_of_head_is_no_request_and_its_answer_has_none() {
    for server in servers().await {
        let length = HIDDEN.len();
        let request =
            format!("HEAD /read HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{HIDDEN}{AFTER}");
        let bytes = soon(raw(&server, request)).await;
        let text = String::from_utf8_lossy(&bytes);
        let (head, rest) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(told(&answers(rest.as_bytes())), ["200 GET /after"]);
    }
}

#[tokio::test]
async fn c3_lines_that_end_or_fold_as_they_like_are_refused() {
    let cases = [
        ("a folded line", "X: y\r\n z"),
        ("a line folded by a tab", "X: y\r\n\tz"),
        ("a space before the colon", "X : y"),
        ("no colon", "X"),
        ("a return alone", "X: y\rGET /hidden HTTP/1.1"),
        ("a nul", "X: y\0"),
        ("a name in brackets", "X(y): z"),
        ("a name that is not ascii", "X\u{e9}: y"),
        ("a name of nothing", ": y"),
        ("a control character", "X: \x01"),
        ("a delete character", "X: \x7f"),
    ];
    let cases = cases.map(|(name, line)| {
        let head = format!("{line}\r\nContent-Length: 5");
        (name, post(&head, "hello"), Comes::Refused)
    });
    check(&cases).await;
}

#[tokio::test]
async fn c3_a_newline_alone_ends_a_line_and_nothing_else() {
    // RFC 9112 allows it (section 2.2). Both ways of reading it have to give the same end.
    let cases = [
        ("in the head", "POST /read HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello".to_owned()),
        ("in one line", "POST /read HTTP/1.1\r\nHost: a\nContent-Length: 5\r\n\r\nhello".to_owned()),
        ("at the end", "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\nhello".to_owned()),
        (
            "in front of the request",
            "\r\n\r\nPOST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        ),
    ];
    let cases = cases.map(|(name, request)| (name, request, Comes::Then("200 POST /read hello")));
    check(&cases).await;
}

#[tokio::test]
async fn c3_a_request_line_that_is_none_is_refused() {
    let lines = [
        "GET /read",
        "GET /read HTTP/0.9",
        "GET /read HTTP/1.2",
        "GET /read HTTP/2.0",
        "GET /read HTTP/1.1 ",
        "GET /read http/1.1",
        "GET  /read HTTP/1.1",
        "GET /re ad HTTP/1.1",
        " GET /read HTTP/1.1",
        "GET\t/read HTTP/1.1",
        "GET /read\0 HTTP/1.1",
        "GET /read\x0b HTTP/1.1",
        "G(T /read HTTP/1.1",
        "GET /read HTTP/1.10",
        "GET / HTTP/1.1\rX: y",
        "/read HTTP/1.1",
        "GET  HTTP/1.1",
        "\u{e9} / HTTP/1.1",
    ];
    let cases = lines.map(|line| (line, format!("{line}\r\nHost: a\r\n\r\n"), Comes::Refused));
    check(&cases).await;
}

#[tokio::test]
async fn c3_http_1_0_has_no_chunks_and_ends_its_connection() {
    let te = "POST /read HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned();
    let plain = format!("POST /read HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello{HIDDEN}");
    let none = format!("POST /read HTTP/1.0\r\n\r\n{HIDDEN}");
    let kept = "POST /read HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello".to_owned();
    check(&[
        ("chunks", te, Comes::Refused),
        ("a length", plain, Comes::Only(&["200 POST /read hello"])),
        ("no length", none, Comes::Only(&["200 POST /read "])),
        ("kept alive", kept, Comes::Then("200 POST /read hello")),
    ])
    .await;
}

#[tokio::test]
async fn c3_what_follows_a_tunnel_or_an_upgrade_is_no_request() {
    let handler = |request: Request<Input>| {
        let response = Response::builder();
        match request.uri().path() {
            "/switch" => {
                let response = response.status(StatusCode::SWITCHING_PROTOCOLS);
                response.header("connection", "upgrade").header("upgrade", "echo").body(String::new())
            }
            path => response.body(format!("{} {path}", request.method())),
        }
    };
    let server = serve(WsgiService::new(handler)).await;
    // A tunnel that an application granted without meaning to. Nobody is at its other end, so that it closes.
    for target in ["a:443", "evil.example:25", "127.0.0.1:1"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n{HIDDEN}{AFTER}");
        let answers = send(&server, request).await;
        assert_eq!(told(&answers), ["200 "], "{target}");
    }
    // The same for an upgrade.
    let upgrade = "GET /switch HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let answers = send(&server, [upgrade, HIDDEN, AFTER].concat()).await;
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [101]);
    // One that the application does not grant is a request as any other, and so is what follows it.
    for protocol in ["h2c", "websocket", "echo"] {
        let lines =
            format!("Connection: upgrade, http2-settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk");
        let request = format!("GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{AFTER}");
        assert_eq!(told(&send(&server, request).await), ["200 GET /x", "200 GET /after"], "{protocol}");
    }
}

/// Answers with what the path says of a response's head.
fn odd(request: Request<Input>) -> http::Result<Response<Output>> {
    let response = Response::builder();
    let body = || Output::iter(["one", "two"]);
    match request.uri().path() {
        "/short" => response.header("content-length", "3").body(Output::from("onetwo")),
        "/short-chunks" => response.header("content-length", "3").body(body()),
        "/long" => response.header("content-length", "9").body(Output::from("onetwo")),
        "/long-chunks" => response.header("content-length", "9").body(body()),
        "/twice" => {
            response.header("content-length", "6").header("content-length", "6").body(Output::from("onetwo"))
        }
        "/sign" => response.header("content-length", "+6").body(body()),
        "/list" => response.header("content-length", "6, 6").body(body()),
        "/both" => {
            let response = response.header("content-length", "6").header("transfer-encoding", "chunked");
            response.body(body())
        }
        "/coded" => response.header("transfer-encoding", "gzip").body(body()),
        "/chunked" => {
            response.header("transfer-encoding", "chunked").body(Output::from("6\r\nonetwo\r\n0\r\n\r\n"))
        }
        "/none" => response.status(204).header("content-length", "6").body(Output::from("onetwo")),
        "/not-modified" => response.status(304).body(Output::from("onetwo")),
        "/demand" => {
            let response = response.status(426).header("upgrade", "h2c").header("connection", "upgrade");
            response.header("transfer-encoding", "gzip").header("keep-alive", "x").body(body())
        }
        "/hops" => {
            let response = response.header("connection", "close, x-secret").header("x-secret", "1");
            let response = response.header("keep-alive", "timeout=5").header("proxy-connection", "close");
            response.header("te", "trailers").header("upgrade", "h2c").header("trailer", "x").body(body())
        }
        _ => response.body(Output::from("after")),
    }
}

#[tokio::test]
async fn a7_a_response_ends_where_its_head_says_whatever_the_application_does() {
    let server = serve(WsgiService::new(odd)).await;
    // What the client gets: the answer itself, and whether the next one comes on the same connection.
    let cases = [
        ("/short", "200 one", true),
        ("/short-chunks", "200 one", true),
        ("/long", "500 Internal Server Error\n", true),
        ("/long-chunks", "200 onetwo", false),
        ("/twice", "500 Internal Server Error\n", true),
        ("/sign", "500 Internal Server Error\n", true),
        ("/list", "500 Internal Server Error\n", true),
        ("/both", "200 onetwo", true),
        ("/coded", "200 onetwo", true),
        ("/chunked", "200 6\r\nonetwo\r\n0\r\n\r\n", true),
        ("/none", "204 ", true),
        ("/not-modified", "304 ", true),
        ("/demand", "426 onetwo", true),
        ("/hops", "200 onetwo", true),
    ];
    for (path, answer, goes_on) in cases {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n{AFTER}");
        let answers = send(&server, request).await;
        let expected = if goes_on { vec![answer, "200 after"] } else { vec![answer] };
        assert_eq!(told(&answers), expected, "{path}");
        let first = &answers[0];
        for name in ["connection", "upgrade"] {
            assert_eq!(first.all(name).is_empty(), path != "/demand", "{path} {name}");
        }
        for name in ["keep-alive", "proxy-connection", "te", "x-secret"] {
            assert_eq!(first.all(name), [""; 0], "{path}");
        }
        let codings = first.all("transfer-encoding");
        assert!(codings.is_empty() || codings == ["chunked"], "{path}: {codings:?}");
    }
}

#[tokio::test]
async fn c3_a_header_named_beside_bytes_that_are_not_ascii_is_dropped_all_the_same() {
    let value = http::HeaderValue::from_bytes(b"x-secret, \xe9, x-other").expect("a value");
    let server = serve(WsgiService::new(move |_: Request<Input>| {
        let response = Response::builder().header("connection", value.clone());
        response.header("x-secret", "1").header("x-other", "2").header("x-stay", "3").body("")
    }))
    .await;
    let answers = send(&server, AFTER).await;
    assert_eq!(answers[0].all("x-stay"), ["3"]);
    assert_eq!([answers[0].all("x-secret"), answers[0].all("x-other")].concat(), [""; 0]);
}

#[tokio::test]
async fn a6_an_applications_version_does_not_take_the_end_of_a_body_away() {
    // With HTTP/1.0 a body of unknown length ends with its connection, cut off or not. And of some versions hyper makes a panic.
    use http::Version;
    for version in [Version::HTTP_09, Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3] {
        let server = serve(WsgiService::new(move |request: Request<Input>| {
            let end = if request.uri().path() == "/cut" { Err("no database") } else { Ok("two") };
            Response::builder().version(version).body(Output::try_iter([Ok("one"), end]))
        }))
        .await;
        let bytes = soon(raw(&server, "GET /whole HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let [answer] = &answers(&bytes)[..] else { panic!("{version:?}: {}", bytes.escape_ascii()) };
        assert_eq!((answer.status, answer.body.as_str()), (200, "onetwo"), "{version:?}");
        let cut = soon(raw(&server, "GET /cut HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let text = String::from_utf8_lossy(&cut);
        assert!(text.contains("transfer-encoding: chunked"), "{version:?}: {text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{version:?}: {text}");
    }
}

#[tokio::test]
async fn c3_an_unread_body_that_comes_late_is_no_request() {
    // The handler has answered before the body is there; what comes then belongs to the body, or to nobody.
    let answered = Events::new();
    let tell = answered.teller();
    let server = serve(WsgiLayer::adapter().prefetch(0).layer(move |request: Request<Input>| {
        let text = format!("{} {}", request.method(), request.uri().path());
        tell(text.clone());
        Response::new(text)
    }))
    .await;
    let mut stream = server.connect();
    let text = blocking(move || {
        let head =
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", HIDDEN.len());
        stream.write_all(head.as_bytes()).expect("to send");
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        // The server may have closed.
        let _ = stream.write_all(format!("{HIDDEN}\r\n0\r\n\r\n{AFTER}").as_bytes());
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    })
    .await;
    assert!(!text.contains("hidden"), "{text}");
    let called = answered.drain();
    assert!(called == ["POST /"] || called == ["POST /", "GET /after"], "{called:?}");
}
