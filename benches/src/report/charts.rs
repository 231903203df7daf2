//! Which plots there are.

use super::number::chosen;
use super::plot::{Bar, Body, Group, Line, Plot};
use super::results::{Comparison, Point, Results};
use super::statistics::Spread;
use super::vocabulary::{MEDIAN, SUITES, Suite, TAIL, TRANSFER};

/// A plot, and what it shows.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    pub(crate) suite: &'static Suite,
    pub(crate) shows: Vec<&'a Comparison>,
    pub(crate) plot: Plot,
}

impl Chart<'_> {
    /// Its file's name.
    pub(crate) fn name(&self) -> String {
        let first = self.shows[0];
        // What several workloads share is not named after one of them.
        let same = self.shows.iter().all(|other| other.workload == first.workload);
        let workload = if same { first.workload.as_str() } else { "all" };
        let parts = [self.suite.name, workload, &first.protocol, &first.parameter, first.metric.name];
        let text = parts.join(" ").replace('µ', "u").to_lowercase();
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        format!("{}.svg", words.join("-"))
    }
}

/// All plots, in the report's order.
pub(crate) fn charts(results: &Results) -> Vec<Chart<'_>> {
    let mut charts = Vec::new();
    for suite in &SUITES {
        let mut left: Vec<&Comparison> = results.of(suite).collect();
        while !left.is_empty() {
            let first = left[0];
            let (shows, others) = left.into_iter().partition(|other| same_plot(first, other));
            left = others;
            charts.push(chart(suite, shows));
        }
    }
    charts
}

/// Whether two comparisons of a suite stand in one plot.
fn same_plot(one: &Comparison, other: &Comparison) -> bool {
    let same_workload = one.workload == other.workload && one.parameter == other.parameter;
    let latencies = |it: &Comparison| [MEDIAN, TAIL].contains(&it.metric.name);
    let same_metric = one.metric == other.metric || latencies(one) && latencies(other);
    let small = |it: &Comparison| it.parameter.is_empty() || it.metric.name == TRANSFER;
    one.protocol == other.protocol
        && match curve(one) || curve(other) {
            true => same_workload && one.metric == other.metric,
            false => same_metric && (same_workload || small(one) && small(other)),
        }
}

fn curve(comparison: &Comparison) -> bool {
    comparison.suite.name == "scale" && comparison.points.len() > 1
}

fn chart<'a>(suite: &'static Suite, shows: Vec<&'a Comparison>) -> Chart<'a> {
    let first = shows[0];
    let has_tail = shows.iter().any(|comparison| comparison.metric.name == TAIL);
    let has_median = shows.iter().any(|comparison| comparison.metric.name == MEDIAN);
    let one_workload = shows.iter().all(|other| other.workload == first.workload);
    let title = match (one_workload, first.protocol.as_str()) {
        (true, _) => first.title(),
        (false, "") => suite.title.to_owned(),
        (false, protocol) => format!("{}, {protocol}", suite.title),
    };
    let caption = match has_tail && has_median {
        true => "latency in µs, p50 and (light) p99, less is better".to_owned(),
        false => first.metric.caption(),
    };
    let body = match curve(first) {
        true => Body::Lines(lines(first)),
        false => Body::Groups(groups(&shows, has_tail && has_median, one_workload)),
    };
    let x = if one_workload { first.parameter.clone() } else { String::new() };
    Chart { suite, plot: Plot { title, caption, x, body }, shows }
}

fn lines(comparison: &Comparison) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for point in &comparison.points {
        for (contender, figure) in spreads(point) {
            let index = lines.iter().position(|line| line.contender == contender);
            let index = index.unwrap_or_else(|| {
                lines.push(Line { contender: contender.to_owned(), points: Vec::new() });
                lines.len() - 1
            });
            lines[index].points.push((point.value, figure));
        }
    }
    lines
}

fn groups(shows: &[&Comparison], with_tails: bool, one_workload: bool) -> Vec<Group> {
    let mut groups = Vec::new();
    for comparison in shows.iter().filter(|comparison| !with_tails || comparison.metric.name == MEDIAN) {
        let same = |other: &&&Comparison| {
            with_tails && other.metric.name == TAIL && other.workload == comparison.workload
        };
        let tails = shows.iter().find(same).map_or(&[][..], |tails| &tails.points);
        for point in &comparison.points {
            let tails = tails.iter().find(|tails| tails.value == point.value);
            let bars = spreads(point).map(|(contender, figure)| Bar {
                contender: contender.to_owned(),
                figure,
                tail: tails.and_then(|tails| Spread::of(tails.of(contender)?.values().copied())),
            });
            let label = match (one_workload, comparison.points.len()) {
                (true, _) if comparison.parameter.is_empty() => String::new(),
                (true, _) => chosen(point.value),
                (false, 1) => comparison.workload.clone(),
                (false, _) => {
                    format!("{}, {} {}", comparison.workload, chosen(point.value), comparison.parameter)
                }
            };
            groups.push(Group { label, bars: bars.collect() });
        }
    }
    groups
}

fn spreads(point: &Point) -> impl Iterator<Item = (&str, Spread)> {
    point.figures.iter().filter_map(|figures| Some((figures.contender.as_str(), figures.spread()?)))
}
