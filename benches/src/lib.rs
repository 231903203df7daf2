//! What the benchmarks have in common: the load generator, the statistics of rounds, and the records of what was measured.

pub mod load;
pub mod load2;
pub mod record;
pub mod response;
pub mod server;
mod table;

pub use table::{spread, table};
