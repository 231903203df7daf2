//! Handshakes that are none, and applications whose answer to one holds a client's words.

use serde_json::json;

use crate::faults::asgi::{take_close, upgrade};
use crate::faults::support::{Wire, hex, responses, show, unharmed};

/// A handshake, with a header left out or replaced by others.
fn altered(name: &str, by: &str) -> Vec<u8> {
    let text = String::from_utf8(upgrade("/", "")).expect("text");
    let lines = text.split_inclusive("\r\n").map(|line| if line.starts_with(name) { by } else { line });
    lines.collect::<String>().into_bytes()
}

/// None of these becomes a WebSocket. Those that ask for no upgrade are requests.
#[test]
fn c3_a_handshake_that_is_none_opens_no_socket() {
    const KEY: &str = "Sec-WebSocket-Key: ";
    let refused: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no key", altered("Sec-WebSocket-Key", ""), 400),
        ("an empty key", altered("Sec-WebSocket-Key", &format!("{KEY}\r\n")), 400),
        ("a short key", altered("Sec-WebSocket-Key", &format!("{KEY}AAAA\r\n")), 400),
        ("a long key", altered("Sec-WebSocket-Key", &format!("{KEY}{}\r\n", "A".repeat(1000))), 400),
        ("a key with a line's end", altered("Sec-WebSocket-Key", &format!("{KEY}AAAA\r\n AAAA\r\n")), 400),
        ("no version", altered("Sec-WebSocket-Version", ""), 426),
        ("version 12", altered("Sec-WebSocket-Version", "Sec-WebSocket-Version: 12\r\n"), 426),
        ("version 8", altered("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8\r\n"), 426),
        ("version 013", altered("Sec-WebSocket-Version", "Sec-WebSocket-Version: 013\r\n"), 426),
        ("no upgrade", altered("Upgrade", ""), 200),
        ("another upgrade", altered("Upgrade", "Upgrade: h2c\r\n"), 200),
        ("half a word", altered("Upgrade", "Upgrade: websock\r\n"), 200),
        ("no connection", altered("Connection", ""), 200),
        ("another connection", altered("Connection", "Connection: keep-alive\r\n"), 200),
        ("POST", altered("GET", "POST / HTTP/1.1\r\n"), 200),
        ("HEAD", altered("GET", "OPTIONS / HTTP/1.1\r\n"), 200),
        ("HTTP/1.0", altered("GET", "GET / HTTP/1.0\r\n"), 200),
    ];
    unharmed("app:asgi", move |site, every| {
        for (what, handshake, status) in refused.iter().step_by(every) {
            let mut wire = Wire::open(site.addr);
            // What is behind it is a frame to whoever believes that it is one, and no request to anybody else.
            wire.send(
                &[handshake, &b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"[..]].concat(),
            );
            let bytes = wire.rest();
            let seen = responses(&bytes, "GET");
            assert_eq!(seen[0].status, *status, "{what}: {}", show(&bytes));
            assert!(seen[1..].iter().all(|seen| seen.body == b"ok"), "{what}: {}", show(&bytes));
            let notes = site.notes();
            assert!(!notes.contains_key("opened"), "{what}: {notes:?}");
        }
    });
}

/// Nothing is compressed: a message is as big as it is, whatever a client offers.
#[test]
fn c3_no_extension_of_a_websocket_is_agreed_upon() {
    unharmed("app:asgi", |site, _| {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "x-webkit-deflate-frame",
            "eve",
        ] {
            let mut wire = Wire::open(site.addr);
            wire.send(&upgrade("/", &format!("Sec-WebSocket-Extensions: {offer}\r\n")));
            wire.send(b"\x88\x82\0\0\0\0\x03\xe8");
            let came = take_close(&mut wire);
            let seen = responses(&came, "GET").remove(0);
            assert_eq!(
                (seen.status, seen.header("sec-websocket-extensions")),
                (101, None),
                "{offer}: {seen:?}"
            );
        }
        site.notes_become("all are told", |notes| notes.get("left 1000") == Some(&4));
    });
}

/// Where a handshake is from is what the application is told, word for word: it decides. Nothing else of the handshake is believed.
#[test]
fn c3_a_handshakes_origin_is_the_applications_to_judge() {
    const CODE: &str = "async def app(scope, receive, send):\n import json\n await receive()\n shown = {name: scope[name] for name in ('type', 'scheme', 'root_path', 'path', 'subprotocols')}\n shown['origin'] = [value.decode('latin-1') for name, value in scope['headers'] if name == b'origin']\n await send({'type': 'websocket.accept'})\n await send({'type': 'websocket.close', 'reason': json.dumps([shown['origin'], shown['scheme'], len(shown['subprotocols'])])})";
    unharmed("app:asgi", |site, _| {
        for (headers, expected) in [
            ("", json!([[], "ws", 0])),
            ("Origin: http://eve\r\n", json!([["http://eve"], "ws", 0])),
            ("Origin: null\r\n", json!([["null"], "ws", 0])),
            ("Origin: http://a\r\nOrigin: http://eve\r\n", json!([["http://a", "http://eve"], "ws", 0])),
            ("X-Forwarded-Proto: https\r\nForwarded: proto=wss\r\n", json!([[], "ws", 0])),
            ("Sec-WebSocket-Protocol: a, b,,c\r\nSec-WebSocket-Protocol: d\r\n", json!([[], "ws", 4])),
            ("Sec-WebSocket-Protocol: ,\r\n", json!([[], "ws", 0])),
        ] {
            let mut wire = Wire::open(site.addr);
            wire.send(&upgrade("/run", &format!("{headers}X-Code: {}\r\n", hex(CODE))));
            let came = take_close(&mut wire);
            let seen = responses(&came, "GET").remove(0);
            let reason: serde_json::Value = serde_json::from_slice(&seen.body[4..]).expect("JSON");
            assert_eq!(reason, expected, "{headers}");
        }
    });
}

/// Runs an application that answers a handshake with a message.
fn accept(message: &str) -> String {
    format!(
        "async def app(scope, receive, send):\n await receive()\n try: await send({{'type': 'websocket.accept', {message}}})\n except (ValueError, TypeError): return await send({{'type': 'websocket.close'}})\n await send({{'type': 'websocket.close'}})"
    )
}

/// No byte of a subprotocol or a header ends its line, and none of the headers that make an upgrade is the application's.
#[test]
fn c3_no_byte_of_an_accepted_handshake_splits_it() {
    unharmed("app:asgi", |site, every| {
        let ask = |message: &str| {
            let mut wire = Wire::open(site.addr);
            wire.send(&upgrade("/run", &format!("X-Code: {}\r\n", hex(&accept(message)))));
            let came = take_close(&mut wire);
            responses(&came, "GET").remove(0)
        };
        for byte in (0..=255_u8).step_by(every) {
            let is_value = byte == b'\t' || (b' '..0x7f).contains(&byte);
            let seen = ask(&format!("'subprotocol': 'a' + chr({byte}) + 'b'"));
            assert_eq!(seen.status, if is_value || byte >= 0x80 { 101 } else { 403 }, "{byte}: {seen:?}");
            if seen.status == 101 {
                let expected = format!("a{}b", char::from(byte));
                assert_eq!(
                    seen.header("sec-websocket-protocol"),
                    Some(expected.as_bytes()),
                    "{byte}: {seen:?}"
                );
            }
            let seen = ask(&format!("'headers': [(b'x-a', b'a' + bytes([{byte}]) + b'b')]"));
            assert_eq!(seen.status, if is_value || byte >= 0x80 { 101 } else { 403 }, "{byte}: {seen:?}");
            if seen.status == 101 {
                assert_eq!(seen.header("x-a"), Some(&[b'a', byte, b'b'][..]), "{byte}: {seen:?}");
            }
            let seen = ask(&format!("'headers': [(b'x-a' + bytes([{byte}]), b'b')]"));
            let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(seen.status, if is_token { 101 } else { 403 }, "{byte}: {seen:?}");
        }
        for header in [
            "Connection",
            "Upgrade",
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Extensions",
            "Content-Length",
            "Transfer-Encoding",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
        ] {
            let seen = ask(&format!("'headers': [(b'{header}', b'5'), (b'x-a', b'b')]"));
            assert_eq!(seen.status, 101, "{header}: {seen:?}");
            assert_eq!(seen.header("x-a"), Some(&b"b"[..]));
            assert!(seen.headers.iter().all(|(_, value)| value != b"5"), "{header}: {seen:?}");
            // RFC 6455's own example, for the key of nothing but zeros.
            assert_eq!(seen.headers.iter().filter(|(name, _)| name == "sec-websocket-accept").count(), 1);
        }
    });
}

/// A close frame has room for a code and 123 bytes: more is an error of the application's, and no frame that its client could not read.
#[test]
fn c3_a_close_reason_is_whole_or_an_error() {
    unharmed("app:asgi", |site, every| {
        for (text, length) in (0..140)
            .flat_map(|length| [("x", length), ("\u{e9}", length), ("\u{10ffff}", length)])
            .step_by(every)
        {
            let code = format!(
                "async def app(scope, receive, send):\n await receive()\n await send({{'type': 'websocket.accept'}})\n try: await send({{'type': 'websocket.close', 'code': 4000, 'reason': '{text}' * {length}}})\n except ValueError: await send({{'type': 'websocket.close', 'code': 4001}})"
            );
            let mut wire = Wire::open(site.addr);
            wire.send(&upgrade("/run", &format!("X-Code: {}\r\n", hex(&code))));
            let came = take_close(&mut wire);
            let seen = responses(&came, "GET").remove(0);
            let reason = text.repeat(length);
            let expected = match u8::try_from(reason.len()) {
                Ok(bytes @ ..=123) => [&[0x88, bytes + 2, 0x0f, 0xa0], reason.as_bytes()].concat(),
                _ => b"\x88\x02\x0f\xa1".to_vec(),
            };
            assert_eq!(seen.body, expected, "{length} of {text:?}");
        }
    });
}
