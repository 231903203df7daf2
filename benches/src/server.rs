//! A server as a child process, which is this program again with other arguments: contenders then share no runtime, no
//! allocator and no threads with each other or with the load generator.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The longest start.
const START: Duration = Duration::from_secs(10);
const LISTENING: &str = "listening on ";

/// A server that listens. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts this program with these arguments, and waits for the address that it [announces](announce).
    ///
    /// # Errors
    ///
    /// If it cannot be started, or ends or hangs before it listens.
    pub fn start(arguments: &[String]) -> Result<Server, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        match child.stdout.take().map(first_line) {
            Some(Ok(line)) => match line.trim().strip_prefix(LISTENING).and_then(|it| it.parse().ok()) {
                Some(address) => Ok(Server { address, child }),
                None => Err(format!("it did not start ({:?}): {line:?}", end(child))),
            },
            Some(Err(error)) => Err(format!("it did not start ({:?}): {error}", end(child))),
            None => Err("no standard output".to_owned()),
        }
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What its threads have used so far.
    ///
    /// # Errors
    ///
    /// If `/proc` does not say.
    pub fn usage(&self) -> Result<Usage, String> {
        usage(self.id()).map_err(|error| format!("/proc/{} cannot be read: {error}", self.id()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn end(mut child: Child) -> io::Result<ExitStatus> {
    drop(child.kill());
    child.wait()
}

fn first_line(output: ChildStdout) -> Result<String, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line).map(|_| line);
        // Nobody waits for it any more if it came too late.
        drop(sender.send(read));
    });
    match receiver.recv_timeout(START) {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing within {} s", START.as_secs())),
    }
}

/// What a server does first: from now on it ends with its parent, however that ends.
pub fn end_with_parent() {
    thread::spawn(|| {
        // It ends with the last writer, which is the parent.
        drop(io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
}

/// What a server does last before it accepts connections.
///
/// # Errors
///
/// If nobody reads it.
pub fn announce(address: SocketAddr) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{LISTENING}{address}")?;
    stdout.flush()
}

/// What each thread of a process has used since it started.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    threads: HashMap<u32, Used>,
}

/// What was used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// Context switches, voluntary and involuntary.
    pub switches: u64,
    /// Time on a CPU in nanoseconds.
    pub cpu: u64,
}

impl Usage {
    /// What was used since an earlier look. A thread that has ended meanwhile took its figures along.
    #[must_use]
    pub fn since(&self, earlier: &Usage) -> Used {
        let mut sum = Used::default();
        for (thread, now) in &self.threads {
            let before = earlier.threads.get(thread).copied().unwrap_or_default();
            sum.switches += now.switches.saturating_sub(before.switches);
            sum.cpu += now.cpu.saturating_sub(before.cpu);
        }
        sum
    }
}

fn usage(process: u32) -> io::Result<Usage> {
    let mut threads = HashMap::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let path = task?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        // One that has just ended has no figures.
        let status = fs::read_to_string(path.join("status"));
        let schedule = fs::read_to_string(path.join("schedstat"));
        if let (Some(id), Ok(status), Ok(schedule)) = (id, status, schedule) {
            let cpu = schedule.split_whitespace().next().and_then(|time| time.parse().ok());
            let switches = number(&status, "voluntary_ctxt_switches:")
                .zip(number(&status, "nonvoluntary_ctxt_switches:"))
                .map(|(voluntary, involuntary)| voluntary + involuntary);
            let (Some(cpu), Some(switches)) = (cpu, switches) else {
                return Err(io::Error::other("it has another format than expected"));
            };
            threads.insert(id, Used { switches, cpu });
        }
    }
    Ok(Usage { threads })
}

fn number(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field)).and_then(|value| value.trim().parse().ok())
}
