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

const QUICK: [&str; 4] = ["--rounds", "3", "--milliseconds", "100"];

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
    if !arguments.no_run {
        let quick = if arguments.quick { &QUICK[..] } else { &[] };
        let of_suite: Vec<&str> =
            quick.iter().copied().chain(arguments.suite.iter().map(String::as_str)).collect();
        bench("suite", &of_suite)?;
        bench("suite", &[&["--scale"], &of_suite[..]].concat())?;
        bench("in_place", quick)?;
    }
    let records = record::directory().map_err(|error| error.to_string())?;
    let path = report::write(&records)?;
    println!("{}", path.display());
    if let Some(directory) = &arguments.publish {
        for path in report::publish(&records, directory)? {
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Cargo builds it first, if it has to.
fn bench(name: &str, arguments: &[&str]) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["bench", "--package", env!("CARGO_PKG_NAME"), "--bench", name, "--"]).args(arguments);
    let status = command.status().map_err(|error| format!("cargo does not start: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("the benchmark {name} {} ended with {status}", arguments.join(" "))),
    }
}
