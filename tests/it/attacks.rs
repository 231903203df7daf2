//! Attacks from either side of the boundary, and what becomes of them: by bytes on a socket, by the variables of a CGI host, by what an application says.

mod bombs;
mod floods;
mod http2;
mod known;
mod packed;
mod paths;
mod smuggling;
mod splitting;
mod spoofing;
mod stalls;

use std::io::{Read, Write as _};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt;
use tower_wsgi::gateway::cgi;
use tower_wsgi::{Body, Error, SyncHandler, Variables};

use crate::support::{Server, blocking, soon, watched};

/// A response as it came over HTTP/1, or out of a CGI program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// The lines of the head after the first, as they came.
    head: Vec<String>,
    body: String,
}

impl Answer {
    /// The values of a header.
    fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

/// Takes a line off the front of `bytes`: as text, a character for each byte, so that nothing is lost.
fn line(bytes: &mut &[u8]) -> Option<String> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
    *bytes = &bytes[end + 2..];
    Some(line)
}

/// Reads the responses that came on one connection by the letter of RFC 9112: a length, chunks, or to the end. Interim responses are left out.
///
/// # Panics
/// At what is no response: bytes that an attack put between two of them, say.
fn answers(bytes: &[u8]) -> Vec<Answer> {
    let (mut rest, mut answers) = (bytes, Vec::new());
    while !rest.is_empty() {
        let first = line(&mut rest).unwrap_or_else(|| panic!("no response: {:?}", rest.escape_ascii()));
        let status = first.strip_prefix("HTTP/1.1 ").or(first.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|status| status.get(..3)?.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status line: {first:?}"));
        let mut head = Vec::new();
        loop {
            match line(&mut rest).expect("the end of a head") {
                line if line.is_empty() => break,
                line => head.push(line),
            }
        }
        let mut answer = Answer { status, head, body: String::new() };
        if status == 101 || status >= 200 {
            take_body(&mut answer, &mut rest);
            answers.push(answer);
        }
    }
    answers
}

fn take_body(answer: &mut Answer, rest: &mut &[u8]) {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let chunked = answer.all("transfer-encoding").concat().ends_with("chunked");
    if chunked {
        loop {
            let size = line(rest).expect("a chunk's size");
            let size = usize::from_str_radix(&size, 16).expect("a size");
            answer.body.push_str(&lossy(&rest[..size]));
            *rest = &rest[size..];
            // Trailers, if it was the last one.
            while !line(rest).expect("the end of a chunk").is_empty() {}
            if size == 0 {
                return;
            }
        }
    }
    let length = match &answer.all("content-length")[..] {
        [length] => length.parse().expect("a length"),
        [] if matches!(answer.status, 101 | 204 | 304) => 0,
        [] => rest.len(),
        several => panic!("several lengths: {several:?}"),
    };
    let length = rest.len().min(length);
    answer.body.push_str(&lossy(&rest[..length]));
    *rest = &rest[length..];
}

/// Sends bytes on one connection, and returns the responses that came until the server closed.
async fn send(server: &Server, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    answers(&soon(raw(server, bytes)).await)
}

/// Sends bytes on one connection, and returns the bytes that came until the server closed. The server need not take all of them.
async fn raw(server: &Server, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let (bytes, mut stream) = (bytes.as_ref().to_owned(), server.connect());
    blocking(move || {
        let mut writer = stream.try_clone().expect("a socket");
        // What refuses a request may have closed before all of it was sent.
        let sending = std::thread::spawn(move || writer.write_all(&bytes).is_ok());
        let mut response = Vec::new();
        let mut buffer = [0; 4096];
        // A cut connection may end in a reset.
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            response.extend_from_slice(&buffer[..read]);
        }
        sending.join().expect("no panic");
        response
    })
    .await
}

/// Serves one request as a CGI program; returns what a host reads of it.
fn gateway<H: SyncHandler>(
    handler: H,
    variables: Variables,
    input: impl Read + Send + 'static,
) -> (Answer, Result<(), Error>) {
    watched(move || {
        let mut output = Vec::new();
        let served = cgi::serve(&handler, variables, input, &mut output);
        let mut rest = &output[..];
        let mut head: Vec<_> =
            std::iter::from_fn(|| line(&mut rest).filter(|line| !line.is_empty())).collect();
        let status = head.remove(0);
        let status = status.strip_prefix("Status: ").and_then(|status| status.get(..3)?.parse().ok());
        let body = String::from_utf8_lossy(rest).into_owned();
        (Answer { status: status.expect("a status"), head, body }, served)
    })
}

/// The variables of a GET of `path` from a CGI host, and more of them.
fn cgi_get<'a>(path: &str, more: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Variables {
    let mut variables = Variables::default();
    variables.set("REQUEST_METHOD", "GET");
    variables.set("PATH_INFO", path);
    for (name, value) in more {
        variables.set(name.to_owned(), value);
    }
    variables
}

/// Calls an async service and reads the whole of its answer.
async fn call<S>(service: S, request: Request<Body>) -> (u16, String)
where
    S: tower::Service<Request<Body>, Response = http::Response<Body>, Error = std::convert::Infallible>,
{
    let response = soon(tower::ServiceExt::oneshot(service, request)).await.expect("a response");
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// How long the calling thread has run so far. Other than by a clock, it does not count what others do meanwhile.
fn on_cpu() -> Duration {
    // The system counts when it looks for another thread to run.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).filter(|nanos| *nanos > 0);
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    nanos.map_or_else(|| STARTED.elapsed(), Duration::from_nanos)
}

/// How long the calling thread runs for some work.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let before = on_cpu();
    let done = work();
    (on_cpu().saturating_sub(before), done)
}

/// How much longer eight times the work took, at its best of three times each: 8 for what is linear, 64 for what is quadratic.
fn growth(mut work: impl FnMut(usize) -> Duration, small: usize) -> f64 {
    let mut best = |n| (0..3).map(|_| work(n)).min().expect("three of them").max(Duration::from_micros(200));
    let (once, often) = (best(small), best(8 * small));
    often.as_secs_f64() / once.as_secs_f64()
}

/// What [`growth`] is less than for what is linear, on a machine that has other things to do.
const LINEAR: f64 = 28.0;
