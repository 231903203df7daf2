//! The tests of the Python host: a module for each promise group.

mod asgi;
mod attacks;
mod cli;
mod compat;
mod cookbook;
mod faults;
mod leftovers;
mod loading;
mod log;
mod memory;
mod pages;
mod support;
mod unheard;
mod wsgi;
