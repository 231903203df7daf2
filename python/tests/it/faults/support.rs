//! A server whose holdings are compared, and a client that does what no client should.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use crate::leftovers::Holdings;
use crate::support::server::Server;
use crate::support::{PATIENCE, apps, until, watched};

/// Few, so that each is soon in use: a worker that is lost shows.
pub(crate) const WORKERS: usize = 2;

/// Whether to try what takes long.
pub(crate) fn all() -> bool {
    std::env::var_os("FAULTS").is_some()
}

/// The server with an application of `apps/faults/app.py`, on a port of its own.
pub(crate) fn command(target: &str) -> Command {
    command_in(&apps().join("faults"), "127.0.0.1:0", target)
}

/// The server with an application of a directory.
pub(crate) fn command_in(dir: &Path, bind: &str, target: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-wsgi"));
    command
        .args(["--bind", bind, "--workers", &WORKERS.to_string(), target, "--chdir"])
        .arg(dir)
        .env_remove("VIRTUAL_ENV")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Has a server go through `work` twice. After the second time it has nothing that it did not have after the first, answers, and stops in order. The first time may be a part: every how many-th case is the second argument.
pub(crate) fn unharmed(target: &'static str, work: impl Fn(&Site, usize) + Send + 'static) {
    watched(move || {
        let mut site = Site::start(target);
        let _guard = site.server.guard();
        let fresh = Holdings::of(&site.server);
        work(&site, 7);
        // Of those that may run the application one was there to be counted.
        let more = if target.ends_with("wsgi") { WORKERS as u64 - 1 } else { 0 };
        site.settles(&fresh, None, more);
        let warm = Holdings::of(&site.server);
        work(&site, 1);
        site.settles(&fresh, Some(&warm), more);
        assert_eq!(site.get("/ok").body, b"ok");
        assert!(site.server.stop().success());
        let log = site.server.log().text();
        assert!(!log.contains("panic"), "{log}");
    });
}

/// A server that runs.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) addr: SocketAddr,
}

impl Site {
    pub(crate) fn start(target: &str) -> Self {
        let server = Server::start(&mut command(target));
        Self { addr: server.addr, server }
    }

    /// Waits until the process has no more than before.
    fn settles(&self, fresh: &Holdings, warm: Option<&Holdings>, more: u64) {
        let start = Instant::now();
        loop {
            let now = Holdings::of(&self.server);
            if now.is_no_more_than(fresh, warm.unwrap_or(&now), more) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{fresh:#?}\n{warm:#?}\n{now:#?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The response to a GET on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Seen {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        self.ask(request.as_bytes())
    }

    /// The one response to a request that ends its connection.
    pub(crate) fn ask(&self, request: &[u8]) -> Seen {
        let mut wire = Wire::open(self.addr);
        wire.send(request);
        let bytes = wire.rest();
        let mut seen = responses(&bytes, "GET");
        assert_eq!(seen.len(), 1, "{}", show(&bytes));
        seen.remove(0)
    }

    /// Waits until the log says something behind `start`.
    pub(crate) fn says(&self, start: usize, word: &str) {
        until(word, || self.server.log().text().get(start..).is_some_and(|log| log.contains(word)));
    }

    /// What the application has noted since it was last asked.
    pub(crate) fn notes(&self) -> BTreeMap<String, u64> {
        serde_json::from_slice(&self.get("/notes").body).expect("notes")
    }

    /// Waits until the application has noted what it should, and nothing else.
    pub(crate) fn notes_become(
        &self,
        what: &str,
        complete: impl Fn(&BTreeMap<String, u64>) -> bool,
    ) -> BTreeMap<String, u64> {
        let start = Instant::now();
        let mut all = BTreeMap::new();
        loop {
            for (name, count) in self.notes() {
                *all.entry(name).or_insert(0) += count;
            }
            if complete(&all) {
                return all;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {all:#?}");
            thread::yield_now();
        }
    }
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Close,
    Reset,
    /// It says that it sends no more, and reads what comes.
    HalfClose,
}

/// A connection that does as it is told.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    /// Sends what the server may have no ear for any more.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// All until the server closes the connection. A reset is an end, too; a server that waits is not.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut bytes) {
            assert!(!is_timeout(&error), "the server neither answers nor closes: {}", show(&bytes));
        }
        bytes
    }

    /// The next byte; `None` at the end.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            Err(error) => {
                assert!(!is_timeout(&error), "the server neither answers nor closes");
                None
            }
        }
    }

    /// Everything up to the end of a head.
    pub(crate) fn head(&mut self) -> Vec<u8> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.byte() {
                Some(byte) => head.push(byte),
                None => panic!("no head: {}", show(&head)),
            }
        }
        head
    }

    /// Leaves; what came back, where that was read.
    pub(crate) fn leave(mut self, manner: Manner) -> Vec<u8> {
        match manner {
            Manner::Close => Vec::new(),
            Manner::Reset => {
                let _ = set_socket_linger(&self.0, Some(Duration::ZERO));
                Vec::new()
            }
            Manner::HalfClose => {
                let _ = self.0.shutdown(Shutdown::Write);
                self.rest()
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A response as it was on the wire.
#[derive(PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) line: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// Whether it came to its end.
    pub(crate) whole: bool,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert!(self.whole && self.status == 200, "{self:?}");
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, headers, body, whole, .. } = self;
        writeln!(f, "{}", show(line))?;
        for (name, value) in headers {
            writeln!(f, "{name}: {}", show(value))?;
        }
        write!(f, "{} bytes, whole: {whole}: {}", body.len(), show(&body[..body.len().min(400)]))
    }
}

/// Reads responses until nothing is left: the last one may be cut off. Fails on what is no response. Interim ones are left out.
pub(crate) fn responses(bytes: &[u8], method: &str) -> Vec<Seen> {
    let mut rest = bytes;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
            // A head that is cut off.
            all.push(Seen {
                status: 0,
                line: rest.to_vec(),
                headers: Vec::new(),
                body: Vec::new(),
                whole: false,
            });
            break;
        };
        let mut lines =
            rest[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let line = lines.next().expect("a line").to_vec();
        assert!(line.starts_with(b"HTTP/1."), "no response: {}", show(rest));
        let status = std::str::from_utf8(&line[9..12]).ok().and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {}", show(&line)));
        let headers: Vec<_> = lines
            .map(|line| {
                let colon = line
                    .iter()
                    .position(|byte| *byte == b':')
                    .unwrap_or_else(|| panic!("no header: {}", show(line)));
                (
                    String::from_utf8_lossy(&line[..colon]).into_owned(),
                    line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]).to_vec(),
                )
            })
            .collect();
        rest = &rest[end + 4..];
        let mut seen = Seen { status, line, headers, body: Vec::new(), whole: true };
        if status < 200 && status != 101 {
            continue;
        }
        if status == 101 {
            seen.body = std::mem::take(&mut rest).to_vec();
        } else if method == "HEAD" || status == 204 || status == 304 {
        } else if let Some(length) = seen.header("content-length") {
            let length: usize = String::from_utf8_lossy(length).parse().expect("a length");
            seen.whole = rest.len() >= length;
            let (body, after) = rest.split_at(length.min(rest.len()));
            seen.body = body.to_vec();
            rest = after;
        } else if seen.header("transfer-encoding") == Some(b"chunked") {
            rest = dechunk(rest, &mut seen);
        } else {
            seen.body = std::mem::take(&mut rest).to_vec();
        }
        all.push(seen);
    }
    all
}

fn dechunk<'a>(mut rest: &'a [u8], seen: &mut Seen) -> &'a [u8] {
    seen.whole = false;
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return &[] };
        let size =
            usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("a size"), 16).expect("a size");
        rest = &rest[end + 2..];
        if size == 0 {
            // Trailers, or none.
            let end = if rest.starts_with(b"\r\n") {
                Some(0)
            } else {
                rest.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 2)
            };
            let Some(end) = end else { return &[] };
            seen.whole = true;
            return &rest[end + 2..];
        }
        seen.body.extend(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return &[];
        }
        assert_eq!(&rest[size..size + 2], b"\r\n", "the end of a chunk");
        rest = &rest[size + 2..];
    }
}

/// Bytes for a message.
pub(crate) fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The bytes in hexadecimal digits, as the applications take source text.
pub(crate) fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
