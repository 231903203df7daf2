//! The promises, each over a real loopback server where it can be. One binary; a module per group of promises, and a test's name starts
//! with the promise that it holds.

mod asgi;
mod attacks;
mod boundary;
mod capacity;
mod cgi;
mod context;
mod cookbook;
mod early;
mod errors;
mod events;
mod faults;
mod hints;
mod layers;
mod log;
mod next;
mod order;
mod properties;
mod request;
mod response;
mod serve;
mod services;
mod shown;
mod stack;
mod support;
mod threads;
