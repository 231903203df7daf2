//! Requests of which two servers could disagree where they end. One that is answered with anything but an error has one reading alone; behind an error nothing more is read.

use crate::faults::support::{Manner, Site, Wire, all, responses, show, unharmed};

/// What hides in a body, or behind one.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Heads behind `POST /first HTTP/1.1` and `Host` that must be refused, whatever follows.
const REFUSED: &[&str] = &[
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 6\r\nContent-Length: 5\r\n",
    "Content-Length: 5, 6\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5.0\r\n",
    "Content-Length: 5_0\r\n",
    "Content-Length: \r\n",
    "Content-Length: five\r\n",
    "Content-Length: 5\0\r\n",
    "Content-Length: \u{b2}\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length : 5\r\n",
    "Content-Length\t: 5\r\n",
    "Content-Length\r\n : 5\r\n",
    " Content-Length: 5\r\n",
    "Content Length: 5\r\n",
    "Content-Length\0: 5\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding: \r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked;a=b\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding: \0chunked\r\n",
    "Transfer-Encoding: chunked\0\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding: chun\r\n ked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    ": x\r\n",
    "X\r\n",
    "X y: z\r\n",
    "X\u{e9}: y\r\n",
    "X: y\0z\r\n",
    "X: y\x7fz\r\n",
    "X: y\x01z\r\n",
    "\0: x\r\n",
    "(: x\r\n",
];

/// Whatever may stand behind such a head.
const BODIES: &[&str] = &["", "hello", "0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"];

fn refused(site: &Site, every: usize) {
    for head in REFUSED.iter().step_by(every) {
        for (number, body) in BODIES.iter().enumerate() {
            for other in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
                if !all() && (number + head.len()) % BODIES.len() != 0 && !other.is_empty() {
                    continue;
                }
                // Several codings of which chunks are the last are chunks.
                if head.starts_with("Transfer-Encoding:") && other.starts_with("Transfer") {
                    continue;
                }
                for (first, second) in [(*head, other), (other, *head)] {
                    let request =
                        format!("POST /first HTTP/1.1\r\nHost: a\r\n{first}{second}\r\n{body}{HIDDEN}");
                    let mut wire = Wire::open(site.addr);
                    wire.send(request.as_bytes());
                    let bytes = wire.leave(Manner::HalfClose);
                    let seen = responses(&bytes, "POST");
                    assert_eq!(seen.len(), 1, "{}: {}", request.escape_debug(), show(&bytes));
                    // Beside chunks a length is no length, whatever it is, and the connection ends.
                    let overruled = other.starts_with("Transfer") && head.starts_with("Content-Length:");
                    let fits =
                        seen[0].status == 400 || overruled && seen[0].header("connection") == Some(b"close");
                    assert!(fits, "{}: {seen:?}", request.escape_debug());
                }
            }
        }
    }
    let notes = site.notes();
    assert!(notes.keys().all(|name| name == "path POST /first"), "{notes:?}");
}

#[test]
fn c3_a_request_without_one_end_is_refused_and_nothing_behind_it_is_read_in_wsgi() {
    unharmed("app:wsgi", refused);
}

#[test]
fn c3_a_request_without_one_end_is_refused_and_nothing_behind_it_is_read_in_asgi() {
    unharmed("app:asgi", refused);
}

/// Whole requests with one reading, and what an application sees of them: none of these is where the next one begins.
const READ: &[(&str, &[&str])] = &[
    // The same length twice is one length (RFC 9112, section 6.3).
    (
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        &["POST /first"],
    ),
    ("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 00005\r\n\r\nhello", &["POST /first"]),
    ("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length:5\r\n\r\nhello", &["POST /first"]),
    ("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: \t5 \t\r\n\r\nhello", &["POST /first"]),
    ("GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", &["GET /first"]),
    ("DELETE /first HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", &["DELETE /first"]),
    (
        "GET /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &["GET /first"],
    ),
    (
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &["POST /first"],
    ),
    (
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b;c\"\r\nhello\r\n0;x\r\nT: u\r\n\r\n",
        &["POST /first"],
    ),
    (
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n000005\r\nhello\r\n000\r\n\r\n",
        &["POST /first"],
    ),
    // What looks like a request is a body, where it is declared to be one.
    (
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        &["POST /first"],
    ),
    (
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n23\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n0\r\n\r\n",
        &["POST /first"],
    ),
    // Trailers are no headers.
    (
        "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 34\r\nTransfer-Encoding: chunked\r\n\r\n",
        &["POST /first"],
    ),
    // Empty lines before a request are none of it (RFC 9112, section 2.2).
    ("\r\n\r\nGET /first HTTP/1.1\r\nHost: a\r\n\r\n", &["GET /first"]),
    ("GET /first HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", &["GET /first"]),
    // A line feed ends a line of a head, as it may; it ends none of a chunk.
    ("GET /first HTTP/1.1\nHost: a\n\n", &["GET /first"]),
    ("POST /first HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello", &["POST /first"]),
];

fn read(site: &Site, every: usize) {
    for (request, expected) in READ.iter().step_by(every) {
        let mut wire = Wire::open(site.addr);
        wire.send(
            format!("{request}GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        let bytes = wire.rest();
        let seen = responses(&bytes, "GET");
        assert_eq!(seen.len(), 2, "{}: {}", request.escape_debug(), show(&bytes));
        assert!(
            seen.iter().all(|seen| seen.whole && seen.status == 200),
            "{}: {seen:?}",
            request.escape_debug()
        );
        let mut all: Vec<_> = expected.iter().map(|path| format!("path {path}")).collect();
        all.push("path GET /second".to_owned());
        let notes: Vec<_> = site.notes().into_keys().collect();
        all.sort_unstable();
        assert_eq!(notes, all, "{}", request.escape_debug());
    }
}

#[test]
fn c3_the_next_request_begins_where_the_last_one_ends_in_wsgi() {
    unharmed("app:wsgi", read);
}

#[test]
fn c3_the_next_request_begins_where_the_last_one_ends_in_asgi() {
    unharmed("app:asgi", read);
}

/// Both lengths at once (RFC 9112, section 6.1): refused, or read as chunks with nothing more on the connection, or with what follows where the chunks end.
#[test]
fn c3_a_length_beside_chunks_never_decides() {
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, |site, every| {
            for length in (0..60).step_by(every) {
                for swap in [false, true] {
                    let (a, b) = (
                        format!("Content-Length: {length}\r\n"),
                        "Transfer-Encoding: chunked\r\n".to_owned(),
                    );
                    let (a, b) = if swap { (b, a) } else { (a, b) };
                    for version in ["1.1", "1.0"] {
                        let request = format!(
                            "POST /first HTTP/{version}\r\nHost: a\r\n{a}{b}\r\n23\r\n{HIDDEN}\r\n0\r\n\r\n"
                        );
                        let mut wire = Wire::open(site.addr);
                        wire.send(request.as_bytes());
                        let bytes = wire.leave(Manner::HalfClose);
                        let seen = responses(&bytes, "POST");
                        assert!(seen.len() <= 1, "{length} {version}: {}", show(&bytes));
                        let notes = site.notes();
                        assert!(!notes.contains_key("path GET /smuggled"), "{length} {version}: {notes:?}");
                    }
                }
            }
        });
    }
}

/// Request lines that are none, or not ours.
const LINES: &[&str] = &[
    "GET /smuggled HTTP/1.2",
    "GET /smuggled HTTP/0.9",
    "GET /smuggled HTTP/2.0",
    "GET /smuggled HTTP/3",
    "GET /smuggled HTTP/11",
    "GET /smuggled http/1.1",
    "GET /smuggled HTTP/1.1x",
    "GET /smuggled HTTP/1.10",
    "GET /smuggled HTTP/ 1.1",
    "GET /smuggled",
    "GET",
    "/smuggled",
    "GET /smuggled x HTTP/1.1",
    "GET /smuggled\t HTTP/1.1",
    "GET\t/smuggled HTTP/1.1",
    "GET\x0b/smuggled HTTP/1.1",
    " GET /smuggled HTTP/1.1",
    "G\0ET /smuggled HTTP/1.1",
    "G(T /smuggled HTTP/1.1",
    "GET: /smuggled HTTP/1.1",
    "GET smuggled HTTP/1.1",
    "GET /smug\0gled HTTP/1.1",
    "GET /smug\x7fgled HTTP/1.1",
    "GET /smug\x01gled HTTP/1.1",
    "GET /smug\rgled HTTP/1.1",
    "GET http:// HTTP/1.1",
    "GET http:///smuggled HTTP/1.1",
    "GET :/smuggled HTTP/1.1",
    "PRI * HTTP/2.0",
];

#[test]
fn c3_a_request_line_that_is_none_is_refused() {
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, |site, every| {
            for line in LINES.iter().step_by(every) {
                let mut wire = Wire::open(site.addr);
                wire.send(format!("{line}\r\nHost: a\r\n\r\n{HIDDEN}").as_bytes());
                let bytes = wire.leave(Manner::HalfClose);
                let seen = responses(&bytes, "GET");
                assert!(
                    seen.len() <= 1 && seen.iter().all(|seen| seen.status == 400),
                    "{}: {}",
                    line.escape_debug(),
                    show(&bytes)
                );
                let notes = site.notes();
                assert!(notes.is_empty(), "{}: {notes:?}", line.escape_debug());
            }
        });
    }
}
