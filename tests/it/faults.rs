//! Faults over real sockets. After each of them: the right bytes or an error that the peer can see, and no thread, task, descriptor or value left.
//!
//! [`site`] has the servers under test and tells whether anything is left of what was done to them, [`wire`] the clients. What needs a process of its own, since others
//! of this one open files and start threads too, runs in [`alone`].

mod alone;
mod census;
mod frames;
mod hooks;
mod hosts;
mod http2;
mod lengths;
mod levels;
mod nested;
mod panics;
mod processes;
mod queued;
mod resources;
mod site;
mod slow;
mod vanish;
mod wire;
