//! The pre-fork server.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Instant;

use super::example::{Example, with};
use crate::support::PATIENCE;

/// Asks until so many processes have answered, each after a timer inside a task.
fn children(example: &Example, wanted: usize, seen: &mut BTreeSet<u32>) {
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < wanted {
        assert!(Instant::now() < deadline, "only {seen:?} have answered");
        let reply = example.ask("GET", "/slow", &["Connection: close"], "");
        let child = reply.text().strip_suffix(" took its time\n").and_then(|child| child.parse().ok());
        seen.insert(child.unwrap_or_else(|| panic!("it said {:?}", reply.text())));
    }
}

#[test]
fn prefork_has_timers_and_tasks_in_every_child() {
    with("prefork", &[], |example| {
        let mut seen = BTreeSet::new();
        children(example, 2, &mut seen);
        assert!(!seen.contains(&example.pid()), "the parent answers nobody");
        let reply = example.ask("GET", "/", &[], "");
        assert!(seen.contains(&reply.text().trim_end().parse().expect("a process")));
    });
}

#[test]
fn prefork_replaces_a_child_that_ended() {
    with("prefork", &[], |example| {
        let mut seen = BTreeSet::new();
        children(example, 2, &mut seen);
        let child = seen.first().and_then(|child| fork::ProcessId::new(i32::try_from(*child).ok()?));
        fork::signal_process(child.expect("a process"), fork::Signal::KILL).expect("a signal");
        children(example, 3, &mut seen);
    });
}

#[test]
fn prefork_leaves_no_children_behind() {
    with("prefork", &[], |example| {
        let mut seen = BTreeSet::new();
        children(example, 2, &mut seen);
        example.kill();
        // The listener is open as long as any of them is.
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(example.addr).is_ok() {
            assert!(Instant::now() < deadline, "somebody still listens");
        }
    });
}
