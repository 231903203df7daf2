//! Where the server's own messages go: to stderr.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sets up the log. Below `trace`, the libraries underneath have only warnings to say.
pub(crate) fn init(level: LevelFilter) {
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    // The names of both crates, and of this program, start with it.
    let targets = Targets::new().with_default(others).with_target("tower_wsgi", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(level >= LevelFilter::DEBUG)
        // Complaints about a closed stderr would go to stderr, with a panic.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(targets).with(lines).init();
}
