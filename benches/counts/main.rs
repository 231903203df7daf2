//! What does not depend on the machine's mood: allocations and instructions per request.
//!
//! ```text
//! cargo bench --bench counts [-- --save]
//! ```
//!
//! Each case answers the same requests one after the other, in this process, and is counted twice: its allocations by the allocator, its instructions by
//! callgrind, which runs this program again; the lowest of three counts is taken. Counted is what the crossing does for a request on either side, from the call of the service to the last frame of the body; not the search for work and the
//! sleep of whoever has none, which depend on the moment. The figures are compared with those in `counts.txt`; one that is more than 3 % higher makes the exit code 1. `--save` writes the file anew: a
//! rise is then a line of the change that brings it.

mod allocator;
mod cases;
mod instructions;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::cases::{CASES, Case};
use crate::table::Row;

/// Counts allocations and instructions per request.
#[derive(Parser)]
struct Arguments {
    /// Write the figures to the file that they are compared with.
    #[arg(long)]
    save: bool,
    /// Only run this case, for callgrind.
    #[arg(long, hide = true, requires = "requests")]
    case: Option<String>,
    #[arg(long, hide = true)]
    requests: Option<u64>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let (Some(name), Some(requests)) = (arguments.case, arguments.requests) {
        let case = CASES.iter().find(|case| case.name == name).expect("a case of this program");
        (case.run)(requests);
        return ExitCode::SUCCESS;
    }
    let rows = match CASES.iter().map(count).collect::<Result<Vec<_>, _>>() {
        Ok(rows) => rows,
        Err(missing) => {
            eprintln!("{missing}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", table::text(&rows));
    if arguments.save { table::save(&rows) } else { table::compare(&rows) }
}

/// The lowest of several counts: who waits for whom differs from run to run, and only adds.
fn count(case: &Case) -> Result<Row, String> {
    let mut row = Row { name: case.name.to_owned(), allocations: f64::INFINITY, instructions: f64::INFINITY };
    for _ in 0..3 {
        row.allocations = row.allocations.min(allocator::count(case));
        row.instructions = row.instructions.min(instructions::count(case)?);
    }
    Ok(row)
}
