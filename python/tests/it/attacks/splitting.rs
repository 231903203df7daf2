//! Responses that a client's word is put into: no byte of it ends a header, a head or a response.

use crate::faults::support::{Seen, Site, Wire, hex, responses, show, unharmed};

/// Asks for one application for each byte, all on one connection; the responses, in the same order.
fn each_byte(site: &Site, code: impl Fn(u8) -> String, more: &str) -> Vec<Seen> {
    let mut requests = String::new();
    for byte in 0..=255 {
        let close = if byte == 255 { "Connection: close\r\n" } else { "" };
        requests +=
            &format!("GET /run HTTP/1.1\r\nHost: a\r\nX-Code: {}\r\n{more}{close}\r\n", hex(&code(byte)));
    }
    let mut wire = Wire::open(site.addr);
    wire.send(requests.as_bytes());
    let bytes = wire.rest();
    let seen = responses(&bytes, "GET");
    assert_eq!(seen.len(), 256, "a response for each request");
    seen
}

/// A response is a clean 500, or it is what it should be and nothing else.
fn check(
    seen: &[Seen],
    what: &str,
    may: fn(u8) -> bool,
    name: impl Fn(u8) -> String,
    value: impl Fn(u8) -> Vec<u8>,
) {
    for (byte, seen) in (0..=255).zip(seen) {
        let known = |(name, _): &&(String, Vec<u8>)| {
            ["content-length", "transfer-encoding", "date", "connection", "content-type"]
                .contains(&name.as_str())
        };
        assert!(seen.whole, "{what}, byte {byte}: {seen:?}");
        if !may(byte) {
            assert_eq!(
                (seen.status, &*seen.body),
                (500, &b"Internal Server Error\n"[..]),
                "{what}, byte {byte}: {seen:?}"
            );
            assert!(seen.headers.iter().all(|header| known(&header)), "{what}, byte {byte}: {seen:?}");
            continue;
        }
        assert_eq!((seen.status, &*seen.body), (200, &b"body"[..]), "{what}, byte {byte}: {seen:?}");
        let own: Vec<_> = seen.headers.iter().filter(|header| !known(header)).collect();
        assert_eq!(own.len(), 1, "{what}, byte {byte}: {seen:?}");
        assert_eq!(own[0].0, name(byte), "{what}, byte {byte}: {seen:?}");
        assert_eq!(
            own[0].1.trim_ascii(),
            value(byte).trim_ascii(),
            "{what}, byte {byte}: {}",
            show(&own[0].1)
        );
    }
}

/// RFC 9110, section 5.5.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Where in a value the byte is.
const PLACES: [(&str, &str); 3] = [("", "b"), ("b", ""), ("b", "c")];

#[test]
fn c3_no_byte_of_a_wsgi_header_or_status_splits_a_response() {
    unharmed("app:wsgi", |site, _| {
        let app = |head: String| {
            format!("def app(environ, start_response):\n start_response({head})\n return [b'body']")
        };
        for (before, after) in PLACES {
            let seen = each_byte(
                site,
                |byte| app(format!("'200 OK', [('x-a', '{before}' + chr({byte}) + '{after}')]")),
                "",
            );
            check(
                &seen,
                "value",
                is_value,
                |_| "x-a".to_owned(),
                |byte| [before.as_bytes(), &[byte], after.as_bytes()].concat(),
            );
            let seen = each_byte(
                site,
                |byte| app(format!("'200 OK', [('x' + '{before}' + chr({byte}) + '{after}', 'b')]")),
                "",
            );
            check(
                &seen,
                "name",
                is_token,
                |byte| format!("x{before}{}{after}", char::from(byte).to_ascii_lowercase()),
                |_| b"b".to_vec(),
            );
            let seen = each_byte(
                site,
                |byte| app(format!("'200 x{before}' + chr({byte}) + '{after}', [('x-a', 'b')]")),
                "",
            );
            check(&seen, "reason", is_value, |_| "x-a".to_owned(), |_| b"b".to_vec());
            for (byte, seen) in (0..=255).zip(&seen).filter(|(byte, _)| is_value(*byte)) {
                let line = [b"HTTP/1.1 200 x", before.as_bytes(), &[byte], after.as_bytes()].concat();
                assert_eq!(seen.line, line, "{byte}");
            }
        }
        // Behind a first byte it is too late for a 500: then nothing is sent at all.
        let seen = each_byte(
            site,
            |byte| {
                format!(
                    "def app(environ, start_response):\n write = start_response('200 OK', [('x-a', 'b' + chr({byte}))])\n write(b'bo')\n return [b'dy']"
                )
            },
            "",
        );
        check(&seen, "write", is_value, |_| "x-a".to_owned(), |byte| vec![b'b', byte]);
    });
}

#[test]
fn c3_no_byte_of_an_asgi_header_or_trailer_splits_a_response() {
    unharmed("app:asgi", |site, _| {
        let app = |headers: String| {
            format!(
                "async def app(scope, receive, send):\n await send({{'type': 'http.response.start', 'status': 200, 'headers': {headers}}})\n await send({{'type': 'http.response.body', 'body': b'body'}})"
            )
        };
        for (before, after) in PLACES {
            let seen = each_byte(
                site,
                |byte| app(format!("[(b'x-a', b'{before}' + bytes([{byte}]) + b'{after}')]")),
                "",
            );
            check(
                &seen,
                "value",
                is_value,
                |_| "x-a".to_owned(),
                |byte| [before.as_bytes(), &[byte], after.as_bytes()].concat(),
            );
            let seen = each_byte(
                site,
                |byte| app(format!("[(b'x{before}' + bytes([{byte}]) + b'{after}', b'b')]")),
                "",
            );
            check(
                &seen,
                "name",
                is_token,
                |byte| format!("x{before}{}{after}", char::from(byte).to_ascii_lowercase()),
                |_| b"b".to_vec(),
            );
        }
        // A trailer that cannot be is not sent, and the application is told: there is one of its own behind it.
        let trailers = |byte| {
            format!(
                "async def app(scope, receive, send):\n await send({{'type': 'http.response.start', 'status': 200, 'trailers': True, 'headers': [(b'x-a', b'b'), (b'trailer', b'x-t')]}})\n await send({{'type': 'http.response.body', 'body': b'body'}})\n try: await send({{'type': 'http.response.trailers', 'headers': [(b'x-t', b'c' + bytes([{byte}]))]}})\n except ValueError: await send({{'type': 'http.response.trailers'}})"
            )
        };
        let mut requests = String::new();
        for byte in 0..=255 {
            let close = if byte == 255 { ", close" } else { "" };
            requests += &format!(
                "GET /run HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE{close}\r\nX-Code: {}\r\n\r\n",
                hex(&trailers(byte))
            );
        }
        let mut wire = Wire::open(site.addr);
        wire.send(requests.as_bytes());
        let bytes = wire.rest();
        let seen = responses(&bytes, "GET");
        assert_eq!(seen.len(), 256);
        assert!(seen.iter().all(|seen| seen.whole && seen.status == 200 && seen.body == b"body"));
    });
}

/// What frames a message is the server's, whatever an application says of it.
#[test]
fn c3_framing_headers_of_an_application_never_reach_the_wire() {
    const FRAMING: [&[(&str, &str)]; 12] = [
        &[("Transfer-Encoding", "chunked")],
        &[("Transfer-Encoding", "chunked"), ("Content-Length", "4")],
        &[("Content-Length", "4"), ("Transfer-Encoding", "chunked")],
        &[("transfer-encoding", "identity")],
        &[("TRANSFER-ENCODING", "gzip, chunked")],
        &[("Connection", "close")],
        &[("Connection", "keep-alive, x-secret"), ("x-secret", "b")],
        &[("Connection", "content-length"), ("Content-Length", "4")],
        &[("Keep-Alive", "timeout=1000")],
        &[("Proxy-Connection", "keep-alive")],
        &[("Upgrade", "h2c"), ("Connection", "Upgrade")],
        &[("TE", "trailers")],
    ];
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, move |site, every| {
            for headers in FRAMING.iter().step_by(every) {
                let code = if target == "app:wsgi" {
                    let pairs: Vec<_> =
                        headers.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
                    format!(
                        "def app(environ, start_response):\n start_response('200 OK', [{}])\n return [b'body']",
                        pairs.join(", ")
                    )
                } else {
                    let pairs: Vec<_> =
                        headers.iter().map(|(name, value)| format!("(b'{name}', b'{value}')")).collect();
                    format!(
                        "async def app(scope, receive, send):\n await send({{'type': 'http.response.start', 'status': 200, 'headers': [{}]}})\n await send({{'type': 'http.response.body', 'body': b'body'}})",
                        pairs.join(", ")
                    )
                };
                let mut wire = Wire::open(site.addr);
                let run = format!("GET /run HTTP/1.1\r\nHost: a\r\nX-Code: {}\r\n\r\n", hex(&code));
                wire.send(
                    &[run.as_bytes(), b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat(),
                );
                let bytes = wire.rest();
                let seen = responses(&bytes, "GET");
                assert_eq!(seen.len(), 2, "{headers:?}: {}", show(&bytes));
                let mut names: Vec<_> = seen[0].headers.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                assert_eq!(names, ["content-length", "date"], "{headers:?}: {}", show(&bytes));
                assert_eq!((&*seen[0].body, &*seen[1].body), (&b"body"[..], &b"ok"[..]));
            }
        });
    }
}
