//! The synchronous hosts.

use std::sync::LazyLock;
use std::time::Instant;

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use tower_wsgi::{BoxError, Input, Output, gateway};

use super::example::{Example, head, sha256, with, with_patience};
use crate::support::PATIENCE;

/// An upload of 20 MiB, in pieces.
const PIECE: &[u8] = &[b'x'; 64 * 1024];
const PIECES: usize = 320;
static DIGEST: LazyLock<String> = LazyLock::new(|| sha256(PIECE, PIECES));

/// More memory than this, in KiB, and not even half of a large body was streamed.
const BOUND: u64 = 10 * 1024;

/// Runs a test against each host that lends what it has to a handler. The hash of the large uploads is not optimised, and others want the processor, too.
fn with_each(test: fn(&Example)) {
    with_patience("tiny_http_host", 3 * PATIENCE, test);
    with_patience("rouille_host", 3 * PATIENCE, test);
}

/// Asserts that something did not take much memory.
fn bounded(example: &Example, work: impl FnOnce()) {
    let before = example.peak();
    work();
    if let (Some(before), Some(after)) = (before, example.peak()) {
        assert!(after - before < BOUND, "{before} KiB, then {after} KiB");
    }
}

#[test]
fn hosts_answer_request_after_request_on_one_connection() {
    with_each(|example| {
        let mut client = example.connect();
        let reply = client.ask("GET", "/", &[], "");
        assert_eq!((reply.status, reply.text()), (200, "Hello from async!\n"));
        assert_eq!(reply.header("content-length"), Some("18"));

        let reply = client.ask("HEAD", "/", &[], "");
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("18")));

        assert_eq!(client.ask("GET", "/elsewhere", &[], "").status, 404);

        let reply = client.ask("GET", "/old", &[], "");
        assert_eq!((reply.status, reply.header("location")), (308, Some("/")));

        let reply = client.ask("GET", "/cookies", &["Cookie: flavour=oat"], "");
        assert_eq!(reply.text(), "flavour=oat\n");
        assert_eq!(reply.all("set-cookie"), ["flavour=oat", "size=large; HttpOnly"]);

        let reply = client.ask("GET", "/panic", &[], "");
        assert_eq!((reply.status, reply.text()), (500, "Internal Server Error\n"));

        let reply = client.ask("POST", "/sha256", &[], "small");
        assert_eq!(reply.text(), sha256(b"small", 1));
        assert_eq!(client.ask("GET", "/", &[], "").status, 200);
    });
}

#[test]
fn hosts_take_large_uploads_in_little_memory() {
    with_each(|example| {
        let mut client = example.connect();
        client.ask("POST", "/sha256", &[], "to be warm");
        bounded(example, || {
            let length = format!("Content-Length: {}", PIECE.len() * PIECES);
            client.send(head("POST", "/sha256", &[&length]) + "\r\n");
            for _ in 0..PIECES {
                client.send(PIECE);
            }
            let reply = client.reply("POST").expect("a response");
            assert_eq!(reply.text(), *DIGEST);

            client.send(head("POST", "/sha256", &["Transfer-Encoding: chunked"]) + "\r\n");
            for _ in 0..PIECES {
                client.send(format!("{:x}\r\n", PIECE.len()));
                client.send(PIECE);
                client.send("\r\n");
            }
            client.send("0\r\n\r\n");
            let reply = client.reply("POST").expect("a response");
            assert_eq!(reply.text(), *DIGEST);
        });
        assert_eq!(client.ask("GET", "/", &[], "").status, 200);
    });
}

#[test]
fn hosts_ask_for_a_body_that_waits_to_be_asked_for() {
    with_each(|example| {
        let mut client = example.connect();
        let headers = ["Expect: 100-continue", "Content-Length: 5"];
        client.send(head("POST", "/sha256", &headers) + "\r\n");
        assert_eq!(client.reply("POST").expect("a word").status, 100);
        client.send("small");
        let reply = client.reply("POST").expect("a response");
        assert_eq!((reply.status, reply.text()), (200, &*sha256(b"small", 1)));

        // Nobody reads the body here. The client sends it after its answer came, as it may.
        client.send(head("POST", "/", &headers) + "\r\n");
        assert_eq!(client.reply("POST").expect("a response").status, 405);
        client.send("small");
        assert_eq!(client.ask("GET", "/", &[], "").status, 200);
    });
}

#[test]
fn hosts_read_past_a_body_that_nobody_wanted() {
    with_each(|example| {
        let mut client = example.connect();
        let body = "x".repeat(1024 * 1024);
        assert_eq!(client.ask("POST", "/", &[], &body).status, 405);
        assert_eq!(client.ask("GET", "/", &[], "").text(), "Hello from async!\n");
    });
}

#[test]
fn hosts_tell_an_upload_that_broke_off_from_a_whole_one() {
    with_each(|example| {
        let mut client = example.connect();
        client.send(head("POST", "/sha256", &["Content-Length: 4000"]) + "\r\nonly this");
        client.finish();
        let reply = client.reply("POST").expect("a response");
        assert_eq!(reply.status, 400);
        assert!(reply.text().contains("9 of 4000 bytes"), "{}", reply.text());
    });
}

#[test]
fn hosts_outlive_clients_that_leave() {
    with_each(|example| {
        // More than there are workers.
        for _ in 0..25 {
            let mut client = example.connect();
            client.send(head("POST", "/sha256", &["Content-Length: 100000"]) + "\r\nonly this");
        }
        assert_eq!(example.ask("GET", "/", &[], "").status, 200);
    });
}

#[test]
fn hosts_refuse_what_is_no_request() {
    with_each(|example| {
        let mut client = example.connect();
        assert_eq!(client.ask("GET", "[", &[], "").status, 400);
        assert_eq!(client.ask("GET", "/", &[], "").status, 200);
    });
}

#[test]
fn tiny_http_sends_each_piece_when_it_is_made() {
    with("tiny_http_host", &[], |example| {
        let mut listener = example.connect();
        listener.send(head("GET", "/listen", &[]) + "\r\n");
        assert_eq!(listener.head().expect("a head").header("transfer-encoding"), Some("chunked"));
        let mut hears =
            || String::from_utf8(listener.chunk().expect("a chunk").expect("more")).expect("text");
        assert_eq!(hears(), "you are listening\n");
        for said in ["first", "second"] {
            assert_eq!(example.ask("POST", "/say", &[], said).text(), "1 are listening\n");
            assert_eq!(hears(), format!("{said}\n"));
        }
    });
}

#[test]
fn tiny_http_takes_what_is_left_of_an_upload_before_it_streams() {
    with("tiny_http_host", &[], |example| {
        let mut client = example.connect();
        client.send(head("GET", "/listen", &["Expect: 100-continue", "Content-Length: 5"]) + "\r\n");
        assert_eq!(client.reply("GET").expect("a word").status, 100);
        client.send("small");
        assert_eq!(client.head().expect("a head").status, 200);
        assert_eq!(client.chunk().expect("a chunk").as_deref(), Some(&b"you are listening\n"[..]));

        let mut client = example.connect();
        assert_eq!(client.ask("HEAD", "/listen", &[], "").status, 200);
        assert_eq!(client.ask("GET", "/", &[], "").status, 200);
    });
}

#[test]
fn tiny_http_drops_a_body_that_nobody_listens_to() {
    with("tiny_http_host", &[], |example| {
        let mut listener = example.connect();
        listener.send(head("GET", "/listen", &[]) + "\r\n");
        assert_eq!(listener.head().expect("a head").status, 200);
        drop(listener);
        let deadline = Instant::now() + PATIENCE;
        let mut client = example.connect();
        while client.ask("POST", "/say", &[], "anyone?").text() != "0 are listening\n" {
            assert!(Instant::now() < deadline, "the body is still there");
        }
    });
}

#[test]
fn tiny_http_shows_that_a_body_broke_off() {
    with("tiny_http_host", &[], |example| {
        let mut client = example.connect();
        client.send(head("GET", "/broken", &[]) + "\r\n");
        assert_eq!(client.head().expect("a head").status, 200);
        assert_eq!(client.chunk().expect("a chunk").as_deref(), Some(&b"the first of many rows\n"[..]));
        let error = client.chunk().expect_err("no end");
        assert!(error.to_string().contains("where a chunk should be"), "{error}");
        assert_eq!(example.ask("GET", "/", &[], "").status, 200);

        // Without chunks a body is sent once it is whole, or not at all.
        let mut client = example.connect();
        client.send("GET /broken HTTP/1.0\r\n\r\n");
        client.head().expect_err("no response");
    });
}

#[test]
fn tiny_http_breaks_off_for_a_client_that_knows_nothing_of_it() {
    with("tiny_http_host", &[], |example| {
        let uri = format!("http://{}/broken", example.addr).parse().expect("a URI");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = HyperClient::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
            let mut body = client.get(uri).await.expect("a head").into_body();
            let frame = body.frame().await.expect("a frame").expect("the first row");
            assert_eq!(frame.into_data().expect("data"), "the first of many rows\n");
            body.frame().await.expect("something").expect_err("no end");
        });
    });
}

#[test]
fn rouille_sends_large_bodies_in_little_memory() {
    with("rouille_host", &[], |example| {
        let mut client = example.connect();
        client.ask("GET", "/", &[], "");
        bounded(example, || {
            let reply = client.ask("GET", "/rows/20480", &[], "");
            assert_eq!(reply.body.len(), 20 * 1024 * 1024);
            assert!(reply.text().ends_with(" 20480\n"));
        });
        assert_eq!(client.ask("GET", "/rows/2", &[], "").body.len(), 2048);
    });
}

#[test]
fn rouille_answers_500_where_a_body_breaks_off() {
    with("rouille_host", &[], |example| {
        let mut client = example.connect();
        let reply = client.ask("GET", "/broken", &[], "");
        assert_eq!((reply.status, reply.text()), (500, "Internal Server Error\n"));
        assert_eq!(client.ask("GET", "/", &[], "").status, 200);
    });
}

#[test]
fn the_plain_response_for_an_error_has_its_length() {
    let fails = |_: Request<Input>| Err::<Response<Output>, BoxError>("the database is away".into());
    let response = gateway::respond(&fails, Request::new(Input::empty()));
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers().get("content-length").expect("a length"), "22");
}

#[test]
fn head_has_no_length_where_get_has_none() {
    with("tiny_http_host", &[], |example| {
        let mut client = example.connect();
        client.send(head("GET", "/listen", &[]) + "\r\n");
        assert_eq!(client.head().expect("a head").header("content-length"), None);
        let reply = example.ask("HEAD", "/listen", &[], "");
        assert_eq!((reply.status, reply.header("content-length")), (200, None));
    });
}
