//! What somebody tries who wants in, or wants others out: over real connections, against the server as a process.

mod flood;
mod garbage;
mod paths;
mod smuggling;
mod splitting;
mod spoofing;
mod websocket;
