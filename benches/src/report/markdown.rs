//! Tables.

use std::fmt::Write;

use super::number::{chosen, exact};
use super::results::{Comparison, Figures, Point};
use super::statistics::{Rounds, ratio};

const NOTHING: &str = "–";

/// A table, whose rows may be shorter than its head.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        // A bar would end the cell.
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let head: Vec<_> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = vec!["---".to_owned(); head.len()];
    [&head, &rule].into_iter().chain(rows).map(|cells| line(cells)).collect()
}

/// The contenders of each point, with the ratios of the baseline and of ours.
pub(super) fn comparison(comparison: &Comparison) -> String {
    let suite = comparison.suite;
    let to_baseline = format!("to {}", suite.baseline);
    let of_ours = format!("{} to it", suite.ours);
    let mut head = vec!["contender", "median", "low to high", &to_baseline, &of_ours];
    let named = !comparison.parameter.is_empty();
    if named {
        head.insert(0, &comparison.parameter);
    }
    let mut rows = Vec::new();
    for point in &comparison.points {
        for figures in &point.figures {
            let mut row = row(point, figures, suite.baseline, suite.ours);
            if named {
                row.insert(0, chosen(point.value));
            }
            rows.push(row);
        }
    }
    let mut text = String::new();
    let _ = writeln!(text, "{}:\n\n{}", comparison.metric.caption(), table(&head, &rows));
    text
}

fn row(point: &Point, figures: &Figures, baseline: &str, ours: &str) -> Vec<String> {
    let ratio_of = |of: Option<&Rounds>, to: Option<&Rounds>| {
        let ratio = of.zip(to).and_then(|(of, to)| ratio(of, to));
        ratio.map_or(NOTHING.to_owned(), |ratio| format!("{ratio:.2}"))
    };
    let (median, range) = figures.spread().map_or((NOTHING.to_owned(), NOTHING.to_owned()), |spread| {
        (exact(spread.median), format!("{} to {}", exact(spread.low), exact(spread.high)))
    });
    let rounds = Some(&figures.rounds);
    let to_baseline = ratio_of(rounds, point.of(baseline));
    let of_ours = match figures.contender == ours {
        true => NOTHING.to_owned(),
        false => ratio_of(point.of(ours), rounds),
    };
    vec![figures.contender.clone(), median, range, to_baseline, of_ours]
}

#[cfg(test)]
mod tests {
    use super::super::results::Results;
    use super::super::testing::{record, results};
    use super::*;

    #[test]
    fn a_table_has_medians_ranges_and_ratios() {
        let mut records = Vec::new();
        for (round, scale) in [(1, 1.0), (2, 0.25), (3, 1.1)] {
            for (contender, figure) in
                [("native", 100_000.0), ("by | hand", 50_000.0), ("WsgiService", 75_000.0)]
            {
                records.push(record(contender, 32.0, round, figure * scale));
            }
        }
        records.push(record("WsgiService", 8.0, 1, 1.5));
        let results: Results = results(records);
        let text = comparison(&results.comparisons[0]);
        let expected = "\
requests per second, more is better:

| connections | contender | median | low to high | to native | WsgiService to it |
| --- | --- | --- | --- | --- | --- |
| 8 | WsgiService | 1.50 | 1.50 to 1.50 | – | – |
| 32 | native | 100,000 | 25,000 to 110,000 | 1.00 | 0.75 |
| 32 | by \\| hand | 50,000 | 12,500 to 55,000 | 0.50 | 1.50 |
| 32 | WsgiService | 75,000 | 18,750 to 82,500 | 0.75 | – |

";
        assert_eq!(text, expected);
    }
}
