//! The examples, run as they are: each as a process of its own, over real sockets.

mod data;
mod example;
mod hosts;
mod limits;
mod prefork;
mod sides;
mod stacks;
