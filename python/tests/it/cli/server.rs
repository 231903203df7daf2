//! The server as a process, and a client that takes what comes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Nothing here takes so long, unless it hangs.
pub(super) const WATCHDOG: Duration = Duration::from_secs(60);

/// Where `app.py` is.
pub(super) fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli")
}

/// The server with `app.py` in reach, on a free port unless `arguments` say something else.
pub(super) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tower-wsgi"));
    command
        .args(arguments)
        .current_dir(apps())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("VIRTUAL_ENV")
        .env_remove("PYTHONUNBUFFERED");
    command
}

/// A running process: killed when it is dropped.
pub(super) struct Server {
    pub(super) pid: Pid,
    /// What the line said.
    pub(super) url: String,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    status: Receiver<ExitStatus>,
}

impl Server {
    /// Starts the server and waits until it listens.
    pub(super) fn start(arguments: &[&str]) -> Self {
        Self::start_command(command(&[&["--bind", "127.0.0.1:0"], arguments].concat()))
    }

    pub(super) fn start_command(command: Command) -> Self {
        let mut server = Self::spawn(command);
        let Some(url) = server.line().and_then(|line| Some(line.strip_prefix("listening on ")?.to_owned()))
        else {
            panic!("it does not listen:\n{}", server.errors());
        };
        server.url = url;
        server
    }

    /// Starts the server.
    pub(super) fn spawn(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let pid = Pid::from_child(&child);
        let (ended, status) = channel();
        let (stdout, stderr) = (lines(stdout), lines(stderr));
        thread::spawn(move || ended.send(child.wait().unwrap()));
        Self { pid, url: String::new(), stdout, stderr, status }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").expect("TCP").parse().expect("an address")
    }

    /// The next line on stdout; `None` at its end.
    pub(super) fn line(&self) -> Option<String> {
        match self.stdout.recv_timeout(WATCHDOG) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(error) => panic!("no line on stdout: {error}"),
        }
    }

    /// The next line on stderr that has `text` in it.
    pub(super) fn error_line(&self, text: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(WATCHDOG);
            let line = line.unwrap_or_else(|error| panic!("no line with {text:?} on stderr: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// All that is left on stderr, once the process has ended.
    pub(super) fn errors(&self) -> String {
        let mut text = String::new();
        while let Ok(line) = self.stderr.recv_timeout(WATCHDOG) {
            text += &line;
            text.push('\n');
        }
        text
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for the end; returns the exit code.
    pub(super) fn end(&self) -> i32 {
        let status = self.status.recv_timeout(WATCHDOG).expect("it does not end");
        status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()))
    }

    /// Kills it, and waits until its sockets are gone with it.
    pub(super) fn kill(self) {
        self.signal(Signal::KILL);
        let status = self.status.recv_timeout(WATCHDOG).expect("it does not end");
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    pub(super) fn json(&self, target: &str) -> Value {
        json(&get(self.address(), target))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(std::sync::mpsc::TryRecvError::Empty) = self.status.try_recv() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

/// A request of which the response is yet to be read.
pub(super) fn send(address: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

pub(super) fn read(mut stream: impl Read) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// The whole response.
pub(super) fn get(address: SocketAddr, target: &str) -> String {
    read(send(address, target))
}

pub(super) fn json(response: &str) -> Value {
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    let (_, body) = response.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {response}"))
}

/// Where a request waits until the test lets it go on.
pub(super) struct Gate(TcpListener);

impl Gate {
    pub(super) fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(super) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Waits until somebody is held.
    pub(super) fn held(&self) -> Held {
        // A watchdog for `accept`, which has no timeout: a connection of its own that says something else.
        let address = self.0.local_addr().unwrap();
        let (done, over) = channel::<()>();
        thread::spawn(move || {
            if over.recv_timeout(WATCHDOG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = TcpStream::connect(address);
            }
        });
        let (mut stream, _) = self.0.accept().unwrap();
        drop(done);
        stream.read_exact(&mut [0]).expect("nobody came to the gate");
        Held(stream)
    }
}

/// Lets the one that is held go on, when it is dropped.
pub(super) struct Held(#[expect(dead_code, reason = "closing it is what it is for")] TcpStream);
