//! Clients that leave at each byte of a request, and at each byte of a response.

use std::collections::BTreeMap;

use super::support::{Manner, Site, Wire, all, responses, show, unharmed};

/// What it is called, its bytes, and what the application notes of it when it has come to its end, how often.
type Request = (&'static str, &'static [u8], &'static [(&'static str, u64)]);

const REQUESTS: [Request; 6] = [
    ("without a body", b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-Some: thing\r\n\r\n", &[("path GET /a", 1)]),
    (
        "with a length",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello, world",
        &[("upload hello, world", 1)],
    ),
    (
        "chunked",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n07\r\n, world\r\n0\r\nX-Trailer: 1\r\n\r\n",
        &[("upload hello, world", 1)],
    ),
    (
        "that waits to be asked for its body, and does not wait",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\nhello, world",
        &[("upload hello, world", 1)],
    ),
    (
        "two at once",
        b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nworld!",
        &[("upload hello", 1), ("upload world!", 1)],
    ),
    ("of HTTP/1.0", b"POST /upload HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", &[("upload hello", 1)]),
];

const MANNERS: [Manner; 3] = [Manner::Close, Manner::Reset, Manner::HalfClose];

/// What is noted is what was sent to its end, never less of it. Who still listens gets no success for a part.
fn leave_in_the_request(site: &Site, every: usize) {
    // What may be noted at most, which is what was sent whole, and what was: a request whose client has left may be noted among those of the next kind.
    let (mut most, mut noticed) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    // Of an earlier round.
    site.notes();
    for (what, request, noted) in REQUESTS {
        let first = noted.len().min(2) - 1;
        for end in (0..=request.len()).step_by(every) {
            let manners = if all() { &MANNERS[..] } else { &MANNERS[end % 3..][..1] };
            for manner in manners {
                let mut wire = Wire::open(site.addr);
                wire.send(&request[..end]);
                let answers = wire.leave(*manner);
                let answers = responses(&answers, "POST");
                let good = answers.iter().filter(|answer| answer.status == 200).count();
                let sent = if end == request.len() {
                    noted.len()
                } else if first == 1
                    && end >= request.windows(9).position(|some| some == b"helloPOST").unwrap_or(0) + 5
                {
                    1
                } else {
                    0
                };
                assert!(good <= sent, "{what}, {end} bytes, {manner:?}: {answers:?}");
                for (name, count) in &noted[..sent] {
                    *most.entry((*name).to_owned()).or_insert(0) += count;
                }
            }
        }
        let mut wire = Wire::open(site.addr);
        wire.send(request);
        for (name, count) in noted {
            *most.entry((*name).to_owned()).or_insert(0) += count;
        }
        let last = noted.last().expect("one at least").0;
        // Each client was gone before this one came, but its request may be read later.
        let seen = site.notes_become(what, |seen| seen.contains_key(last));
        for (name, count) in seen {
            *noticed.entry(name).or_insert(0) += count;
        }
        for (name, count) in noticed.iter().filter(|(name, _)| *name != "broken") {
            assert!(
                most.get(name).is_some_and(|most| count <= most),
                "{what}: {name} {count} times, of {most:?}"
            );
        }
    }
}

#[test]
fn a2_clients_that_leave_at_each_byte_of_a_request_leave_nothing_in_a_wsgi_server() {
    unharmed("app:wsgi", leave_in_the_request);
}

#[test]
fn a2_clients_that_leave_at_each_byte_of_a_request_leave_nothing_in_an_asgi_server() {
    unharmed("app:asgi", leave_in_the_request);
}

/// Reads so many bytes of a response of which the server sends a piece for each that it is sent, and no more of them than it takes.
fn read(wire: &mut Wire, bytes: usize) -> Vec<u8> {
    wire.send(b"POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (mut got, mut sent, mut ends) = (Vec::new(), 0, 0);
    while got.len() < bytes {
        // The head comes with the first piece, and each further one is a chunk.
        if ends == sent {
            sent += 1;
            match sent {
                1..=5 => wire.send(format!("6\r\npiece{sent}\r\n").as_bytes()),
                6 => wire.send(b"0\r\n\r\n"),
                _ => panic!("more than a response: {}", show(&got)),
            }
        }
        got.push(wire.byte().expect("a byte"));
        let piece = format!("\r\npiece{}\r\n", ends + 1);
        if got.ends_with(piece.as_bytes()) {
            ends += 1;
        }
    }
    got
}

/// Whoever made the response learns that its client has left, is closed once, and never takes what it was sent for all.
fn leave_in_the_response(site: &Site, every: usize) {
    let mut wire = Wire::open(site.addr);
    let head = {
        wire.send(
            b"POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        );
        wire.head().len()
    };
    drop(wire);
    site.notes_become("a first client", |seen| seen.contains_key("closed"));
    let whole = head + 5 * "6\r\npiece1\r\n".len();
    let mut clients = 0;
    for end in (0..=whole).step_by(every) {
        let manners = if all() { &MANNERS[..2] } else { &MANNERS[end % 2..][..1] };
        for manner in manners {
            let mut wire = Wire::open(site.addr);
            let got = read(&mut wire, end);
            assert_eq!(got.len(), end);
            wire.leave(*manner);
            clients += 1;
        }
    }
    let count = |seen: &BTreeMap<String, u64>, name: &str| seen.get(name).copied().unwrap_or_default();
    let seen = site.notes_become("all are closed", |seen| {
        // One that has sent nothing of its body need not have reached the application.
        count(seen, "closed") == count(seen, "opened") && count(seen, "opened") >= clients - 2
    });
    assert_eq!(count(&seen, "whole"), 0, "{seen:?}");
}

#[test]
fn a8_clients_that_leave_at_each_byte_of_a_response_leave_nothing_in_a_wsgi_server() {
    unharmed("app:wsgi", leave_in_the_response);
}

#[test]
fn a8_clients_that_leave_at_each_byte_of_a_response_leave_nothing_in_an_asgi_server() {
    unharmed("app:asgi", leave_in_the_response);
}

/// The client says that it sends no more, and reads: what it gets is the answer, or nothing at all.
#[test]
fn a6_a_client_that_closes_its_half_gets_all_or_nothing() {
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, |site, every| {
            for _ in (0..100).step_by(every) {
                for request in [&b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n"[..], REQUESTS[1].1, REQUESTS[2].1] {
                    let mut wire = Wire::open(site.addr);
                    wire.send(request);
                    let bytes = wire.leave(Manner::HalfClose);
                    let seen = responses(&bytes, "GET");
                    assert!(
                        seen.iter().all(|answer| answer.whole && answer.status == 200),
                        "{}",
                        show(&bytes)
                    );
                }
            }
            site.notes();
        });
    }
}
