//! HTTP/2 clients that vanish, reset, stall and break the protocol (RFC 9113): frame by frame.

use super::support::{Manner, Site, Wire, show, unharmed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn data(stream: u32, payload: &[u8], end: bool) -> Vec<u8> {
    frame(0, u8::from(end), stream, payload)
}

/// Literals without an index (RFC 7541, section 6.2.2).
fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("it is short")], text.as_bytes()].concat();
    headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn head(stream: u32, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> Vec<u8> {
    let first = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    frame(1, END_HEADERS | u8::from(end), stream, &block(&[&first, more].concat()))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &CANCEL)
}

/// What the server said of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// The first byte of a head is its status, from the static table.
    Head(u8),
    Data(Vec<u8>),
    End,
    Reset,
    /// The connection is over.
    Gone,
}

const OK: u8 = 0x88;

struct Client(Wire);

impl Client {
    fn open(site: &Site, settings: &[u8]) -> Self {
        let mut wire = Wire::open(site.addr);
        wire.send(&[PREFACE, &frame(4, 0, 0, settings)].concat());
        Self(wire)
    }

    fn send(&mut self, frame: &[u8]) {
        self.0.send(frame);
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        (0..length).map(|_| self.0.byte()).collect()
    }

    /// The next frame: its kind, flags, stream and payload.
    fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let head = self.take(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, self.take(length)?))
    }

    /// What comes next of a stream; of others nothing may.
    fn next(&mut self, stream: u32, ended: &mut bool) -> Said {
        if *ended {
            return Said::End;
        }
        loop {
            let Some((kind, flags, of, payload)) = self.frame() else { return Said::Gone };
            match kind {
                7 => return Said::Gone,
                0 | 1 if of == stream => {
                    *ended = flags & END_STREAM != 0;
                    match kind {
                        0 if payload.is_empty() && *ended => return Said::End,
                        0 => return Said::Data(payload),
                        _ => return Said::Head(payload[0]),
                    }
                }
                3 if of == stream => return Said::Reset,
                // What was on its way when its stream was reset.
                _ => {}
            }
        }
    }

    /// The whole response on a stream: its status' byte and its body; `None` if it is reset, or the connection ends.
    fn response(&mut self, stream: u32) -> Option<(u8, Vec<u8>)> {
        let (mut status, mut body, mut ended) = (0, Vec::new(), false);
        loop {
            match self.next(stream, &mut ended) {
                Said::Head(first) => status = first,
                Said::Data(data) => body.extend(data),
                Said::End => return Some((status, body)),
                Said::Reset | Said::Gone => return None,
            }
        }
    }

    /// Asks on a stream of its own whether the connection is still served.
    fn is_served(&mut self, stream: u32) -> bool {
        self.send(&head(stream, "GET", "/ok", &[], true));
        self.response(stream).is_some_and(|(status, body)| status == OK && body == b"ok")
    }
}

/// At each byte of an upload.
fn vanish(site: &Site, every: usize) {
    // Of an earlier round.
    site.notes();
    let request = [
        PREFACE.to_vec(),
        frame(4, 0, 0, &[]),
        head(1, "POST", "/upload", &[("content-length", "12"), ("x-some", "thing")], false),
        data(1, b"hello, ", false),
        data(1, b"world", true),
    ]
    .concat();
    for end in (0..=request.len()).step_by(every) {
        let mut wire = Wire::open(site.addr);
        wire.send(&request[..end]);
        wire.leave(if end % 2 == 0 { Manner::Close } else { Manner::Reset });
    }
    let mut client = Client::open(site, &[]);
    assert!(client.is_served(1));
    let seen = site.notes();
    // Of the two that were whole, or all but.
    assert!(seen.get("upload hello, world").is_none_or(|count| *count <= 1), "{seen:?}");
    assert!(seen.keys().all(|name| name == "broken" || name == "upload hello, world"), "{seen:?}");
}

#[test]
fn a2_http2_clients_that_vanish_at_each_byte_leave_nothing_in_a_wsgi_server() {
    unharmed("app:wsgi", vanish);
}

#[test]
fn a2_http2_clients_that_vanish_at_each_byte_leave_nothing_in_an_asgi_server() {
    unharmed("app:asgi", vanish);
}

/// Resets a stream at each stage of a request and its response: the others of the connection go on.
fn reset_at_each_stage(site: &Site, every: usize) {
    let mut clients = 0;
    for _ in (0..21).step_by(every) {
        let mut client = Client::open(site, &[]);
        let mut stream = 1;
        for stage in 0..9 {
            client.send(&head(stream, "POST", "/duplex", &[], false));
            let mut ended = false;
            for piece in 0..stage {
                client.send(&data(stream, b"piece", false));
                if piece == 0 {
                    assert_eq!(client.next(stream, &mut ended), Said::Head(OK));
                }
                assert_eq!(client.next(stream, &mut ended), Said::Data(b"piece".to_vec()));
            }
            client.send(&reset(stream));
            clients += u64::from(stage > 0);
            // One that is reset as its response comes, and one as it was complete.
            client.send(&head(stream + 2, "GET", "/ok", &[], true));
            client.send(&reset(stream + 2));
            assert!(client.is_served(stream + 4), "stage {stage}");
            client.send(&reset(stream + 4));
            stream += 6;
        }
    }
    let seen = site.notes_become("all are closed", |seen| {
        seen.get("closed").is_some_and(|closed| seen.get("opened") == Some(closed) && *closed >= clients)
    });
    assert!(!seen.contains_key("whole"), "{seen:?}");
}

#[test]
fn a8_http2_streams_that_are_reset_at_each_stage_leave_nothing_in_a_wsgi_server() {
    unharmed("app:wsgi", reset_at_each_stage);
}

#[test]
fn a8_http2_streams_that_are_reset_at_each_stage_leave_nothing_in_an_asgi_server() {
    unharmed("app:asgi", reset_at_each_stage);
}

/// Streams whose client gives them no room stall: they hold no worker, and others are served, on the same connection too.
fn stall(site: &Site, every: usize) {
    const STREAMS: u32 = 50;
    for end in (0..3).step_by(every) {
        let mut client = Client::open(site, &[0, 4, 0, 0, 0, 0]);
        for stream in 0..STREAMS {
            client.send(&head(2 * stream + 1, "GET", "/big", &[], true));
        }
        // Heads need no room.
        let mut heads = 0;
        while heads < STREAMS {
            let (kind, _, _, payload) = client.frame().expect("a connection");
            assert_ne!(kind, 0, "data without room");
            if kind == 1 {
                assert_eq!(payload[0], OK);
                heads += 1;
            }
        }
        assert_eq!(site.get("/ok").body, b"ok");
        // Room for a byte is room for a byte.
        for _ in 0..3 {
            client.send(&frame(8, 0, 1, &[0, 0, 0, 1]));
            assert_eq!(client.next(1, &mut false), Said::Data(b"x".to_vec()));
        }
        match end {
            0 => {}
            1 => (0..STREAMS).for_each(|stream| client.send(&reset(2 * stream + 1))),
            _ => client.send(&frame(7, 0, 0, &[0; 8])),
        }
        drop(client);
        let seen =
            site.notes_become("all are closed", |seen| seen.get("closed") == Some(&u64::from(STREAMS)));
        assert_eq!(seen.get("whole"), None, "{seen:?}");
    }
}

#[test]
fn a4_http2_streams_without_room_hold_no_worker_of_a_wsgi_server() {
    unharmed("app:wsgi", stall);
}

#[test]
fn a4_http2_streams_without_room_hold_up_nobody_in_an_asgi_server() {
    unharmed("app:asgi", stall);
}

/// Streams that are opened and reset as fast as the network takes them (CVE-2023-44487): the connection may be ended, others are served.
fn rapid_resets(site: &Site, every: usize) {
    for _ in (0..3).step_by(every) {
        let mut client = Client::open(site, &[]);
        for stream in 0..1000 {
            client.send(&[head(2 * stream + 1, "GET", "/big", &[], true), reset(2 * stream + 1)].concat());
        }
        assert_eq!(site.get("/ok").body, b"ok");
        drop(client);
        site.notes_become("all are closed", |seen| seen.get("closed") == seen.get("opened"));
    }
}

#[test]
fn a8_http2_rapid_resets_leave_nothing_in_a_wsgi_server() {
    unharmed("app:wsgi", rapid_resets);
}

#[test]
fn a8_http2_rapid_resets_leave_nothing_in_an_asgi_server() {
    unharmed("app:asgi", rapid_resets);
}

/// Frames that a client must not send: none of them is a request, and what came of one is no body.
fn bad_frames(site: &Site, every: usize) {
    let upload = |more: &[(&str, &str)]| head(1, "POST", "/upload", more, false);
    let raw = |headers: &[(&str, &str)]| frame(1, END_HEADERS | END_STREAM, 1, &block(headers));
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/bad"), (":authority", "a")];
    let with = |more: &[(&str, &str)]| raw(&[&pseudo, more].concat());
    let mut cases = vec![
        ("data on no stream", data(0, b"x", false)),
        ("data on an idle stream", data(5, b"x", false)),
        ("a head on no stream", head(0, "GET", "/bad", &[], true)),
        ("a head on the server's stream", head(2, "GET", "/bad", &[], true)),
        ("a head that is no block", frame(1, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff")),
        ("a head with an index that is none", frame(1, END_HEADERS | END_STREAM, 1, b"\xc0\x80")),
        ("a head with more padding than there is", frame(1, END_HEADERS | END_STREAM | 8, 1, b"\xff\x82")),
        ("settings on a stream", frame(4, 0, 1, &[])),
        ("settings of five bytes", frame(4, 0, 0, &[0; 5])),
        ("an acknowledgement with settings", frame(4, 1, 0, &[0; 6])),
        ("a window of more than there is", frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
        ("frames of no size", frame(4, 0, 0, &[0, 5, 0, 0, 0, 0])),
        ("a window that grows by nothing", frame(8, 0, 0, &[0; 4])),
        ("a window that grows too far", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a window of three bytes", frame(8, 0, 0, &[0; 3])),
        ("a ping of seven bytes", frame(6, 0, 0, &[0; 7])),
        ("a ping on a stream", frame(6, 0, 1, &[0; 8])),
        ("a promise", frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
        ("a continuation of nothing", frame(9, END_HEADERS, 1, b"\x82")),
        ("a reset of no stream", reset(0)),
        ("a reset of an idle stream", reset(9)),
        ("a reset of three bytes", frame(3, 0, 1, &[0; 3])),
        ("a frame that is too big", frame(0, 0, 1, &[0; 16385])),
        (
            "a head that is cut off by another frame",
            [frame(1, 0, 1, &block(&pseudo)), frame(6, 0, 0, &[0; 8])].concat(),
        ),
        ("another preface", PREFACE.to_vec()),
        ("HTTP/1.1", b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("less than declared", [upload(&[("content-length", "5")]), data(1, b"four", true)].concat()),
        ("more than declared", [upload(&[("content-length", "3")]), data(1, b"four", true)].concat()),
        ("nothing of what was declared", head(1, "POST", "/upload", &[("content-length", "5")], true)),
        (
            "something where nothing was declared",
            [upload(&[("content-length", "0")]), data(1, b"x", true)].concat(),
        ),
        (
            "two lengths",
            [upload(&[("content-length", "1"), ("content-length", "2")]), data(1, b"x", true)].concat(),
        ),
        ("a length with a sign", [upload(&[("content-length", "+1")]), data(1, b"x", true)].concat()),
        ("a length that is none", [upload(&[("content-length", "x")]), data(1, b"x", true)].concat()),
    ];
    for (name, value) in [
        ("Upper", "x"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("", "x"),
        ("a b", "x"),
        ("a:", "x"),
        ("a\r\nb", "x"),
        ("a", "x\r\nb: c"),
        ("a", "x\nb"),
        ("a", "x\0"),
        (":path", "/other"),
        (":method", "POST"),
        (":unknown", "x"),
        (":status", "200"),
        (":protocol", "websocket"),
    ] {
        cases.push(("a header that must not be", with(&[(name, value)])));
    }
    for missing in 0..3 {
        let some: Vec<_> =
            pseudo.iter().enumerate().filter(|(index, _)| *index != missing).map(|(_, pair)| *pair).collect();
        cases.push(("a pseudo-header that is missing", raw(&some)));
    }
    let late = [&pseudo[..2], &[("x", "y")], &pseudo[2..]].concat();
    cases.push(("a pseudo-header behind a header", raw(&late)));
    for path in ["", "bad", "*", "/bad\r\nx: y", "/bad x", "/bad\0", "//"] {
        cases.push((
            "a path",
            raw(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")]),
        ));
    }
    for method in ["", "GET ", "G\r\nT", "G\0T"] {
        cases.push((
            "a method",
            raw(&[(":method", method), (":scheme", "http"), (":path", "/bad"), (":authority", "a")]),
        ));
    }
    for (what, bytes) in cases.iter().step_by(every) {
        let mut client = Client::open(site, &[]);
        client.send(bytes);
        // The connection may be over by that, and it may be served still.
        client.is_served(11);
        let seen = site.notes();
        let kept = ["path GET //", "path GET /bad", "path GET *"];
        for name in seen.keys() {
            let harmless = *what == "a path"
                || *what == "a header that must not be" && bytes.windows(2).any(|some| some == b"te");
            assert!(
                name == "broken" || harmless && kept.contains(&name.as_str()),
                "{what} {}: {seen:?}",
                show(bytes)
            );
        }
    }
}

#[test]
fn c3_http2_frames_that_must_not_be_are_no_requests_to_wsgi() {
    unharmed("app:wsgi", bad_frames);
}

#[test]
fn c3_http2_frames_that_must_not_be_are_no_requests_to_asgi() {
    unharmed("app:asgi", bad_frames);
}
