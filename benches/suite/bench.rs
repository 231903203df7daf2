//! Interleaved rounds, what they measure, and what fails.

use std::io;
use std::path::Path;
use std::time::Duration;

use tower_wsgi_benches::record::{Record, Records};
use tower_wsgi_benches::server::Server;

use crate::Arguments;
use crate::contenders::{self, CONTENDERS, Contender};
use crate::serve::Settings;
use crate::table;
use crate::workloads::{Kind, calibrate};

pub(crate) const THROUGHPUT: &str = "requests per second";
pub(crate) const P50: &str = "p50 µs";
pub(crate) const P99: &str = "p99 µs";
pub(crate) const SPEED: &str = "MiB/s";
pub(crate) const SWITCHES: &str = "context switches per request";
pub(crate) const CPU: &str = "CPU µs per request";
pub(crate) const SYSTEM_CALLS: &str = "system calls per request";

/// What is measured, and with what.
#[derive(Clone, Copy)]
pub(crate) struct Title {
    pub(crate) suite: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) parameter: &'static str,
}

impl Title {
    /// The workload with its protocol.
    pub(crate) fn name(self) -> String {
        match self.protocol {
            "" => self.workload.to_owned(),
            protocol => format!("{}, {protocol}", self.workload),
        }
    }
}

/// A measurement of one contender in one round.
pub(crate) struct Sample {
    /// The parameter's.
    pub(crate) value: f64,
    pub(crate) metric: &'static str,
    pub(crate) figure: f64,
}

/// A contender on a workload.
struct Entry {
    title: Title,
    name: &'static str,
    failed: bool,
    records: Vec<Record>,
}

impl Entry {
    fn new(title: Title, name: &'static str) -> Entry {
        Entry { title, name, failed: false, records: Vec::new() }
    }
}

/// A run of the suite.
pub(crate) struct Bench {
    pub(crate) arguments: Arguments,
    /// What servers are started with, if nothing else is said.
    pub(crate) settings: Settings,
    records: Records,
    failures: Vec<String>,
    /// Those whose known fault has shown: it would again, and each time takes as long as the load generator is patient.
    faulty: Vec<&'static str>,
}

impl Bench {
    pub(crate) fn new(arguments: Arguments) -> io::Result<Bench> {
        let settings = Settings { steps: calibrate(), ..arguments.settings.clone() };
        let records = Records::create(if arguments.scale { "scale" } else { "suite" })?;
        Ok(Bench { arguments, settings, records, failures: Vec::new(), faulty: Vec::new() })
    }

    /// Whether it was asked for.
    pub(crate) fn wants(&self, workload: &str, protocol: u8) -> bool {
        self.arguments.protocol.contains(&protocol) && matches(workload, &self.arguments.only)
    }

    /// Whether this part of the scale was asked for: by what varies, or by the workload.
    pub(crate) fn wants_of_scale(&self, parameter: &str, kind: Kind) -> bool {
        self.wants(&format!("{}, {parameter}", kind.name()), 1)
    }

    /// Those that can do it and were asked for.
    pub(crate) fn contenders(&self, kind: Kind, protocol: u8) -> Vec<&'static str> {
        let able = |contender: &&Contender| {
            contender.workloads.contains(&kind)
                && (protocol == 1 || contender.http2)
                && matches(contender.name, &self.arguments.contenders)
                && !self.faulty.contains(&contender.name)
        };
        CONTENDERS.iter().filter(able).map(|contender| contender.name).collect()
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.arguments.warm_up)
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.arguments.seconds)
    }

    /// Measures each contender on each workload once per round, in an order that rotates, writes the records and prints a
    /// table for each workload.
    pub(crate) fn rounds(
        &mut self,
        titles: &[Title],
        names: &[&'static str],
        metrics: &[&str],
        measure: impl Fn(&Bench, Title, &'static str, usize) -> Result<Vec<Sample>, String>,
    ) {
        let pairs = titles.iter().flat_map(|title| names.iter().map(|name| Entry::new(*title, name)));
        let mut entries: Vec<Entry> = pairs.collect();
        let count = entries.len();
        for round in 0..self.arguments.rounds {
            for entry in (0..count).map(|turn| (round + turn) % count) {
                let Entry { title, name, failed, .. } = entries[entry];
                if failed {
                    continue;
                }
                match measure(self, title, name, round) {
                    Ok(samples) => {
                        let samples = samples.iter().map(|sample| record(title, name, round, sample));
                        entries[entry].records.extend(samples);
                    }
                    Err(failure) => {
                        self.leave_out(title, name, &failure);
                        entries[entry].failed = true;
                    }
                }
            }
        }
        entries.retain(|entry| !entry.failed);
        for title in titles {
            let of_it = entries.iter().filter(|entry| entry.title.workload == title.workload);
            let records: Vec<&Record> = of_it.flat_map(|entry| &entry.records).collect();
            if let Some(error) = records.iter().find_map(|record| self.records.write(record).err()) {
                self.fail(format!("the records cannot be written: {error}"));
            }
            table::print(*title, &records, metrics);
        }
    }

    fn leave_out(&mut self, title: Title, name: &'static str, failure: &str) {
        let failure = format!("{}, {name}: {failure}", title.name());
        match contenders::named(name).ok().and_then(|contender| contender.fault) {
            Some(fault) => {
                println!("left out from here on: {failure} (a known fault: {fault})");
                self.faulty.push(name);
            }
            None => self.fail(failure),
        }
    }

    /// Tells it at once, and at the end again.
    pub(crate) fn fail(&mut self, failure: String) {
        eprintln!("FAILED {failure}");
        self.failures.push(failure);
    }

    /// Where the records are, and all that has failed.
    pub(crate) fn end(&self) -> (&Path, &[String]) {
        (self.records.path(), &self.failures)
    }
}

/// Starts a server.
pub(crate) fn start(name: &str, settings: &Settings) -> Result<Server, String> {
    let contender = contenders::named(name)?;
    let mut arguments = vec!["--serve".to_owned(), contender.name.to_owned()];
    arguments.extend(settings.arguments());
    Server::start(&arguments)
}

fn record(title: Title, name: &str, round: usize, sample: &Sample) -> Record {
    Record {
        suite: title.suite.to_owned(),
        workload: title.workload.to_owned(),
        protocol: title.protocol.to_owned(),
        parameter: title.parameter.to_owned(),
        value: sample.value,
        contender: name.to_owned(),
        metric: sample.metric.to_owned(),
        round: u32::try_from(round).unwrap_or(u32::MAX),
        figure: sample.figure,
    }
}

/// Whether the name contains one of the patterns, or there are none.
pub(crate) fn matches(name: &str, patterns: &[String]) -> bool {
    let name = name.to_lowercase();
    patterns.is_empty() || patterns.iter().any(|pattern| name.contains(&pattern.to_lowercase()))
}
