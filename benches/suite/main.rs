//! The crossing from async to sync against what users write by hand, and against synchronous servers.
//!
//! ```text
//! cargo bench --bench suite [-- --rounds 5 --seconds 1 --connections 1,32 --only hello,echo --contenders wsgi,native]
//! cargo bench --bench suite -- --scale [--only workers,chunk]
//! ```
//!
//! Every contender is a process of its own: this program again, with other arguments. Each round starts each of them anew, in
//! an order that rotates, warms it up and loads it; each figure is a median over the rounds with the lowest and the highest,
//! and ratios are taken within a round. A wrong answer, an error or a server that does not start is told, takes that contender
//! out of the workload, and makes the exit code 1. Every measurement is a line in `target/report/records/suite.jsonl`,
//! with `--scale` in `scale.jsonl`.

mod bench;
mod contenders;
mod long;
mod mixed;
mod scale;
mod serve;
mod short;
mod system_calls;
mod table;
mod workloads;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::bench::{Bench, matches};
use crate::contenders::CONTENDERS;
use crate::serve::Settings;
use crate::workloads::Kind;

/// Compares ways to run blocking code behind HTTP.
#[derive(Parser)]
struct Arguments {
    /// How often each contender is measured on each workload.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The length of a measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// The length of the warm-up before it.
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// How many keep-alive connections there are, each with one request at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,256")]
    connections: Vec<usize>,
    /// Only workloads whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only contenders whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// Only these versions of HTTP.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    protocol: Vec<u8>,
    /// Vary settings, connections and cores instead.
    #[arg(long)]
    scale: bool,
    #[command(flatten)]
    settings: Settings,
    /// Be the server of this name, until the standard input ends.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    raise_limit();
    let arguments = Arguments::parse();
    let done = match &arguments.serve {
        Some(name) => serve(name, &arguments.settings),
        None => measure(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str, settings: &Settings) -> Result<(), String> {
    let contender = contenders::named(name)?;
    serve::run(contender.run, settings).map_err(|error| format!("{name}: {error}"))
}

fn measure(arguments: Arguments) -> Result<(), String> {
    let is_unknown =
        |asked: &&String| !CONTENDERS.iter().any(|known| matches(known.name, std::slice::from_ref(*asked)));
    if let Some(unknown) = arguments.contenders.iter().find(is_unknown) {
        let names: Vec<&str> = CONTENDERS.iter().map(|contender| contender.name).collect();
        return Err(format!("no contender's name contains {unknown:?}: there are {}", names.join("; ")));
    }
    let mut bench = Bench::new(arguments).map_err(|error| format!("no place for the records: {error}"))?;
    introduce(&bench);
    if bench.arguments.scale {
        scale::run(&mut bench);
    } else {
        crossing(&mut bench);
    }
    let (records, failures) = bench.end();
    println!("\neach measurement is a line in {}", records.display());
    if failures.is_empty() {
        return Ok(());
    }
    let lines: Vec<&str> = failures.iter().filter_map(|failure| failure.lines().next()).collect();
    Err(format!("left out:\n  {}", lines.join("\n  ")))
}

fn crossing(bench: &mut Bench) {
    let short = Kind::SHORT.map(|kind| (kind, short::HTTP1));
    let short = short.into_iter().chain([Kind::Hello, Kind::Echo].map(|kind| (kind, short::HTTP2)));
    for (kind, protocol) in short {
        if bench.wants(kind.name(), protocol.version) {
            short::run(bench, kind, protocol);
        }
    }
    for kind in Kind::LONG {
        if bench.wants(kind.name(), 1) {
            long::run(bench, kind);
        }
    }
    if bench.wants(Kind::Mixed.name(), 1) {
        mixed::run(bench);
    }
}

fn introduce(bench: &Bench) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Arguments { rounds, seconds, warm_up, .. } = bench.arguments;
    println!("{cores} cores, {rounds} interleaved rounds of {seconds} s each after {warm_up} s of warm-up");
}

/// As many open files as may be, for this process and for the servers, who inherit it.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it stays too low, whoever needs more says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
