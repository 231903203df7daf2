//! The example's `FastCGI` responder, behind lighttpd and nginx.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use http::Method;
use http_body_util::BodyExt as _;

use super::web::{Group, Web, broken, installed, streamed, text};
use super::{example, lighttpd, nginx};
use crate::support::{blocking, soon};

/// Starts the responder on a port that the system picks.
fn responder() -> (Group, SocketAddr) {
    let mut group =
        Group::spawn(Command::new(example("fastcgi")).env("ADDR", "127.0.0.1:0").stdout(Stdio::piped()));
    let output = group.child().stdout.take().expect("an output");
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    let addr = line.trim_end().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
    (group, addr.expect("an address"))
}

async fn behind_lighttpd() -> Option<Web> {
    let [server] = installed(["lighttpd"])?;
    let web = blocking(move || {
        let (responder, addr) = responder();
        Web::start(tempfile::tempdir().expect("a directory"), vec![responder], |place| {
            let config = format!(
                r#"
fastcgi.server = ("/app" => (("host" => "{}", "port" => {}, "check-local" => "disable")))
server.stream-response-body = 1
"#,
                addr.ip(),
                addr.port(),
            );
            lighttpd::command(&server, place, &config)
        })
    });
    Some(web.await)
}

async fn behind_nginx(buffering: &'static str) -> Option<Web> {
    let [server] = installed(["nginx"])?;
    let web = blocking(move || {
        let (responder, addr) = responder();
        Web::start(tempfile::tempdir().expect("a directory"), vec![responder], |place| {
            let parameters = nginx::PARAMETERS;
            // Connections to the responder are kept, so that it answers several requests on one.
            let http = format!("upstream responder {{ server {addr}; keepalive 4; }}");
            let location = format!(
                r"location /app {{
            {parameters}
            fastcgi_buffering {buffering};
            fastcgi_keep_conn on;
            fastcgi_pass responder;
        }}"
            );
            nginx::command(&server, place, &http, &location)
        })
    });
    Some(web.await)
}

/// Both halves answer.
async fn answers(web: &Web) {
    for (half, hello, root) in
        [("/app", "Hello from async!\n", "/app\n"), ("/app/legacy", "Hello from sync!\n", "/app/legacy\n")]
    {
        let response = web.get(&format!("{half}/hello")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(text(response).await, hello);
        assert_eq!(text(web.get(&format!("{half}/where")).await).await, root);
        assert_eq!(web.get(&format!("{half}/none")).await.status(), 404);

        for length in [0, 5, 1024 * 1024] {
            let body = vec![b'x'; length];
            let response = web.post(&format!("{half}/length"), body).await;
            assert_eq!(text(response).await, format!("{length}\n"));
        }
        let response = web.ask(Method::HEAD, &format!("{half}/hello")).await;
        assert_eq!(response.headers()["content-length"], hello.len().to_string());
        assert_eq!(text(response).await, "");
    }
}

#[tokio::test]
async fn b1_both_halves_answer_behind_lighttpd() {
    let Some(web) = behind_lighttpd().await else { return };
    answers(&web).await;
}

#[tokio::test]
async fn b1_both_halves_answer_behind_nginx() {
    let Some(web) = behind_nginx("off").await else { return };
    answers(&web).await;
}

#[tokio::test]
async fn a3_both_halves_stream_behind_lighttpd() {
    let Some(web) = behind_lighttpd().await else { return };
    streamed(&web, "/app/ticks").await;
    streamed(&web, "/app/legacy/ticks").await;
}

#[tokio::test]
async fn a3_both_halves_stream_behind_nginx() {
    let Some(web) = behind_nginx("off").await else { return };
    streamed(&web, "/app/ticks").await;
    streamed(&web, "/app/legacy/ticks").await;
}

/// Unlike CGI, this protocol has an end that the responder has to send, and a connection that it can cut.
#[tokio::test]
async fn a6_a_body_that_breaks_off_is_cut_behind_nginx() {
    for buffering in ["on", "off"] {
        let Some(web) = behind_nginx(buffering).await else { return };
        is_cut(&web).await;
    }
}

async fn is_cut(web: &Web) {
    let response = web.get("/app/legacy/fail-late").await;
    assert_eq!(response.status(), 200);
    assert_eq!(broken(response).await, b"the first of many rows\n");
    // And the next request finds another connection.
    assert_eq!(text(web.get("/app/hello").await).await, "Hello from async!\n");
}

/// Whether the client is told is a race in lighttpd: between what came last and the end of the connection.
#[tokio::test]
async fn a6_a_body_that_breaks_off_does_no_harm_behind_lighttpd() {
    let Some(web) = behind_lighttpd().await else { return };
    let response = web.get("/app/legacy/fail-late").await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let first = soon(body.frame()).await.expect("a frame").expect("data");
    assert_eq!(first.into_data().expect("data"), "the first of many rows\n");
    assert!(soon(body.frame()).await.is_none_or(|last| last.is_err()));
    assert_eq!(text(web.get("/app/hello").await).await, "Hello from async!\n");
}
