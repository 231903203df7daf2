//! The command-line server, as its users have it: a process, its output, its exit code, and sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod exits;
mod flags;
mod processes;
mod protocols;
mod server;
mod shutdown;
