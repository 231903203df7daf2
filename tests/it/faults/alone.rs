//! Tests that are run again in a process of their own: those that look at all descriptors, threads or memory of a process, or take them away from it.

use std::process::{Command, Stdio};

use crate::support::{PATIENCE, watched_for};

/// Names the test that the process is for.
const INSIDE: &str = "TOWER_WSGI_TEST_ALONE";

/// True in the process of its own. Elsewhere that is started, inside of what `shell` has set, and has to succeed.
pub(super) fn alone(name: &'static str, shell: &str) -> bool {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return true;
    }
    let this = std::env::current_exe().expect("this program");
    let child = Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(this)
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env(INSIDE, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    let patience = if is_long() { 60 * PATIENCE } else { PATIENCE };
    let output = watched_for(patience, move || child.wait_with_output().expect("to end"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{}: {stdout}{stderr}", output.status);
    false
}

/// How many descriptors this process has open.
pub(super) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a list").count() - 1
}

/// How many threads this process has.
pub(super) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("a list").count()
}

/// How much memory this process has in use, in KiB.
pub(super) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Whether the long forms of these tests are wanted: all products instead of a choice of them.
pub(super) fn is_long() -> bool {
    std::env::var_os("TOWER_WSGI_TEST_LONG").is_some()
}
