//! The examples, run as they are: each as a process of its own, over real sockets.

mod browser;
mod data;
mod example;
mod hosts;
mod limits;
mod prefork;
mod progress;
mod sides;
mod stacks;
/// Its tests are the example.
#[path = "../../examples/test_router.rs"]
#[expect(dead_code, reason = "it is a program, too")]
mod test_router;
