//! `tower-wsgi`: a server for Python WSGI and ASGI applications.
//!
//! A trip: `args` says what is wanted, `bind` takes the address, `serve` loads the application and accepts connections, `connection` gives each request to it. With several
//! processes, `processes` stands in between: the parent starts this program again, and hands the address on.

mod access;
mod args;
mod bind;
mod connection;
mod failure;
mod keeper;
mod log;
mod processes;
mod serve;
mod signals;

use std::io::{self, Write};
use std::process;

use clap::Parser;

use crate::args::Args;
use crate::failure::Failure;

/// Requests are allocated by the runtime's thread and freed by workers: with glibc's allocator the two fight for its locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args = Args::parse();
    if args.version {
        let python = pyo3::Python::version_str();
        let python = python.split(' ').next().unwrap_or(python);
        return say(&format!("tower-wsgi {} (Python {python})", env!("CARGO_PKG_VERSION")));
    }
    log::init(args.log_level());
    let done = match (args.child, args.processes.get()) {
        (true, _) => processes::child(&args),
        (false, 1) => serve::alone(&args),
        (false, _) => processes::parent(&args),
    };
    let code = match done {
        Ok(()) => 0,
        Err(Failure { code, message }) => {
            if let Some(message) = message {
                let _ = writeln!(io::stderr(), "tower-wsgi: {message}");
            }
            code
        }
    };
    // Threads may still be in Python. They end with the process; nothing is torn down under them.
    process::exit(code.into());
}

/// Prints a line on stdout, where somebody may or may not read it.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
