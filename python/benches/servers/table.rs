//! Prints what was measured.

use tower_wsgi_benches::load::Load;
use tower_wsgi_benches::spread;

use crate::Entry;
use crate::contenders::Program;

/// Prints the figures of one workload at one number of connections, and gives the lines of the summary.
pub(crate) fn speed(title: &str, entries: &[Entry], connections: usize) -> Vec<String> {
    let (ours, rivals): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.contender.program == Program::Ours);
    let headings: String =
        ours.iter().map(|entry| format!("  {:>19}", format!("{} x", entry.contender.name))).collect();
    println!(
        "\n{:<46} {:>10}  {:<20} {:>9} {:>9}{headings}",
        title, "requests/s", "(low to high)", "p50 µs", "p99 µs"
    );
    for entry in entries {
        let figures = |figure: fn(&Load) -> f64| column(entry, connections, figure);
        let (low, middle, high) = spread(figures(|load| load.throughput));
        let (_, median, _) = spread(figures(|load| load.median));
        let (_, p99, _) = spread(figures(|load| load.p99));
        let range = format!("({low:.0} to {high:.0})");
        let ratios: String =
            ours.iter().map(|ours| format!("  {:>19.2}", ratio(ours, entry, connections))).collect();
        println!(
            "  {:<44} {middle:>10.0}  {range:<20} {median:>9.0} {p99:>9.0}{ratios}",
            entry.contender.name
        );
    }
    let speed = |entry: &&&Entry| spread(column(entry, connections, |load| load.throughput)).1;
    let Some(best) = rivals.iter().max_by(|a, b| speed(a).total_cmp(&speed(b))) else {
        return Vec::new();
    };
    let line = |ours: &&Entry| {
        let ratio = ratio(ours, best, connections);
        format!("{title:<48} {:<20} x {ratio:.2} of {}", ours.contender.name, best.contender.name)
    };
    ours.iter().map(line).collect()
}

fn column(entry: &Entry, connections: usize, figure: fn(&Load) -> f64) -> Vec<f64> {
    entry.loads.iter().map(|round| figure(&round[connections])).collect()
}

/// The median of the ratios of the throughputs within a round.
fn ratio(ours: &Entry, other: &Entry, connections: usize) -> f64 {
    let ours = column(ours, connections, |load| load.throughput);
    let other = column(other, connections, |load| load.throughput);
    spread(ours.iter().zip(other).map(|(ours, other)| ours / other).collect()).1
}
