//! `receive()` and `send()` that wait: for chunks, for each other, for the client to leave.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;

use super::support::*;

/// Polls a request until the application has been started, then leaves.
async fn leave(app: &tower_wsgi_python::PyAsgi, path: &str) {
    let future = call(app, get(path));
    assert!(tokio::time::timeout(Duration::from_millis(50), future).await.is_err(), "it waits");
}

#[test]
fn a_client_that_leaves_wakes_receive_and_breaks_send() {
    run(async {
        let app = start(
            r#"
log = asyncio.Queue()
@http_only
async def app(scope, receive, send):
    if scope["path"] == "/log":
        return await reply(send, await log.get())
    seen = [(await receive())["type"], (await receive())["type"], (await receive())["type"]]
    try:
        await send({"type": "http.response.start", "status": 200})
        seen.append("sent")
    except OSError:
        seen.append("OSError")
    log.put_nowait(seen)
"#,
        );
        leave(&app, "/").await;
        let seen = json(call(&app, get("/log")).await).await;
        assert_eq!(
            seen,
            serde_json::json!(["http.request", "http.disconnect", "http.disconnect", "OSError"])
        );
    });
}

#[test]
fn a_client_that_leaves_wakes_a_send_that_waits() {
    run(async {
        let app = start(
            r#"
log = asyncio.Queue()
@http_only
async def app(scope, receive, send):
    if scope["path"] == "/log":
        return await reply(send, await log.get())
    await send({"type": "http.response.start", "status": 200})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
    except OSError as error:
        log.put_nowait(str(error))
        raise
"#,
        );
        let mut response = call(&app, get("/")).await;
        response.body_mut().frame().await.unwrap().unwrap();
        drop(response);
        assert_eq!(json(call(&app, get("/log")).await).await, "the client has left");
    });
}

/// The application is told, and not ended: what it has to do it does.
#[test]
fn a_client_that_leaves_does_not_cancel_the_application() {
    run(async {
        let app = start(
            r#"
go, log = asyncio.Event(), asyncio.Queue()
@http_only
async def app(scope, receive, send):
    if scope["path"] == "/log":
        go.set()
        return await reply(send, await log.get())
    await go.wait()
    log.put_nowait("worked on")
"#,
        );
        leave(&app, "/").await;
        assert_eq!(json(call(&app, get("/log")).await).await, "worked on");
    });
}

#[test]
fn after_the_response_receive_gives_disconnect() {
    run(async {
        let app = start(
            r#"
log = asyncio.Queue()
@http_only
async def app(scope, receive, send):
    if scope["path"] == "/log":
        return await reply(send, await log.get())
    await whole_body(receive)
    waiting = asyncio.create_task(receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    await reply(send, "answer")
    log.put_nowait([(await waiting)["type"], (await receive())["type"]])
"#,
        );
        assert_eq!(json(call(&app, get("/")).await).await, "answer");
        let seen = json(call(&app, get("/log")).await).await;
        assert_eq!(seen, serde_json::json!(["http.disconnect", "http.disconnect"]));
    });
}

#[test]
fn after_the_body_receive_waits() {
    run(async {
        let app = start_http(
            r#"
await whole_body(receive)
done, pending = await asyncio.wait([asyncio.ensure_future(receive())], timeout=0.05)
for task in pending:
    task.cancel()
await reply(send, len(done))
"#,
        );
        assert_eq!(json(call(&app, get("/")).await).await, 0);
    });
}

#[test]
fn two_receivers_get_a_chunk_each() {
    run(async {
        let app = start_http(
            r#"
messages = await asyncio.gather(*[asyncio.create_task(receive()) for _ in range(3)])
await reply(send, [message["body"].decode() for message in messages])
"#,
        );
        let (chunks, body) = channel();
        let answer =
            tokio::spawn(async move { json(call(&app, Request::post("/").body(body).unwrap()).await).await });
        for chunk in ["a", "b", "c"] {
            tokio::task::yield_now().await;
            chunks.send(Some(Bytes::from(chunk))).unwrap();
        }
        assert_eq!(answer.await.unwrap(), serde_json::json!(["a", "b", "c"]));
    });
}

#[test]
fn a_receive_that_is_cancelled_loses_nothing() {
    run(async {
        let app = start_http(
            r#"
lost = 0
for _ in range(3):
    try:
        await asyncio.wait_for(receive(), 0.001)
        lost += 1
    except asyncio.TimeoutError:
        pass
first = asyncio.create_task(receive())
second = asyncio.create_task(receive())
await asyncio.sleep(0)
first.cancel()
await send({"type": "http.response.start", "status": 200})
await send({"type": "http.response.body", "body": b"now ", "more_body": True})
message = await second
await send({"type": "http.response.body", "body": message["body"] + str(lost).encode()})
"#,
        );
        let (chunks, body) = channel();
        let mut response = call(&app, Request::post("/").body(body).unwrap()).await;
        assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "now ");
        chunks.send(Some(Bytes::from_static(b"chunk "))).unwrap();
        assert_eq!(text(response).await, "chunk 0");
    });
}

/// One task reads the request while another writes the response.
#[test]
fn receive_and_send_go_on_at_once() {
    run(async {
        let app = start_http(
            r#"
queue = asyncio.Queue()
async def read():
    while True:
        message = await receive()
        queue.put_nowait(message["body"])
        if not message["more_body"]:
            return queue.put_nowait(None)
reader = asyncio.create_task(read())
await send({"type": "http.response.start", "status": 200})
while (chunk := await queue.get()) is not None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
await send({"type": "http.response.body"})
await reader
"#,
        );
        let (chunks, body) = channel();
        chunks.send(Some(Bytes::from_static(b"0"))).unwrap();
        let mut response = call(&app, Request::post("/").body(body).unwrap()).await;
        for n in 0..30 {
            let frame = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), n.to_string());
            chunks.send(Some((n + 1).to_string().into())).unwrap();
        }
        chunks.send(None).unwrap();
        assert_eq!(text(response).await, "30");
    });
}
