//! WebSockets whose client vanishes at any byte, or breaks the protocol (RFC 6455).

use super::asgi::{take_close, upgrade};
use super::support::{Manner, Site, Wire, all, responses, show, unharmed};
use crate::support::watched;

/// A frame from a client: masked, with a key that leaves the payload as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).expect("it is short")),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).expect("it is not long").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Messages of each kind.
fn conversation() -> Vec<u8> {
    [
        frame(0x81, b"hi"),
        frame(0x01, b"fr"),
        frame(0x89, b"ping"),
        frame(0x00, b"agm"),
        frame(0x8a, b"pong"),
        frame(0x80, b"ent"),
        frame(0x82, b"\0\xff"),
        frame(0x81, "\u{e9}".repeat(63).as_bytes()),
        frame(0x88, b"\x03\xe8bye"),
    ]
    .concat()
}

/// Whoever vanishes leaves an application that has been told so, and whole messages alone.
fn vanish(site: &Site, every: usize) {
    let (handshake, rest) = (upgrade("/", ""), conversation());
    let whole = handshake.len() + rest.len();
    let mut sockets = 0;
    for end in (0..=whole).step_by(every) {
        let manners = [Manner::Close, Manner::Reset, Manner::HalfClose];
        let manners = if all() { &manners[..] } else { &manners[end % 3..][..1] };
        for manner in manners {
            let mut wire = Wire::open(site.addr);
            wire.send(&handshake[..end.min(handshake.len())]);
            if end >= handshake.len() {
                let head = wire.head();
                assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", show(&head));
                wire.send(&rest[..end - handshake.len()]);
                sockets += 1;
            }
            wire.leave(*manner);
        }
    }
    let left = |name: &&String| name.starts_with("left ");
    let seen = site.notes_become("all are told", |seen| {
        seen.iter().filter(|(name, _)| left(name)).map(|(_, count)| count).sum::<u64>() >= sockets
    });
    assert_eq!(seen["opened"], sockets, "{seen:?}");
    for name in seen.keys() {
        let long = format!("text {}", "\u{e9}".repeat(63));
        let known = ["opened", "left 1000", "left 1006", "text hi", "text fragment", "bytes 00ff", &long];
        assert!(known.contains(&name.as_str()), "{name:?} in {seen:?}");
    }
}

#[test]
fn a_websocket_client_that_vanishes_at_each_byte_is_told_and_leaves_nothing() {
    unharmed("app:asgi", vanish);
}

/// What a client must not send, with the code of the close that it gets.
fn faults() -> Vec<(&'static str, Vec<u8>, u16)> {
    let mut unmasked = frame(0x81, b"hi");
    unmasked[1] &= 0x7f;
    let mut faults = vec![
        ("an unmasked message", unmasked, 1002),
        ("an unmasked close", b"\x88\0".to_vec(), 1002),
        ("an unmasked ping", b"\x89\0".to_vec(), 1002),
        ("a ping in parts", frame(0x09, b"a"), 1002),
        ("a close in parts", frame(0x08, b""), 1002),
        ("a ping of 126 bytes", frame(0x89, &[b'x'; 126]), 1002),
        ("a pong of 126 bytes", frame(0x8a, &[b'x'; 126]), 1002),
        ("a close of 126 bytes", frame(0x88, &[b'x'; 126]), 1002),
        ("a continuation of nothing", frame(0x80, b"a"), 1002),
        ("a continuation after the end", [frame(0x81, b""), frame(0x80, b"a")].concat(), 1002),
        ("a text in the middle of a text", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        ("a binary in the middle of a text", [frame(0x01, b"a"), frame(0x82, b"b")].concat(), 1002),
        ("a text without an end in the middle of one", [frame(0x01, b"a"), frame(0x01, b"b")].concat(), 1002),
        ("a close with half a code", frame(0x88, b"\x03"), 1002),
        ("a close whose reason is no text", frame(0x88, b"\x03\xe8\xff"), 1007),
        ("a text of no character", frame(0x81, b"\xff"), 1007),
        ("a text that ends in a character", frame(0x81, b"\xc3"), 1007),
        ("a text with a surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("a text with too long a character", frame(0x81, b"\xc0\xaf"), 1007),
        ("a text beyond the last character", frame(0x81, b"\xf4\x90\x80\x80"), 1007),
        ("a text in parts of no character", [frame(0x01, b"a"), frame(0x80, b"\xff")].concat(), 1007),
        ("a text in parts that ends in a character", [frame(0x01, b"\xc3"), frame(0x80, b"")].concat(), 1007),
        // Only the head of a frame that is too big need come.
        ("17 MiB at once", b"\x82\xff\0\0\0\0\x01\x10\0\0\0\0\0\0".to_vec(), 1009),
        ("all the memory there is", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(), 1009),
    ];
    for bits in [0x10, 0x20, 0x40, 0x70] {
        faults.push(("a reserved bit", frame(0x81 | bits, b"a"), 1002));
        faults.push(("a reserved bit of a ping", frame(0x89 | bits, b"a"), 1002));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        faults.push(("a reserved opcode", frame(0x80 | opcode, b"a"), 1002));
    }
    for code in [0_u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        faults.push(("a code that is none", frame(0x88, &code.to_be_bytes()), 1002));
    }
    faults
}

#[test]
fn a_websocket_client_that_breaks_the_protocol_is_told_and_so_is_the_application() {
    unharmed("app:asgi", |site, every| {
        for (what, bytes, code) in faults().iter().step_by(every) {
            // By itself, and behind a message.
            for before in [Vec::new(), frame(0x81, b"hi")] {
                let mut wire = Wire::open(site.addr);
                wire.send(&upgrade("/", ""));
                wire.send(&[&before[..], bytes].concat());
                // Whatever comes behind it is not read.
                wire.send(&frame(0x81, b"behind"));
                let came = take_close(&mut wire);
                let seen = responses(&came, "GET").remove(0);
                assert_eq!(seen.status, 101, "{what}");
                let close = seen.body.windows(4).find(|some| some[0] == 0x88 && some[1] >= 2);
                let close = close.unwrap_or_else(|| panic!("{what}: {}", show(&seen.body)));
                assert_eq!(
                    u16::from_be_bytes([close[2], close[3]]),
                    *code,
                    "{what} {}: {}",
                    show(&bytes[..bytes.len().min(40)]),
                    show(&seen.body)
                );
                let told = site.notes_become(what, |seen| seen.keys().any(|name| name.starts_with("left ")));
                for name in told.keys() {
                    let fits = name == "opened"
                        || name.starts_with("left ")
                        || (name == "text hi" && !before.is_empty());
                    assert!(
                        fits || (name == "text " && *what == "a continuation after the end"),
                        "{what}: {told:?}"
                    );
                }
            }
        }
    });
}

/// Each part of a message is small enough, and all of them are not.
#[test]
fn a_websocket_message_in_parts_is_not_bigger_than_one_in_one() {
    watched(|| {
        let mut site = Site::start("app:asgi");
        let _guard = site.server.guard();
        let part = |first: u8, mebibytes: u8| {
            let mut part = vec![first, 0xff, 0, 0, 0, 0, 0, mebibytes << 4, 0, 0, 0, 0, 0, 0];
            part.resize(part.len() + usize::from(mebibytes) * 1024 * 1024, 0);
            part
        };
        let mut wire = Wire::open(site.addr);
        wire.send(&upgrade("/", ""));
        wire.send(&[part(0x02, 10), part(0x00, 5), part(0x80, 2)].concat());
        let seen = responses(&take_close(&mut wire), "GET").remove(0);
        assert_eq!(seen.body[..4], *b"\x88\x18\x03\xf1", "{seen:?}");
        let notes = site.notes_become("it is told", |notes| notes.contains_key("left 1009"));
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(site.server.stop().success());
    });
}

/// Closes that are allowed are answered with the same code.
#[test]
fn a_websocket_close_is_answered_with_its_code() {
    unharmed("app:asgi", |site, every| {
        for code in
            [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]
                .iter()
                .step_by(every)
        {
            let reason = "r".repeat(123);
            for reason in ["", "r", &reason] {
                let mut wire = Wire::open(site.addr);
                wire.send(&upgrade("/", ""));
                wire.send(&frame(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat()));
                let seen = responses(&take_close(&mut wire), "GET").remove(0);
                assert_eq!(seen.body[2..4], code.to_be_bytes(), "{code}: {}", show(&seen.body));
                site.notes_become("it is told", |seen| seen.contains_key(&format!("left {code}")));
            }
        }
    });
}
