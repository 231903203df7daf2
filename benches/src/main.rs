//! Runs all benchmarks of the core crate, and writes the report.
//!
//! ```text
//! cargo run --release -p tower-wsgi-benches [-- --quick] [-- -- ARGUMENTS FOR THE SUITE]
//! cargo run --release -p tower-wsgi-benches -- --no-run --publish docs/speed
//! ```

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use tower_wsgi_benches::record;

mod report;

/// Runs all benchmarks, and writes a report with tables and plots.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only write the report, from the records that there are.
    #[arg(long)]
    no_run: bool,
    /// Few and short rounds: to see whether everything runs, not for its figures.
    #[arg(long, conflicts_with = "no_run")]
    quick: bool,
    /// Copy the plots that other documents show into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    publish: Option<PathBuf>,
    /// Arguments for the suite of the crossing from async to sync, after a `--`.
    #[arg(last = true, conflicts_with = "no_run")]
    suite: Vec<String>,
}

const QUICK_SUITE: [&str; 4] = ["--rounds", "3", "--seconds", "0.1"];
const QUICK_IN_PLACE: [&str; 4] = ["--rounds", "3", "--milliseconds", "20"];

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let mut failures = Vec::new();
    if !arguments.no_run {
        failures = measure(arguments);
    }
    // What was measured is worth a report, whatever else went wrong.
    let records = record::directory().map_err(|error| error.to_string())?;
    let path = report::write(&records)?;
    println!("{}", path.display());
    if let Some(directory) = &arguments.publish {
        for path in report::publish(&records, directory)? {
            println!("{}", path.display());
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Returns what went wrong.
fn measure(arguments: &Arguments) -> Vec<String> {
    let quick = |of: &'static [&str]| if arguments.quick { of } else { &[] }.iter().copied();
    let mut suite: Vec<&str> = quick(&QUICK_SUITE).collect();
    suite.extend(arguments.suite.iter().map(String::as_str));
    let scale = [&["--scale"], &suite[..]].concat();
    let in_place: Vec<&str> = quick(&QUICK_IN_PLACE).collect();
    let benches = [("suite", suite), ("suite", scale), ("in_place", in_place)];
    benches.iter().filter_map(|(name, arguments)| bench(name, arguments).err()).collect()
}

/// Cargo builds it first, if it has to.
fn bench(name: &str, arguments: &[&str]) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["bench", "--package", env!("CARGO_PKG_NAME"), "--bench", name, "--"]).args(arguments);
    let status = command.status().map_err(|error| format!("cargo does not start: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{name} {} ended with {status}", arguments.join(" "))),
    }
}
