//! The end: orderly at the first signal, at once at the second.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use super::server::{Gate, Server, WATCHDOG, command, json, read, send};

#[test]
fn running_requests_finish_while_new_connections_are_refused() {
    for signal in [Signal::TERM, Signal::INT] {
        let gate = Gate::new();
        let server = Server::start(&["app:wsgi"]);
        let slow = send(server.address(), &format!("/hold?{}", gate.port()));
        let held = gate.held();
        server.signal(signal);
        server.error_line("stopping");
        let refused = TcpStream::connect(server.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(held);
        assert_eq!(json(&read(slow))["PATH_INFO"], "/hold");
        assert_eq!(server.end(), 0);
    }
}

#[test]
fn idle_connections_do_not_hold_the_end_up() {
    let server = Server::start(&["app:wsgi"]);
    let mut idle = TcpStream::connect(server.address()).unwrap();
    idle.set_read_timeout(Some(WATCHDOG)).unwrap();
    write!(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).unwrap();
    // This one never says anything.
    let silent = TcpStream::connect(server.address()).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 0);
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    drop(silent);
}

#[test]
fn requests_that_take_too_long_are_cut() {
    let gate = Gate::new();
    let server = Server::start(&["--graceful-timeout", "0.1", "app:wsgi"]);
    let slow = send(server.address(), &format!("/hold?{}", gate.port()));
    let _held = gate.held();
    server.signal(Signal::TERM);
    server.error_line("1 connections took too long");
    assert_eq!(server.end(), 0);
    assert_eq!(read(slow), "");
}

#[test]
fn the_second_signal_ends_at_once() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let gate = Gate::new();
        let server = Server::start(&["app:wsgi"]);
        let _slow = send(server.address(), &format!("/hold?{}", gate.port()));
        let _held = gate.held();
        server.signal(Signal::TERM);
        server.error_line("stopping");
        server.signal(signal);
        assert_eq!(server.end(), code);
    }
}

#[test]
fn the_second_signal_ends_an_exit_handler_that_does_not() {
    let gate = Gate::new();
    let mut command = command(&["--bind", "127.0.0.1:0", "app:wsgi"]);
    command.env("STUCK", gate.port().to_string());
    let server = Server::start_command(command);
    server.signal(Signal::TERM);
    let _held = gate.held();
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 143);
}

#[test]
fn exit_handlers_that_take_too_long_are_left_behind() {
    let gate = Gate::new();
    let mut command = command(&["--bind", "127.0.0.1:0", "--graceful-timeout", "0.1", "app:wsgi"]);
    command.env("STUCK", gate.port().to_string());
    let server = Server::start_command(command);
    server.signal(Signal::TERM);
    let _held = gate.held();
    server.error_line("exit handlers took too long");
    assert_eq!(server.end(), 1);
}

#[test]
fn a_signal_during_a_long_import_ends_at_once() {
    let gate = Gate::new();
    let dir = tempfile::tempdir().unwrap();
    let module = format!(
        "import socket\nwith socket.create_connection(('127.0.0.1', {})) as s:\n    s.sendall(b'x')\n    s.recv(1)\n",
        gate.port()
    );
    std::fs::write(dir.path().join("slow.py"), module).unwrap();
    let server = Server::spawn(command(&[
        "--bind",
        "127.0.0.1:0",
        "--chdir",
        dir.path().to_str().unwrap(),
        "slow:app",
    ]));
    let _held = gate.held();
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 143);
}

#[test]
fn exit_handlers_run_and_what_they_print_arrives() {
    let mut command = command(&["--bind", "127.0.0.1:0", "app:wsgi"]);
    command.env("GOODBYE", "1");
    let server = Server::start_command(command);
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 0);
    assert_eq!(server.line().as_deref(), Some("goodbye"));
}

#[test]
fn the_lifespan_is_shut_down() {
    let server = Server::start(&["app:asgi"]);
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 0);
    let mut lines = Vec::new();
    while let Some(line) = server.line() {
        lines.push(line);
    }
    // Python writes to a pipe in one piece, at the end.
    assert_eq!(lines, ["lifespan.startup", "lifespan.shutdown"]);
}
