//! More of everything than anybody needs: headers, connections that stall, bodies that do not end.

use std::fs;
use std::io::Write;

use crate::faults::support::{Manner, Site, WORKERS, Wire, all, responses, show, unharmed};
use crate::support::until;

/// How much more may be resident while all of it is there, in KiB.
const BOUND: u64 = 64 * 1024;

fn resident(site: &Site) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", site.server.pid())).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Heads that are too big are refused before they are whole, and others are served meanwhile.
fn big_heads(site: &Site, every: usize) {
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: y\r\n")).collect::<String>();
    let cases = [
        (
            "the longest target",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000)),
            &[414, 431, 400][..],
        ),
        ("a target without an end", format!("GET /{}", "a".repeat(1_000_000)), &[414, 431, 400]),
        ("a method without an end", "G".repeat(1_000_000), &[400, 431]),
        (
            "a hundred headers more than there may be",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", many(200)),
            &[431],
        ),
        ("headers without an end", format!("GET / HTTP/1.1\r\nHost: a\r\n{}", many(50_000)), &[431]),
        (
            "a header without an end",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(1_000_000)),
            &[431],
        ),
        (
            "a name without an end",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X".repeat(1_000_000)),
            &[431, 400],
        ),
        (
            "the same header again and again",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(50_000)),
            &[431],
        ),
        ("empty lines", "\r\n".repeat(500_000), &[400, 431]),
        (
            "a chunk's extension without an end",
            format!(
                "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;{}",
                "x".repeat(1_000_000)
            ),
            &[400],
        ),
        (
            "trailers without an end",
            format!(
                "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}",
                many(50_000)
            ),
            &[400],
        ),
    ];
    for (what, request, expected) in cases.iter().step_by(every) {
        let before = resident(site);
        let mut wire = Wire::open(site.addr);
        wire.send(request.as_bytes());
        let bytes = wire.leave(Manner::HalfClose);
        let after = resident(site);
        assert!(after < before + BOUND, "{what}: {before} KiB, then {after} KiB");
        // A server that has closed already may reset what is still sent.
        for seen in responses(&bytes, "GET") {
            assert!(seen.status == 0 || expected.contains(&seen.status), "{what}: {}", show(&bytes));
        }
        assert_eq!(site.get("/ok").body, b"ok", "{what}");
    }
    let seen = site.notes();
    assert!(seen.keys().all(|name| name == "broken"), "{seen:?}");
}

#[test]
fn a10_heads_that_are_too_big_are_refused_in_wsgi() {
    unharmed("app:wsgi", big_heads);
}

#[test]
fn a10_heads_that_are_too_big_are_refused_in_asgi() {
    unharmed("app:asgi", big_heads);
}

/// The headers that fit are all there.
#[test]
fn c1_as_many_headers_as_fit_arrive() {
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, move |site, _| {
            let headers: String =
                (0..98).map(|number| format!("X-Number-{number}: {}\r\n", "y".repeat(1000))).collect();
            let request = format!("GET /a HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n");
            let seen = site.ask(request.as_bytes()).json();
            let count = match target {
                "app:wsgi" => seen
                    .as_object()
                    .expect("variables")
                    .keys()
                    .filter(|name| name.starts_with("HTTP_X_NUMBER_"))
                    .count(),
                _ => seen["headers"].as_array().expect("headers").len() - 2,
            };
            assert_eq!(count, 98);
            site.notes();
        });
    }
}

/// Has so many clients stall, the next one answered at once, and all of them leave.
fn stalled(site: &Site, crowd: usize, request: &[u8], opened: bool) {
    let mut clients: Vec<_> = (0..crowd).map(|_| Wire::open(site.addr)).collect();
    for client in &mut clients {
        client.0.write_all(request).expect("room");
    }
    if opened {
        // Each has begun its response, as far as it goes.
        site.notes_become("all have begun", |notes| notes.get("opened") == Some(&(crowd as u64)));
    }
    for _ in 0..10 {
        assert_eq!(site.get("/ok").body, b"ok");
    }
    drop(clients);
    if opened {
        site.notes_become("all are closed", |notes| notes.get("closed") == Some(&(crowd as u64)));
    }
    site.notes();
}

#[test]
fn a1_a_thousand_small_uploads_that_stall_hold_no_worker() {
    unharmed("app:wsgi", |site, every| {
        let crowd = 1000 / every;
        // Of a declared length, within what is read ahead; a head that stalls; one that waits to be asked and never is.
        stalled(site, crowd, b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\nx", false);
        stalled(site, crowd, b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Le", false);
    });
}

#[test]
fn a1_uploads_that_stall_hold_up_no_event_loop() {
    unharmed("app:asgi", |site, every| {
        let crowd = if all() { 1000 } else { 300 } / every;
        stalled(site, crowd, b"POST /duplex HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx", true);
        stalled(
            site,
            crowd,
            b"POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
            true,
        );
        stalled(
            site,
            crowd,
            b"POST /duplex HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
            true,
        );
    });
}

/// Each fills the buffers of its connection, some megabytes.
fn downloads(site: &Site, every: usize) {
    let crowd = if all() { 1000 } else { 100 };
    stalled(site, crowd / every, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n", true);
}

#[test]
fn a4_downloads_that_stall_hold_no_worker() {
    unharmed("app:wsgi", downloads);
}

#[test]
fn a4_downloads_that_stall_hold_up_no_event_loop() {
    unharmed("app:asgi", downloads);
}

/// An upload of no declared length has a worker from its first byte on, since its sender may wait for an answer. As many that stall as there are workers hold the others up: until they go on, leave, or the read times out.
#[test]
fn a8_uploads_that_hold_all_workers_give_them_back_when_they_leave() {
    unharmed("app:wsgi", |site, every| {
        for manner in [Manner::Close, Manner::Reset].into_iter().step_by(every) {
            let mut holders: Vec<_> = (0..WORKERS).map(|_| Wire::open(site.addr)).collect();
            for holder in &mut holders {
                holder.send(
                    b"POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
                );
                holder.head();
            }
            let mut waiting: Vec<_> = (0..10).map(|_| Wire::open(site.addr)).collect();
            for client in &mut waiting {
                client.send(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            }
            // One that goes on ends, and makes room.
            let mut first = holders.remove(0);
            first.send(b"0\r\n\r\n");
            until("the rest of the response", || first.byte().is_none_or(|byte| byte == b'0'));
            holders.into_iter().for_each(|holder| drop(holder.leave(manner)));
            for mut client in waiting {
                let bytes = client.rest();
                assert_eq!(responses(&bytes, "GET")[0].body, b"ok");
            }
            site.notes_become("all are closed", |notes| notes.get("closed") == Some(&(WORKERS as u64)));
        }
        site.notes();
    });
}

/// A client that sends requests and reads no response has a few of them answered, and no more of the server than that.
#[test]
fn a3_a_client_that_pipelines_and_reads_nothing_is_bounded() {
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, |site, every| {
            let before = resident(site);
            let mut clients = Vec::new();
            for _ in (0..20).step_by(every) {
                let mut client = Wire::open(site.addr);
                client.0.set_write_timeout(Some(std::time::Duration::from_millis(100))).expect("a socket");
                // Until the server takes no more of them.
                let batch = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
                for _ in 0..10 {
                    if client.0.write_all(&batch).is_err() {
                        break;
                    }
                }
                clients.push(client);
            }
            assert_eq!(site.get("/ok").body, b"ok");
            let after = resident(site);
            assert!(after < before + BOUND, "{before} KiB, then {after} KiB");
            drop(clients);
            let mut all =
                site.notes_become("all are closed", |notes| notes.get("closed") == notes.get("opened"));
            all.retain(|name, _| name == "whole");
            assert!(all.is_empty(), "{all:?}");
        });
    }
}
