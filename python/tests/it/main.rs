//! The tests of the Python host: a module for each promise group.

mod asgi;
mod cli;
mod compat;
mod cookbook;
mod leftovers;
mod memory;
mod support;
