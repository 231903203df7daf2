//! A program that serves: it says on its first line where, and ends when it is told to or dropped.

use std::io::{BufRead, BufReader, Read};
use std::mem;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use super::PATIENCE;

/// A program that serves. Killed when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    process: Guard,
    log: Log,
    said: Log,
    reading: Vec<JoinHandle<()>>,
}

/// Kills the process when dropped: also where a test hangs, whose thread still has its [`Server`].
/// Then it shows what the process has said, too.
#[derive(Clone)]
pub(crate) struct Guard {
    child: Arc<Mutex<Child>>,
    log: Log,
}

impl Guard {
    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        let mut child = self.child();
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let said = mem::take(&mut *self.log.0.lock().unwrap_or_else(PoisonError::into_inner));
            eprint!("{}", String::from_utf8_lossy(&said));
        }
    }
}

/// What a program has said so far, on standard error or on standard output.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Notes what comes until the end.
    fn take(&self, mut stream: impl Read) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..length]);
        }
    }

    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || log.take(stream))
    }
}

impl Server {
    /// Starts a program and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not, with what it said.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (log, said) = (Log::default(), Log::default());
        let reading = log.follow(child.stderr.take().expect("a pipe"));
        let stdout = child.stdout.take().expect("a pipe");
        let process = Guard { child: Arc::new(Mutex::new(child)), log: log.clone() };
        let addr = SocketAddr::from(([0; 4], 0));
        let mut server = Server { addr, process, log, said: said.clone(), reading: vec![reading] };

        let (sender, line) = mpsc::channel();
        server.reading.push(thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut lines = String::new();
            // An application may say things while it starts.
            while stdout.read_line(&mut lines).is_ok_and(|length| length > 0) {
                if let Some((_, addr)) = lines.trim_end().rsplit_once("listening on http://") {
                    let _ = sender.send(Ok(addr.to_owned()));
                    break;
                }
            }
            let _ = sender.send(Err(lines));
            said.take(stdout);
        }));
        server.addr = match line.recv_timeout(PATIENCE) {
            Ok(Ok(addr)) => addr.parse().expect("an address"),
            other => {
                server.process.kill();
                server.finish_log();
                panic!("{command:?} does not listen, it says {other:?}")
            }
        };
        server
    }

    pub(crate) fn guard(&self) -> Guard {
        self.process.clone()
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// What it has said on standard output since it listens.
    pub(crate) fn said(&self) -> &Log {
        &self.said
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child().id()
    }

    /// Tells it to stop, as an operator would, and waits until it has.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.stop_by("TERM")
    }

    /// The same with another signal.
    pub(crate) fn stop_by(&mut self, signal: &str) -> ExitStatus {
        let told = Command::new("kill").args(["-s", signal]).arg(self.pid().to_string()).status();
        assert!(told.expect("the program `kill`").success());
        let start = std::time::Instant::now();
        loop {
            let status = self.process.child().try_wait().expect("a child");
            if let Some(status) = status {
                self.finish_log();
                return status;
            }
            if start.elapsed() > PATIENCE {
                self.process.kill();
                panic!("does not stop");
            }
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn finish_log(&mut self) {
        for reading in self.reading.drain(..) {
            let _ = reading.join();
        }
    }
}
