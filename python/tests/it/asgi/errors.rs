//! Applications that do what they must not.

use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::BodyExt;
use tower_wsgi::Body;

use super::support::*;
use crate::log;

/// The level of the event whose last line is `words`, once it is in the log.
async fn level_of(words: &str) -> String {
    loop {
        let text = log::text();
        if let Some((before, _)) = text.split_once(&format!("{words}\n")) {
            let mut levels = before.split_whitespace().filter(|word| matches!(*word, "DEBUG" | "ERROR"));
            return levels.next_back().expect("a level").to_owned();
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn tracebacks_are_in_the_log_in_the_callers_span() {
    log::start();
    run(async {
        for pause in ["0", "1"] {
            let app = start_http(&format!(
                "if {pause}:\n    await asyncio.sleep(0)\nraise ValueError('marked {pause}')"
            ));
            let span = tracing::info_span!("caller", number = 77);
            let response = tracing::Instrument::instrument(call(&app, get("/path")), span).await;
            assert_eq!(response.status(), 500);
        }
        let app = start_http("await send({'type': 'http.response.start', 'status': 200})");
        call(&app, get("/silent")).await;
        let text = log::text();
        for line in [
            "ERROR caller{number=77}: tower_wsgi_python::asgi::request: the application failed",
            "ValueError: marked 0",
            "ValueError: marked 1",
            "Traceback (most recent call last)",
            "the application returned after the head of its response method=GET path=\"/silent\"",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    });
}

/// Frameworks make exceptions of their own of it. What fails without knowing of the client, or after the response, is a failure still.
#[test]
fn what_an_application_raises_once_it_knows_that_its_client_has_left_is_no_error() {
    log::start();
    run(async {
        let app = start(
            r#"
class ClientDisconnect(Exception):
    pass
left = asyncio.Event()
@http_only
async def app(scope, receive, send):
    path = scope["path"]
    start = {"type": "http.response.start", "status": 200}
    body = {"type": "http.response.body", "body": b"x", "more_body": True}
    if path == "/left":
        left.set()
        return await reply(send, "set")
    if path == "/after":
        await reply(send, "whole")
        assert (await receive())["type"] == "http.disconnect"
        raise ValueError("after the response")
    if path == "/head":
        await send(start)
        await send(body)
        assert (await receive())["type"] == "http.disconnect"
        raise ValueError("after the head")
    await send(start)
    await send(body)
    if path == "/receives":
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect("seen by receive")
    if path == "/unaware":
        await left.wait()
        raise ValueError("knows nothing")
    try:
        while True:
            await send(body)
    except OSError:
        raise ClientDisconnect("seen by send")
"#,
        );
        for path in ["/receives", "/sends", "/unaware"] {
            drop(call(&app, get(path)).await);
        }
        call(&app, get("/left")).await;
        assert_eq!(json(call(&app, get("/after")).await).await, "whole");
        let head = Request::head("/head").body(Body::empty()).unwrap();
        assert_eq!(call(&app, head).await.status(), 200);

        assert_eq!(level_of("ClientDisconnect: seen by receive").await, "DEBUG");
        assert_eq!(level_of("ClientDisconnect: seen by send").await, "DEBUG");
        assert_eq!(level_of("ValueError: knows nothing").await, "ERROR");
        assert_eq!(level_of("ValueError: after the response").await, "ERROR");
        assert_eq!(level_of("ValueError: after the head").await, "ERROR");
    });
}

#[test]
fn a_socket_whose_client_has_left_is_no_error() {
    log::start();
    run(async {
        let app = start(
            r#"
class WebSocketDisconnect(Exception):
    pass
@http_only
async def app(scope, receive, send):
    await receive()
    if scope["path"] == "/refuses":
        await send({"type": "websocket.close"})
        assert (await receive())["type"] == "websocket.disconnect"
        raise ValueError("after the refusal")
    await send({"type": "websocket.accept"})
    if scope["path"] == "/closes":
        await send({"type": "websocket.close"})
        assert (await receive())["type"] == "websocket.disconnect"
        raise ValueError("after the close")
    if (await receive())["type"] == "websocket.receive":
        raise ValueError("in the middle")
    raise WebSocketDisconnect("its client has left")
"#,
        );
        let address = serve(app).await;
        drop(super::websocket::connect(address, "/leaves").await);
        assert_eq!(level_of("WebSocketDisconnect: its client has left").await, "DEBUG");

        let (mut socket, _) = super::websocket::connect(address, "/closes").await;
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
        assert_eq!(level_of("ValueError: after the close").await, "ERROR");

        let (mut socket, _) = super::websocket::connect(address, "/sends").await;
        socket.send("x".into()).await.unwrap();
        assert_eq!(level_of("ValueError: in the middle").await, "ERROR");

        super::websocket::refused(address, "/refuses").await;
        assert_eq!(level_of("ValueError: after the refusal").await, "ERROR");
    });
}

async fn status(body: &str) -> u16 {
    let app = start_http(body);
    let response = call(&app, get("/")).await;
    let status = response.status().as_u16();
    if status == 500 {
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(text(response).await, "Internal Server Error\n");
    }
    // It lives on.
    status
}

#[test]
fn what_fails_before_the_head_is_a_clean_500() {
    run(async {
        assert_eq!(status("pass").await, 500);
        assert_eq!(status("await asyncio.sleep(0)").await, 500);
        assert_eq!(status("await send({'type': 'http.response.start', 'status': 200})").await, 500);
        assert_eq!(status("1 / 0").await, 500);
        assert_eq!(status("await asyncio.sleep(0)\n1 / 0").await, 500);
        assert_eq!(status("asyncio.current_task().cancel()\nawait asyncio.sleep(1)").await, 500);
        assert_eq!(status("await send({'type': 'http.response.start', 'status': 200})\n1 / 0").await, 500);
    });
}

#[test]
fn an_application_that_is_none_is_a_500() {
    run(async {
        for code in [
            "def app(scope, receive, send): 1 / 0",
            "def app(scope, receive, send): return 5",
            "def app(a): pass",
        ] {
            let app = start(code);
            assert_eq!(call(&app, get("/")).await.status(), 500, "{code}");
        }
    });
}

#[test]
fn sys_exit_is_not_the_hosts_end() {
    run(async {
        let app = start_http(
            "import sys\nif scope['path'] == '/exit':\n    sys.exit(1)\nif scope['path'] == '/later':\n    await asyncio.sleep(0)\n    sys.exit(1)\nawait reply(send, 'alive')",
        );
        for path in ["/exit", "/later"] {
            assert_eq!(call(&app, get(path)).await.status(), 500, "{path}");
            assert_eq!(json(call(&app, get("/")).await).await, "alive");
        }
    });
}

#[test]
fn what_fails_after_the_head_cuts_the_body_off() {
    run(async {
        for end in ["1 / 0", "pass", "await asyncio.sleep(0)", "await asyncio.sleep(0)\n1 / 0"] {
            let app = start_http(&format!(
                "await send({{'type': 'http.response.start', 'status': 200}})\nawait send({{'type': 'http.response.body', 'body': b'half', 'more_body': True}})\n{end}"
            ));
            let mut response = call(&app, get("/")).await;
            assert_eq!(response.status(), 200);
            let first = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "half");
            assert!(response.body_mut().frame().await.unwrap().is_err(), "{end}");
            assert!(response.body_mut().frame().await.is_none());

            let address = serve(app).await;
            let cut = exchange(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert!(cut.ends_with("\r\n\r\n4\r\nhalf\r\n"), "{cut}");
        }
    });
}

#[test]
fn a_response_keeps_to_its_declared_length() {
    run(async {
        let app = start_http(
            r#"
_, declared, *chunks = scope["path"].split("/")
await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", declared.encode())]})
for chunk in chunks:
    await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})
await send({"type": "http.response.body"})
"#,
        );
        assert_eq!(text(call(&app, get("/3/abcdef")).await).await, "abc");
        assert_eq!(text(call(&app, get("/3/ab/cd/ef")).await).await, "abc");
        assert_eq!(text(call(&app, get("/6/abc/def")).await).await, "abcdef");
        let short = call(&app, get("/6/abc")).await;
        assert!(short.into_body().collect().await.is_err());
        assert_eq!(call(&app, get("/five/abc")).await.status(), 500);
        // In one piece it can still be refused.
        assert_eq!(
            status("await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'9')]})\nawait send({'type': 'http.response.body', 'body': b'abc'})").await,
            500
        );
    });
}

#[test]
fn the_order_of_messages_is_kept() {
    run(async {
        let app = start_http(
            r#"
start = {"type": "http.response.start", "status": 200}
body = {"type": "http.response.body", "body": b"x", "more_body": True}
trailers = {"type": "http.response.trailers"}
errors = []
async def wrong(message):
    try:
        await send(message)
        errors.append(None)
    except RuntimeError as error:
        errors.append(str(error))
await wrong(body)
await wrong({"type": "websocket.accept"})
await send(start)
await wrong(start)
await send(body)
await wrong(start)
await wrong(trailers)
await send({"type": "http.response.body", "body": json.dumps(errors).encode()})
await wrong(body)
assert errors[-1] == "http.response.body after the response was complete", errors
"#,
        );
        let errors = text(call(&app, get("/")).await).await;
        let errors: Vec<String> = serde_json::from_str(errors.strip_prefix('x').unwrap()).unwrap();
        assert_eq!(
            errors,
            [
                "http.response.body before http.response.start",
                "unexpected message \"websocket.accept\"",
                "http.response.start before the end of the body",
                "http.response.start before the end of the body",
                "http.response.trailers before the end of the body",
            ]
        );
    });
}

#[test]
fn mistakes_in_messages_are_told() {
    run(async {
        let app = start_http(
            r#"
def start(**more):
    return {"type": "http.response.start", "status": 200, **more}
errors = []
for message in [
    None, [], {}, {"type": 5}, {"type": "http.response.start"}, start(status="200"), start(status=99), start(status=1000), start(status=100), start(status=-1),
    start(headers=[("a", b"b")]), start(headers=[(b"a", "b")]), start(headers=[(b"a",)]), start(headers=5), start(headers=[5]),
    start(headers=[(b"a b", b"c")]), start(headers=[(b"a", b"b\r\nx: y")]), start(headers=[(b"a\r\nx", b"y")]), start(headers=[(b"a", b"\x00")]),
    start(headers=[(b"content-length", b"1"), (b"content-length", b"1")]), start(headers=[(b"content-length", b"-1")]),
]:
    try:
        await send(message)
        errors.append([repr(message), "nothing"])
    except (TypeError, ValueError) as error:
        assert str(error)
await send(start(status=__import__("http").HTTPStatus.ACCEPTED))
for body in ["text", 5]:
    try:
        await send({"type": "http.response.body", "body": body})
        errors.append([repr(body), "nothing"])
    except TypeError as error:
        assert str(error)
await send({"type": "http.response.body", "body": json.dumps(errors).encode()})
"#,
        );
        let response = call(&app, get("/")).await;
        assert_eq!(response.status(), 202);
        assert_eq!(text(response).await, "[]");
    });
}
