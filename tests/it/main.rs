//! The promises, each over a real loopback server where it can be. One binary; a module per group of promises, and a test's name starts
//! with the promise that it holds.

mod boundary;
mod capacity;
mod context;
mod errors;
mod layers;
mod next;
mod properties;
mod request;
mod response;
mod stack;
mod support;
