//! Bodies that are longer or shorter than declared, in both directions, and chunks that are none.

use super::support::{Manner, Site, Wire, hex, responses, show, unharmed};

/// Chunked bodies that are none. What is before the fault is a good chunk, so that the application has begun.
const CHUNKS: &[&[u8]] = &[
    b"x\r\nhello\r\n0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5 5\r\nhello\r\n0\r\n\r\n",
    b"5,5\r\nhello\r\n0\r\n\r\n",
    b"5_0\r\nhello\r\n0\r\n\r\n",
    b"5\xff\r\nhello\r\n0\r\n\r\n",
    b"5\0\r\nhello\r\n0\r\n\r\n",
    b"g\r\nhello\r\n0\r\n\r\n",
    // More than fits into 64 bits, and as much.
    b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    b"00000000000000000000000000000000000000000000000000000000000000000000000000000000000x\r\nhello\r\n0\r\n\r\n",
    // Lines that do not end as lines do.
    b"5\nhello\n0\n\n",
    b"5\rhello\r\n0\r\n\r\n",
    b"5\r\rhello\r\n0\r\n\r\n",
    b"5\n\rhello\r\n0\r\n\r\n",
    b"5;a\nhello\r\n0\r\n\r\n",
    b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    // Chunks that are longer or shorter than they say.
    b"4\r\nhello\r\n0\r\n\r\n",
    b"6\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhelloxx0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n",
    // Ends that are none.
    b"5\r\nhello\r\n0\r\nno trailer\r\n\r\n",
    b"5\r\nhello\r\n0\r\n: x\r\n\r\n",
    b"5\r\nhello\r\n0\r\na b: x\r\n\r\n",
    b"5\r\nhello\r\n0x\r\n\r\n",
    b"5\r\nhello\r\n\r\n\r\n",
];

/// Nobody takes what came for a body, and what follows is no request.
fn bad_chunks_are_no_body(site: &Site, every: usize) {
    for chunks in CHUNKS.iter().step_by(every) {
        for before in [&b""[..], b"5\r\nfirst\r\n"] {
            let mut wire = Wire::open(site.addr);
            let request = [
                b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                before,
                chunks,
                b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            ];
            wire.send(&request.concat());
            let bytes = wire.leave(Manner::HalfClose);
            let seen = responses(&bytes, "POST");
            // An application that was told of it fails, one that was not asked has its client told.
            assert!(seen.len() <= 1, "{}: {seen:?}", show(chunks));
            assert!(seen.iter().all(|answer| answer.status == 400), "{}: {seen:?}", show(chunks));
        }
    }
    let seen = site.notes();
    assert!(seen.keys().all(|name| name == "broken"), "{seen:?}");
}

#[test]
fn a2_chunks_that_are_none_are_no_body_for_a_wsgi_application() {
    unharmed("app:wsgi", bad_chunks_are_no_body);
}

#[test]
fn a2_chunks_that_are_none_are_no_body_for_an_asgi_application() {
    unharmed("app:asgi", bad_chunks_are_no_body);
}

/// Each length from nothing to all with each number of bytes: less is no body, more is the next request.
fn uploads_are_what_they_declare(site: &Site, every: usize) {
    let body = b"GET /s HTTP/1.1\r\n";
    let mut complete = 0;
    for declared in (0..=body.len()).step_by(every) {
        for sent in 0..=body.len() {
            let mut wire = Wire::open(site.addr);
            let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {declared}\r\n\r\n");
            wire.send(&[head.as_bytes(), &body[..sent]].concat());
            // Nothing but a whole head would be another request.
            if sent < declared {
                let seen = responses(&wire.leave(Manner::HalfClose), "POST");
                assert!(seen.iter().all(|answer| answer.status == 400), "{sent} of {declared}: {seen:?}");
                continue;
            }
            complete += 1;
            let head = wire.head();
            assert!(head.starts_with(b"HTTP/1.1 200"), "{sent} of {declared}: {}", show(&head));
        }
    }
    let seen = site.notes_become("all that were whole", |seen| {
        seen.iter().filter(|(name, _)| name.starts_with("upload")).map(|(_, count)| count).sum::<u64>()
            >= complete
    });
    for (name, count) in &seen {
        let Some(got) = name.strip_prefix("upload ") else {
            assert_eq!(name, "broken");
            continue;
        };
        assert_eq!(got.as_bytes(), &body[..got.len()], "{seen:?}");
        assert_eq!(*count, (body.len() - got.len() + 1) as u64, "{got:?} in {seen:?}");
    }
}

#[test]
fn a2_uploads_of_any_length_are_what_they_declare_in_wsgi() {
    unharmed("app:wsgi", uploads_are_what_they_declare);
}

#[test]
fn a2_uploads_of_any_length_are_what_they_declare_in_asgi() {
    unharmed("app:asgi", uploads_are_what_they_declare);
}

/// How a WSGI application sends `{n}` bytes.
const WSGI: [&str; 6] = [
    "return [b'abcdef'[:{n}]]",
    "return [bytes([byte]) for byte in b'abcdef'[:{n}]]",
    "return (b'abcdef'[i:i + 1] for i in range({n}))",
    "write = start; return map(write, ()) if not {n} else (write(b'abcdef'[:{n}]), [])[1]",
    "import io; return environ['wsgi.file_wrapper'](io.BytesIO(b'abcdef'[:{n}]), 2)",
    "class Body:\n  def __iter__(self): return iter([b'', b'abcdef'[:{n}], b''])\n  def close(self): note('closed')\n return Body()",
];

/// The same for an ASGI one.
const ASGI: [&str; 4] = [
    "await send({'type': 'http.response.body', 'body': b'abcdef'[:{n}]})",
    "await send({'type': 'http.response.body', 'body': b'abcdef'[:{n}], 'more_body': True})\n await send({'type': 'http.response.body'})",
    "for i in range({n}): await send({'type': 'http.response.body', 'body': b'abcdef'[i:i + 1], 'more_body': True})\n await send({'type': 'http.response.body'})",
    "await asyncio.sleep(0)\n for i in range({n}): await send({'type': 'http.response.body', 'body': b'abcdef'[i:i + 1], 'more_body': True}), await asyncio.sleep(0)\n await send({'type': 'http.response.body'})",
];

/// What goes out has the declared length, or is visibly cut off, or is a 500; and the next response is where it should be.
fn responses_keep_their_length(site: &Site, every: usize, ways: &[&str], frame: fn(usize, &str) -> String) {
    for (number, way) in ways.iter().enumerate() {
        for (declared, sent) in (0..49).map(|both| (both / 7, both % 7)).step_by(every) {
            let code = frame(declared, &way.replace("{n}", &sent.to_string()));
            for method in ["GET", "HEAD"] {
                let mut wire = Wire::open(site.addr);
                let run = format!("{method} /run HTTP/1.1\r\nHost: a\r\nX-Code: {}\r\n\r\n", hex(&code));
                let next = format!("{method} /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                wire.send(&[run, next].concat().into_bytes());
                let bytes = wire.rest();
                let seen = responses(&bytes, method);
                let what = format!("way {number}, {sent} of {declared}, {method}: {}", show(&bytes));
                let first = seen.first().expect(&what);
                match (first.status, method) {
                    (200, "HEAD") => {}
                    (200, _) if sent < declared => {
                        assert!(!first.whole && seen.len() == 1, "{what}");
                        assert_eq!(first.body, &b"abcdef"[..sent], "{what}");
                        continue;
                    }
                    (200, _) => assert_eq!(first.body, &b"abcdef"[..declared], "{what}"),
                    // `write` says what goes over: before the first byte that is as any other exception.
                    (500, _) => {
                        assert!(sent < declared || sent > 0 && declared == 0, "{what}");
                        assert!(method == "HEAD" || first.body == b"Internal Server Error\n", "{what}");
                    }
                    _ => panic!("{what}"),
                }
                assert!(first.whole && seen.len() == 2, "{what}");
                assert_eq!(seen[1].status, 200, "{what}");
                assert_eq!(seen[1].body, if method == "HEAD" { b"" } else { &b"ok"[..] }, "{what}");
            }
        }
    }
}

#[test]
fn a7_a_wsgi_response_has_the_length_that_it_declares_or_is_cut_off() {
    unharmed("app:wsgi", |site, every| {
        responses_keep_their_length(site, every, &WSGI, |declared, way| {
            format!(
                "def app(environ, start_response):\n start = start_response('200 OK', [('Content-Length', '{declared}')])\n {way}"
            )
        });
    });
}

#[test]
fn a7_an_asgi_response_has_the_length_that_it_declares_or_is_cut_off() {
    unharmed("app:asgi", |site, every| {
        responses_keep_their_length(site, every, &ASGI, |declared, way| {
            format!(
                "async def app(scope, receive, send):\n await send({{'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'{declared}')]}})\n {way}"
            )
        });
    });
}

/// What Python's lengths can be beside the right ones.
#[test]
fn a7_lengths_that_are_none_are_a_500() {
    unharmed("app:wsgi", |site, _| {
        for value in
            ["-1", "+1", "1.0", "0x1", "1e0", "one", "", "1, 1", "1_0", "\\xb2", "18446744073709551616"]
        {
            let code = format!(
                "def app(environ, start_response):\n start_response('200 OK', [('Content-Length', '{value}')])\n return [b'x']"
            );
            let request = format!(
                "GET /run HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Code: {}\r\n\r\n",
                hex(&code)
            );
            let seen = site.ask(request.as_bytes());
            assert_eq!((seen.status, seen.whole), (500, true), "{value:?}: {seen:?}");
        }
    });
}
