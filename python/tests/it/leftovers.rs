//! Clients that leave in any way leave nothing behind: no thread, no file descriptor, no memory, no task and no Python object.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Browser;
use crate::support::server::Server;
use crate::support::{PATIENCE, watched};

/// How many clients come, of each kind; `LEFTOVERS` says another number.
const CLIENTS: usize = 10_000;

/// How many are there at a time.
const AT_ONCE: usize = 16;

/// How much more memory may be resident after a crowd, in KiB: allocators keep some, however often it is given back.
const SLACK: u64 = 4 * 1024;

/// How many crowds come at most. What allocators keep grows less with each; what leaks grows as much with the last.
const CROWDS: usize = 4;

/// Python counts what it keeps for later, too: frames, and exceptions that were caught last.
const KEPT: u64 = 100;

fn clients() -> usize {
    std::env::var("LEFTOVERS").map_or(CLIENTS, |number| number.parse().expect("LEFTOVERS is a number"))
}

/// What a process has.
#[derive(Debug)]
pub(crate) struct Holdings {
    threads: u64,
    files: u64,
    resident: u64,
    /// Tasks and objects.
    python: BTreeMap<String, u64>,
}

impl Holdings {
    pub(crate) fn of(server: &Server) -> Self {
        let process = format!("/proc/{}", server.pid());
        // The connection is one of the files, each time: it lasts to the end of this.
        let mut browser = Browser::new(server.addr, "");
        let python = browser.get("/state");
        let python = serde_json::from_slice(&python.body).expect("numbers");
        let status = fs::read_to_string(format!("{process}/status")).expect("a process");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of the status");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Self {
            threads: number("Threads:"),
            files: fs::read_dir(format!("{process}/fd")).expect("a process").count() as u64,
            resident: number("VmRSS:"),
            python,
        }
    }

    /// Compares with a process that has served nobody yet, and with one that has served some. It may have a few more threads. What is resident is not compared.
    pub(crate) fn is_no_more_than(&self, fresh: &Self, warm: &Self, threads: u64) -> bool {
        self.threads <= fresh.threads + threads
            && self.files <= fresh.files
            && self.python.get("tasks") <= fresh.python.get("tasks")
            && self.python["objects"] <= warm.python["objects"] + KEPT
    }
}

/// Sends clients to a server, and compares what it has before and after.
fn leaves_nothing(target: &'static str, visit: fn(SocketAddr, usize)) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-wsgi"));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/leftovers");
    command
        .args(["--bind", "127.0.0.1:0", "--chdir"])
        .arg(dir)
        .arg(target)
        .env_remove("VIRTUAL_ENV")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let mut server = Server::start(&mut command);
    let _guard = server.guard();
    watched(move || {
        let fresh = Holdings::of(&server);
        // What is made once and kept: caches, an allocator's pages.
        crowd(server.addr, clients().div_ceil(10), visit);
        let warm = Holdings::of(&server);
        let mut resident = vec![warm.resident];
        loop {
            crowd(server.addr, clients(), visit);
            // Idle workers end after ten seconds.
            let mut last = Holdings::of(&server);
            let start = Instant::now();
            while !last.is_no_more_than(&fresh, &warm, 0) {
                assert!(start.elapsed() < PATIENCE, "{fresh:#?}\n{warm:#?}\n{last:#?}");
                thread::sleep(Duration::from_millis(50));
                last = Holdings::of(&server);
            }
            let most = resident.iter().max().expect("one at least");
            if last.resident <= most + SLACK {
                break;
            }
            resident.push(last.resident);
            assert!(
                resident.len() <= CROWDS,
                "{} clients after {} KiB: {resident:?}",
                clients(),
                fresh.resident
            );
        }
        assert!(server.stop().success());
    });
}

/// Has so many clients come, some at a time.
fn crowd(addr: SocketAddr, clients: usize, visit: fn(SocketAddr, usize)) {
    let next = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let next = next.clone();
            thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= clients {
                        return;
                    }
                    visit(addr, number);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a visit");
    }
}

/// Numbers that are the same in each run: `SplitMix64`.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a size")
    }
}

/// Sends some of a request, reads some of its response if all of it was sent, and leaves.
fn drop_a_request(addr: SocketAddr, number: usize) {
    let mut random = Random(number as u64);
    let request = match random.below(3) {
        0 => b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        1 => [&b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n"[..], &[b'x'; 50_000]].concat(),
        _ => b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n".to_vec(),
    };
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let sent = match random.below(2) {
        0 => request.len(),
        _ => random.below(request.len()),
    };
    let mut visit = || -> io::Result<()> {
        stream.write_all(&request[..sent])?;
        let mut wanted = if sent == request.len() { random.below(20_000) } else { 0 };
        let mut buffer = [0; 4096];
        while wanted > 0 {
            match stream.read(&mut buffer)? {
                // The end of a short response is not the connection's; of a request that the server refuses it is.
                0 => break,
                length if buffer[..length].ends_with(b"0\r\n\r\n") => break,
                length => wanted = wanted.saturating_sub(length),
            }
        }
        Ok(())
    };
    visit().unwrap_or_else(|error| panic!("client {number}: {error}"));
    if random.below(2) == 0 {
        // With a reset instead of an end.
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
    }
}

/// Opens a WebSocket, says something or not, and closes it or not.
fn open_and_close(addr: SocketAddr, number: usize) {
    let mut random = Random(number as u64);
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (mut socket, _) =
        tokio_tungstenite::tungstenite::client::client(format!("ws://{addr}/"), stream).expect("a WebSocket");
    if random.below(2) == 0 {
        socket.send(Message::text("hello")).expect("room");
        assert_eq!(socket.read().expect("an echo"), Message::text("hello"));
    }
    match random.below(3) {
        0 => {}
        1 => socket.send(Message::text("nobody reads the answer")).expect("room"),
        _ => {
            socket.close(None).expect("room");
            while socket.read().is_ok() {}
        }
    }
}

#[test]
fn requests_dropped_at_any_moment_leave_nothing_in_a_wsgi_server() {
    leaves_nothing("app:wsgi", drop_a_request);
}

#[test]
fn websockets_and_requests_dropped_at_any_moment_leave_nothing_in_an_asgi_server() {
    leaves_nothing("app:asgi", |addr, number| {
        open_and_close(addr, number);
        drop_a_request(addr, number);
    });
}
