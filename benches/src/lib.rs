//! What the benchmarks have in common: the load generator, and the statistics of rounds.

pub mod load;
pub mod response;
mod table;

pub use table::{argument, spread, table};
