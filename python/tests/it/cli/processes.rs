//! Several processes on one address.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::server::{Gate, Server, WATCHDOG, json, read, send};

fn pid(response: &str) -> Pid {
    let pid = json(response)["pid"].as_i64().unwrap();
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// The processes that answer, once there are `count` of them. Which one accepts a connection is the system's choice: many are made at once until each had one.
fn answering(server: &Server, count: usize) -> BTreeSet<i32> {
    let start = Instant::now();
    let mut pids = BTreeSet::new();
    while pids.len() < count {
        assert!(start.elapsed() < WATCHDOG, "only {pids:?} answer");
        let streams: Vec<_> = (0..8).map(|_| send(server.address(), "/")).collect();
        pids.extend(streams.into_iter().map(|stream| pid(&read(stream)).as_raw_pid()));
    }
    pids
}

#[test]
fn they_share_the_address() {
    let server = Server::start(&["--processes", "2", "app:wsgi"]);
    let pids = answering(&server, 2);
    assert_eq!(pids.len(), 2);
    assert!(!pids.contains(&server.pid.as_raw_pid()), "the parent serves nothing");
    assert_eq!(server.json("/")["wsgi.multiprocess"], true);
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 0);
    for pid in pids {
        assert!(test_kill_process(Pid::from_raw(pid).unwrap()).is_err(), "{pid} is still there");
    }
    assert_eq!(TcpStream::connect(server.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.line(), None, "it says once where it listens");
}

#[test]
fn one_that_dies_is_replaced() {
    let server = Server::start(&["--processes", "2", "app:wsgi"]);
    let before = answering(&server, 2);
    let victim = *before.first().unwrap();
    kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).unwrap();
    server.error_line("is replaced");
    let after = answering(&server, 2);
    assert!(!after.contains(&victim));
    assert_eq!(before.intersection(&after).count(), 1, "the other one goes on");
}

#[test]
fn running_requests_finish_in_each() {
    let gate = Gate::new();
    let server = Server::start(&["--processes", "2", "app:wsgi"]);
    let slow: Vec<_> = (0..4).map(|_| send(server.address(), &format!("/hold?{}", gate.port()))).collect();
    let held: Vec<_> = slow.iter().map(|_| gate.held()).collect();
    server.signal(Signal::TERM);
    // Of the parent and of both children.
    for _ in 0..3 {
        server.error_line("stopping");
    }
    assert_eq!(TcpStream::connect(server.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(held);
    for slow in slow {
        json(&read(slow));
    }
    assert_eq!(server.end(), 0);
}

#[test]
fn the_second_signal_takes_all_of_them() {
    let gate = Gate::new();
    let server = Server::start(&["--processes", "2", "app:wsgi"]);
    let slow = send(server.address(), &format!("/hold?{}", gate.port()));
    let _held = gate.held();
    server.signal(Signal::INT);
    for _ in 0..3 {
        server.error_line("stopping");
    }
    server.signal(Signal::INT);
    assert_eq!(server.end(), 130);
    assert_eq!(read(slow), "");
}

#[test]
fn children_do_not_outlive_a_parent_that_was_killed() {
    let server = Server::start(&["--processes", "2", "app:wsgi"]);
    server.json("/");
    server.signal(Signal::KILL);
    // Their ends of the pipe close when the last of them has ended.
    while server.line().is_some() {}
    assert_eq!(TcpStream::connect(server.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
