//! The example's program, run as a host would: its environment, its streams, its exit code.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Output, Stdio};

use super::{Answer, example};
use crate::support::watched;

/// The program with an environment of these variables alone. Killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(variables: &[(&str, &str)]) -> Program {
    spawn(Command::new(example("cgi")).env_clear().envs(variables.iter().copied()))
}

fn spawn(command: &mut Command) -> Program {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Program(command.spawn().expect("a process"))
}

/// Runs it to its end.
fn run(variables: &[(&str, &str)], input: &'static [u8]) -> Output {
    let program = start(variables);
    watched(move || finish(program, input))
}

fn finish(mut program: Program, input: &[u8]) -> Output {
    let child = &mut program.0;
    // A program need not read what it is sent.
    let _ = child.stdin.take().expect("an input").write_all(input);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.take().expect("an output").read_to_end(&mut stdout).expect("to read");
    child.stderr.take().expect("an error output").read_to_end(&mut stderr).expect("to read");
    Output { status: child.wait().expect("an exit code"), stdout, stderr }
}

fn get(path: &str) -> Output {
    run(&[("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/app"), ("PATH_INFO", path)], b"")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

#[test]
fn b1_a_response_leaves_the_program_content() {
    for (path, status, text) in [
        ("/hello", "200 OK", "Hello World!\n"),
        ("/redirect", "303 See Other", ""),
        ("/none", "404 Not Found", ""),
        ("/fail", "500 Internal Server Error", "no answer: Not a directory (os error 20)\n"),
    ] {
        let output = get(path);
        let answer = Answer::parse(&output.stdout);
        assert_eq!((&*answer.status, answer.text()), (status, text));
        assert!(output.status.success(), "{path}: {output:?}");
        assert_eq!(stderr(&output), "");
    }
    let answer = Answer::parse(&get("/redirect").stdout);
    assert_eq!(answer.headers["location"], "/app/hello");
}

#[test]
fn a6_a_body_that_breaks_off_is_a_failure_of_the_program() {
    for query in ["", "length=100"] {
        let variables = [("REQUEST_METHOD", "GET"), ("PATH_INFO", "/fail-late"), ("QUERY_STRING", query)];
        let output = run(&variables, b"");
        let answer = Answer::parse(&output.stdout);
        assert_eq!(answer.text(), "the first of many rows\n");
        assert_eq!(answer.headers.contains_key("content-length"), !query.is_empty());
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stderr(&output), "the handler failed: the database went away\n");
    }
}

#[test]
fn a11_a_panic_is_a_500_and_a_failure_of_the_program() {
    let output = get("/panic");
    let answer = Answer::parse(&output.stdout);
    assert_eq!(answer.status, "500 Internal Server Error");
    assert_eq!(output.status.code(), Some(1));
    // Before it stands what Rust has to say of a panic.
    assert!(stderr(&output).ends_with("\nthe application panicked: as you wish\n"), "{output:?}");
}

#[test]
fn a12_a_request_that_is_none_is_a_400_and_a_failure_of_the_program() {
    let variables = [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/sha256"), ("CONTENT_LENGTH", "five")];
    let output = run(&variables, b"hello");
    assert_eq!(Answer::parse(&output.stdout).status, "400 Bad Request");
    assert_eq!(output.status.code(), Some(1));
    let line = stderr(&output);
    assert!(line.starts_with("the variable CONTENT_LENGTH is not valid: "), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn b1_a_program_that_no_server_started_says_so() {
    let output = run(&[("PATH_INFO", "/hello")], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("REQUEST_METHOD is not set"), "{output:?}");
}

/// A host need not close its end of the pipe.
#[test]
fn a2_the_end_of_the_input_is_not_waited_for() {
    let mut program = start(&[("REQUEST_METHOD", "POST"), ("PATH_INFO", "/sha256"), ("CONTENT_LENGTH", "5")]);
    watched(move || {
        let mut input = program.0.stdin.take().expect("an input");
        input.write_all(b"hello").expect("to write");
        let output = finish_reading(&mut program);
        drop(input);
        let answer = Answer::parse(&output);
        let hello = "5 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n";
        assert_eq!(answer.text(), hello);
        assert!(program.0.wait().expect("an exit code").success());
    });
}

fn finish_reading(program: &mut Program) -> Vec<u8> {
    let mut output = Vec::new();
    program.0.stdout.take().expect("an output").read_to_end(&mut output).expect("to read");
    output
}

#[test]
fn a2_an_input_that_ends_early_is_an_error_to_the_service() {
    let variables = [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/sha256"), ("CONTENT_LENGTH", "10")];
    let output = run(&variables, b"hello");
    assert_eq!(Answer::parse(&output.stdout).status, "400 Bad Request");
    // The service knew how to answer.
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn b3_the_program_answers_while_it_reads() {
    let mut program =
        start(&[("REQUEST_METHOD", "POST"), ("PATH_INFO", "/echo"), ("HTTP_TRANSFER_ENCODING", "chunked")]);
    watched(move || {
        let mut input = program.0.stdin.take().expect("an input");
        let mut output = program.0.stdout.take().expect("an output");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            output.read_exact(&mut byte).expect("a head");
            head.extend(byte);
        }
        for piece in [b"one", b"two", b"six"] {
            input.write_all(piece).expect("to write");
            let mut back = [0; 3];
            output.read_exact(&mut back).expect("an echo");
            assert_eq!(&back, piece);
        }
        drop(input);
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).expect("to read");
        assert!(rest.is_empty());
        assert!(program.0.wait().expect("an exit code").success());
    });
}

#[test]
fn a8_a_host_that_left_ends_the_program_without_a_word() {
    let mut program = start(&[
        ("REQUEST_METHOD", "GET"),
        ("PATH_INFO", "/download"),
        // More than anybody could wait for.
        ("QUERY_STRING", "mib=100000000"),
    ]);
    watched(move || {
        let mut output = program.0.stdout.take().expect("an output");
        output.read_exact(&mut [0; 1000]).expect("a beginning");
        drop(output);
        assert_eq!(program.0.wait().expect("an exit code").code(), Some(1));
        let mut errors = String::new();
        program.0.stderr.take().expect("an error output").read_to_string(&mut errors).expect("text");
        assert_eq!(errors, "");
    });
}

#[test]
fn b4_background_tasks_are_done_when_the_program_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("note");
    let variables = [
        ("REQUEST_METHOD", "POST"),
        ("PATH_INFO", "/note"),
        ("CONTENT_LENGTH", "5"),
        ("NOTE_FILE", file.to_str().expect("a path of text")),
    ];
    let output = run(&variables, b"hello");
    assert_eq!(Answer::parse(&output.stdout).text(), "noted\n");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("a note"), "hello");
}

#[test]
fn c1_variables_may_be_any_bytes() {
    let mut command = Command::new(example("cgi"));
    command
        .env_clear()
        .env("REQUEST_METHOD", "GET")
        .env("REQUEST_URI", "/app/environ/a%2Fb%FF")
        .env("SCRIPT_NAME", "/app")
        .env("PATH_INFO", OsStr::from_bytes(b"/environ/a/b\xff"))
        .env("REMOTE_USER", OsStr::from_bytes(b"Ren\xe9"))
        .env(OsStr::from_bytes(b"NO_TEXT_\xff"), "ignored");
    let program = spawn(&mut command);
    let output = watched(move || finish(program, b""));
    let answer = Answer::parse(&output.stdout);
    let lines: Vec<_> = answer.text().lines().collect();
    for line in ["root_path=/app", "raw_path=/app/environ/a%2Fb%FF", "REMOTE_USER=Ren\u{fffd}"] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
}
