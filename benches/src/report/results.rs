//! Records, sorted into what compares with what.

use std::fs;
use std::path::Path;

use tower_wsgi_benches::record::{self, Record};

use super::statistics::{Rounds, Spread};
use super::vocabulary::{Metric, Suite};

/// Everything that was measured. What there is no other order for stays in that of the records.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) comparisons: Vec<Comparison>,
}

/// Figures that differ in the parameter's value, the contender and the round.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) suite: &'static Suite,
    pub(crate) workload: String,
    pub(crate) protocol: String,
    pub(crate) parameter: String,
    pub(crate) metric: &'static Metric,
    /// By rising value.
    pub(crate) points: Vec<Point>,
}

/// Figures that differ in the contender and the round.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) value: f64,
    pub(crate) figures: Vec<Figures>,
}

/// The figures of a contender.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) contender: String,
    pub(crate) rounds: Rounds,
}

impl Results {
    /// Reads all files of a directory that end in `.jsonl`.
    pub(crate) fn read(directory: &Path) -> Result<Results, String> {
        let none = |reason: String| format!("no records in {}{reason}; measure first", directory.display());
        let entries = fs::read_dir(directory).map_err(|error| none(format!(": {error}")))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
        if paths.is_empty() {
            return Err(none(String::new()));
        }
        paths.sort();
        let mut results = Results::default();
        for path in paths {
            let wrong = |reason: String| format!("{}: {reason}", path.display());
            let records = record::read(&path).map_err(|error| wrong(error.to_string()))?;
            if records.is_empty() {
                return Err(wrong("no records in this file; measure again or delete it".to_owned()));
            }
            for (index, record) in records.into_iter().enumerate() {
                results.add(record).map_err(|reason| wrong(format!("line {}: {reason}", index + 1)))?;
            }
        }
        Ok(results)
    }

    /// A later record replaces an earlier one of the same round.
    pub(crate) fn add(&mut self, record: Record) -> Result<(), String> {
        let suite = Suite::named(&record.suite).ok_or_else(|| format!("unknown suite {:?}", record.suite))?;
        let metric =
            Metric::named(&record.metric).ok_or_else(|| format!("unknown metric {:?}", record.metric))?;
        let same = |comparison: &Comparison| {
            comparison.suite == suite
                && comparison.workload == record.workload
                && comparison.protocol == record.protocol
                && comparison.parameter == record.parameter
                && comparison.metric == metric
        };
        let comparison = find(&mut self.comparisons, same, || Comparison {
            suite,
            workload: record.workload.clone(),
            protocol: record.protocol.clone(),
            parameter: record.parameter.clone(),
            metric,
            points: Vec::new(),
        });
        comparison.point(record.value).figures(&record.contender).rounds.insert(record.round, record.figure);
        Ok(())
    }

    /// All contenders of the suites in which ours is the same, so that they look the same in these.
    pub(crate) fn rivals(&self, suite: &Suite) -> Vec<&str> {
        let comparisons = self.comparisons.iter().filter(|comparison| comparison.suite.ours == suite.ours);
        let points = comparisons.flat_map(|comparison| &comparison.points);
        let mut contenders = Vec::new();
        for figures in points.flat_map(|point| &point.figures) {
            if !contenders.contains(&figures.contender.as_str()) {
                contenders.push(figures.contender.as_str());
            }
        }
        contenders
    }

    /// Those of a suite.
    pub(crate) fn of<'a>(&'a self, suite: &Suite) -> impl Iterator<Item = &'a Comparison> {
        self.comparisons.iter().filter(move |comparison| comparison.suite == suite)
    }
}

impl Comparison {
    /// With the protocol, if there is one.
    pub(crate) fn title(&self) -> String {
        match self.protocol.as_str() {
            "" => self.workload.clone(),
            protocol => format!("{}, {protocol}", self.workload),
        }
    }

    fn point(&mut self, value: f64) -> &mut Point {
        let index = self.points.partition_point(|point| point.value < value);
        if self.points.get(index).is_none_or(|point| point.value != value) {
            self.points.insert(index, Point { value, figures: Vec::new() });
        }
        &mut self.points[index]
    }
}

impl Point {
    fn figures(&mut self, contender: &str) -> &mut Figures {
        let of = |figures: &Figures| figures.contender == contender;
        find(&mut self.figures, of, || Figures { contender: contender.to_owned(), rounds: Rounds::new() })
    }

    /// The rounds of a contender.
    pub(crate) fn of(&self, contender: &str) -> Option<&Rounds> {
        self.figures.iter().find(|figures| figures.contender == contender).map(|figures| &figures.rounds)
    }
}

impl Figures {
    pub(crate) fn spread(&self) -> Option<Spread> {
        Spread::of(self.rounds.values().copied())
    }
}

fn find<T>(items: &mut Vec<T>, is: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let index = items.iter().position(is).unwrap_or(items.len());
    if index == items.len() {
        items.push(new());
    }
    &mut items[index]
}
