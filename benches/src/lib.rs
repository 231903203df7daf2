//! What the benchmarks have in common: the load generator, the statistics of rounds, and the records of what was measured.

pub mod load;
pub mod record;
pub mod response;
mod table;

pub use table::{argument, spread, table};
