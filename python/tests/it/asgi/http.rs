//! Requests and responses as ASGI has them, streamed both ways.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use tower_wsgi::Body;
use tower_wsgi_python::{EventLoop, PyAsgi};

use super::support::*;

const GREET: &str = r#"
await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Who", b"\xe9me"), [b"content-length", b"5"]]})
await send({"type": "http.response.body", "body": b"hello"})
"#;

#[test]
fn an_application_answers() {
    run(async {
        let response = call(&start_http(GREET), get("/")).await;
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["x-who"].as_bytes(), b"\xe9me");
        assert_eq!(text(response).await, "hello");
    });
}

#[test]
fn an_application_answers_on_asyncio() {
    run(async {
        let code = "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n    await reply(send, type(asyncio.get_running_loop()).__module__)";
        let app = PyAsgi::on(load(code), EventLoop::Asyncio).unwrap();
        assert_eq!(json(call(&app, get("/")).await).await, "asyncio.unix_events");
    });
}

#[test]
fn headers_may_be_left_out() {
    run(async {
        let app = start_http(
            "await send({'type': 'http.response.start', 'status': 200})\nawait send({'type': 'http.response.body'})",
        );
        let response = call(&app, get("/")).await;
        assert!(response.headers().is_empty());
        assert_eq!(text(response).await, "");
    });
}

#[test]
fn a_body_arrives_chunk_by_chunk() {
    run(async {
        let app = start_http("await reply(send, [len(chunk) for chunk in await whole_body(receive)])");
        let (chunks, body) = channel();
        let answer =
            tokio::spawn(async move { json(call(&app, Request::post("/").body(body).unwrap()).await).await });
        for size in [3, 70_000, 1] {
            chunks.send(Some(vec![b'x'; size].into())).unwrap();
        }
        chunks.send(None).unwrap();
        assert_eq!(answer.await.unwrap(), serde_json::json!([3, 70_000, 1, 0]));
    });
}

#[test]
fn a_whole_body_is_one_message() {
    run(async {
        let app = start_http("await reply(send, [chunk.decode() for chunk in await whole_body(receive)])");
        let request = Request::post("/").header("content-length", 5).body(Body::from("hello")).unwrap();
        assert_eq!(json(call(&app, request).await).await, serde_json::json!(["hello"]));
        assert_eq!(json(call(&app, get("/")).await).await, serde_json::json!([""]));
    });
}

/// Without `receive()`, no more is read of a body than goes with the request.
#[test]
fn a_body_is_read_as_the_application_asks() {
    run(async {
        let app = start_http(
            r#"
await send({"type": "http.response.start", "status": 200})
await send({"type": "http.response.body", "body": b"go", "more_body": True})
await reply_parts(send, receive)
"#
            .replace(
                "await reply_parts(send, receive)",
                "await whole_body(receive)\nawait send({'type': 'http.response.body'})",
            )
            .as_str(),
        );
        let (chunks, body) = channel();
        let mut response = call(&app, Request::post("/").body(body).unwrap()).await;
        assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "go");
        // The application reads while the response is on its way.
        for _ in 0..50 {
            chunks.send(Some(Bytes::from_static(b"x"))).unwrap();
        }
        chunks.send(None).unwrap();
        assert!(response.body_mut().frame().await.is_none());
    });
}

#[test]
fn a_client_that_vanishes_is_a_disconnect_and_not_an_end() {
    run(async {
        let app = start_http(
            r#"
seen = []
while not seen or seen[-1] == "http.request":
    seen.append((await receive())["type"])
await reply(send, seen)
"#,
        );
        let (chunks, body) = channel();
        chunks.send(Some(Bytes::from_static(b"some"))).unwrap();
        drop(chunks);
        let answer = json(call(&app, Request::post("/").body(body).unwrap()).await).await;
        assert_eq!(answer, serde_json::json!(["http.request", "http.disconnect"]));

        let short = Request::post("/").header("content-length", 100).body(Body::from("five!")).unwrap();
        let answer = json(call(&app, short).await).await;
        assert_eq!(answer, serde_json::json!(["http.request", "http.disconnect"]));
    });
}

#[test]
fn send_waits_when_the_queue_is_full() {
    run(async {
        let app = start(
            r#"
sent = 0
@http_only
async def app(scope, receive, send):
    global sent
    if scope["path"] == "/sent":
        return await reply(send, sent)
    await send({"type": "http.response.start", "status": 200})
    for _ in range(100):
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        sent += 1
    await send({"type": "http.response.body"})
"#,
        )
        .send_queue_size(4);
        let response = call(&app, get("/")).await;
        // The loop has time for other requests, and for this one if it did not wait.
        for _ in 0..20 {
            let sent = json(call(&app, get("/sent")).await).await.as_u64().unwrap();
            assert!(sent <= 4, "{sent} chunks ahead");
        }
        assert_eq!(text(response).await.len(), 100_000);
        assert_eq!(json(call(&app, get("/sent")).await).await, 100);
    });
}

#[test]
fn a_head_does_not_wait_for_its_body_when_the_application_pauses() {
    run(async {
        let app = start(
            r#"
go = asyncio.Event()
@http_only
async def app(scope, receive, send):
    if scope["path"] == "/go":
        go.set()
        return await reply(send, "went")
    if scope["path"] == "/later":
        await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 202})
    await go.wait()
    await send({"type": "http.response.body", "body": b"at last"})
    go.clear()
"#,
        );
        for path in ["/", "/later"] {
            let response = call(&app, get(path)).await;
            assert_eq!(response.status(), 202);
            call(&app, get("/go")).await;
            assert_eq!(text(response).await, "at last");
        }
    });
}

#[test]
fn work_after_the_response_does_not_hold_it() {
    run(async {
        let app = start(
            r#"
go = asyncio.Event()
done = asyncio.Event()
@http_only
async def app(scope, receive, send):
    if scope["path"] == "/go":
        go.set()
        await done.wait()
        return await reply(send, "done")
    await reply(send, "first")
    await go.wait()
    done.set()
"#,
        );
        assert_eq!(json(call(&app, get("/")).await).await, "first");
        assert_eq!(json(call(&app, get("/go")).await).await, "done");
    });
}

#[test]
fn trailers_go_out_behind_the_body() {
    run(async {
        let app = start_http(
            r#"
assert scope["extensions"] == {"http.response.trailers": {}}, scope["extensions"]
await send({"type": "http.response.start", "status": 200, "trailers": True})
await send({"type": "http.response.body", "body": b"body"})
await send({"type": "http.response.trailers", "headers": [(b"x-one", b"1")], "more_trailers": True})
await send({"type": "http.response.trailers", "headers": [(b"x-two", b"2")]})
"#,
        );
        let request = Request::get("/").header("te", "trailers").body(Body::empty()).unwrap();
        let collected = call(&app, request).await.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap();
        assert_eq!((&trailers["x-one"], &trailers["x-two"]), (&"1".parse().unwrap(), &"2".parse().unwrap()));
        assert_eq!(collected.to_bytes(), "body");
    });
}

#[test]
fn bodiless_responses_have_no_body() {
    run(async {
        let app = start_http(
            r#"
status = int(scope["path"][1:])
await send({"type": "http.response.start", "status": status, "headers": []})
await send({"type": "http.response.body", "body": b"some", "more_body": status == 203})
if status == 203:
    await send({"type": "http.response.body", "body": b"more"})
"#,
        );
        for (method, status) in
            [(Method::GET, 204), (Method::GET, 304), (Method::HEAD, 200), (Method::HEAD, 203)]
        {
            let request =
                Request::builder().method(&method).uri(format!("/{status}")).body(Body::empty()).unwrap();
            let response = call(&app, request).await;
            assert_eq!(response.status(), status);
            let length =
                response.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(length.as_deref(), (status == 200).then_some("4"), "{method} {status}");
            assert_eq!(text(response).await, "", "{method} {status}");
        }
    });
}

#[test]
fn any_bytes_can_be_a_body() {
    run(async {
        let app = start_http(
            r#"
await send({"type": "http.response.start", "status": 200})
big = b"z" * 100_000
for body in [bytearray(b"ab"), memoryview(b"cd"), memoryview(b"e_f_")[::2], big]:
    await send({"type": "http.response.body", "body": body, "more_body": True})
await send({"type": "http.response.body"})
"#,
        );
        let all = text(call(&app, get("/")).await).await;
        assert_eq!(&all[..6], "abcdef");
        assert_eq!(all.len(), 100_006);
    });
}

#[test]
fn hop_by_hop_headers_are_dropped() {
    run(async {
        let app = start_http(
            r#"
names = [b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"proxy-connection", b"x-own"]
headers = [(name, b"x-named" if name == b"connection" else b"1") for name in names] + [(b"x-named", b"1")]
await send({"type": "http.response.start", "status": 200, "headers": headers})
await send({"type": "http.response.body"})
"#,
        );
        let response = call(&app, get("/")).await;
        let names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["x-own"]);
    });
}

#[test]
fn the_client_sees_the_end_over_a_connection() {
    run(async {
        let app = start_http("await whole_body(receive)\nawait reply(send, b'hi')");
        let address = serve(app).await;
        let request = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc";
        let response = exchange(address, request).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nhi"), "{response}");
    });
}

/// The interim response goes out when the application first reads, and not at all if it does not.
#[test]
fn a_body_is_asked_for_when_the_application_reads() {
    run(async {
        let app = start_http(
            "if scope['path'] == '/read':\n    await whole_body(receive)\nawait reply(send, b'hi')",
        );
        let address = serve(app).await;
        let head =
            "HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
        let refused = exchange(address, &format!("POST / {head}")).await;
        assert!(refused.starts_with("HTTP/1.1 200"), "{refused}");
        let read = exchange(address, &format!("POST /read {head}abc")).await;
        assert!(read.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"), "{read}");
    });
}

#[test]
fn many_requests_at_once() {
    run(async {
        let app = start_http(
            "if scope['query_string']:\n    await asyncio.sleep(0.001)\nawait reply(send, [len(c) for c in await whole_body(receive)][0])",
        );
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..500 {
            let app = app.clone();
            tasks.spawn(async move {
                let path = if n % 2 == 0 { "/?pause" } else { "/" };
                let request = Request::post(path).body(Body::from("x".repeat(n))).unwrap();
                assert_eq!(json(call(&app, request).await).await, n);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_slow_application_does_not_hold_the_others() {
    run(async {
        let app = start_http(
            "if scope['path'] == '/slow':\n    await asyncio.sleep(3600)\nawait reply(send, 'quick')",
        );
        let mut slow = Box::pin(call(&app, get("/slow")));
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut slow).await.is_err());
        assert_eq!(json(call(&app, get("/")).await).await, "quick");
    });
}
