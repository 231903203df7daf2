//! Bodies of a gibibyte pass through the server in little memory, whichever side is the slow one.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::client::Browser;
use crate::support::server::Server;
use crate::support::{PATIENCE, watched};

const PIECE: usize = 64 * 1024;

/// Of 64 KiB: a gibibyte.
const PIECES: usize = 16 * 1024;

/// How much more than an idle process one with such a body may have in memory, in KiB.
const BOUND: u64 = 32 * 1024;

/// Starts the server, and has its highest use of memory compared with that before the work.
fn bounded(target: &'static str, work: fn(&Server)) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-wsgi"));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/memory");
    command
        .args(["--bind", "127.0.0.1:0", "--chdir"])
        .arg(dir)
        .arg(target)
        .env_remove("VIRTUAL_ENV")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let server = Server::start(&mut command);
    let _guard = server.guard();
    watched(move || {
        // What a first request allocates is there for all that follow.
        Browser::new(server.addr, "").get("/made");
        let idle = status(&server, "VmRSS");
        // From here on the peak is counted anew.
        fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").expect("a process of ours");
        assert!(status(&server, "VmHWM") < idle + BOUND / 2, "the peak of the start is still there");
        work(&server);
        let peak = status(&server, "VmHWM");
        assert!(peak < idle + BOUND, "{idle} KiB, then up to {peak} KiB");
    });
}

/// A number of KiB in what the kernel tells of a process.
fn status(server: &Server, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect(key);
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Sends more than fits before the application reads, and then the rest as fast as it does.
fn upload(server: &Server) {
    let mut stream = connect(server);
    let length = PIECE * PIECES;
    let head = format!("POST /upload HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("room");
    let piece = vec![b'x'; PIECE];
    let mut sent = 0;
    // A server that takes in what nobody reads never makes a client wait.
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a socket");
    while sent < length {
        match stream.write(&piece[..PIECE.min(length - sent)]) {
            Ok(written) => sent += written,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(sent < length / 4, "{sent} bytes were taken in before the application read one");

    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    Browser::new(server.addr, "").get("/go");
    while sent < length {
        sent += stream.write(&piece[..PIECE.min(length - sent)]).expect("room");
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    assert!(response.ends_with(&format!("\r\n\r\n{length}")), "{response}");
}

/// Reads nothing until the application makes no more, and then all.
fn download(server: &Server) {
    let mut stream = connect(server);
    // To a client of HTTP/1.0 a body is all that comes until the end.
    let head = format!("GET /download?{PIECES} HTTP/1.0\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("room");
    let mut browser = Browser::new(server.addr, "");
    let mut made = || browser.get("/made").text().parse::<usize>().expect("a number");
    // How often the application has been seen where it was before: one that is only slow is given up on too early now and then.
    let (mut last, mut same) = (0, 0);
    while same < 100 {
        let now = made();
        assert!(now < PIECES / 4, "{now} pieces were made before the client read one");
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    let mut response = BufReader::with_capacity(PIECE, stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        response.read_line(&mut line).expect("a head");
    }
    let (expected, mut received) = (vec![b'x'; PIECE], 0);
    loop {
        let piece = response.fill_buf().expect("the rest");
        // Bytes by themselves take a while to compare where nothing is optimized.
        assert!(*piece == expected[..piece.len()], "other bytes than were sent");
        let length = piece.len();
        if length == 0 {
            break;
        }
        response.consume(length);
        received += length;
    }
    assert_eq!(received, PIECE * PIECES);
}

#[test]
fn a_wsgi_upload_passes_through_in_little_memory() {
    bounded("app:wsgi", upload);
}

#[test]
fn an_asgi_upload_passes_through_in_little_memory() {
    bounded("app:asgi", upload);
}

#[test]
fn a_wsgi_download_passes_through_in_little_memory() {
    bounded("app:wsgi", download);
}

#[test]
fn an_asgi_download_passes_through_in_little_memory() {
    bounded("app:asgi", download);
}
