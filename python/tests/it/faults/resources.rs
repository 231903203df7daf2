//! Resources that run out, and files that are not what they were.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::support::{Site, Wire, command_in, hex, responses};
use crate::support::{PATIENCE, apps, until, watched};

/// Sets a limit of a running process, or gives it back the usual one.
fn limit(site: &Site, resource: Resource, most: Option<u64>) {
    let pid = Pid::from_raw(site.server.pid().cast_signed());
    // The most that it may be is inherited from here, and stays.
    let Rlimit { current, maximum } = getrlimit(resource);
    prlimit(pid, resource, Rlimit { current: most.or(current), maximum }).expect("a process of ours");
}

/// A number in what the kernel tells of the process.
fn status(site: &Site, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", site.server.pid())).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect(key);
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn files(site: &Site) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", site.server.pid())).expect("a process").count() as u64
}

/// A thread needs room for its stack. Without that no worker starts: where there is none, requests are refused; where there is one, it does the work.
#[test]
fn a10_where_no_thread_can_be_started_requests_are_refused_until_one_can() {
    watched(|| {
        let mut site = Site::start("app:wsgi");
        let _guard = site.server.guard();
        let room = status(&site, "VmSize") * 1024 + 4 * 1024 * 1024;
        limit(&site, Resource::As, Some(room));
        for _ in 0..10 {
            let seen = site.get("/ok");
            assert_eq!((seen.status, seen.whole), (503, true), "{seen:?}");
        }
        limit(&site, Resource::As, None);
        assert_eq!(site.get("/ok").body, b"ok");

        let room = status(&site, "VmSize") * 1024 + 4 * 1024 * 1024;
        limit(&site, Resource::As, Some(room));
        let clients: Vec<_> = (0..20).map(|_| request(&site, "/ok")).collect();
        for mut client in clients {
            assert_eq!(responses(&client.rest(), "GET")[0].body, b"ok");
        }
        limit(&site, Resource::As, None);
        assert!(site.server.stop().success());
    });
}

fn request(site: &Site, path: &str) -> Wire {
    let mut wire = Wire::open(site.addr);
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    wire
}

/// Clients that came too many wait, those that are there are served, and the server goes on when there is room again.
#[test]
fn a10_a_server_without_file_descriptors_goes_on_when_it_has_some_again() {
    for target in ["app:wsgi", "app:asgi"] {
        watched(move || {
            let mut site = Site::start(target);
            let _guard = site.server.guard();
            // Python opens files of its own when something is used first.
            assert_eq!(site.get("/ok").body, b"ok");
            until("the connection is gone", || site.get("/ok").status == 200 && files(&site) > 0);
            let mut here = Wire::open(site.addr);
            here.send(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n");
            here.head();
            assert_eq!((here.byte(), here.byte()), (Some(b'o'), Some(b'k')));

            limit(&site, Resource::Nofile, Some(files(&site) + 3));
            let crowd: Vec<_> =
                (0..20).map(|_| TcpStream::connect(site.addr).expect("room in the backlog")).collect();
            site.says(0, "no connection can be accepted for now");
            // Who was there before is served, and an application that opens files is told that it cannot.
            let code = match target {
                "app:wsgi" => "def app(environ, start_response): open('/dev/null')",
                _ => "async def app(scope, receive, send): open('/dev/null')",
            };
            here.send(format!("GET /run HTTP/1.1\r\nHost: a\r\nX-Code: {}\r\n\r\n", hex(code)).as_bytes());
            let head = here.head();
            assert!(head.starts_with(b"HTTP/1.1 500 "), "{}", head.escape_ascii());
            site.says(0, "Too many open files: '/dev/null'");

            drop((crowd, here));
            assert_eq!(site.get("/ok").body, b"ok");
            assert!(site.server.stop().success());
        });
    }
}

/// A process whose output goes somewhere else, on a Unix socket.
struct Quiet(Arc<Mutex<Child>>);

impl Quiet {
    fn start(command: &mut Command, socket: &Path) -> Self {
        let child = Self(Arc::new(Mutex::new(command.stdin(Stdio::null()).spawn().expect("a process"))));
        until("it listens", || UnixStream::connect(socket).is_ok());
        child
    }

    fn stop(&self) -> Option<i32> {
        let mut child = self.0.lock().expect("a child");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("a process of ours");
        child.wait().expect("an end").code()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Ok(mut child) = self.0.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn ask(socket: &Path, path: &str, more: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n").expect("room");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

/// A log that cannot be written is no reason to answer nobody.
#[test]
fn a11_an_output_that_is_full_or_closed_does_not_end_the_server() {
    watched(|| {
        let fails = "def app(environ, start_response):\n import sys\n sys.stderr.write('words')\n print('words', file=environ['wsgi.errors'], flush=True)\n print('words')\n 1 / 0";
        let fails_too = "async def app(scope, receive, send):\n print('words')\n 1 / 0";
        for (target, code) in [("app:wsgi", fails), ("app:asgi", fails_too)] {
            for full in [true, false] {
                let dir = tempfile::tempdir().expect("a directory");
                let socket = dir.path().join("socket");
                let bind = format!("unix:{}", socket.display());
                let server = command_in(&apps().join("faults"), &bind, target);
                let mut command = Command::new("sh");
                command.args(["-c", "exec \"$@\"", "sh"]).arg(server.get_program()).args(server.get_args());
                command.args(["--access-log", "--log-level", "debug", "--graceful-timeout", "5"]);
                command.env_remove("VIRTUAL_ENV").env("PYTHONDONTWRITEBYTECODE", "1");
                if full {
                    let file = || File::options().write(true).open("/dev/full").expect("a device");
                    command.stdout(file()).stderr(file());
                } else {
                    let mut closed = Command::new("sh");
                    closed.args(["-c", "exec \"$@\" >&- 2>&-", "sh"]).args(command.get_args().skip(3));
                    closed.env_remove("VIRTUAL_ENV").env("PYTHONDONTWRITEBYTECODE", "1");
                    command = closed;
                }
                let quiet = Quiet::start(&mut command, &socket);
                for _ in 0..20 {
                    let failed = ask(&socket, "/run", &format!("X-Code: {}\r\n", hex(code)));
                    assert!(failed.starts_with("HTTP/1.1 500 "), "{failed}");
                    let answer = ask(&socket, "/ok", "");
                    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
                }
                assert_eq!(quiet.stop(), Some(0), "{target}, full: {full}");
                assert!(!socket.exists());
            }
        }
    });
}

/// What stands where a socket should be is somebody's, if it is no socket.
#[test]
fn c3_what_is_no_socket_is_never_removed() {
    watched(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "precious").expect("a file");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        for path in [&file, &link, &dir.path().to_owned()] {
            let bind = format!("unix:{}", path.display());
            let output = command_in(&apps().join("faults"), &bind, "app:wsgi").output().expect("a process");
            assert_eq!(output.status.code(), Some(6), "{output:?}");
        }
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
        assert!(link.is_symlink());
    });
}

/// Whoever takes the file away takes away new clients, and nothing else; what has come into its place meanwhile is another server's.
#[test]
fn c3_a_unix_socket_whose_file_is_gone_or_replaced_is_left_alone() {
    watched(|| {
        for target in ["app:wsgi", "app:asgi"] {
            let dir = tempfile::tempdir().expect("a directory");
            let socket = dir.path().join("socket");
            let start = || {
                let mut command =
                    command_in(&apps().join("faults"), &format!("unix:{}", socket.display()), target);
                Quiet::start(command.stdout(Stdio::null()).stderr(Stdio::null()), &socket)
            };
            let first = start();
            let mut open = UnixStream::connect(&socket).expect("a connection");
            fs::remove_file(&socket).expect("a file");
            open.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("room");
            let mut response = String::new();
            open.read_to_string(&mut response).expect("a response");
            assert!(response.ends_with("\r\n\r\nok"), "{response}");

            let second = start();
            assert_eq!(first.stop(), Some(0));
            assert!(ask(&socket, "/ok", "").ends_with("\r\n\r\nok"));
            assert_eq!(second.stop(), Some(0));
            assert!(!socket.exists());
        }
    });
}

/// The number of file descriptors and threads that a crowd takes is given back.
#[test]
fn a10_a_thousand_connections_are_given_back() {
    watched(|| {
        for target in ["app:wsgi", "app:asgi"] {
            let mut site = Site::start(target);
            let _guard = site.server.guard();
            site.get("/ok");
            let before = files(&site);
            let crowd: Vec<_> =
                (0..1000).map(|_| TcpStream::connect(site.addr).expect("a connection")).collect();
            // A connection from before may have been one of the files.
            until("they are accepted", || files(&site) >= before + 990);
            assert_eq!(site.get("/ok").body, b"ok");
            drop(crowd);
            until("they are gone", || {
                thread::yield_now();
                files(&site) <= before
            });
            assert!(site.server.stop().success());
        }
    });
}
