//! What each flag does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use super::server::{Server, WATCHDOG, apps, command, get, json, read};

#[test]
fn it_says_where_it_listens_and_answers_there() {
    let server = Server::start(&["app:wsgi"]);
    assert_ne!(server.address().port(), 0);
    let environ = server.json("/a%20b?c=d");
    assert_eq!(environ["PATH_INFO"], "/a b");
    assert_eq!(environ["QUERY_STRING"], "c=d");
    assert_eq!(environ["SERVER_NAME"], "127.0.0.1");
    assert_eq!(environ["SERVER_PORT"], server.address().port().to_string());
    assert_eq!(environ["REMOTE_ADDR"], "127.0.0.1");
    assert_eq!(environ["wsgi.multithread"], true);
    assert_eq!(environ["wsgi.multiprocess"], false);
}

#[test]
fn bind_takes_a_name_ipv6_and_a_bare_port() {
    for (bind, url) in [("localhost:0", "http://"), ("[::1]:0", "http://[::1]:"), ("0", "http://127.0.0.1:")]
    {
        let server = Server::start_command(command(&["--bind", bind, "app:wsgi"]));
        assert!(server.url.starts_with(url), "{}", server.url);
        assert_eq!(server.json("/")["PATH_INFO"], "/");
    }
}

#[test]
fn one_socket_for_both_families_shows_ipv4_clients_as_such() {
    let server = Server::start_command(command(&["--bind", "[::]:0", "app:wsgi"]));
    let address = ([127, 0, 0, 1], server.address().port()).into();
    let environ = json(&get(address, "/"));
    assert_eq!(environ["REMOTE_ADDR"], "127.0.0.1");
    assert_eq!(environ["SERVER_NAME"], "127.0.0.1");
}

#[test]
fn bind_takes_a_unix_socket_and_takes_it_away_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.sock");
    let bind = format!("unix:{}", path.display());
    let request = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        write!(stream, "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        json(&read(stream))
    };
    for processes in ["1", "2"] {
        let server = Server::start_command(command(&["--bind", &bind, "--processes", processes, "app:wsgi"]));
        assert_eq!(server.url, bind);
        assert_eq!(request()["PATH_INFO"], "/x");
        // A second server must not take a socket that is served.
        let second = Server::spawn(command(&["--bind", &bind, "app:wsgi"]));
        assert_eq!(second.end(), 6);
        assert_eq!(request()["PATH_INFO"], "/x");
        server.signal(Signal::TERM);
        assert_eq!(server.end(), 0);
        assert!(!path.exists());
    }
    // What a server that was killed has left is no obstacle.
    let server = Server::start_command(command(&["--bind", &bind, "app:wsgi"]));
    server.kill();
    let server = Server::start_command(command(&["--bind", &bind, "app:wsgi"]));
    assert_eq!(request()["PATH_INFO"], "/x");
    drop(server);
}

#[test]
fn factory_calls_the_attribute() {
    for arguments in [&["--factory", "app:create"][..], &["app:create()"], &["app:Dotted.attribute"]] {
        assert_eq!(Server::start(arguments).json("/")["PATH_INFO"], "/");
    }
}

#[test]
fn chdir_is_where_the_application_runs_and_is_found() {
    let mut command = command(&["--bind", "0", "--chdir", apps().to_str().unwrap(), "app:wsgi"]);
    command.current_dir("/");
    let server = Server::start_command(command);
    assert_eq!(server.json("/")["cwd"], apps().to_str().unwrap());
}

#[test]
fn venv_is_where_packages_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let venv = dir.path().join("venv");
    let python = env!("TOWER_WSGI_PYTHON");
    let made =
        std::process::Command::new(python).args(["-m", "venv", "--without-pip"]).arg(&venv).status().unwrap();
    assert!(made.success());
    let server = Server::start(&["--venv", venv.to_str().unwrap(), "app:wsgi"]);
    let prefix = server.json("/")["prefix"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::canonicalize(prefix).unwrap(), std::fs::canonicalize(&venv).unwrap());
}

#[test]
fn root_path_is_what_a_proxy_took_off() {
    let server = Server::start(&["--root-path", "/sh%6fp/", "app:wsgi"]);
    for (target, path_info) in [("/cart", "/cart"), ("/", "/")] {
        let environ = server.json(target);
        assert_eq!(environ["SCRIPT_NAME"], "/shop");
        assert_eq!(environ["PATH_INFO"], path_info);
    }
    let server = Server::start(&["--root-path", "/shop", "app:asgi"]);
    let scope = server.json("/cart");
    assert_eq!(scope["root_path"], "/shop");
    assert_eq!(scope["path"], "/shop/cart");
}

#[test]
fn loop_chooses_the_event_loop() {
    let server = Server::start(&["--loop", "asyncio", "app:asgi"]);
    let event_loop = server.json("/")["loop"].as_str().unwrap().to_owned();
    assert!(event_loop.starts_with("asyncio."), "{event_loop}");
}

#[test]
fn what_may_be_a_wsgi_application_as_an_asgi_one_is_warned_of() {
    let server = Server::start(&["--interface", "asgi", "app:wrapped"]);
    server.error_line("app:wrapped looks like a WSGI application");
}

#[test]
fn log_level_decides_what_is_said() {
    for (level, says) in [("info", true), ("error", false)] {
        let server = Server::start(&["--log-level", level, "app:wsgi"]);
        server.signal(Signal::TERM);
        assert_eq!(server.end(), 0);
        assert_eq!(server.errors().contains("serving app:wsgi"), says, "{level}");
    }
}

#[test]
fn the_access_log_is_off_by_default() {
    let server = Server::start(&["app:wsgi"]);
    server.json("/");
    server.signal(Signal::TERM);
    assert_eq!(server.end(), 0);
    assert_eq!(server.line(), None);
}

#[test]
fn the_access_log_has_a_line_per_request_that_nothing_escapes_from() {
    let server = Server::start(&["--access-log", "app:wsgi"]);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let head = b"GET /a?b=%0a HTTP/1.1\r\nHost: x\r\nReferer: http://r/\"\r\nUser-Agent: a\tb\\\xff\"\r\n\
        Connection: close\r\n\r\n";
    stream.write_all(head).unwrap();
    let response = read(stream);
    let length = response.split_once("\r\n\r\n").unwrap().1.len();
    let line = server.line().unwrap();
    let (start, rest) = line.split_once(" [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    let (rest, took) = rest.rsplit_once(' ').unwrap();
    assert_eq!(start, "127.0.0.1 - -");
    assert_eq!(time.len(), "21/Nov/2026:17:04:05 +0000".len());
    assert!(time.ends_with(" +0000"), "{time}");
    let expected = format!(r#""GET /a?b=%0a HTTP/1.1" 200 {length} "http://r/\x22" "a\x09b\x5c\xff\x22""#);
    assert_eq!(rest, expected);
    let took: f64 = took.parse().unwrap();
    assert!((0.0..60.0).contains(&took), "{line}");
}

#[test]
fn a_stdout_that_was_closed_does_not_end_the_server() {
    let mut command = command(&["--bind", "127.0.0.1:0", "--access-log", "app:wsgi"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let mut stdout = child.stdout.take().unwrap();
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    drop(stdout);
    let line = String::from_utf8(line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
    for _ in 0..3 {
        json(&get(address, "/"));
    }
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
