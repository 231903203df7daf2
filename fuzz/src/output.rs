//! An [`Output`] of any kind under any writes, failures and drops, through each of the ways out: the right bytes or a visible error, never a false end, everything dropped.

mod expected;
mod producer;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use arbitrary::Arbitrary;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tower::{Layer, ServiceExt};
use tower_wsgi::{Body, BoxError, Error, Input, Output, WsgiLayer, gateway};

use self::expected::Expected;
use self::producer::{Act, Kind, Producer};
use crate::harness::{Ledger, block_on, idle, pool, with_case};
use crate::script::{Collected, End, Excess, Size, Text, collect};

#[derive(Arbitrary, Clone, Debug)]
struct Case {
    kind: Kind,
    text: Text,
    acts: Vec<Act>,
    end: End,
    /// How much more than comes is declared, if anything is.
    declared: Option<Excess>,
    head: bool,
    status: Status,
    through: Through,
    /// After how many frames the body is dropped; after none, the future is, once it was polled.
    drop_after: Option<u8>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Status {
    Ok,
    NoContent,
    NotModified,
}

/// Who takes the response.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Through {
    /// A `WsgiService`, with a queue of so many chunks.
    Service(Queue),
    /// The same, after a middleware has read some chunks and passed the rest on.
    Passed(u8, Queue),
    Reader,
    Respond,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Queue {
    One,
    Two,
    Three,
}

/// What came of a response.
struct Got {
    status: StatusCode,
    length: Option<u64>,
    error: Option<Error>,
    body: Collected,
    /// Whether it was dropped before its end.
    dropped: bool,
}

/// Runs the target.
///
/// # Panics
/// If bytes are lost or made up, an end is false, or something is not dropped.
pub fn check(data: &[u8]) {
    with_case(data, |case: &Case| case.clone().tamed().run());
}

impl Case {
    /// The case without what its kind does not have.
    fn tamed(mut self) -> Self {
        self.acts.truncate(64);
        if self.kind == Kind::Early && !matches!(self.through, Through::Service(_)) {
            // Nobody else can begin early.
            self.kind = Kind::Writer;
        }
        match self.kind {
            Kind::Full | Kind::Early => self.acts.retain(|act| !matches!(act, Act::Pending | Act::Later)),
            Kind::Reader => {
                let fits = |size: &Size| (1..=8192).contains(&size.get());
                self.acts.retain(|act| {
                    matches!(act, Act::Write(size) | Act::Send(size) if fits(size)) || *act == Act::Pending
                });
            }
            Kind::Iterator | Kind::Writer => {
                self.acts.retain(|act| !matches!(act, Act::Pending | Act::Later));
            }
            Kind::Async => {}
        }
        if self.kind == Kind::Full && self.end != End::Trailers
            || self.kind == Kind::Early && self.end == End::Trailers
        {
            self.end = End::Clean;
        }
        if self.end == End::Interrupted && self.kind == Kind::Reader {
            // It would be tried again.
            self.end = End::Failure;
        }
        if self.kind == Kind::Async && self.end == End::Panic && !matches!(self.through, Through::Respond) {
            // It would be the panic of who polls.
            self.end = End::Failure;
        }
        if matches!(self.through, Through::Passed(..)) {
            self.declared = None;
        }
        self
    }

    fn total(&self) -> usize {
        self.acts.iter().map(|act| act.size()).sum()
    }

    fn declared(&self) -> Option<u64> {
        Some(self.declared?.of(self.total()))
    }

    fn method(&self) -> Method {
        if self.head { Method::HEAD } else { Method::GET }
    }

    fn status(&self) -> StatusCode {
        match self.status {
            Status::Ok => StatusCode::OK,
            Status::NoContent => StatusCode::NO_CONTENT,
            Status::NotModified => StatusCode::NOT_MODIFIED,
        }
    }

    fn is_bodiless(&self) -> bool {
        self.through != Through::Reader && (self.head || !matches!(self.status, Status::Ok))
    }

    fn response(&self, output: Output) -> Response<Output> {
        self.with_head(Response::new(output))
    }

    fn with_head<T>(&self, mut response: Response<T>) -> Response<T> {
        *response.status_mut() = self.status();
        if let Some(length) = self.declared() {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        response
    }

    fn run(self) {
        let (ledger, runs) = (Ledger::default(), Arc::new(AtomicUsize::new(0)));
        let producer = Producer {
            kind: self.kind,
            text: self.text,
            acts: self.acts.clone().into(),
            end: self.end,
            ledger: ledger.clone(),
            runs: runs.clone(),
        };
        let mut expected = Expected::new(&self);
        let got = match self.through {
            Through::Reader => self.read(producer.output()),
            Through::Respond => self.respond(producer),
            Through::Service(queue) => self.serve(producer, queue, 0, &mut expected),
            Through::Passed(chunks, queue) => self.serve(producer, queue, chunks, &mut expected),
        };
        if let Some(got) = got {
            expected.check(&got);
        }
        ledger.settle();
        if self.is_bodiless() && self.kind != Kind::Early && !matches!(self.through, Through::Passed(1.., _))
        {
            assert_eq!(runs.load(Ordering::Relaxed), 0, "a producer ran for a response without a body");
        }
        let on_worker = match self.through {
            Through::Service(_) => !matches!(self.kind, Kind::Async | Kind::Full),
            // A writing function that was read has a thread of its own.
            Through::Passed(..) => matches!(self.kind, Kind::Iterator | Kind::Reader),
            Through::Reader | Through::Respond => false,
        };
        if on_worker {
            assert_eq!(ledger.dropped_elsewhere(), Vec::<&str>::new(), "dropped by a worker");
        }
    }

    /// Reads as a middleware does.
    fn read(&self, output: Output) -> Option<Got> {
        let mut input = output.into_reader();
        if let Some(length) = self.declared() {
            input = input.with_length(length);
        }
        let (body, dropped) = read_to_end(&mut input, self.drop_after);
        Some(Got { status: self.status(), length: None, error: None, body, dropped })
    }

    /// Reads as a synchronous host does.
    fn respond(&self, producer: Producer) -> Option<Got> {
        let case = self.clone();
        let producer = std::sync::Mutex::new(Some(producer));
        let handler = move |_: Request<Input>| {
            let producer = producer.lock().expect("a lock").take().expect("one call");
            case.response(producer.output())
        };
        let mut request = Request::new(Input::empty());
        *request.method_mut() = self.method();
        let response = gateway::respond(&handler, request);
        let (head, mut input) = response.into_parts();
        let (body, dropped) = read_to_end(&mut input, self.drop_after);
        let error = head.extensions.get().cloned();
        Some(Got { status: head.status, length: length(&head.headers), error, body, dropped })
    }

    /// Polls as a server does.
    fn serve(&self, producer: Producer, queue: Queue, chunks: u8, expected: &mut Expected) -> Option<Got> {
        let pool = pool(1);
        let (case, taken) = (self.clone(), Arc::new(AtomicUsize::new(0)));
        let producer = std::sync::Mutex::new(Some(producer));
        let passed = taken.clone();
        let handler = move |request: Request<Input>| -> Result<Response<Output>, BoxError> {
            let producer = producer.lock().expect("a lock").take().expect("one call");
            if case.kind == Kind::Early {
                return producer.begin(&request, case.with_head(Response::new(())));
            }
            if chunks == 0 {
                return Ok(case.response(producer.output()));
            }
            let mut input = producer.output().into_reader();
            for _ in 0..chunks {
                let Some(chunk) = input.chunk()? else { break };
                passed.fetch_add(chunk.len(), Ordering::Relaxed);
            }
            Ok(case.response(Output::body(input.into_body())))
        };
        let queue = [1, 2, 3][queue as usize];
        let service = WsgiLayer::adapter().pool(pool.clone()).send_queue_size(queue).layer(handler);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method();
        let mut future = Box::pin(service.oneshot(request));
        if self.drop_after == Some(0) {
            let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            drop(future);
            idle(&pool);
            return None;
        }
        let (head, mut body) = block_on(&mut future).expect("never an error").into_parts();
        drop(future);
        let (mut left, mut is_over) = (self.drop_after.map_or(usize::MAX, usize::from), false);
        let collected = collect(&mut body, |body| {
            left = if is_over { left } else { left.saturating_sub(1) };
            if left == 0 && !body.is_end_stream() {
                return Some(Err("dropped".into()));
            }
            let frame = block_on(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
            is_over = frame.is_none();
            frame
        });
        drop(body);
        idle(&pool);
        expected.skip(taken.load(Ordering::Relaxed));
        let error = head.extensions.get().cloned();
        Some(Got {
            status: head.status,
            length: length(&head.headers),
            error,
            body: collected,
            dropped: left == 0,
        })
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Reads chunk by chunk: to the end, or as many as are wanted.
fn read_to_end(input: &mut Input, chunks: Option<u8>) -> (Collected, bool) {
    let mut collected = Collected { bytes: Vec::new(), trailers: None, whole: false };
    for _ in 0..chunks.map_or(usize::MAX, usize::from) {
        match input.chunk() {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty(), "a chunk has bytes");
                collected.bytes.extend_from_slice(&chunk);
            }
            Ok(None) => {
                collected.whole = true;
                collected.trailers = input.trailers().cloned();
                assert!(matches!(input.chunk(), Ok(None)), "an end stays an end");
                return (collected, false);
            }
            Err(_) => {
                assert!(input.chunk().is_err(), "an error stays an error");
                return (collected, false);
            }
        }
    }
    (collected, true)
}
