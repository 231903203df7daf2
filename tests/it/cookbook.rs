//! The examples, run as they are: each as a process of its own, over real sockets.

mod example;
mod hosts;
mod prefork;
mod stacks;
