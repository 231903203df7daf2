//! The command-line server, as its users have it: a process, its output, its exit code, and sockets.

mod exits;
mod flags;
mod processes;
mod protocols;
mod server;
mod shutdown;
