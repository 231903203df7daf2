//! Rounds, and what comes of them.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tower_wsgi::Body;
use tower_wsgi_benches::record::{Record, Records};
use tower_wsgi_benches::table;

use crate::contenders::{Contenders, Hello, Way};

/// Measures, records and prints.
pub(crate) struct Bench {
    rounds: u32,
    time: Duration,
    only: Vec<String>,
    records: Records,
}

impl Bench {
    pub(crate) fn new(rounds: u32, time: Duration, only: Vec<String>) -> io::Result<Bench> {
        Ok(Bench { rounds, time, only, records: Records::create("in_place")? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.records.path()
    }

    /// Short calls, again and again.
    pub(crate) fn calls<S: Hello>(&mut self, workload: &str, contenders: &Contenders<S>) -> io::Result<()> {
        let time = self.time;
        self.run(workload, "ns per call", &contenders.ways(Body::empty), |call| {
            let start = Instant::now();
            let mut count = 0_u32;
            while start.elapsed() < time {
                for _ in 0..100 {
                    call();
                }
                count += 100;
            }
            start.elapsed().as_nanos() as f64 / f64::from(count)
        })
    }

    /// One long call.
    pub(crate) fn bodies(&mut self, workload: &str, ways: &[Way<'_>]) -> io::Result<()> {
        self.run(workload, "ms", ways, |call| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1000.0
        })
    }

    /// A round to warm up, and those that count.
    fn run(
        &mut self,
        workload: &str,
        metric: &str,
        ways: &[Way<'_>],
        measure: impl Fn(&dyn Fn()) -> f64,
    ) -> io::Result<()> {
        if !self.only.is_empty() && !self.only.iter().any(|part| workload.contains(part)) {
            return Ok(());
        }
        let mut columns = vec![Vec::new(); ways.len()];
        for round in 0..=self.rounds {
            for ((contender, way), column) in ways.iter().zip(&mut columns) {
                let figure = measure(way);
                if round == 0 {
                    continue;
                }
                column.push(figure);
                self.records.write(&Record {
                    suite: "in_place".to_owned(),
                    workload: workload.to_owned(),
                    protocol: String::new(),
                    parameter: String::new(),
                    value: 0.0,
                    contender: (*contender).to_owned(),
                    metric: metric.to_owned(),
                    round,
                    figure,
                })?;
            }
        }
        let names: Vec<_> = ways.iter().map(|(name, _)| *name).collect();
        table(workload, &names, &columns);
        Ok(())
    }
}
