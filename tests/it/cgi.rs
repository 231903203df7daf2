//! The CGI gateway: driven in process, as a program of its own, and by real web servers.

mod fastcgi;
mod head;
mod lighttpd;
mod nginx;
mod producers;
mod program;
mod requests;
mod respond;
pub(crate) mod web;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};
use tower_wsgi::{Error, SyncHandler, Variables, gateway::cgi};

use crate::support::watched;

/// What a host reads from a CGI program.
#[derive(Debug)]
struct Answer {
    /// The whole `Status` line's value.
    status: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// Reads what a program wrote.
    fn parse(output: &[u8]) -> Self {
        let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the end of the head");
        let head = std::str::from_utf8(&output[..end]).expect("a head of text");
        let mut lines = head.split("\r\n").map(|line| line.split_once(": ").expect("a header"));
        let (name, status) = lines.next().expect("a first line");
        assert_eq!(name, "Status");
        let headers = lines.map(|(name, value)| {
            assert!(!name.eq_ignore_ascii_case("status"), "a second status: {value}");
            let name = HeaderName::try_from(name).expect("a name");
            (name, HeaderValue::try_from(value).expect("a value"))
        });
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name, value);
        }
        Self { status: status.to_owned(), headers: all, body: output[end + 4..].to_vec() }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

/// Serves one request.
fn serve<H: SyncHandler>(
    handler: H,
    variables: &[(&'static str, &'static str)],
    input: impl Read + Send + 'static,
) -> (Answer, Result<(), Error>) {
    let variables = variables.iter().copied().collect();
    watched(move || {
        let mut output = Vec::new();
        let served = cgi::serve(&handler, variables, input, &mut output);
        (Answer::parse(&output), served)
    })
}

/// Serves one GET of `path`.
fn get<H: SyncHandler>(handler: H, path: &'static str) -> (Answer, Result<(), Error>) {
    serve(handler, &[("REQUEST_METHOD", "GET"), ("PATH_INFO", path)], Untouched)
}

/// The variables of a GET of `/`, for outputs that the test watches.
fn plain() -> Variables {
    [("REQUEST_METHOD", "GET"), ("PATH_INFO", "/")].into_iter().collect()
}

/// An input that must not be read.
struct Untouched;

impl Read for Untouched {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("read beyond the request's body");
    }
}

/// An output that keeps what was written between two flushes together.
#[derive(Default)]
struct Flushes {
    flushed: Vec<String>,
    rest: Vec<u8>,
}

impl Write for Flushes {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.rest.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = String::from_utf8(std::mem::take(&mut self.rest)).expect("text");
        if !piece.is_empty() {
            self.flushed.push(piece);
        }
        Ok(())
    }
}

/// An example's executable, which `cargo test` builds beside the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let target = test.ancestors().nth(2).expect("the target's directory");
    let path = target.join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}
