//! The pre-fork server.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::time::Instant;

use super::example::{Example, with};
use crate::support::PATIENCE;

/// Asks which process is there; it tells after a timer inside a task.
fn child(example: &Example) -> io::Result<u32> {
    let reply = example.connect().try_ask("GET", "/slow", &["Connection: close"], "")?;
    let child = reply.text().strip_suffix(" took its time\n").and_then(|child| child.parse().ok());
    Ok(child.unwrap_or_else(|| panic!("it said {:?}", reply.text())))
}

/// The first children to answer.
fn children(example: &Example) -> BTreeSet<u32> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        assert!(Instant::now() < deadline, "only {seen:?} have answered");
        seen.insert(child(example).expect("an answer"));
    }
    seen
}

#[test]
fn prefork_has_timers_and_tasks_in_every_child() {
    with("prefork", &[], |example| {
        let seen = children(example);
        assert!(!seen.contains(&example.pid()), "the parent answers nobody");
        let reply = example.ask("GET", "/", &[], "");
        assert!(seen.contains(&reply.text().trim_end().parse().expect("a process")));
    });
}

#[test]
fn prefork_replaces_a_child_that_ended() {
    with("prefork", &[], |example| {
        let seen = children(example);
        let killed = seen.first().and_then(|child| fork::ProcessId::new(i32::try_from(*child).ok()?));
        fork::signal_process(killed.expect("a process"), fork::Signal::KILL).expect("a signal");
        let deadline = Instant::now() + PATIENCE;
        // The one that dies may take a connection with it.
        while !child(example).is_ok_and(|child| !seen.contains(&child)) {
            assert!(Instant::now() < deadline, "nobody came in its place");
        }
    });
}

#[test]
fn prefork_leaves_no_children_behind() {
    with("prefork", &[], |example| {
        children(example);
        example.kill();
        // The listener is open as long as any of them is.
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(example.addr).is_ok() {
            assert!(Instant::now() < deadline, "somebody still listens");
        }
    });
}
