//! An example as a process, and a client that shows what is on the wire.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::support::{PATIENCE, watched_for};

/// An example that runs.
pub(super) struct Example {
    pub(super) addr: SocketAddr,
    process: Arc<Process>,
    log: NamedTempFile,
}

struct Process(Mutex<Child>);

/// Kills and reaps the process also where the test hangs: that thread still has its `Example`.
struct Guard(Arc<Process>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Process {
    fn kill(&self) {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Starts an example and runs a test against it, which must not hang.
pub(super) fn with(name: &str, arguments: &[&str], test: impl FnOnce(&Example) + Send + 'static) {
    run(name, arguments, &[], PATIENCE, test);
}

/// The same for an example that is told something in its environment.
pub(super) fn with_env(name: &str, variables: &[(&str, &str)], test: impl FnOnce(&Example) + Send + 'static) {
    run(name, &[], variables, PATIENCE, test);
}

/// The same for a test that needs more patience.
pub(super) fn with_patience(name: &str, patience: Duration, test: impl FnOnce(&Example) + Send + 'static) {
    run(name, &[], &[], patience, test);
}

fn run(
    name: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
    patience: Duration,
    test: impl FnOnce(&Example) + Send + 'static,
) {
    let path = path(name);
    let log = NamedTempFile::new().expect("a log");
    let mut child = Command::new(&path)
        .args(arguments)
        .env("ADDR", "127.0.0.1:0")
        .env("RUST_BACKTRACE", "0")
        .env("NO_COLOR", "1")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.reopen().expect("a log"))
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo build --examples`", path.display()));
    let stdout = child.stdout.take().expect("a pipe");
    let process = Arc::new(Process(Mutex::new(child)));
    let _guard = Guard(process.clone());

    let (sender, line) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(read.map(|_| line));
    });
    let line = line.recv_timeout(PATIENCE).expect("a line in time").expect("a line");
    let addr = line.trim_end().strip_prefix("listening on http://").and_then(|addr| addr.parse().ok());
    let addr = addr.unwrap_or_else(|| panic!("{name} said {line:?}"));

    let example = Example { addr, process, log };
    watched_for(patience, move || test(&example));
}

/// Looks again and again, since nothing announces it, until there is something.
pub(super) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::yield_now();
    }
}

/// Examples are beside the directory that this test is in.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION)
}

impl Example {
    pub(super) fn pid(&self) -> u32 {
        self.process.0.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        let process = fork::ProcessId::new(self.pid().try_into().expect("a process")).expect("a process");
        fork::signal_process(process, fork::Signal::TERM).expect("a signal");
    }

    /// Waits for its end.
    pub(super) fn wait(&self) -> ExitStatus {
        until("the process ends", || {
            self.process.0.lock().unwrap_or_else(PoisonError::into_inner).try_wait().expect("a child")
        })
    }

    /// What it has written to its standard error.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("a log")
    }

    pub(super) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Client(BufReader::new(stream))
    }

    /// Sends a request without a body on a connection of its own, whose response is not read yet.
    pub(super) fn begin(&self, path: &str) -> Client {
        let mut client = self.connect();
        client.send(head("GET", path, &[]) + "\r\n");
        client
    }

    /// Waits until a page says something.
    pub(super) fn says(&self, path: &str, what: &str) {
        until(what, || self.ask("GET", path, &[], "").text().contains(what).then_some(()));
    }

    /// Sends a request on a connection of its own.
    pub(super) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        self.connect().ask(method, path, headers, body)
    }

    /// The most memory that the process ever had, in KiB; `None` where nobody counts it.
    pub(super) fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }
}

/// A connection to an example.
pub(super) struct Client(BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl Client {
    /// Sends bytes as they are.
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("to send");
    }

    /// Says that nothing more is sent.
    pub(super) fn finish(&mut self) {
        self.0.get_mut().shutdown(std::net::Shutdown::Write).expect("a socket");
    }

    /// Sends a request, with a `Content-Length` if it has a body, and reads its response.
    pub(super) fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        self.try_ask(method, path, headers, body).expect("a whole response")
    }

    /// The same where the server may be about to end.
    pub(super) fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> io::Result<Reply> {
        let mut request = head(method, path, headers);
        if !body.is_empty() {
            write!(request, "Content-Length: {}\r\n", body.len()).expect("a string");
        }
        match self.0.get_mut().write_all((request + "\r\n" + body).as_bytes()) {
            // The server has closed the connection: it may have answered before it had read all.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            sent => sent?,
        }
        self.reply(method)
    }

    /// Reads a response.
    pub(super) fn reply(&mut self, method: &str) -> io::Result<Reply> {
        let mut reply = self.head()?;
        if method == "HEAD" || matches!(reply.status, 100..200 | 204 | 304) {
            return Ok(reply);
        }
        if let Some(length) = reply.header("content-length") {
            reply.body.resize(length.parse().expect("a length"), 0);
            self.0.read_exact(&mut reply.body)?;
        } else if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                reply.body.extend(chunk);
            }
        } else {
            self.0.read_to_end(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// Reads a response's head.
    pub(super) fn head(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("a status line like {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Reply { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(": ").expect("a header");
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Reads a chunk; `None` after the last.
    pub(super) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(&line, 16);
        let length = length.map_err(|_| io::Error::other(format!("{line:?} where a chunk should be")))?;
        let mut chunk = vec![0; length];
        self.0.read_exact(&mut chunk)?;
        assert_eq!(self.line()?, "", "the end of a chunk");
        Ok((length > 0).then_some(chunk))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A request's head, but for the empty line.
pub(super) fn head(method: &str, path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: example.org\r\n{headers}")
}

/// The digest of `pieces` pieces, in the words of the examples.
pub(super) fn sha256(piece: &[u8], pieces: usize) -> String {
    let mut hash = Sha256::new();
    for _ in 0..pieces {
        hash.update(piece);
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    digits + "\n"
}
