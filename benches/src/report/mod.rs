//! The report: tables and plots of all records.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

mod charts;
mod machine;
mod markdown;
mod number;
mod plot;
mod publish;
mod results;
mod statistics;
#[cfg(test)]
mod testing;
mod vocabulary;

use charts::Chart;
use plot::Looks;
use results::Results;
use vocabulary::SUITES;

pub(crate) use publish::publish;

/// Writes `report.md` and its plots into the directory above that of the records, and returns the report's path.
pub(crate) fn write(records: &Path) -> Result<PathBuf, String> {
    let results = Results::read(records)?;
    let directory = records.parent().unwrap_or(records);
    let charts = charts::charts(&results);
    for chart in &charts {
        let looks = Looks::new(chart.suite, &results.rivals(chart.suite));
        let path = directory.join(chart.name());
        let svg = chart.plot.svg(&looks).map_err(|error| format!("{}: {error}", path.display()))?;
        save(&path, &svg)?;
    }
    let path = directory.join("report.md");
    save(&path, &text(&results, &charts, measured(records)))?;
    Ok(path)
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// When the last record was written.
fn measured(records: &Path) -> SystemTime {
    let times = || -> io::Result<Vec<SystemTime>> {
        fs::read_dir(records)?.map(|entry| entry?.metadata()?.modified()).collect()
    };
    times().ok().and_then(|times| times.into_iter().max()).unwrap_or_else(SystemTime::now)
}

fn text(results: &Results, charts: &[Chart<'_>], measured: SystemTime) -> String {
    let mut facts = vec![("measured", httpdate::fmt_http_date(measured))];
    facts.extend(machine::facts());
    let rounds =
        SUITES.iter().filter_map(|suite| Some(format!("{}: {}", suite.title, rounds(results, suite)?)));
    facts.push(("rounds", rounds.collect::<Vec<_>>().join("; ")));
    let facts: Vec<_> = facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();

    let mut text = format!("# Speed\n\n{}\n", markdown::table(&["", ""], &facts));
    text += "Medians over the rounds, with the lowest and the highest. Ratios are medians of the ratios within a round, \
             so that what disturbed the machine for a while disturbs them less.\n";
    for suite in &SUITES {
        let mut charts = charts.iter().filter(|chart| chart.suite == suite).peekable();
        if charts.peek().is_some() {
            let _ = write!(text, "\n## {}\n", suite.title);
        }
        let mut title = "";
        for chart in charts {
            if chart.plot.title != title {
                title = &chart.plot.title;
                let _ = write!(text, "\n### {title}\n");
            }
            text += &section(chart);
        }
    }
    text
}

fn section(chart: &Chart<'_>) -> String {
    let plot = &chart.plot;
    let mut text = format!("\n![{}: {}]({})\n\n", plot.title, plot.caption, chart.name());
    for comparison in &chart.shows {
        if comparison.title() != plot.title {
            let _ = write!(text, "**{}**, ", comparison.workload);
        }
        text += &markdown::comparison(comparison);
    }
    text
}

/// How many there are in a suite, if it was measured at all.
fn rounds(results: &Results, suite: &vocabulary::Suite) -> Option<usize> {
    let points = results.of(suite).flat_map(|comparison| &comparison.points);
    points.flat_map(|point| &point.figures).map(|figures| figures.rounds.len()).max()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tower_wsgi_benches::record::Record;

    use super::*;
    use testing::record;

    /// A directory for a report, with one file of records.
    fn directory(lines: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let records = directory.path().join("records");
        fs::create_dir(&records).expect("a directory");
        fs::write(records.join("suite.jsonl"), lines).expect("a file");
        (directory, records)
    }

    fn lines(records: &[Record]) -> String {
        let line = |record| serde_json::to_string(record).expect("a line") + "\n";
        records.iter().map(line).collect()
    }

    /// One of each kind of plot, with texts that would break carelessly written XML and Markdown.
    fn measured() -> Vec<Record> {
        let mut records = Vec::new();
        for (contender, figure) in [("native", 90.0), ("a <b> & \"c\" | d", 1.0), ("WsgiService", 60.0)] {
            for (round, value) in [(1, 1.0), (2, 1.0), (1, 64.0)] {
                let hello = record(contender, value, round, figure);
                let is = |metric: &str| Record { metric: metric.to_owned(), ..hello.clone() };
                records.extend([is("p50 µs"), is("p99 µs"), is("MiB/s")]);
                records.push(Record { workload: "mixed, with stalled clients".to_owned(), ..is("p99 µs") });
                records.push(Record { suite: "scale".to_owned(), ..hello.clone() });
                let call =
                    Record { suite: "in_place".to_owned(), parameter: String::new(), ..is("ns per call") };
                records.push(Record { value: 0.0, ..call });
                records.push(hello);
            }
        }
        records
    }

    #[test]
    fn the_report_shows_well_formed_plots_that_exist() {
        let (directory, records) = directory(&lines(&measured()));
        let path = write(&records).expect("a report");
        let text = fs::read_to_string(&path).expect("a report");
        let plots = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let mut count = 0;
        for (plot, _) in plots {
            let svg = fs::read_to_string(directory.path().join(plot)).expect("a plot");
            let svg = roxmltree::Document::parse(&svg).expect("XML");
            assert_eq!(svg.root_element().attribute("width"), Some("800"));
            let has = |text| svg.descendants().any(|node| node.text().is_some_and(|it| it.trim() == text));
            assert!(has("WsgiService") && has("a <b> & \"c\" | d"), "{plot}");
            count += 1;
        }
        // Throughput, latency, bodies, slow clients, a curve, calls.
        assert_eq!(count, 6);
        assert!(text.contains("Async to sync: 2;"), "{text}");
    }

    #[test]
    fn chosen_plots_are_published() {
        let (directory, records) = directory(&lines(&measured()));
        write(&records).expect("a report");
        let to = directory.path().join("docs/speed");
        let paths = publish(&records, &to).expect("plots");
        let names: Vec<_> = paths.iter().map(|path| path.file_name().expect("a name")).collect();
        assert_eq!(names, ["hello.svg", "bodies.svg", "slow-clients.svg", "sync-to-async.svg"]);
        assert!(paths.iter().all(|path| path.is_file()));
    }

    #[test]
    fn what_was_not_measured_is_not_published() {
        let (directory, records) = directory(&lines(&[record("native", 1.0, 1, 1.0)]));
        write(&records).expect("a report");
        let error = publish(&records, directory.path()).expect_err("no bodies");
        assert!(error.contains("bodies.svg"), "{error}");
    }

    #[test]
    fn errors_say_which_file_and_line() {
        let good = record("native", 1.0, 1, 1.0);
        let suite = Record { suite: "other".to_owned(), ..good.clone() };
        let metric = Record { metric: "bogomips".to_owned(), ..good.clone() };
        for (text, expected) in [
            (String::new(), "suite.jsonl: no records"),
            (lines(std::slice::from_ref(&good)) + "{\"suite\":", "suite.jsonl: line 2 is no record"),
            (lines(&[good.clone(), suite]), "suite.jsonl: line 2: unknown suite \"other\""),
            (lines(&[good, metric]), "suite.jsonl: line 2: unknown metric \"bogomips\""),
        ] {
            let (_directory, records) = directory(&text);
            let error = write(&records).expect_err("an error");
            assert!(error.contains(expected), "{error}");
        }
        let empty = tempfile::tempdir().expect("a directory");
        for path in [empty.path().to_owned(), empty.path().join("missing")] {
            let error = write(&path).expect_err("an error");
            assert!(error.starts_with("no records in"), "{error}");
        }
    }
}
