//! What only ASGI has: the lifespan, the WebSocket, and responses that wait for something else.

use std::net::TcpStream;

use tokio_tungstenite::tungstenite::client::{ClientRequestBuilder, client};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::WebSockets;
use super::host::Site;
use super::transfer::pattern;
use crate::support::client::{Browser, Connection, Payload};
use crate::support::{PATIENCE, until};

pub(super) fn all(site: &Site, browser: &mut Browser) {
    if site.app.lifespan {
        assert_eq!(browser.get("/lifespan").json()["started"], true);
    }
    if site.app.events {
        sends_events_as_they_happen(site, browser);
    }
    if site.app.background {
        works_in_the_background(browser);
    }
    if let Some(can) = site.app.websocket {
        speaks_websocket(site, can, browser);
    }
}

/// The second event waits for another request: were the first held back, neither would come.
fn sends_events_as_they_happen(site: &Site, browser: &mut Browser) {
    let mut events = Connection::open(site.server.addr);
    let path = format!("{}/events", site.hosting.prefix());
    events.send("GET", &path, &[("Accept", "text/event-stream")], &Payload::None).expect("a connection");
    let head = events.head().expect("a response");
    assert_eq!(head.status, 200, "{head:?}");
    assert!(
        head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")),
        "{head:?}"
    );
    let mut text = Vec::new();
    while !text.ends_with(b"\n\n") {
        text.extend(events.chunk().expect("a chunk").expect("not the end"));
    }
    assert_eq!(String::from_utf8_lossy(&text).replace("data:first", "data: first").trim_end(), "data: first");
    assert_eq!(browser.get("/release").status, 200);
    let rest = events.rest("GET", head).expect("the end");
    assert!(rest.text().replace("data:", "data: ").contains("second"), "{rest:?}");
}

/// The response is whole, as its reader sees it, while the task still runs.
fn works_in_the_background(browser: &mut Browser) {
    assert_eq!(browser.get("/background").json()["queued"], true);
    until("the task runs", || browser.get("/progress").json()["background"] == "running");
    assert_eq!(browser.get("/release").status, 200);
    until("the task is done", || browser.get("/progress").json()["background"] == "done");
}

fn speaks_websocket(site: &Site, can: WebSockets, browser: &mut Browser) {
    let mut socket = open(site, "/ws", Some("chat")).expect("a WebSocket");
    let long = "wörter ".repeat(10_000);
    for text in ["hello", "", &*long] {
        assert_eq!(echo(&mut socket, Message::text(text)), Message::text(text));
    }
    // Falcon's receiver takes text or bytes and has to be told which will come; the others take this for any other text.
    assert_eq!(echo(&mut socket, Message::text("bytes")), Message::text("bytes"));
    let binary = Message::binary(pattern(1 << 20));
    assert!(echo(&mut socket, binary.clone()) == binary, "other bytes");
    socket.send(Message::text("close")).expect("an open connection");
    match socket.read() {
        Ok(Message::Close(Some(frame))) if can.close_code => {
            assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, "bye"));
        }
        Ok(Message::Close(_)) | Err(_) if !can.close_code => {}
        other => panic!("{other:?} where a close frame should be"),
    }

    let mut socket = open(site, "/ws", None).expect("a WebSocket");
    assert_eq!(echo(&mut socket, Message::text("hello")), Message::text("hello"));
    let frame = CloseFrame { code: 3001.into(), reason: "enough".into() };
    socket.close(Some(frame)).expect("an open connection");
    while socket.read().is_ok() {}
    let code = if can.closed_code { serde_json::json!(3001) } else { "gone".into() };
    until("the application knows with which code its client went", || {
        browser.get("/closed").json()["code"] == code
    });

    if can.denies {
        match open(site, "/ws/denied", None) {
            Err(Error::Http(response)) => assert_eq!(response.status(), 403),
            other => panic!("{:?} where a refusal should be", other.map(|_| ())),
        }
    }
}

fn open(site: &Site, path: &str, protocol: Option<&str>) -> Result<WebSocket<TcpStream>, Error> {
    let stream = TcpStream::connect(site.server.addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let url = format!("ws://{}{}{path}", site.server.addr, site.hosting.prefix());
    let mut request = ClientRequestBuilder::new(url.parse().expect("a URL"));
    if let Some(protocol) = protocol {
        request = request.with_sub_protocol(protocol);
    }
    let (socket, response) = client(request, stream).map_err(|error| match error {
        tokio_tungstenite::tungstenite::HandshakeError::Failure(error) => error,
        tokio_tungstenite::tungstenite::HandshakeError::Interrupted(_) => panic!("no answer in time"),
    })?;
    let agreed = response.headers().get("sec-websocket-protocol");
    assert_eq!(agreed.and_then(|value| value.to_str().ok()), protocol);
    Ok(socket)
}

fn echo(socket: &mut WebSocket<TcpStream>, message: Message) -> Message {
    socket.send(message).expect("an open connection");
    loop {
        match socket.read().expect("a message") {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}
