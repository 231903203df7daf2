//! Each way to fail has its exit code, and says so in its first line.

use std::net::TcpListener;
use std::process::Stdio;

use super::server::{Server, command};

/// Runs a server that is to fail; returns the exit code and what it said.
fn fails(arguments: &[&str]) -> (i32, String) {
    let server = Server::spawn(command(arguments));
    let code = server.end();
    assert_eq!(server.line(), None, "it must not say that it listens");
    (code, server.errors())
}

#[test]
fn arguments_that_make_no_sense_are_2() {
    for arguments in [
        &[][..],
        &["--workers", "0", "app:wsgi"],
        &["--processes", "0", "app:wsgi"],
        &["--bind", ":8000", "app:wsgi"],
        &["--root-path", "shop", "app:wsgi"],
        &["--root-path", "/shop?x", "app:wsgi"],
        &["--interface", "cgi", "app:wsgi"],
        &["--graceful-timeout", "-1", "app:wsgi"],
        &["--no-such-flag", "app:wsgi"],
    ] {
        let (code, said) = fails(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.starts_with("error: "), "{arguments:?}: {said}");
    }
}

#[test]
fn an_application_that_cannot_be_imported_is_3() {
    for (target, first) in [
        ("no_such_module:app", "tower-wsgi: no module named no_such_module"),
        ("app:nothing", "tower-wsgi: app has no attribute nothing"),
        ("app:json", "tower-wsgi: app:json is not callable: it is a module"),
        ("app", "tower-wsgi: \"app\" names no application: expected MODULE:ATTRIBUTE"),
    ] {
        let (code, said) = fails(&["--bind", "127.0.0.1:0", target]);
        assert_eq!(code, 3, "{target}: {said}");
        assert!(said.starts_with(first), "{target}: {said}");
    }
}

#[test]
fn a_module_that_raises_shows_pythons_traceback_and_no_rust() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broken.py"), "print('printed before')\n1 / 0\n").unwrap();
    let server = Server::spawn(command(&[
        "--bind",
        "127.0.0.1:0",
        "--chdir",
        dir.path().to_str().unwrap(),
        "broken:app",
    ]));
    assert_eq!(server.end(), 3);
    assert_eq!(server.line().as_deref(), Some("printed before"), "what it printed is not lost");
    let said = server.errors();
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("tower-wsgi: broken failed while it was imported"), "{said}");
    assert_eq!(lines.next(), Some("Traceback (most recent call last):"), "{said}");
    assert_eq!(lines.last(), Some("ZeroDivisionError: division by zero"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("Error {") && !said.contains(".rs"), "{said}");
}

#[test]
fn several_processes_say_once_why_they_cannot_start() {
    let (code, said) = fails(&["--bind", "127.0.0.1:0", "--processes", "3", "no_such_module:app"]);
    assert_eq!(code, 3, "{said}");
    assert_eq!(said.matches("tower-wsgi: no module named no_such_module").count(), 1, "{said}");
    assert!(said.starts_with("tower-wsgi: "), "{said}");
}

#[test]
fn an_asgi_application_as_a_wsgi_one_is_3() {
    let (code, said) = fails(&["--bind", "127.0.0.1:0", "--interface", "wsgi", "app:asgi"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.starts_with("tower-wsgi: app:asgi is an ASGI application"), "{said}");
}

#[test]
fn a_wsgi_application_as_an_asgi_one_is_3() {
    let (code, said) = fails(&["--bind", "127.0.0.1:0", "--interface", "asgi", "app:wsgi"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.starts_with("tower-wsgi: app:wsgi is a WSGI application"), "{said}");
}

#[test]
fn an_address_that_is_none_is_2_and_says_why() {
    for (bind, why) in [
        (":8123", "8123 is on 127.0.0.1, 0.0.0.0:8123 on all addresses"),
        ("127.0.0.1:80800", "a port is at most 65535, not 80800"),
    ] {
        let (code, said) = fails(&["--bind", bind, "app:wsgi"]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_failing_lifespan_startup_is_4_and_says_its_message() {
    let (code, said) = fails(&["--bind", "127.0.0.1:0", "--log-level", "error", "app:refuses"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.starts_with("tower-wsgi: "), "{said}");
    assert!(said.contains("the database is away"), "{said}");
}

#[test]
fn a_bad_virtual_environment_is_5() {
    let empty = tempfile::tempdir().unwrap();
    for venv in ["/no/such/environment", empty.path().to_str().unwrap()] {
        let (code, said) = fails(&["--bind", "127.0.0.1:0", "--venv", venv, "app:wsgi"]);
        assert_eq!(code, 5, "{venv}: {said}");
        assert!(said.starts_with("tower-wsgi: ") && said.contains(venv), "{said}");
    }
}

#[test]
fn an_address_in_use_is_6() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for processes in ["1", "2"] {
        // Told before the application is looked for, which may take long.
        let (code, said) = fails(&["--bind", &address, "--processes", processes, "no_such_module:app"]);
        assert_eq!(code, 6, "{said}");
        let expected = format!("tower-wsgi: cannot listen on {address}: Address already in use");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[test]
fn a_name_without_an_address_is_6() {
    let (code, said) = fails(&["--bind", "no-such-host.invalid:80", "app:wsgi"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.starts_with("tower-wsgi: cannot listen on no-such-host.invalid:80: "), "{said}");
}

#[test]
fn the_help_can_be_read_and_the_version_names_python() {
    let help = command(&["--help"]).output().unwrap();
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    for word in [
        "--interface",
        "--bind",
        "--workers",
        "--processes",
        "--loop",
        "--root-path",
        "--venv",
        "--chdir",
        "--log-level",
        "--access-log",
        "--factory",
        "--graceful-timeout",
        "MODULE:ATTR",
        "Examples:",
        "Signals:",
        "Exit codes:",
        "tower-wsgi mysite.wsgi:application",
    ] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
    assert!(!help.contains("--child"), "{help}");

    let version = command(&["--version"]).output().unwrap();
    assert!(version.status.success());
    let version = String::from_utf8(version.stdout).unwrap();
    let expected = concat!("tower-wsgi ", env!("CARGO_PKG_VERSION"), " (Python 3.");
    assert!(version.starts_with(expected), "{version}");
}

#[test]
fn a_stdout_that_nobody_reads_is_no_reason_to_fail() {
    for flag in ["--help", "--version"] {
        let mut child = command(&[flag]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{flag}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
