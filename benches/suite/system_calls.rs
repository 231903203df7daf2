//! The system calls of a process, counted by `perf` where it is installed and allowed to.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const EVENT: &str = "raw_syscalls:sys_enter";
/// How long it takes to attach; perf does not say when it has.
const ATTACH: Duration = Duration::from_millis(200);

/// Counts until it is told to end.
pub(crate) struct Counter {
    perf: Child,
}

impl Counter {
    /// `None` if it cannot be counted here.
    pub(crate) fn start(process: u32) -> Option<Counter> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x", ",", "-e", EVENT, "-p", &process.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut counter = Counter { perf: command.spawn().ok()? };
        std::thread::sleep(ATTACH);
        match counter.perf.try_wait() {
            Ok(None) => Some(counter),
            _ => None,
        }
    }

    /// How many there were.
    pub(crate) fn end(mut self) -> Option<u64> {
        kill_process(Pid::from_child(&self.perf), Signal::INT).ok()?;
        let mut output = String::new();
        self.perf.stderr.take()?.read_to_string(&mut output).ok()?;
        let line = output.lines().find(|line| line.contains(EVENT))?;
        line.split(',').next()?.parse().ok()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        drop(self.perf.kill());
        drop(self.perf.wait());
    }
}
