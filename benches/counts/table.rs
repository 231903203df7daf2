//! The file of figures, and how they are compared with it.

use std::fmt::Write;
use std::fs;
use std::process::{Command, ExitCode};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts/counts.txt");

/// How much higher a figure may be than in the file.
const TOLERANCE: f64 = 1.03;

/// A case's allocations and instructions per request.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) allocations: f64,
    pub(crate) instructions: f64,
}

/// Writes the file.
pub(crate) fn save(rows: &[Row]) -> ExitCode {
    match fs::write(FILE, format!("{}\n{}", compiler(), text(rows))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{FILE} cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is higher than in the file, or not in it.
pub(crate) fn compare(rows: &[Row]) -> ExitCode {
    let known = match fs::read_to_string(FILE) {
        Ok(text) if !text.starts_with(&compiler()) => {
            println!("{FILE} is of another compiler than {}: nothing is compared", compiler());
            return ExitCode::SUCCESS;
        }
        Ok(text) => parse(&text),
        Err(error) => {
            eprintln!("{FILE} cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    let rises = rises(&known, rows);
    if rises.is_empty() {
        return ExitCode::SUCCESS;
    }
    rises.iter().for_each(|rise| eprintln!("{rise}"));
    eprintln!(
        "If that is meant: cargo bench -p tower-wsgi-benches --bench counts -- --save, and a word why in the change."
    );
    ExitCode::FAILURE
}

/// The rows as they stand in the file.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = format!("{:<40} {:>12} {:>12}\n", "per request", "allocations", "instructions");
    for Row { name, allocations, instructions } in rows {
        writeln!(text, "{name:<40} {allocations:>12.2} {instructions:>12.0}").expect("a string takes it");
    }
    text
}

/// Another one makes other code.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{}, {}", version.unwrap_or_default(), std::env::consts::ARCH)
}

fn parse(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let (rest, instructions) = line.trim_end().rsplit_once(' ')?;
        let (name, allocations) = rest.trim_end().rsplit_once(' ')?;
        Some(Row {
            name: name.trim_end().to_owned(),
            allocations: allocations.parse().ok()?,
            instructions: instructions.parse().ok()?,
        })
    };
    text.lines().filter_map(row).collect()
}

fn rises(known: &[Row], rows: &[Row]) -> Vec<String> {
    let mut rises = Vec::new();
    for row in rows {
        let Some(before) = known.iter().find(|before| before.name == row.name) else {
            rises.push(format!("{}: not in {FILE}", row.name));
            continue;
        };
        let mut compare = |what, before: f64, now: f64| {
            if now > before * TOLERANCE {
                rises.push(format!("{}: {now:.2} {what} per request instead of {before:.2}", row.name));
            }
        };
        compare("allocations", before.allocations, row.allocations);
        compare("instructions", before.instructions, row.instructions);
    }
    rises
}
