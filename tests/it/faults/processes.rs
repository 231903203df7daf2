//! A2, A8: the synchronous hosts of the examples, each a process of its own, and clients that leave at each byte.
#![cfg(target_os = "linux")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::alone::is_long;
use super::wire::{LEAVES, Leave, Replies, connect, leave, raw};
use crate::support::{PATIENCE, soon, watched};

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn entries(&self, of: &str) -> usize {
        std::fs::read_dir(format!("/proc/{}/{of}", self.0.id())).expect("a list").count()
    }
}

fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let path = test.ancestors().nth(2).expect("the target's directory").join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}

/// Starts a host, which says where it listens.
fn host(name: &str) -> (Process, SocketAddr) {
    let mut command = Command::new(example(name));
    let command = command.env("ADDR", "127.0.0.1:0").stdin(Stdio::null()).stderr(Stdio::null());
    let mut process = Process(command.stdout(Stdio::piped()).spawn().expect("a process"));
    let stdout = process.0.stdout.take().expect("a pipe");
    let line = watched(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        line
    });
    let addr = line.trim_end().strip_prefix("listening on http://").and_then(|addr| addr.parse().ok());
    (process, addr.unwrap_or_else(|| panic!("{name} said {line:?}")))
}

/// The requests that clients leave amid, or amid the response to them.
const UPLOADS: [&str; 3] = [
    "POST /sha256 HTTP/1.1\r\nhost:h\r\nconnection:close\r\ncontent-length:5\r\n\r\nhello",
    "POST /sha256 HTTP/1.1\r\nhost:h\r\nconnection:close\r\ntransfer-encoding:chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /sha256 HTTP/1.1\r\nhost:h\r\nconnection:close\r\nexpect:100-continue\r\ncontent-length:5\r\n\r\nhello",
];
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n";

async fn host_outlives(name: &str, downloads: &[&str]) {
    let (process, addr) = host(name);
    let check = async |what: &str| {
        let replies = Replies::parse(&raw(addr, UPLOADS[0].as_bytes()).await);
        assert_eq!(replies.statuses(), [200], "{what}");
        assert_eq!(replies.whole[0].body, HELLO.as_bytes(), "{what}");
    };
    check("at first").await;
    let (descriptors, threads) = (process.entries("fd"), process.entries("task"));
    let step = if is_long() { 1 } else { 3 };
    for how in LEAVES {
        // tiny_http 0.12 loses a thread to each client that is gone with a reset before it was accepted, and there are four.
        let uploads = UPLOADS.iter().filter(|_| how != Leave::Reset);
        for (upload, first) in uploads.zip(0..) {
            let (head, body) = upload.split_at(upload.find("\r\n\r\n").expect("a head") + 4);
            // Bytes of the head are all alike to the handler, who sees none of them.
            let offsets = (first..head.len()).step_by(step * 2).chain(head.len()..=upload.len());
            let mut kept = Vec::new();
            for sent in offsets {
                let what = format!("{name}, {how:?}, {sent} of {} bytes of {upload:?}", upload.len());
                let mut client = connect(addr).await;
                client.write_all(&upload.as_bytes()[..sent]).await.expect("to send");
                let left = leave(client, how).await;
                kept.extend(left.kept);
                let replies = Replies::parse(&left.read);
                // tiny_http takes an upload in chunks that breaks off for one that ended.
                let is_told = body.starts_with("5\r\n");
                for reply in replies.whole.iter().filter(|reply| reply.status == 200) {
                    let is_right = sent == upload.len() && reply.body == HELLO.as_bytes();
                    assert!(is_right || is_told && sent > head.len(), "{what}: {replies:?}");
                }
            }
            drop(kept);
            check(&format!("{name}, {how:?}, {upload:?}")).await;
        }
        for path in downloads {
            for taken in (1..160).step_by(step) {
                let mut client = connect(addr).await;
                let request = format!("GET {path} HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n");
                client.write_all(request.as_bytes()).await.expect("to send");
                let mut bytes = vec![0; taken];
                let length = soon(client.read_exact(&mut bytes)).await;
                // A short response is over by then.
                assert!(length.is_ok() || *path == "/", "{name}, {path}, {taken} bytes");
                // Reading on would go on for as long as the response does.
                leave(client, if how == Leave::HalfThenRead { Leave::Close } else { how }).await;
            }
            check(&format!("{name}, {how:?}, {path}")).await;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    // tiny_http keeps some threads for connections to come.
    while process.entries("fd") > descriptors || process.entries("task") > threads + 8 {
        let levels = (process.entries("fd"), process.entries("task"));
        assert!(Instant::now() < deadline, "{name}: {levels:?}, at first {:?}", (descriptors, threads));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a8_tiny_http_outlives_clients_that_leave_at_any_byte() {
    host_outlives("tiny_http_host", &["/"]).await;
}

#[tokio::test]
async fn a8_rouille_outlives_clients_that_leave_at_any_byte() {
    host_outlives("rouille_host", &["/", "/rows/100"]).await;
}

/// The example's CGI program, with an environment of these variables alone.
fn program(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(example("cgi"));
    command.env_clear().envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a2_a_cgi_host_that_leaves_at_any_byte_of_the_request_gets_no_200() {
    const BODY: &str = "hello, world";
    let variables = [("REQUEST_METHOD", "POST"), ("PATH_INFO", "/sha256"), ("CONTENT_LENGTH", "12")];
    for sent in 0..=BODY.len() {
        let mut process = Process(program(&variables).spawn().expect("a process"));
        let output = watched(move || {
            let child = &mut process.0;
            child.stdin.take().expect("a pipe").write_all(&BODY.as_bytes()[..sent]).expect("to send");
            let mut output = String::new();
            child.stdout.take().expect("a pipe").read_to_string(&mut output).expect("text");
            output
        });
        let status = if sent == BODY.len() { "Status: 200 OK\r\n" } else { "Status: 400 Bad Request\r\n" };
        assert!(output.starts_with(status), "{sent} bytes: {output}");
    }
}

#[test]
fn a8_a_cgi_host_that_leaves_at_any_byte_of_the_response_ends_the_program() {
    let variables =
        [("REQUEST_METHOD", "GET"), ("PATH_INFO", "/download"), ("QUERY_STRING", "mib=100000000")];
    for taken in (0..120).step_by(if is_long() { 1 } else { 5 }) {
        let mut process = Process(program(&variables).spawn().expect("a process"));
        watched(move || {
            let mut output = process.0.stdout.take().expect("a pipe");
            output.read_exact(&mut vec![0; taken]).expect("a beginning");
            drop(output);
            assert_eq!(process.0.wait().expect("an exit code").code(), Some(1), "{taken} bytes");
        });
    }
}

#[test]
fn a8_a_full_disk_behind_a_cgi_program_is_a_failure_of_it() {
    for path in ["/hello", "/download", "/none", "/panic"] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let variables = [("REQUEST_METHOD", "GET"), ("PATH_INFO", path), ("QUERY_STRING", "mib=100000000")];
        let mut process = Process(program(&variables).stdout(full).spawn().expect("a process"));
        let code = watched(move || process.0.wait().expect("an exit code").code());
        assert_eq!(code, Some(1), "{path}");
    }
}
