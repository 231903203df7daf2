//! Load and faults for long: what the server of this program serves, its clients use in every right and wrong way, and afterwards it has to be as it was.
//!
//! ```text
//! cargo run --release -p tower-wsgi-soak                  # all of it: a quarter of an hour
//! cargo run --release -p tower-wsgi-soak -- soak --seconds 30
//! cargo run --release -p tower-wsgi-soak -- shutdown
//! cargo run --release -p tower-wsgi-soak -- connections
//! ```
//!
//! The server is a process of its own, with both crossings, Python applications of both kinds and a synchronous host in it. It listens on loopback addresses only.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tower_wsgi::BoxError;

mod child;
mod client;
mod host;
mod many;
mod pattern;
mod serve;
mod shutdown;
mod sites;
mod soak;
mod visits;

/// Load and faults, after which the server has to be as it was.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// All endpoints and faults mixed
    Soak(Soak),
    /// Orderly ends under load
    Shutdown {
        /// How often
        #[arg(long, default_value_t = 20)]
        rounds: u32,
    },
    /// Many connections at the same time
    Connections {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        number: usize,
    },
    /// The server, for the other parts
    #[command(hide = true)]
    Serve,
}

#[derive(clap::Args)]
struct Soak {
    /// How long, in all rounds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// After each, the server has to be as it was
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// How many clients at a time
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// What clients do depends on it, but for what time decides; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
}

impl Soak {
    async fn run(self) -> Result<(), BoxError> {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        soak::run(self.rounds, Duration::from_secs(self.seconds) / self.rounds.max(1), self.clients, seed)
            .await
    }
}

fn main() -> ExitCode {
    let result = match Args::parse().part {
        Some(Part::Serve) => serve::run(),
        part => clients(part),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn clients(part: Option<Part>) -> Result<(), BoxError> {
    match part {
        Some(Part::Soak(soak)) => soak.run().await,
        Some(Part::Shutdown { rounds }) => shutdown::run(rounds, 32).await,
        Some(Part::Connections { number }) => many::run(number).await,
        Some(Part::Serve) => Err("the server has a runtime of its own".into()),
        None => {
            shutdown::run(20, 32).await?;
            many::run(10_000).await?;
            Soak { seconds: 600, rounds: 10, clients: 32, seed: None }.run().await
        }
    }
}
