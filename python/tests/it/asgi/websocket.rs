//! WebSockets.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tower_wsgi_python::PyAsgi;

use super::support::*;

type Client = WebSocketStream<TcpStream>;
type Answer = Response<Option<Vec<u8>>>;

fn request(address: SocketAddr, path: &str) -> http::request::Builder {
    Request::get(format!("ws://{address}{path}"))
        .header("host", address.to_string())
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")
}

async fn handshake(request: Request<()>) -> Result<(Client, Answer), Error> {
    let address = request.uri().authority().unwrap().as_str().to_owned();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await
}

pub(super) async fn connect(address: SocketAddr, path: &str) -> (Client, Answer) {
    handshake(request(address, path).body(()).unwrap()).await.unwrap()
}

pub(super) async fn refused(address: SocketAddr, path: &str) -> Answer {
    match handshake(request(address, path).body(()).unwrap()).await {
        Err(Error::Http(response)) => *response,
        other => panic!("{other:?}"),
    }
}

/// An application of WebSockets alone; what it puts into `log` comes back over HTTP.
fn start_socket(body: &str) -> PyAsgi {
    let body = body.lines().map(|line| format!("    {line}\n")).collect::<String>();
    start(&format!(
        r#"
log = asyncio.Queue()
@http_only
async def app(scope, receive, send):
    if scope["type"] == "http":
        return await reply(send, await log.get())
    assert scope["type"] == "websocket"
    assert (await receive()) == {{"type": "websocket.connect"}}
{body}"#
    ))
}

async fn log(app: &PyAsgi) -> serde_json::Value {
    json(call(app, get("/")).await).await
}

fn closed(message: Option<Result<Message, Error>>) -> (u16, String) {
    match message {
        Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_go_both_ways() {
    run(async {
        let app = start_socket(
            r#"
await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-own", b"1")]})
assert scope["subprotocols"] == ["a", "b"] and "method" not in scope
assert (scope["scheme"], scope["path"], scope["query_string"]) == ("ws", "/room", b"n=1"), scope
while True:
    message = await receive()
    if message["type"] == "websocket.disconnect":
        log.put_nowait([message["code"], message["reason"]])
        break
    del message["type"]
    await send({"type": "websocket.send", **message})
"#,
        );
        let address = serve(app.clone()).await;
        let offer = request(address, "/room?n=1").header("sec-websocket-protocol", "a, b");
        let (mut socket, response) = handshake(offer.body(()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "b");
        assert_eq!(response.headers()["x-own"], "1");
        for message in [Message::text("grüße"), Message::binary(vec![0, 255]), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.send(Message::Ping(b"p"[..].into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(b"p"[..].into()));
        let frame = CloseFrame { code: 4001.into(), reason: "enough".into() };
        socket.close(Some(frame)).await.unwrap();
        assert_eq!(closed(socket.next().await), (4001, "enough".to_owned()));
        assert!(socket.next().await.is_none());
        assert_eq!(log(&app).await, serde_json::json!([4001, "enough"]));
    });
}

#[test]
fn a_handshake_can_be_refused() {
    run(async {
        let app = start_socket(
            "await send({'type': 'websocket.close'})\nlog.put_nowait((await receive())['code'])",
        );
        let address = serve(app.clone()).await;
        assert_eq!(refused(address, "/").await.status(), 403);
        assert_eq!(log(&app).await, 1006);

        let app = start_socket("pass");
        assert_eq!(refused(serve(app).await, "/").await.status(), 500);
        let app = start_socket("1 / 0");
        assert_eq!(refused(serve(app).await, "/").await.status(), 500);
    });
}

#[test]
fn a_handshake_can_be_answered_with_a_response() {
    run(async {
        let app = start_socket(
            r#"
assert "websocket.http.response" in scope["extensions"]
await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]})
await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
await asyncio.sleep(0)
await send({"type": "websocket.http.response.body", "body": b"you"})
log.put_nowait((await receive())["type"])
"#,
        );
        let address = serve(app.clone()).await;
        let head = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        let response = exchange(address, head).await;
        assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
        assert!(response.contains("x-why: because\r\n"), "{response}");
        assert!(response.contains("not ") && response.contains("you"), "{response}");
        assert_eq!(log(&app).await, "websocket.disconnect");
    });
}

#[test]
fn a_bad_handshake_does_not_reach_the_application() {
    run(async {
        let app = start_socket("log.put_nowait('reached')");
        let address = serve(app).await;
        let raw = |version: &str, key: &str| {
            format!(
                "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: {version}\r\n{key}\r\n"
            )
        };
        let response = exchange(address, &raw("8", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")).await;
        assert!(
            response.starts_with("HTTP/1.1 426 ") && response.contains("sec-websocket-version: 13"),
            "{response}"
        );
        assert!(exchange(address, &raw("13", "")).await.starts_with("HTTP/1.1 400 "));
    });
}

#[test]
fn the_application_closes_with_its_code() {
    run(async {
        for (body, code, reason) in [
            (
                "await send({'type': 'websocket.close', 'code': 3001, 'reason': 'bye'})\nlog.put_nowait((await receive())['code'])",
                3001,
                "bye",
            ),
            ("await send({'type': 'websocket.close'})\nlog.put_nowait((await receive())['code'])", 1000, ""),
            ("log.put_nowait(1000)", 1000, ""),
            ("log.put_nowait(1011)\n1 / 0", 1011, ""),
            ("log.put_nowait(1011)\nawait asyncio.sleep(0)\n1 / 0", 1011, ""),
        ] {
            let app = start_socket(&format!("await send({{'type': 'websocket.accept'}})\n{body}"));
            let address = serve(app.clone()).await;
            let (mut socket, _) = connect(address, "/").await;
            assert_eq!(closed(socket.next().await), (code, reason.to_owned()), "{body}");
            assert!(socket.next().await.is_none());
            assert_eq!(log(&app).await, code, "{body}");
        }
    });
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    run(async {
        let app = start_socket(
            r#"
await send({"type": "websocket.accept"})
for n in range(100):
    await send({"type": "websocket.send", "text": str(n)})
await send({"type": "websocket.close"})
"#,
        );
        let (mut socket, _) = connect(serve(app).await, "/").await;
        for n in 0..100 {
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(n.to_string()));
        }
        assert_eq!(closed(socket.next().await).0, 1000);
    });
}

#[test]
fn a_client_that_vanishes_is_code_1006() {
    run(async {
        let app = start_socket(
            r#"
await send({"type": "websocket.accept"})
message = await receive()
again = await receive()
try:
    await send({"type": "websocket.send", "text": "anyone?"})
    log.put_nowait("sent")
except OSError:
    log.put_nowait([message["code"], again["code"]])
"#,
        );
        let address = serve(app.clone()).await;
        drop(connect(address, "/").await);
        assert_eq!(log(&app).await, serde_json::json!([1006, 1006]));
        // A close frame without a code.
        let (mut socket, _) = connect(address, "/").await;
        socket.close(None).await.unwrap();
        assert_eq!(log(&app).await, serde_json::json!([1005, 1005]));
    });
}

#[test]
fn a_client_that_leaves_during_the_handshake_is_a_disconnect() {
    run(async {
        let app = start_socket("log.put_nowait((await receive())['code'])");
        let address = serve(app.clone()).await;
        let waiting = tokio::time::timeout(Duration::from_millis(50), connect(address, "/")).await;
        assert!(waiting.is_err());
        assert_eq!(log(&app).await, 1006);
    });
}

#[test]
fn a_message_that_is_too_big_is_code_1009() {
    run(async {
        let app = start_socket(
            "await send({'type': 'websocket.accept'})\nlog.put_nowait((await receive())['code'])",
        )
        .max_message_size(1000);
        let (mut socket, _) = connect(serve(app.clone()).await, "/").await;
        socket.send(Message::binary(vec![0; 1001])).await.unwrap();
        assert_eq!(closed(socket.next().await).0, 1009);
        assert_eq!(log(&app).await, 1009);
    });
}

/// Neither side reads more of the other than its queue holds.
#[test]
fn both_ways_wait_for_the_other_side() {
    run(async {
        let app = start(
            r#"
sent = 0
@http_only
async def app(scope, receive, send):
    global sent
    if scope["type"] == "http":
        return await reply(send, sent)
    await receive()
    await send({"type": "websocket.accept"})
    for _ in range(400):
        await send({"type": "websocket.send", "bytes": b"x" * 100_000})
        sent += 1
    total = 0
    while (message := await receive())["type"] != "websocket.disconnect":
        total += len(message["bytes"])
    sent = total
"#,
        );
        let address = serve(app.clone()).await;
        let (socket, _) = connect(address, "/").await;
        // 40 MB do not fit into the buffers of a connection.
        let mut last = u64::MAX;
        loop {
            let sent = json(call(&app, get("/")).await).await.as_u64().unwrap();
            assert!(sent < 400);
            if sent == last {
                break;
            }
            last = sent;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (mut sink, mut stream) = socket.split();
        let writer = tokio::spawn(async move {
            for _ in 0..400 {
                sink.send(Message::binary(vec![0; 100_000])).await.unwrap();
            }
            sink
        });
        for _ in 0..400 {
            assert_eq!(stream.next().await.unwrap().unwrap().len(), 100_000);
        }
        let mut sink = writer.await.unwrap();
        sink.close().await.unwrap();
        while stream.next().await.is_some() {}
        while json(call(&app, get("/")).await).await != 40_000_000 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn mistakes_are_told() {
    run(async {
        let app = start_socket(
            r#"
errors = []
async def wrong(message, kind):
    try:
        await send(message)
        errors.append(message)
    except kind as error:
        assert str(error)
await wrong({"type": "websocket.send", "text": "early"}, RuntimeError)
await wrong({"type": "http.response.start", "status": 200}, RuntimeError)
await wrong({"type": "websocket.accept", "headers": [(b"a", b"\r\n")]}, ValueError)
await wrong({"type": "websocket.accept", "subprotocol": "\n"}, ValueError)
await send({"type": "websocket.accept"})
await wrong({"type": "websocket.accept"}, RuntimeError)
await wrong({"type": "websocket.http.response.start", "status": 200}, RuntimeError)
await wrong({"type": "websocket.send"}, ValueError)
await wrong({"type": "websocket.send", "text": "a", "bytes": b"b"}, ValueError)
await wrong({"type": "websocket.send", "text": b"a"}, TypeError)
await wrong({"type": "websocket.send", "bytes": "a"}, TypeError)
await wrong({"type": "websocket.close", "code": 1006}, ValueError)
await wrong({"type": "websocket.close", "reason": "x" * 124}, ValueError)
await send({"type": "websocket.send", "text": None, "bytes": b"fine"})
await send({"type": "websocket.close"})
await wrong({"type": "websocket.send", "text": "late"}, RuntimeError)
await wrong({"type": "websocket.close"}, RuntimeError)
log.put_nowait(errors)
"#,
        );
        let (mut socket, _) = connect(serve(app.clone()).await, "/").await;
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"fine"[..]));
        assert_eq!(closed(socket.next().await).0, 1000);
        assert_eq!(log(&app).await, serde_json::json!([]));
    });
}

#[test]
fn shutdown_tells_open_sockets() {
    run(async {
        let app = start_socket("await send({'type': 'websocket.accept'})\nawait receive()");
        let (mut socket, _) = connect(serve(app.clone()).await, "/").await;
        let shutdown = tokio::spawn(async move { app.shutdown().await });
        assert_eq!(closed(socket.next().await).0, 1012);
        assert!(socket.next().await.is_none());
        shutdown.await.unwrap();
    });
}

/// RFC 8441: a stream of an HTTP/2 connection.
#[test]
fn messages_go_both_ways_over_http_2() {
    run(async {
        let app = start_socket(
            r#"
assert scope["http_version"] == "2" and scope["path"] == "/h2", scope
assert dict(scope["headers"])[b"host"] == b"example.org"
await send({"type": "websocket.accept", "subprotocol": "b"})
message = await receive()
await send({"type": "websocket.send", "text": message["text"] + "!"})
log.put_nowait((await receive())["code"])
"#,
        );
        let address = serve(app.clone()).await;
        let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        // The server's settings have to be here before an extended CONNECT.
        let plain = || {
            Request::get("http://example.org/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()
        };
        let settled = sender.send_request(plain());
        let mut connect = plain();
        *connect.method_mut() = http::Method::CONNECT;
        *connect.uri_mut() = "http://example.org/h2".parse().unwrap();
        connect.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        connect.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        connect.headers_mut().insert("sec-websocket-protocol", "a, b".parse().unwrap());
        let mut response = loop {
            match sender.send_request(connect.clone()).await {
                Ok(response) => break response,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "b");
        let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(upgraded);
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        let mut socket = WebSocketStream::from_raw_socket(io, role, None).await;
        socket.send("hello".into()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello!"));
        // The server may have ended the stream by the time that this has flushed.
        let _ = socket.close(None).await;
        assert!(socket.next().await.unwrap().unwrap().is_close());
        // It waits for what the socket's application has to say.
        let seen = settled.await.unwrap().into_body();
        let seen = http_body_util::BodyExt::collect(seen).await.unwrap().to_bytes();
        assert_eq!(seen, "1005");
    });
}
