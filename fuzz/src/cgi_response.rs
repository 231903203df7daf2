//! The CGI gateway's writing of a response: whatever an application answers, and whatever the pipe does, the output is one response that a strict reader takes, with nothing injected, nothing of the connection's, and no false end.

use std::collections::BTreeMap;
use std::io::{self, Write};

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tower_wsgi::gateway::cgi;
use tower_wsgi::{BoxError, Error, Input, Output};

use crate::harness::{Ledger, Token, panic_on_purpose, with_case};
use crate::response::Parsed;
use crate::script::{End, Excess, Script, Size, Step, Text, failure, trailers};

#[derive(Arbitrary, Clone, Debug)]
struct Case {
    head: bool,
    status: u16,
    headers: Vec<(Name, Vec<u8>)>,
    kind: Kind,
    text: Text,
    chunks: Vec<Size>,
    end: End,
    /// How much more than comes is declared, if anything is.
    declared: Option<Excess>,
    /// How many bytes the pipe takes at once, and in all.
    pipe: Option<(u8, u16)>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Kind {
    Full,
    Iterator,
    Writer,
    Async,
    /// The handler fails as the body would.
    Handler,
}

#[derive(Arbitrary, Clone, Debug)]
enum Name {
    Known(u8),
    Any(Vec<u8>),
}

const NAMES: [&str; 18] = [
    "status",
    "content-type",
    "content-length",
    "location",
    "set-cookie",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "trailer",
    "x-sendfile",
    "x-accel-redirect",
    "x-a",
    "x_a",
    "variable-a",
    "host",
];

/// Those that belong to a connection, whatever an application thinks.
const HOP_BY_HOP: [&str; 4] = ["keep-alive", "proxy-connection", "te", "transfer-encoding"];

/// Those that an upgrade, or the demand for one, is made of, with what `Connection` names.
const UPGRADE: [&str; 2] = ["connection", "upgrade"];

/// Runs the target.
///
/// # Panics
/// If the output is no response, or not the application's.
pub fn check(data: &[u8]) {
    with_case(data, |case: &Case| case.clone().tamed().run());
}

impl Case {
    fn tamed(mut self) -> Self {
        self.chunks.truncate(32);
        if self.end == End::Trailers {
            // CGI has none.
            self.end = End::Clean;
        }
        if self.kind == Kind::Full {
            self.end = End::Clean;
        }
        if self.kind == Kind::Handler && self.end == End::Clean {
            self.end = End::Failure;
        }
        self
    }

    fn body(&self) -> Vec<u8> {
        self.text.bytes(0, self.chunks.iter().map(|size| size.get()).sum()).to_vec()
    }

    fn head(&self) -> Response<()> {
        let mut head = Response::new(());
        *head.status_mut() = StatusCode::from_u16(self.status % 1000).unwrap_or_default();
        if head.status() == 500 {
            // That is what stands for a failure.
            *head.status_mut() = StatusCode::NOT_IMPLEMENTED;
        }
        for (name, value) in &self.headers {
            let name = match name {
                Name::Known(which) => Ok(HeaderName::from_static(NAMES[usize::from(*which) % NAMES.len()])),
                Name::Any(bytes) => HeaderName::from_bytes(bytes),
            };
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                head.headers_mut().append(name, value);
            }
        }
        if let Some(more) = self.declared {
            let length = more.of(self.body().len());
            head.headers_mut().insert("content-length", length.into());
        }
        head
    }

    fn run(&self) {
        let mut pipe = Pipe { taken: Vec::new(), at_once: usize::MAX, in_all: usize::MAX, is_full: false };
        let result = self.serve(&mut pipe);
        self.check(&pipe.taken, result.is_ok());
        if let Some((at_once, in_all)) = self.pipe {
            let (at_once, in_all) = (usize::from(at_once).max(1), usize::from(in_all));
            let mut narrow = Pipe { taken: Vec::new(), at_once, in_all, is_full: false };
            let result = self.serve(&mut narrow);
            assert!(pipe.taken.starts_with(&narrow.taken), "another response");
            assert!(result.is_err() || narrow.taken == pipe.taken, "a false end");
            assert!(!narrow.is_full || result.is_err_and(|error| error.is_disconnected() || self.may_fail()));
        }
    }

    fn serve(&self, pipe: &mut Pipe) -> Result<(), Error> {
        let ledger = Ledger::default();
        let handler = {
            let (case, ledger) = (self.clone(), ledger.clone());
            move |_: Request<Input>| case.answer(&ledger)
        };
        let method = if self.head { "HEAD" } else { "GET" };
        let variables = [("REQUEST_METHOD", method), ("PATH_INFO", "/")].into_iter().collect();
        let result = cgi::serve(&handler, variables, io::empty(), pipe);
        ledger.settle();
        result
    }

    /// Whether there is another reason to fail than the pipe.
    fn may_fail(&self) -> bool {
        self.end != End::Clean || self.is_refused() || self.falls_short()
    }

    fn answer(&self, ledger: &Ledger) -> Result<Response<Output>, BoxError> {
        let token = ledger.token("body");
        let body = match self.kind {
            Kind::Full => Output::from(self.body()),
            Kind::Iterator => Output::try_iter(self.clone().iterate(token)),
            Kind::Writer => {
                let case = self.clone();
                Output::writer(move |writer| {
                    for chunk in case.iterate(token) {
                        writer.write_all(&chunk.map_err(io::Error::other)?)?;
                    }
                    Ok(())
                })
            }
            Kind::Async => Output::body(Script {
                steps: self.chunks.iter().map(|size| Step::Data(*size)).collect(),
                end: Some(self.end),
                text: self.text,
                at: 0,
                hint: None,
                polls: Default::default(),
                passed: Default::default(),
                _token: token,
            }),
            Kind::Handler if self.end == End::Panic => panic_on_purpose(),
            Kind::Handler => return Err(failure(self.end)),
        };
        // It says nothing to a CGI host.
        Ok(self.head().map(|()| body.with_trailers(trailers)))
    }

    fn iterate(self, token: Token) -> impl Iterator<Item = Result<bytes::Bytes, BoxError>> + Send {
        let (mut at, mut chunks) = (0, self.chunks.into_iter());
        std::iter::from_fn(move || {
            let _token = &token;
            if let Some(size) = chunks.next() {
                let chunk = self.text.bytes(at, size.get());
                at += chunk.len();
                return Some(Ok(chunk));
            }
            match self.end {
                End::Clean | End::Trailers => None,
                End::Panic => panic_on_purpose(),
                end @ (End::Failure | End::Interrupted) => Some(Err(failure(end))),
            }
        })
    }

    /// The length that the application has declared; an error if it is none.
    fn declared(&self) -> Result<Option<usize>, ()> {
        let head = self.head();
        if upgrades(&head) || !named(&head).contains(&"content-length".to_owned()) {
            let values: Vec<_> = head.headers().get_all("content-length").iter().collect();
            let [value] = values[..] else {
                return if values.is_empty() { Ok(None) } else { Err(()) };
            };
            let text = value.to_str().map_err(|_| ())?;
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let length = text.parse::<u64>().ok().filter(|_| is_number).ok_or(())?;
            return Ok(Some(usize::try_from(length).unwrap_or(usize::MAX)));
        }
        Ok(None)
    }

    /// Whether the application's head is none that can be sent.
    fn is_refused(&self) -> bool {
        let status = self.head().status();
        let is_interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
        self.kind == Kind::Handler || is_interim || self.declared().is_err()
    }

    fn falls_short(&self) -> bool {
        matches!(self.declared(), Ok(Some(length)) if length > self.body().len())
    }

    fn is_bodiless(&self) -> bool {
        self.head || matches!(self.head().status().as_u16(), 100..200 | 204 | 304)
    }

    fn check(&self, output: &[u8], is_ok: bool) {
        let parsed = Parsed::of(output);
        check_framing(&parsed, self.head);
        if self.is_refused() {
            assert!(!is_ok && parsed.status == 500);
            return;
        }
        let whole = self.body();
        let length = self.declared().ok().flatten();
        let (exceeds, fails) = (length.is_some_and(|length| length < whole.len()), self.end != End::Clean);
        if parsed.status == 500 && self.head().status() != 500 {
            // Nothing of the body had come.
            let is_early =
                whole.is_empty() || length == Some(0) || self.kind == Kind::Full || self.kind == Kind::Writer;
            assert!(!is_ok && is_early && (fails || self.falls_short()), "no reason for an error");
            return;
        }
        if parsed.status != self.head().status().as_u16() {
            panic!("another status: {}", parsed.status);
        }
        if self.kind == Kind::Full && self.falls_short() && !self.is_bodiless() {
            return assert!(!is_ok);
        }
        self.check_headers(&parsed);
        if self.is_bodiless() {
            assert!(is_ok && parsed.body.is_empty(), "there is no body");
            return;
        }
        let most = length.unwrap_or(usize::MAX).min(whole.len());
        if is_ok {
            assert!(exceeds || !fails && !self.falls_short(), "a false end");
            assert_eq!(parsed.body, &whole[..most]);
        } else {
            // What a function has written when it fails may not have been sent yet.
            let exceeds = exceeds && !(fails && self.kind == Kind::Writer);
            assert!(!exceeds && (fails || self.falls_short()), "no reason to fail");
            let is_error_page = self.head().status() == 500 && parsed.body == b"Internal Server Error\n";
            assert!(is_error_page || whole.starts_with(parsed.body));
        }
    }

    /// The application's headers and no others, but for those that the gateway has to set or to leave out.
    fn check_headers(&self, parsed: &Parsed<'_>) {
        let head = self.head();
        let (upgrades, named) = (upgrades(&head), named(&head));
        let mut expected: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
        for (name, value) in head.headers() {
            let name = name.as_str();
            let of_upgrade = UPGRADE.contains(&name) || named.iter().any(|named| named == name);
            let is_hop = HOP_BY_HOP.contains(&name) || of_upgrade && !upgrades;
            if name == "status" || name == "content-length" || is_hop {
                continue;
            }
            expected.entry(name).or_default().push(value.as_bytes());
        }
        let mut seen: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
        for (name, value) in parsed.headers.iter().filter(|(name, _)| *name != "content-length") {
            seen.entry(name).or_default().push(value);
        }
        if !expected.contains_key("content-type") {
            let own = seen.remove("content-type");
            assert!(own.is_none_or(|values| values == [b"application/octet-stream"]));
        }
        assert_eq!(seen, expected);
    }
}

/// With these two statuses the connection's headers are the answer.
fn upgrades(head: &Response<()>) -> bool {
    matches!(head.status().as_u16(), 101 | 426)
}

/// What `Connection` names.
fn named(head: &Response<()>) -> Vec<String> {
    let values = |headers: &HeaderMap| -> Vec<String> {
        let values = headers.get_all("connection").iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
    };
    values(head.headers())
}

/// What holds for any response: a host can tell where it ends, and what it is.
fn check_framing(parsed: &Parsed<'_>, head: bool) {
    let lengths = parsed.all("content-length");
    assert!(lengths.len() <= 1, "one length");
    if !parsed.body.is_empty() {
        assert!(!parsed.all("content-type").is_empty(), "a document has a type");
        assert!(!head && !matches!(parsed.status, 100..200 | 204 | 304), "there is no body");
    }
    if let Some(length) = lengths.first() {
        let length = std::str::from_utf8(length).ok().and_then(|text| text.parse::<u64>().ok());
        let length = length.expect("a length is a number");
        assert!(parsed.body.len() as u64 <= length, "more than was declared");
    }
}

/// Where the host reads; it may take little at once, and leave.
struct Pipe {
    taken: Vec<u8>,
    at_once: usize,
    in_all: usize,
    is_full: bool,
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let length = buf.len().min(self.at_once).min(self.in_all - self.taken.len());
        if length == 0 && !buf.is_empty() {
            self.is_full = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.taken.extend_from_slice(&buf[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_full { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}
