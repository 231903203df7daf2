//! The examples, run as they are: each as a process of its own, with what its header says to try.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Browser, Connection, Payload};
use crate::support::server::Server;
use crate::support::{PATIENCE, venv, watched};

/// Starts an example and runs a test against it, which must not hang.
fn with(name: &str, test: impl FnOnce(&mut Server) + Send + 'static) {
    with_variables(name, &[], test);
}

fn with_variables(name: &str, variables: &[(&str, &str)], test: impl FnOnce(&mut Server) + Send + 'static) {
    let files = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(example(name));
    command
        .env("ADDR", "127.0.0.1:0")
        .env("VIRTUAL_ENV", venv::venv())
        .env("DATABASE", files.path().join("database"))
        // The examples are under version control.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(variables.iter().copied());
    let mut server = Server::start(&mut command);
    let _guard = server.guard();
    watched(move || test(&mut server));
}

/// Examples are beside the directory that this test is in.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let path = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "no {}: run `cargo build --examples`", path.display());
    path
}

/// Asserts that a countdown of three steps, a tenth of a second each, arrives as it is counted.
fn counts_down(server: &Server, path: &str) {
    // A server that gathers gives all of it at once, each time. A machine that is busy makes a reader late, now and then.
    let shown_as_counted = (0..10).any(|_| {
        let mut connection = Connection::open(server.addr);
        connection.send("GET", path, &[], &Payload::None).expect("a connection");
        assert_eq!(connection.head().expect("a head").status, 200);
        let mut next =
            || connection.chunk().expect("a chunk").map(|chunk| String::from_utf8(chunk).expect("text"));
        assert_eq!(next().as_deref(), Some("3\n"));
        let start = Instant::now();
        assert_eq!(next().as_deref(), Some("2\n"));
        assert_eq!(next().as_deref(), Some("1\n"));
        assert_eq!(next().as_deref(), Some("done\n"));
        assert_eq!(next(), None);
        start.elapsed() > Duration::from_millis(200)
    });
    assert!(shown_as_counted);
}

#[test]
fn flask_answers_below_its_mount_and_rust_elsewhere() {
    with("flask_in_axum", |server| {
        let mut browser = Browser::new(server.addr, "");
        assert_eq!(browser.get("/").text(), "Rust; the shop is at /shop/\n");
        assert_eq!(browser.get("/shopping").status, 404);
        assert_eq!(browser.get("/shop/").text(), "<a href=\"/shop/items\">2 items</a>\n");

        let form = "application/x-www-form-urlencoded";
        let added = browser.post("/shop/items", form, b"name=tea");
        assert_eq!((added.status, added.header("location")), (302, Some("/shop/items")));
        assert_eq!(browser.get("/shop/items").json(), serde_json::json!(["milk", "bread", "tea"]));

        counts_down(server, "/shop/countdown");
    });
}

#[test]
fn rust_and_django_know_a_visitor_by_the_same_session() {
    with("django_in_axum", |server| {
        let mut visitor = Browser::new(server.addr, "");
        assert_eq!(visitor.get("/visits").text(), "0 visits, says Rust\n");
        assert_eq!(visitor.get("/visit").text(), "1 visits, says Django\n");
        assert_eq!(visitor.get("/visit").text(), "2 visits, says Django\n");
        assert_eq!(visitor.get("/visits").text(), "2 visits, says Rust\n");
        assert_eq!(visitor.get("/django/visits").text(), "2 visits, says Django\n");
        assert_eq!(visitor.get("/elsewhere").status, 404);

        let mut stranger = Browser::new(server.addr, "");
        assert_eq!(stranger.get("/visits").text(), "0 visits, says Rust\n");
        // Somebody who makes a session up has none.
        let made_up = [("Cookie", "sessionid=made-up-by-the-client")];
        let answer = stranger.send("GET", "/visits", &made_up, &Payload::None);
        assert_eq!((answer.status, answer.text()), (200, "0 visits, says Rust\n"));
    });
}

#[test]
fn fastapi_answers_below_its_mount_with_its_docs_websocket_and_lifespan() {
    with("fastapi_in_axum", |server| {
        let mut browser = Browser::new(server.addr, "");
        assert_eq!(browser.get("/").text(), "Rust; the API is at /api/\n");
        let square = serde_json::json!({"number": 12, "square": 144});
        assert_eq!(browser.get("/api/square/12").json(), square);
        assert_eq!(browser.get("/api/square/twelve").status, 422);

        let docs = browser.get("/api/docs");
        assert!(docs.text().contains("'/api/openapi.json'"), "{docs:?}");
        let description = browser.get("/api/openapi.json").json();
        assert_eq!(description["servers"][0]["url"], "/api");
        assert!(description["paths"]["/square/{number}"].is_object(), "{description}");

        let addr = server.addr;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let talk = async {
            let stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
            let url = format!("ws://{addr}/api/echo");
            let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
            let greeting = socket.next().await.expect("a message").expect("a greeting");
            assert_eq!(greeting, Message::text("hello"));
            for text in ["one", "two"] {
                socket.send(Message::text(text)).await.expect("room");
                let echo = socket.next().await.expect("a message").expect("an echo");
                assert_eq!(echo, Message::text(text));
            }
            socket
        };
        let runtime = runtime.expect("a runtime");
        let talk = runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await });
        let _open = talk.expect("an answer in time");

        // Who still has a connection open, or a WebSocket, does not keep it from its end.
        assert!(server.stop_by("INT").success());
        assert_eq!(server.said().text(), "the API is closed\n");
    });
}

#[test]
fn a_response_without_an_end_does_not_keep_fastapi_from_its_own() {
    with_variables("fastapi_in_axum", &[("GRACE", "1")], |server| {
        let mut connection = Connection::open(server.addr);
        connection.send("GET", "/api/clock", &[], &Payload::None).expect("a connection");
        assert_eq!(connection.head().expect("a head").status, 200);
        assert!(connection.chunk().expect("a chunk").is_some());
        assert!(server.stop_by("TERM").success());
        assert!(server.log().text().contains("the API takes too long to close"));
    });
}

#[test]
fn the_websocket_can_be_tried_with_the_client_that_the_header_names() {
    with("fastapi_in_axum", |server| {
        // At the end of its input the client closes the connection, and ends. The input is a pipe: the one for Python 3.10 cannot wait for /dev/null.
        let url = format!("ws://{}/api/echo", server.addr);
        let mut client = Command::new(venv::python());
        client.args(["-m", "websockets", &url]).stdin(Stdio::piped());
        client.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = client.spawn().and_then(Child::wait_with_output).expect("Python");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && shown.contains("Connected to"), "{output:?}");
    });
}

#[test]
fn an_asgi_application_answers_in_a_host_that_blocks() {
    with("asgi_in_sync_host", |server| {
        assert_eq!(Browser::new(server.addr, "").get("/who").text(), "GET /who\n");
        counts_down(server, "/countdown");
    });
}
