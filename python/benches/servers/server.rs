//! A server as a child process: how it is started, found ready, asked for its memory, and killed with all its children.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tower_wsgi_benches::load::{Exchange, once};

use crate::contenders::{Contender, Program};
use crate::environment::Environment;

/// The longest start: frameworks are slow to import on a machine that is busy.
const START: Duration = Duration::from_secs(60);
const LISTENING: &str = "listening on http://";

/// A server that answers.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    processes: Processes,
}

impl Server {
    /// Starts it, and waits until it gives the right answer.
    ///
    /// # Errors
    ///
    /// Why it does not, with what it has printed.
    pub(crate) fn start(
        environment: &Environment,
        contender: &Contender,
        application: &str,
        exchange: &Exchange,
    ) -> Result<Server, String> {
        // All rivals want to be told a port. One that was free a moment ago is free, but for bad luck that the first answer shows.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let free = free.map_err(|error| format!("no free port: {error}"))?;
        let mut processes = Processes::start(environment, contender, application, free)?;
        let deadline = Instant::now() + START;
        loop {
            let address = match contender.program {
                Program::Ours => processes.printed_address(),
                Program::Python => Some(free),
            };
            if let Some(address) = address {
                let answer = &exchange.answer;
                let expected =
                    |offset: usize, piece: &[u8]| answer.get(offset..offset + piece.len()) == Some(piece);
                match once(address, |stream| stream.write_all(&exchange.request), Duration::ZERO, expected) {
                    Ok(Ok(length)) if length == answer.len() => return Ok(Server { address, processes }),
                    Ok(Ok(length)) => return Err(processes.told(&format!("a body of only {length} bytes"))),
                    Ok(Err(error)) => return Err(processes.told(&error)),
                    // Not listening yet.
                    Err(_) => {}
                }
            }
            if let Ok(Some(status)) = processes.child.try_wait() {
                return Err(processes.told(&format!("it did not start ({status})")));
            }
            if Instant::now() > deadline {
                return Err(processes.told(&format!("it did not start within {} s", START.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The error with the end of what the server has printed.
    pub(crate) fn told(&self, error: &str) -> String {
        self.processes.told(error)
    }

    /// The resident memory of all its processes now and at its peak, in bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let group = self.processes.group();
        let sum = |field| group.iter().map(|process| status(*process, field)).sum();
        (sum("VmRSS:"), sum("VmHWM:"))
    }

    /// Lets the peak begin at what is resident now.
    pub(crate) fn forget_peak(&self) {
        for process in self.processes.group() {
            // Where this is forbidden, the peak is the one since the start: too high, never too low.
            drop(fs::write(format!("/proc/{process}/clear_refs"), "5"));
        }
    }
}

/// The process group of a server.
struct Processes {
    child: Child,
    /// Kills the group when it loses its input, also where this process itself is killed.
    guard: Child,
    log: PathBuf,
}

impl Processes {
    fn start(
        environment: &Environment,
        contender: &Contender,
        application: &str,
        free: SocketAddr,
    ) -> Result<Processes, String> {
        let log = environment.logs.join("server.log");
        let program = match contender.program {
            Program::Ours => env!("CARGO_BIN_EXE_tower-wsgi").into(),
            Program::Python => environment.python(),
        };
        let port = free.port().to_string();
        let bridged = format!("bridged:{}", application.replace(':', "__"));
        let arguments = contender.arguments.split_whitespace().map(|word| {
            word.replace("{app}", application)
                .replace("{bridged}", &bridged)
                .replace("{port}", &port)
                .replace("{venv}", &environment.venv.to_string_lossy())
                .replace("{apps}", &environment.apps.to_string_lossy())
        });
        let file = File::create(&log).map_err(|error| error.to_string())?;
        let mut command = Command::new(&program);
        // Settings of rivals can come from the environment too.
        command.args(arguments).current_dir(environment.apps).env_clear();
        command.envs(
            std::env::vars_os()
                .filter(|(name, _)| ["PATH", "HOME", "LD_LIBRARY_PATH"].iter().any(|kept| name == kept)),
        );
        command.env("LANG", "C.UTF-8").env("PYTHONDONTWRITEBYTECODE", "1");
        command
            .stdin(Stdio::null())
            .stderr(file.try_clone().map_err(|error| error.to_string())?)
            .stdout(file);
        let child = command.process_group(0).spawn();
        let mut child = child.map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let guard = Command::new("sh")
            .args(["-c", "cat > /dev/null; kill -9 -\"$0\"", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match guard {
            Ok(guard) => Ok(Processes { child, guard, log }),
            Err(error) => {
                drop(child.kill());
                drop(child.wait());
                Err(format!("sh cannot be started: {error}"))
            }
        }
    }

    fn printed_address(&self) -> Option<SocketAddr> {
        let log = fs::read_to_string(&self.log).ok()?;
        // Only with the end of its line is it complete.
        let (address, _) = log.split_once(LISTENING)?.1.split_once('\n')?;
        address.trim().parse().ok()
    }

    fn told(&self, error: &str) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned();
        let log = if log.is_empty() { "(nothing)" } else { log.trim_end() };
        format!("{error}; it has printed:\n{log}")
    }

    /// The ids of all processes in the group.
    fn group(&self) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let leader = self.child.id().to_string();
        let inside = |id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // After the name, which can contain anything: the state, the parent, the group.
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)) == Some(&leader)
        };
        ids.filter(inside).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        drop(self.guard.wait());
        // Its id is its own until here, so the guard has killed no other group.
        drop(self.child.wait());
    }
}

/// A figure of `/proc/PID/status` in bytes; 0 for a process that has ended.
fn status(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.map_or(0, |kibibytes: u64| kibibytes * 1024)
}
