//! HTTP/2 by the frame: pseudo headers, lengths and resets that no client library would send.

use std::io::{Read as _, Write as _};

use http::{Request, Response};
use tower_wsgi::{Input, WorkerPool, WsgiLayer, WsgiService};

use tower::Layer as _;

use crate::support::{Events, Gate, Server, blocking, eventually, idle, serve, soon, text};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Header<'a> = (&'a [u8], &'a [u8]);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A length as HPACK has it, without Huffman's code.
fn length(value: &[u8], block: &mut Vec<u8>) {
    match value.len() {
        short @ ..127 => block.push(u8::try_from(short).expect("a byte")),
        mut rest => {
            block.push(127);
            rest -= 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).expect("a byte") | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("a byte"));
        }
    }
}

/// Headers as literals, byte by byte.
fn block(headers: &[Header<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        length(name, &mut block);
        block.extend_from_slice(name);
        length(value, &mut block);
        block.extend_from_slice(value);
    }
    block
}

fn hello() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..]].concat()
}

/// A whole request for `/after` that is as it should be.
fn after(stream: u32) -> Vec<u8> {
    let headers: [Header<'_>; 4] =
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/after"), (b":authority", b"a")];
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&headers))
}

/// What came of a stream, or of all of them.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// A head, by its first byte: 0x88 is a 200.
    Head(u32, u8),
    Reset(u32, u32),
    GoAway(u32),
}

/// Sends frames, and reads until the stream `last` has ended, or the connection has.
async fn talk(server: &Server, frames: Vec<u8>, last: u32) -> Vec<Came> {
    let mut stream = server.connect();
    let talking = blocking(move || {
        let mut writer = stream.try_clone().expect("a socket");
        // The server may have closed before all of it was sent.
        let sending = std::thread::spawn(move || writer.write_all(&frames).is_ok());
        let mut came = Vec::new();
        let mut head = [0; 9];
        while stream.read_exact(&mut head).is_ok() {
            let [a, b, c, kind, flags, id @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if stream.read_exact(&mut payload).is_err() {
                break;
            }
            let (id, code) = (u32::from_be_bytes(id), |at| {
                u32::from_be_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]])
            });
            match kind {
                HEADERS => came.push(Came::Head(id, payload[0])),
                RST_STREAM => came.push(Came::Reset(id, code(0))),
                GOAWAY => came.push(Came::GoAway(code(4))),
                _ => {}
            }
            let ended = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 || kind == RST_STREAM;
            if ended && id == last || kind == GOAWAY {
                break;
            }
        }
        drop(stream);
        let _ = sending.join();
        came
    });
    soon(talking).await
}

/// A handler that tells what it was called for, and whether its body came whole.
fn app(
    tell: impl Fn(String) + Clone + Send + Sync + 'static,
) -> impl Fn(Request<Input>) -> Response<String> + Send + Sync + 'static {
    move |mut request: Request<Input>| {
        let mut body = Vec::new();
        let read =
            request.body_mut().read_to_end(&mut body).map(|_| String::from_utf8_lossy(&body).into_owned());
        let text = format!("{} {} {read:?}", request.method(), request.uri());
        tell(text.clone());
        Response::new(text)
    }
}

/// The pseudo headers of a POST.
const POST: [Header<'static>; 4] =
    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/attack"), (b":authority", b"a")];

#[tokio::test]
async fn c3_a_head_that_http1_would_read_otherwise_reaches_no_handler() {
    let calls = Events::new();
    let server = serve(WsgiService::new(app(calls.teller()))).await;
    let with = |more: &[Header<'static>]| [&POST, more].concat();
    let but = |name: &'static [u8], value: &'static [u8]| {
        POST.map(|header| if header.0 == name { (name, value) } else { header }).to_vec()
    };
    let without = |name: &[u8]| POST.iter().copied().filter(|header| header.0 != name).collect::<Vec<_>>();
    let cases: Vec<(&str, Vec<Header<'static>>)> = vec![
        ("transfer-encoding", with(&[(b"transfer-encoding", b"chunked")])),
        ("connection", with(&[(b"connection", b"close")])),
        ("keep-alive", with(&[(b"keep-alive", b"timeout=5")])),
        ("proxy-connection", with(&[(b"proxy-connection", b"close")])),
        ("upgrade", with(&[(b"upgrade", b"h2c")])),
        ("te", with(&[(b"te", b"gzip")])),
        ("two lengths", with(&[(b"content-length", b"5"), (b"content-length", b"6")])),
        ("a length with a sign", with(&[(b"content-length", b"+5")])),
        ("a length of two", with(&[(b"content-length", b"5, 5")])),
        ("a capital", with(&[(b"Transfer-Encoding", b"chunked")])),
        ("a space in a name", with(&[(b"x y", b"z")])),
        ("a colon in a name", with(&[(b"x:y", b"z")])),
        ("a line's end in a name", with(&[(b"x\r\nevil", b"z")])),
        ("no name", with(&[(b"", b"z")])),
        ("a name that is not ascii", with(&[(b"\xc3\xa9", b"z")])),
        ("a line's end in a value", with(&[(b"x", b"y\r\nevil: 1")])),
        ("a newline in a value", with(&[(b"x", b"y\nevil: 1")])),
        ("a nul in a value", with(&[(b"x", b"y\0")])),
        ("an unknown pseudo header", with(&[(b":evil", b"1")])),
        ("a pseudo header of responses", with(&[(b":status", b"200")])),
        ("a pseudo header late", [&POST[1..], &[(b"x" as &[u8], b"y" as &[u8]), POST[0]]].concat()),
        ("two methods", with(&[POST[0]])),
        ("two paths", with(&[(b":path", b"/evil")])),
        ("two authorities", with(&[(b":authority", b"evil")])),
        ("no method", without(b":method")),
        ("no scheme", without(b":scheme")),
        ("no path", without(b":path")),
        ("an empty path", but(b":path", b"")),
        ("a path without a slash", but(b":path", b"attack")),
        ("a path with a host", but(b":path", b"http://evil/")),
        ("a path with a space", but(b":path", b"/a b")),
        ("a path with a line's end", but(b":path", b"/a HTTP/1.1\r\nHost: evil\r\n\r\n")),
        ("a method with a space", but(b":method", b"GET /evil HTTP/1.1")),
        ("a method with a line's end", but(b":method", b"GET\r\n")),
        ("an empty method", but(b":method", b"")),
        ("a scheme with a line's end", but(b":scheme", b"http\r\n")),
        ("an authority with a line's end", but(b":authority", b"a\r\nevil: 1")),
        ("an authority with a path", but(b":authority", b"a/evil")),
        ("an authority with a space", but(b":authority", b"a b")),
    ];
    for (name, headers) in cases {
        let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&headers));
        let came = talk(&server, [hello(), head, after(3)].concat(), 3).await;
        assert!(!came.contains(&Came::Head(1, 0x88)), "{name}: {came:?}");
        let called = calls.drain();
        assert!(called.iter().all(|call| call == "GET http://a/after Ok(\"\")"), "{name}: {called:?}");
        // What follows is answered, unless the whole connection was given up.
        let goes_on = came.contains(&Came::Head(3, 0x88));
        assert!(goes_on || came.iter().any(|came| matches!(came, Came::GoAway(_))), "{name}: {came:?}");
    }
}

#[tokio::test]
async fn c3_a_body_of_another_length_than_declared_is_no_whole_one() {
    let calls = Events::new();
    let server = serve(WsgiService::new(app(calls.teller()))).await;
    for (declared, body, prefetched) in
        [("5", "hello, you", false), ("50", "hello", false), ("0", "hello", true), ("5", "", false)]
    {
        let headers = [&POST[..], &[(b"content-length" as &[u8], declared.as_bytes())]].concat();
        let flags = if body.is_empty() { END_HEADERS | END_STREAM } else { END_HEADERS };
        let mut frames = [hello(), frame(HEADERS, flags, 1, &block(&headers))].concat();
        if !body.is_empty() {
            frames.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
        }
        frames.extend(after(3));
        let came = talk(&server, frames, 3).await;
        assert!(came.contains(&Came::Head(3, 0x88)), "{came:?}");
        let mut called = calls.drain();
        called.retain(|call| !call.starts_with("GET http://a/after"));
        // A handler of one that declared nothing may have been called before more came than that.
        let ok = called.iter().filter(|call| call.contains("Ok(")).count();
        assert!(
            ok == 0 || prefetched && called == ["POST http://a/attack Ok(\"\")"],
            "{declared} {body}: {called:?}"
        );
    }
}

#[tokio::test]
async fn a10_streams_that_are_reset_at_once_leave_nothing_behind() {
    // CVE-2023-44487: a request costs its client two frames, and must not cost the pool a place each.
    let (gate, calls, pool) = (Gate::new(), Events::new(), WorkerPool::new(1));
    let (inside, tell) = (gate.clone(), calls.teller());
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).layer(move |request: Request<Input>| {
        tell(request.uri().path().to_owned());
        if request.uri().path() == "/block" {
            inside.pass();
        }
        Response::new("hello")
    }))
    .await;
    let address = server.addr;
    let blocked = tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        stream
            .write_all(b"GET /block HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .expect("to send");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
    });
    assert_eq!(calls.next().await, "/block");
    for _ in 0..4 {
        let mut frames = hello();
        for stream in (1..2_000).step_by(2) {
            frames.extend(after(stream));
            frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        frames.extend(after(2_001));
        // It gives the connection up, or waits for the worker with the last one.
        let talking = tokio::spawn({
            let server = Server::connect(&server);
            async move {
                blocking(move || {
                    let mut stream = server;
                    let _ = stream.write_all(&frames);
                    stream
                })
                .await
            }
        });
        drop(soon(talking).await.expect("no panic"));
    }
    eventually("nobody waits any more", || pool.stats().queued == 0 && pool.stats().discards == 0).await;
    assert_eq!(pool.stats().busy, 1);
    gate.open();
    soon(blocked).await.expect("no panic");
    idle(&pool).await;
    assert_eq!(text(soon(server.get("/")).await).await, "hello");
    assert_eq!(calls.drain(), ["/"], "one that was reset was run");
}

#[tokio::test]
async fn a10_heads_without_end_end_their_connection() {
    // CVE-2024-27316 and its kin: a head goes on in frame after frame.
    let calls = Events::new();
    let server = serve(WsgiService::new(app(calls.teller()))).await;
    let filler: Vec<Header<'static>> = vec![(b"x-filler", &[b'x'; 100]); 20];
    for part in [&block(&filler)[..], b""] {
        let mut frames = [hello(), frame(HEADERS, END_STREAM, 1, &block(&POST))].concat();
        for _ in 0..5_000 {
            frames.extend(frame(CONTINUATION, 0, 1, part));
        }
        let came = talk(&server, frames, 1).await;
        assert!(!came.contains(&Came::Head(1, 0x88)), "{came:?}");
        assert!(
            came.iter().all(|came| matches!(came, Came::GoAway(_) | Came::Reset(..) | Came::Head(..))),
            "{came:?}"
        );
        assert!(calls.drain().is_empty());
    }
    assert_eq!(soon(server.get("/")).await.status(), 200);
}
