//! The plots that other documents show.

use std::fs;
use std::path::{Path, PathBuf};

use super::charts::{Chart, charts};
use super::results::Results;
use super::vocabulary::{TAIL, TRANSFER};

type Choice = (&'static str, fn(&Chart<'_>) -> bool);

/// The names stay when workloads are called something else.
const CHOSEN: [Choice; 4] = [
    ("hello.svg", |chart| crossing(chart) && about(chart, "hello") && measures(chart, "requests per second")),
    ("bodies.svg", |chart| crossing(chart) && measures(chart, TRANSFER)),
    ("slow-clients.svg", |chart| crossing(chart) && about(chart, "stalled") && measures(chart, TAIL)),
    ("sync-to-async.svg", |chart| chart.suite.name == "in_place" && measures(chart, "ns per call")),
];

fn crossing(chart: &Chart<'_>) -> bool {
    chart.suite.name == "crossing" && chart.shows.iter().all(|shown| shown.protocol == "HTTP/1.1")
}

fn about(chart: &Chart<'_>, word: &str) -> bool {
    chart.shows.iter().any(|shown| shown.workload.to_lowercase().contains(word))
}

fn measures(chart: &Chart<'_>, metric: &str) -> bool {
    chart.shows.iter().any(|shown| shown.metric.name == metric)
}

/// Copies them from beside the report, and returns their new paths.
pub(crate) fn publish(records: &Path, to: &Path) -> Result<Vec<PathBuf>, String> {
    let results = Results::read(records)?;
    let charts = charts(&results);
    fs::create_dir_all(to).map_err(|error| format!("{}: {error}", to.display()))?;
    let copy = |(name, chosen): &Choice| {
        let chart = charts.iter().find(|chart| chosen(chart));
        let chart = chart.ok_or_else(|| format!("{name}: nothing of this was measured"))?;
        let path = to.join(name);
        let from = records.parent().unwrap_or(records).join(chart.name());
        fs::copy(&from, &path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    };
    CHOSEN.iter().map(copy).collect()
}
