//! What has befallen others of the kind, and does not apply here.

use std::io::empty;

use axum::Router;
use http::{Request, Response};
use tower::Layer as _;
use tower_wsgi::gateway::cgi;
use tower_wsgi::{AsgiHandler, BoxError, Environ, Input, Output, Scope, Variables, WsgiLayer, WsgiService};

use super::{cgi_get, gateway, send};
use crate::support::{Events, serve, soon, text, watched};

#[test]
fn c1_a_query_is_never_taken_for_arguments_or_options() {
    // CVE-2012-1823: a query without `=` is a command line to some CGI hosts. All of it is a query here.
    for query in [
        "-s",
        "-d+allow_url_include%3d1",
        "--help",
        "+-s",
        "%2ds",
        "-",
        "a b",
        "`id`",
        "$(id)",
        ";id",
        "|id",
        "\u{ad}d",
        "-T+9",
    ] {
        let variables = cgi_get("/", [("QUERY_STRING", query.as_bytes())]);
        let handler = |request: Request<Input>| {
            let query = Variables::of(&request).get("QUERY_STRING").map(<[u8]>::to_vec);
            Response::new(query.unwrap_or_default())
        };
        let (answer, served) = gateway(handler, variables, empty());
        served.expect("no error");
        // What a URI cannot hold is encoded.
        assert_eq!(answer.body.replace("%20", " ").replace("%C2%AD", "\u{ad}"), query);
    }
}

#[test]
fn c1_variables_that_steer_programs_are_only_passed_on() {
    // A shell's (CVE-2014-6271), a linker's, an interpreter's: bytes to whoever asks, and nothing else.
    let names =
        ["HTTP_USER_AGENT", "HTTP_COOKIE", "HTTP_REFERER", "REMOTE_USER", "SERVER_PROTOCOL", "HTTP_X"];
    for name in names {
        let value = b"() { :;}; echo evil";
        let handler = move |request: Request<Input>| {
            Response::new(Variables::of(&request).get(name).map(<[u8]>::to_vec).unwrap_or_default())
        };
        let (answer, served) = gateway(handler, cgi_get("/", [(name, &value[..])]), empty());
        served.expect("no error");
        assert_eq!(answer.body.as_bytes(), value, "{name}");
    }
}

#[tokio::test]
async fn a11_heads_that_an_application_gets_wrong_are_its_500_and_nobodys_end() {
    // CVE-2026-42545: a server that unwraps them ends with all its requests.
    fn app(request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let response = Response::builder();
        Ok(match request.uri().path() {
            "/name" => response.header("X Bad", "1").body("".into())?,
            "/value" => response.header("x", "text/html\r\nx: evil").body("".into())?,
            "/nul" => response.header("x", "a\0b").body("".into())?,
            "/status" => response.status(99).body("".into())?,
            "/status-0" => response.status(0).body("".into())?,
            "/status-1000" => response.status(1000).body("".into())?,
            "/continue" => response.status(100).body("".into())?,
            "/early-hints" => response.status(103).body("".into())?,
            "/length" => response.header("content-length", "many").body("".into())?,
            "/unwrap" => response.header("x y", "1").body("".into()).expect("on purpose"),
            _ => response.body("alive".into())?,
        })
    }
    let server = serve(WsgiLayer::adapter().workers(1).layer(app)).await;
    let paths = [
        "/name",
        "/value",
        "/nul",
        "/status",
        "/status-0",
        "/status-1000",
        "/continue",
        "/early-hints",
        "/length",
        "/unwrap",
    ];
    for path in paths {
        let both = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        );
        let answers = send(&server, both).await;
        let told: Vec<_> = answers.iter().map(|answer| (answer.status, answer.body.as_str())).collect();
        assert_eq!(told, [(500, "Internal Server Error\n"), (200, "alive")], "{path}");
        let (answer, served) = gateway(app, cgi_get(path, []), empty());
        assert_eq!((answer.status, answer.body.as_str()), (500, "Internal Server Error\n"), "{path}");
        served.expect_err("an error");
    }
    assert_eq!(text(soon(server.get("/")).await).await, "alive");
}

#[test]
fn c1_an_error_that_a_client_had_a_part_in_is_one_line() {
    // CVE-2020-7694: what a client says must not become lines, or commands of a terminal, in a log. Ours are told by their `Debug` form.
    for name in ["CONTENT_LENGTH", "REQUEST_METHOD", "SERVER_PORT", "HTTP_X", "HTTP_X\r\nevil"] {
        let value = b"5\r\n\x1b[31mevil";
        let mut variables = cgi_get("/", [(name, &value[..])]);
        variables.set("SERVER_NAME", "a");
        let (_, served) = gateway(|_: Request<Input>| Response::new(""), variables, empty());
        let error = served.expect_err("an error");
        let mut texts = vec![format!("{error:?}")];
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = next {
            texts.push(cause.to_string());
            next = cause.source();
        }
        for text in texts {
            let own = name.contains('\r') && !text.starts_with("Error");
            assert!(own || !text.contains(['\r', '\n', '\x1b']), "{name}: {text:?}");
        }
    }
}

/// The example's program, run as a host would.
fn program(arguments: &[&str], variables: &[(&str, &str)]) -> std::process::Output {
    let path = std::env::current_exe().expect("the path of this test");
    let target = path.ancestors().nth(2).expect("the target's directory");
    let mut command = std::process::Command::new(target.join("examples").join("cgi"));
    command.args(arguments).env_clear().envs(variables.iter().copied()).stdin(std::process::Stdio::null());
    watched(move || command.output().expect("`cargo build --examples` makes it"))
}

#[test]
fn c1_a_cgi_program_takes_no_arguments() {
    let variables = [("REQUEST_METHOD", "GET"), ("PATH_INFO", "/hello"), ("QUERY_STRING", "-s")];
    for arguments in [&[][..], &["-s"], &["--help"], &["-d", "allow_url_include=1"]] {
        let output = program(arguments, &variables);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.ends_with(b"\r\n\r\nHello World!\n"), "{output:?}");
    }
}

#[test]
fn c1_what_a_cgi_program_reports_is_one_line() {
    // CVE-2020-7694 once more: standard error is the host's log.
    let name = "HTTP_X\r\n[error] all is lost\x1b[2J\u{9b}1m";
    let output = program(&[], &[("REQUEST_METHOD", "GET"), (name, "1")]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(
        text.starts_with("the variable HTTP_X\\r\\n[error] all is lost\\u{1b}[2J\\u{9b}1m is not valid: "),
        "{text:?}"
    );
    assert_eq!(text.find(char::is_control), Some(text.len() - 1), "{text:?}");
}

#[tokio::test]
async fn c3_no_header_that_a_server_in_front_obeys_is_made_of_a_request() {
    // `X-Sendfile` and its kin are an application's to set. They do not come back from what a client sent.
    let echo = |request: Request<Input>| {
        let environ = Environ::of(&request);
        Response::new(format!("{:?} {:?}", environ.script_name(), environ.path_info()))
    };
    let router = Router::new().nest_service("/mount", WsgiService::new(echo));
    let server = serve(router).await;
    let names = [
        "x-sendfile",
        "x-accel-redirect",
        "x-lighttpd-send-file",
        "x-litespeed-location",
        "location",
        "status",
        "set-cookie",
        "refresh",
    ];
    let lines: String = names.iter().map(|name| format!("{name}: /etc/passwd\r\n")).collect();
    let answers =
        send(&server, format!("GET /mount/x HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n")).await;
    let mut heads: Vec<_> =
        answers[0].head.iter().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    heads.sort_unstable();
    assert_eq!(heads, ["connection", "content-length", "date"]);
}

#[test]
fn c2_a_path_that_begins_with_two_slashes_stays_a_path() {
    // CVE-2021-21330: `//evil.example/..` in a `Location` leads to another host. A mount that was taken off may leave such a rest; whoever puts
    // the mount in front again, as `Location`s are made, is where it was.
    let mut request = Request::get("/mount//evil.example/..").body(()).expect("a request");
    assert!(Environ::shift(&mut request, "/mount"));
    assert_eq!(request.uri(), "//evil.example/..");
    assert_eq!(request.uri().host(), None);
    let environ = Environ::of(&request);
    assert_eq!([&*environ.script_name(), &environ.path_info()].concat(), b"/mount//evil.example/..");
    assert_eq!(Scope::from(&environ).raw_path(), "/mount//evil.example/..");
    // From a CGI host, too.
    let mut variables = cgi_get("//evil.example/..", []);
    variables.set("SCRIPT_NAME", "/mount");
    let request = variables.into_request().expect("a request");
    assert_eq!((request.uri().host(), request.uri().path()), (None, "//evil.example/.."));
}

#[test]
fn a2_what_a_cgi_host_calls_chunked_ends_with_its_input() {
    let tell = Events::new();
    let told = tell.teller();
    let handler = AsgiHandler::new(Router::<()>::new().fallback(move |request: axum::extract::Request| {
        told(request.headers().clone());
        async { "" }
    }));
    // A length and chunks at once: the host has read the chunks, and knows how many bytes it gives.
    let mut variables = cgi_get("/", [("HTTP_TRANSFER_ENCODING", &b"chunked"[..]), ("CONTENT_LENGTH", b"5")]);
    variables.set("REQUEST_METHOD", "POST");
    let mut output = Vec::new();
    cgi::serve(&handler, variables, &b"hello, and the next request"[..], &mut output).expect("no error");
    let headers = tell.drain().pop().expect("a request");
    assert_eq!(headers["content-length"], "5");
}
