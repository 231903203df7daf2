//! Requests with bytes that are others, missing, doubled or made up: whatever comes of them, the server lives on and keeps nothing of them.

use crate::faults::asgi::upgrade;
use crate::faults::support::{Manner, Site, Wire, all, unharmed};
use crate::leftovers::Random;

/// How many requests there are of each kind.
fn rounds() -> usize {
    if all() { 20_000 } else { 200 }
}

fn kinds() -> Vec<Vec<u8>> {
    let upload = |head: &str| format!("POST /upload HTTP/1.1\r\nHost: a\r\n{head}").into_bytes();
    let frames =
        b"\x81\x85\0\0\0\0hello\x01\x82\0\0\0\0he\x89\x80\0\0\0\0\x80\x83\0\0\0\0llo\x88\x82\0\0\0\0\x03\xe8";
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x44\x07/upload\x41\x01a\0\0\x08\x06\0\0\0\0\0eightbyt";
    vec![
        b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nCookie: a=b\r\n\r\n".to_vec(),
        upload("Content-Length: 11\r\n\r\nhello world"),
        upload("Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"),
        upload("Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
        [upgrade("/", ""), frames.to_vec()].concat(),
        http2.to_vec(),
    ]
}

/// Changes a few bytes, or many.
fn spoil(request: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(request.len() + 1);
        let end = at + random.below(request.len() - at + 1).min(random.below(40));
        match random.below(5) {
            0 if at < request.len() => request[at] = u8::try_from(random.below(256)).expect("a byte"),
            0 | 1 => drop(request.drain(at..end)),
            2 => {
                let piece = request[at..end].to_vec();
                request.splice(at..at, piece);
            }
            3 => {
                let made_up: Vec<_> =
                    (at..end).map(|_| u8::try_from(random.below(256)).expect("a byte")).collect();
                request.splice(at..at, made_up);
            }
            // What means something at its place means something else at another.
            _ => request.insert(at, b" \t\r\n:;,=%/?#\0\x80\xff"[random.below(15)]),
        }
    }
}

fn spoiled(site: &Site, every: usize) {
    for (kind, request) in kinds().iter().enumerate() {
        for round in (0..rounds()).step_by(every) {
            let mut random = Random((kind * 1_000_000 + round) as u64);
            let mut request = request.clone();
            spoil(&mut request, &mut random);
            let mut wire = Wire::open(site.addr);
            wire.send(&request);
            wire.leave([Manner::HalfClose, Manner::Close, Manner::Reset][random.below(3)]);
        }
        assert_eq!(site.get("/ok").body, b"ok");
    }
    site.notes();
}

#[test]
fn a11_requests_with_wrong_bytes_do_not_end_a_wsgi_server() {
    unharmed("app:wsgi", spoiled);
}

#[test]
fn a11_requests_with_wrong_bytes_do_not_end_an_asgi_server() {
    unharmed("app:asgi", spoiled);
}
