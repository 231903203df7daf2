//! The CGI gateway's reading of a request: variables as a process gets them, each ended by a NUL, up to an empty one, and then standard input.
//!
//! The request says what the variables say, the body is what was declared and not a byte more is read, what is no request is answered as such.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue, Request, Response};
use tower_wsgi::gateway::cgi;
use tower_wsgi::{Error, Input, Variables};

use crate::harness::{Ledger, OnPanic, Token, Watched, lock};
use crate::response::Parsed;

/// What the handler saw.
#[derive(Default)]
struct Seen {
    calls: usize,
    headers: HeaderMap,
    body: Vec<u8>,
    end: Option<io::ErrorKind>,
    variables: Variables,
}

/// Runs the target.
///
/// # Panics
/// If the request is not what the variables say, or the answer is none.
pub fn check(data: &[u8]) {
    let _shown = OnPanic(|| eprintln!("the case: {}", data.escape_ascii()));
    let _watched = Watched::start(data);
    let (table, input) = parse(data);
    let ledger = Ledger::default();
    let read = Arc::new(AtomicUsize::new(0));
    let stdin = Stdin {
        rest: input.to_owned(),
        // Real ones give what they have: the sizes of the reads are the case's as well.
        sizes: table.get("FUZZ_READS").cloned().unwrap_or_default(),
        turn: 0,
        read: read.clone(),
        _token: ledger.token("input"),
    };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let handler = Arc::new({
        let seen = seen.clone();
        move |request: Request<Input>| see(&seen, request)
    });
    let mut output = Vec::new();
    let result = cgi::serve(&handler, table.clone().into_iter().collect(), stdin, &mut output);
    ledger.settle();
    let (seen, read) = (lock(&seen), read.load(Ordering::Relaxed));
    let parsed = Parsed::of(&output);
    let length = length(&table);
    if seen.calls == 0 || length.is_none() {
        assert!(result.is_err_and(|error| error.is_request()));
        assert_eq!((seen.calls, parsed.status, read), (0, 400, 0), "it is refused unread");
    } else if let Some(length) = length {
        assert_eq!(seen.calls, 1);
        check_body(&seen, input, length, read, result, &parsed);
        check_head(&seen, &table);
    }
}

/// The variables, of which the last of a name counts, and the input.
fn parse(mut data: &[u8]) -> (BTreeMap<String, Vec<u8>>, &[u8]) {
    let mut table = BTreeMap::new();
    loop {
        let mut line = Vec::new();
        data.read_until(0, &mut line).expect("bytes in memory");
        if line.last() == Some(&0) {
            line.pop();
        }
        if line.is_empty() {
            return (table, data);
        }
        let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
        // What is no text is no variable that counts.
        if let Ok(name) = String::from_utf8(line[..at].to_owned()) {
            table.insert(name, line.get(at + 1..).unwrap_or_default().to_owned());
        }
    }
}

/// How long the body is.
#[derive(Clone, Copy)]
enum Length {
    Exactly(usize),
    /// Up to the end of the input.
    ToTheEnd,
}

/// What RFC 3875 has a program make of the variables that decide about the body; `None` if they make none. The others are the target `boundary`'s.
fn length(table: &BTreeMap<String, Vec<u8>>) -> Option<Length> {
    match table.get("CONTENT_LENGTH").map(Vec::as_slice) {
        None | Some(b"") => {
            let is_header = |name: &str| {
                name.strip_prefix("HTTP_")
                    .is_some_and(|name| name.to_ascii_lowercase().replace('_', "-") == "transfer-encoding")
            };
            let mut encodings = table.iter().filter(|(name, _)| is_header(name));
            let encoding = encodings.next_back().map(|(_, value)| value.to_ascii_lowercase());
            let is_chunked = encoding
                .is_some_and(|value| value.is_ascii() && value.windows(7).any(|bytes| bytes == b"chunked"));
            Some(if is_chunked { Length::ToTheEnd } else { Length::Exactly(0) })
        }
        Some(value) => {
            let text = std::str::from_utf8(value).ok()?;
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let length = text.parse::<u64>().ok().filter(|_| is_number)?;
            Some(Length::Exactly(usize::try_from(length).unwrap_or(usize::MAX)))
        }
    }
}

fn see(seen: &Mutex<Seen>, mut request: Request<Input>) -> Result<Response<String>, io::Error> {
    let mut seen = lock(seen);
    seen.calls += 1;
    seen.headers = request.headers().clone();
    seen.variables = Variables::of(&request);
    let result = request.body_mut().read_to_end(&mut seen.body);
    seen.end = result.as_ref().err().map(io::Error::kind);
    result.map(|_| Response::new("seen\n".to_owned()))
}

/// The body is what was declared, or an error.
fn check_body(
    seen: &Seen,
    input: &[u8],
    length: Length,
    read: usize,
    result: Result<(), Error>,
    parsed: &Parsed<'_>,
) {
    let (expected, end) = match length {
        Length::Exactly(length) if length > input.len() => (input, Some(io::ErrorKind::UnexpectedEof)),
        Length::Exactly(length) => (&input[..length], None),
        Length::ToTheEnd => (input, None),
    };
    assert_eq!((&*seen.body, seen.end), (expected, end));
    assert!(read <= expected.len(), "{read} bytes were read of {}", expected.len());
    match end {
        None => {
            result.expect("a response");
            assert_eq!(parsed.status, 200);
        }
        // What a client has not sent is no failure of the program's.
        Some(_) => {
            result.expect_err("its body's failure");
            assert_eq!(parsed.status, 400);
        }
    }
}

/// What decides about trust comes from the variables that are meant for it.
fn check_head(seen: &Seen, table: &BTreeMap<String, Vec<u8>>) {
    assert!(!seen.headers.contains_key("proxy"));
    assert_eq!(seen.variables.get("HTTP_PROXY"), None);
    for (name, variable) in [("content-length", "CONTENT_LENGTH"), ("content-type", "CONTENT_TYPE")] {
        let said = table.get(variable).filter(|value| !value.is_empty()).map(Vec::as_slice);
        assert_eq!(seen.headers.get(name).map(HeaderValue::as_bytes), said, "{name}");
        assert!(seen.headers.get_all(name).iter().count() <= 1, "{name} comes once");
    }
    for variable in ["REMOTE_USER", "REMOTE_ADDR", "AUTH_TYPE", "SCRIPT_FILENAME"] {
        assert_eq!(seen.variables.get(variable), table.get(variable).map(Vec::as_slice), "{variable}");
    }
    let method = table.get("REQUEST_METHOD").map_or(&b"GET"[..], Vec::as_slice);
    assert_eq!(seen.variables.get("REQUEST_METHOD"), Some(method));
}

/// The host's end of the pipe.
struct Stdin {
    rest: Vec<u8>,
    sizes: Vec<u8>,
    turn: usize,
    read: Arc<AtomicUsize>,
    _token: Token,
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = match self.sizes.get(self.turn % self.sizes.len().max(1)) {
            Some(b'i') if self.turn < 64 => {
                self.turn += 1;
                return Err(io::ErrorKind::Interrupted.into());
            }
            Some(size) => 1 + usize::from(*size) % 64,
            None => usize::MAX,
        };
        self.turn += 1;
        let length = buf.len().min(most).min(self.rest.len());
        buf[..length].copy_from_slice(&self.rest[..length]);
        self.rest.drain(..length);
        self.read.fetch_add(length, Ordering::Relaxed);
        Ok(length)
    }
}
