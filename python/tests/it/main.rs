//! The tests of the Python host: a module for each promise group.

mod cli;
mod loading;
mod wsgi;
