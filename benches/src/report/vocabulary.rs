//! The suites and metrics that a record may name, and what the report has to know about each.

/// A suite of benchmarks.
#[derive(Debug, PartialEq)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The contender that all others are measured by.
    pub(crate) baseline: &'static str,
    pub(crate) ours: &'static str,
}

/// In the order in which the report has them.
pub(crate) const SUITES: [Suite; 3] = [
    Suite { name: "crossing", title: "Async to sync", baseline: "native", ours: "WsgiService" },
    Suite { name: "scale", title: "Async to sync, how it scales", baseline: "native", ours: "WsgiService" },
    Suite { name: "in_place", title: "Sync to async", baseline: "block_on", ours: "AsgiHandler" },
];

impl Suite {
    pub(crate) fn named(name: &str) -> Option<&'static Suite> {
        SUITES.iter().find(|suite| suite.name == name)
    }
}

/// Something that is measured.
#[derive(Debug, PartialEq)]
pub(crate) struct Metric {
    /// With its unit.
    pub(crate) name: &'static str,
    pub(crate) more_is_better: bool,
}

pub(crate) const MEDIAN: &str = "p50 µs";
pub(crate) const TAIL: &str = "p99 µs";
pub(crate) const TRANSFER: &str = "MiB/s";

/// In the order in which the report has them.
pub(crate) const METRICS: [Metric; 9] = [
    Metric { name: "requests per second", more_is_better: true },
    Metric { name: TRANSFER, more_is_better: true },
    Metric { name: MEDIAN, more_is_better: false },
    Metric { name: TAIL, more_is_better: false },
    Metric { name: "CPU µs per request", more_is_better: false },
    Metric { name: "context switches per request", more_is_better: false },
    Metric { name: "system calls per request", more_is_better: false },
    Metric { name: "ns per call", more_is_better: false },
    Metric { name: "ms", more_is_better: false },
];

impl Metric {
    pub(crate) fn named(name: &str) -> Option<&'static Metric> {
        METRICS.iter().find(|metric| metric.name == name)
    }

    /// What the reader of a plot or a table has to know.
    pub(crate) fn caption(&self) -> String {
        let better = if self.more_is_better { "more" } else { "less" };
        format!("{}, {better} is better", self.name)
    }
}
