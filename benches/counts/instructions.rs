//! Instructions, by callgrind.

use std::process::{Command, Stdio};

use crate::cases::Case;

const REQUESTS: u64 = 2000;

/// The functions that are all of a request's work: of the caller, and of a worker.
const COUNTED: [&str; 2] = ["counts::cases::step*", "*tower_wsgi::pool::Job>::run"];

/// Instructions per request in user space.
///
/// # Errors
///
/// What is missing.
pub(crate) fn count(case: &Case) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--dump-line=no"]);
    valgrind.args(COUNTED.map(|function| format!("--toggle-collect={function}")));
    valgrind.arg(program).args(["--case", case.name, "--requests", &REQUESTS.to_string()]);
    let output = valgrind.stdin(Stdio::null()).output().map_err(|error| {
        format!("valgrind cannot be started, which counts the instructions (on Debian: the package valgrind): {error}")
    })?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected =
        told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match collected {
        Some(instructions) if output.status.success() => Ok(instructions as f64 / REQUESTS as f64),
        _ => Err(format!("callgrind did not count {}:\n{told}", case.name)),
    }
}
