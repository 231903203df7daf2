//! The server's process: its start, its end, and what it has.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tower_wsgi::BoxError;

use crate::serve::{LISTENING, TAKEN_UP};

/// A server. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) address: SocketAddr,
    /// Of the synchronous host.
    pub(crate) host: SocketAddr,
}

impl Server {
    /// Starts this program as a server.
    pub(crate) fn start() -> Result<Self, BoxError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = lines.next().ok_or("it did not start")??;
        let addresses = line.strip_prefix(LISTENING).and_then(|line| line.split_once(' '));
        let (address, host) = addresses.ok_or_else(|| format!("it did not start: {line}"))?;
        Ok(Self { address: address.parse()?, host: host.parse()?, child, lines })
    }

    /// Tells it to stop, waits until it has, and returns how many requests it took up.
    pub(crate) fn stop(mut self) -> Result<u64, BoxError> {
        let process = Pid::from_raw(self.child.id().cast_signed()).ok_or("no process")?;
        kill_process(process, Signal::TERM)?;
        let line = self.lines.next().ok_or("it ended without a word")??;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("it ended with {status}").into());
        }
        Ok(line.strip_prefix(TAKEN_UP).ok_or("other last words than expected")?.parse()?)
    }

    /// What the process has at this moment.
    pub(crate) fn holdings(&self) -> Result<Holdings, BoxError> {
        let process = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let number = |key: &str| -> Result<u64, BoxError> {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .ok_or("another status than expected")?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Holdings {
            threads: number("Threads:")?,
            files: fs::read_dir(format!("{process}/fd"))?.count(),
            resident: number("VmRSS:")?,
        })
    }

    /// How many workers it has.
    pub(crate) fn workers(&self) -> Result<usize, BoxError> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        // One that has just ended has no name.
        let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        Ok(names
            .filter(|name| name.starts_with("tower-wsgi-work") || name.starts_with("tower-wsgi-reap"))
            .count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holdings {
    pub(crate) threads: u64,
    pub(crate) files: usize,
    /// In KiB.
    pub(crate) resident: u64,
}
