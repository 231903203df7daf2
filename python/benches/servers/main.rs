//! This crate's server against those that Python applications are served by today.
//!
//! ```text
//! cargo bench -p tower-wsgi-python --bench servers [-- --rounds 5 --seconds 2 --connections 1,32 --only flask --servers granian,tower]
//! cargo bench -p tower-wsgi-python --bench servers -- --memory [--mebibytes 1024]
//! ```
//!
//! Every server runs the same applications (`benches/apps`) in one process, from one virtual environment that is made
//! below the target directory on the first run. Ours runs with its default settings, its rivals with the best ones known
//! to us. Each round starts each server anew, in an order that rotates, warms it up and loads it; each figure is a median
//! over the rounds with the lowest and the highest, and ratios are taken within a round. A wrong answer, an error or a
//! server that does not start is told, takes that server out of the workload, and makes the exit code 1.

mod contenders;
mod environment;
mod memory;
mod server;
mod table;
mod workloads;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tower_wsgi_benches::load::{self, Load};

use crate::contenders::{CONTENDERS, Contender};
use crate::environment::Environment;
use crate::server::Server;
use crate::workloads::{Workload, workloads};

/// Compares the servers for Python applications.
#[derive(Parser)]
struct Arguments {
    /// How often each server is measured on each workload.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The length of a measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The length of the warm-up before it.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// How many keep-alive connections there are.
    #[arg(long, value_delimiter = ',', default_value = "1,32")]
    connections: Vec<usize>,
    /// Only workloads whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only servers whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Measure the memory that long uploads and downloads take, and no speed.
    #[arg(long)]
    memory: bool,
    /// The length of such an upload or download.
    #[arg(long, default_value_t = 1024)]
    mebibytes: usize,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn contenders(&self, workload: &Workload) -> Vec<&'static Contender> {
        let contenders = CONTENDERS.iter().filter(|contender| contender.serves == workload.interface);
        contenders.filter(|contender| named(contender.name, &self.servers)).collect()
    }
}

/// Whether the name contains one of the patterns, or there are none.
fn named(name: &str, patterns: &[String]) -> bool {
    let name = name.to_lowercase();
    patterns.is_empty() || patterns.iter().any(|pattern| name.contains(&pattern.to_lowercase()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let environment = match Environment::prepare() {
        Ok(environment) => environment,
        Err(missing) => {
            eprintln!("{missing}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", environment.machine());
    let failures =
        if arguments.memory { memory::run(&arguments, &environment) } else { run(&arguments, &environment) };
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nleft out");
    let first_line = |failure: &String| println!("  {}", failure.lines().next().unwrap_or_default());
    failures.iter().for_each(first_line);
    ExitCode::FAILURE
}

/// A server's measurements on one workload.
struct Entry {
    contender: &'static Contender,
    /// By round, then by number of connections.
    loads: Vec<Vec<Load>>,
    failed: bool,
}

fn run(arguments: &Arguments, environment: &Environment) -> Vec<String> {
    println!(
        "{} interleaved rounds of {} s each after {} s of warm-up",
        arguments.rounds, arguments.seconds, arguments.warm_up
    );
    let mut failures = Vec::new();
    let mut summary = Vec::new();
    for workload in workloads().iter().filter(|workload| named(workload.name, &arguments.only)) {
        let new = |contender| Entry { contender, loads: Vec::new(), failed: false };
        let mut entries: Vec<Entry> = arguments.contenders(workload).into_iter().map(new).collect();
        let count = entries.len();
        for turn in
            (0..arguments.rounds).flat_map(|round| (0..count).map(move |index| (round + index) % count))
        {
            let entry = &mut entries[turn];
            if entry.failed {
                continue;
            }
            match measure(arguments, environment, entry.contender, workload) {
                Ok(loads) => entry.loads.push(loads),
                Err(failure) => {
                    let failure = format!("{}, {}: {failure}", workload.name, entry.contender.name);
                    eprintln!("FAILED {failure}");
                    failures.push(failure);
                    entry.failed = true;
                }
            }
        }
        entries.retain(|entry| !entry.failed);
        if entries.is_empty() {
            continue;
        }
        for (index, connections) in arguments.connections.iter().enumerate() {
            let plural = if *connections == 1 { "" } else { "s" };
            let title = format!("{}, {connections} connection{plural}", workload.name);
            summary.extend(table::speed(&title, &entries, index));
        }
    }
    if !summary.is_empty() {
        println!(
            "\nrequests per second, ours to those of the best rival (median of the ratios within a round)"
        );
        summary.iter().for_each(|line| println!("  {line}"));
    }
    failures
}

/// One server, started for this and nothing else, under one number of connections after the other.
fn measure(
    arguments: &Arguments,
    environment: &Environment,
    contender: &Contender,
    workload: &Workload,
) -> Result<Vec<Load>, String> {
    let server = Server::start(environment, contender, workload.application, &workload.exchange)?;
    let warm_up = Duration::from_secs_f64(arguments.warm_up);
    let time = Duration::from_secs_f64(arguments.seconds);
    let load = |connections: &usize| {
        let load = load::load(server.address, &workload.exchange, *connections, warm_up, time);
        load.map_err(|error| server.told(&format!("{error}, with {connections} connections")))
    };
    arguments.connections.iter().map(load).collect()
}
