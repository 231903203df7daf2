//! Lifespans that fail, hang, or are none.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Site, all, command_in};
use crate::support::server::Server;
use crate::support::watched;

/// A lifespan's startup that ends in whatever way: the server starts without it, or says why it does not.
#[test]
fn b6_a_lifespan_that_fails_is_said_and_one_that_is_none_is_no_failure() {
    watched(|| {
        // Those that do not know the protocol end before they have received anything, or as they do.
        let starts = [
            "return",
            "return 5",
            "1 / 0",
            "assert scope['type'] == 'http'",
            "await send({'type': 'http.response.start', 'status': 200})",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  return",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  1 / 0",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  raise SystemExit(3)",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  await receive()\n  1 / 0",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  await receive()\n  await send({'type': 'lifespan.shutdown.failed', 'message': 'no'})",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  await receive()\n  raise SystemExit(3)",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  await receive()\n  raise asyncio.CancelledError",
            "await receive()\n  await send({'type': 'lifespan.startup.complete'})\n  try: await send({'type': 'lifespan.startup.complete'})\n  except RuntimeError: pass",
            "await receive()\n  asyncio.create_task(asyncio.sleep(1000))\n  await send({'type': 'lifespan.startup.complete'})",
        ];
        for body in starts.iter().step_by(if all() { 1 } else { 2 }) {
            let dir = module(body);
            let mut server = Server::start(&mut command_in(dir.path(), "127.0.0.1:0", "case:app"));
            let site = Site { addr: server.addr, server };
            assert_eq!(site.get("/").body, b"ok", "{body}");
            server = site.server;
            assert!(server.stop().success(), "{body}");
        }
        let refuses = [
            ("await receive()\n  1 / 0", "ZeroDivisionError"),
            ("await receive()\n  raise SystemExit(3)", "SystemExit"),
            ("await receive()\n  raise BaseException('bare')", "BaseException"),
            (
                "await receive()\n  await send({'type': 'lifespan.startup.failed', 'message': 'not today'})",
                "not today",
            ),
            ("await receive()\n  await send({'type': 'lifespan.startup.failed'})", "failed"),
            ("await receive()\n  await send({'type': 'lifespan.startup.failed', 'message': 5})", "failed"),
            ("await receive()\n  await send({'type': 'lifespan.wrong'})", "lifespan.wrong"),
            ("await receive()\n  await send(None)", "TypeError"),
            ("await receive()\n  await send({})", "KeyError"),
        ];
        for (body, word) in refuses.iter().step_by(if all() { 1 } else { 2 }) {
            let dir = module(body);
            let output = command_in(dir.path(), "127.0.0.1:0", "case:app").output().expect("a process");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(4), "{body}: {said}");
            assert!(said.contains(word), "{body}: {said}");
        }
    });
}

/// A module `case` with an application that has this for its lifespan.
fn module(lifespan: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let code = format!(
        "import asyncio\nasync def app(scope, receive, send):\n if scope['type'] == 'lifespan':\n  {lifespan}\n  return\n await send({{'type': 'http.response.start', 'status': 200}})\n await send({{'type': 'http.response.body', 'body': b'ok'}})\n"
    );
    std::fs::write(dir.path().join("case.py"), code).expect("a file");
    dir
}

/// A startup that never comes to its end is ended by a signal, and a shutdown that never does by its time limit.
#[test]
fn b6_a_lifespan_that_hangs_is_ended() {
    watched(|| {
        let dir = module("await receive()\n  print('starting', flush=True)\n  await asyncio.sleep(1000)");
        let mut child = command_in(dir.path(), "127.0.0.1:0", "case:app")
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "starting\n");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("a process of ours");
        assert_eq!(child.wait().expect("an end").code(), Some(128 + 15));

        for hang in [
            "await asyncio.sleep(1000)",
            "while True:\n   try: await asyncio.sleep(1000)\n   except BaseException: pass",
        ] {
            let dir = module(&format!(
                "await receive()\n  await send({{'type': 'lifespan.startup.complete'}})\n  await receive()\n  {hang}"
            ));
            let mut server = Server::start(
                command_in(dir.path(), "127.0.0.1:0", "case:app").args(["--graceful-timeout", "0.2"]),
            );
            server.stop();
            let log = server.log().text();
            assert!(log.contains("the application's shutdown took too long"), "{log}");
        }
    });
}
