//! Prints what was measured.

use tower_wsgi_benches::record::Record;
use tower_wsgi_benches::spread;

use crate::bench::Title;
use crate::contenders::{BASELINE, OURS};

/// One table: a block for each value of the parameter, a line for each contender. The first metric is shown with its range
/// and its ratios, the others by their medians.
pub(crate) fn print(title: Title, records: &[&Record], metrics: &[&str]) {
    let Some((first, others)) = metrics.split_first() else {
        return;
    };
    let parameter = title.parameter;
    let headings: String = others.iter().map(|metric| format!(" {:>9}", short(metric))).collect();
    println!(
        "\n{:<28} {:>10}  {:<20}{headings} {:>8} {:>8}",
        title.name(),
        short(first),
        "(low to high)",
        "x native",
        "ours x"
    );
    let mut values: Vec<f64> = records.iter().map(|record| record.value).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    for value in values {
        if !parameter.is_empty() {
            println!("  {parameter}: {value}");
        }
        let at: Vec<&Record> = records.iter().copied().filter(|record| record.value == value).collect();
        let mut names: Vec<&str> = Vec::new();
        for record in &at {
            if !names.contains(&record.contender.as_str()) {
                names.push(&record.contender);
            }
        }
        for name in names {
            let Some((low, middle, high)) = summary(&at, name, first) else {
                continue;
            };
            let rest: String = others
                .iter()
                .map(|metric| match summary(&at, name, metric) {
                    Some((_, middle, _)) => format!(" {:>9}", figure(middle)),
                    None => format!(" {:>9}", ""),
                })
                .collect();
            let to_native = ratio(&at, name, BASELINE, first);
            let ours = ratio(&at, OURS, name, first);
            let range = format!("({} to {})", figure(low), figure(high));
            println!("  {name:<26} {:>10}  {range:<20}{rest} {to_native:>8} {ours:>8}", figure(middle));
        }
    }
}

fn short(metric: &str) -> &str {
    match metric {
        "requests per second" => "requests/s",
        "context switches per request" => "switches",
        "CPU µs per request" => "CPU µs",
        "system calls per request" => "calls",
        other => other,
    }
}

fn figure(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}")
}

fn figures<'a>(records: &'a [&Record], name: &'a str, metric: &'a str) -> impl Iterator<Item = &'a Record> {
    records.iter().copied().filter(move |record| record.contender == name && record.metric == metric)
}

fn summary(records: &[&Record], name: &str, metric: &str) -> Option<(f64, f64, f64)> {
    let figures: Vec<f64> = figures(records, name, metric).map(|record| record.figure).collect();
    (!figures.is_empty()).then(|| spread(figures))
}

/// The median of the ratios within a round, or nothing if they have no round in common.
fn ratio(records: &[&Record], name: &str, base: &str, metric: &str) -> String {
    let ratios = figures(records, name, metric).filter_map(|record| {
        let base = figures(records, base, metric).find(|base| base.round == record.round)?;
        (base.figure > 0.0).then(|| record.figure / base.figure)
    });
    let ratios: Vec<f64> = ratios.collect();
    if ratios.is_empty() { String::new() } else { format!("{:.2}", spread(ratios).1) }
}
