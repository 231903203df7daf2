//! Services of other crates as sync handlers.
