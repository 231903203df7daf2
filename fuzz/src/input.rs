//! An [`Input`] under any reads of any body, against a plain model of it: the same bytes, the same end, the same errors.

mod model;

use std::io::{BufRead, IoSliceMut, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use arbitrary::Arbitrary;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body::Body as _;
use tower::{Layer, ServiceExt};
use tower_wsgi::{Body, Error, Input, Output, WsgiLayer};

use self::model::{Model, Role};
use crate::harness::{Ledger, Token, block_on, idle, panic_on_purpose, pool, with_case};
use crate::script::{Collected, End, Excess, Script, Size, Step, Text, collect, failure};

#[derive(Arbitrary, Clone, Debug)]
struct Case {
    kind: Kind,
    text: Text,
    steps: Vec<Step>,
    end: End,
    /// Whether the body tells its length.
    hinted: bool,
    /// How much more than comes is declared, if anything is.
    declared: Option<Excess>,
    ops: Vec<Op>,
    last: Last,
}

/// What the input is made of.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A request's async body.
    Request,
    /// The same behind a crossing, which reads some of it ahead.
    Crossed { prefetch: u8 },
    /// A response's async body.
    Response,
    /// A connection.
    Reader,
    /// A response's iterator.
    Iterator,
    /// Bytes.
    Full,
}

/// A way to read.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Read(Size),
    Vectored(Size, Size),
    Exact(Size),
    Fill {
        consume: Size,
    },
    Line,
    Until(u8),
    Skip(u8),
    Byte,
    Chunk,
    ToEnd,
    ToString,
    /// To an async body, and back.
    Round,
    /// Declares another length, so much more than what has been read.
    Declare(Excess),
}

/// What becomes of the rest.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Last {
    ToEnd,
    IntoBody,
    Drop,
}

/// Runs the target.
///
/// # Panics
/// If an input does not read like its model.
pub fn check(data: &[u8]) {
    with_case(data, |case: &Case| case.clone().tamed().run());
}

impl Case {
    /// The case without what its kind does not have.
    fn tamed(mut self) -> Self {
        self.steps.truncate(64);
        self.ops.truncate(64);
        match self.kind {
            Kind::Request | Kind::Response => {}
            // A thread that a vanishing client can wake waits on.
            Kind::Crossed { .. } => {
                self.steps.retain(|step| *step != Step::Stuck);
                // What was read ahead counts, and the model has read nothing ahead.
                self.ops.retain(|op| !matches!(op, Op::Declare(_)));
            }
            Kind::Reader | Kind::Iterator | Kind::Full => {
                self.steps.retain(|step| matches!(step, Step::Data(_) | Step::Pending));
                self.hinted = false;
            }
        }
        if self.kind == Kind::Iterator {
            self.steps.retain(|step| matches!(step, Step::Data(_)));
        }
        if self.kind == Kind::Reader {
            // No bytes are the end, and a buffer has room for as many at the least.
            self.steps
                .retain(|step| !matches!(step, Step::Data(size) if size.get() == 0 || size.get() > 8192));
        }
        if matches!(self.kind, Kind::Reader | Kind::Iterator) && self.end == End::Trailers {
            self.end = End::Clean;
        }
        if self.kind == Kind::Full {
            self.end = End::Clean;
        }
        if self.end == End::Panic && matches!(self.last, Last::IntoBody) {
            // It would be this thread's.
            self.end = End::Failure;
        }
        if self.end == End::Interrupted && self.kind == Kind::Reader {
            // It would be tried again.
            self.end = End::Failure;
        }
        self
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.steps.iter().filter_map(|step| match step {
            Step::Data(size) => Some(size.get()),
            Step::Pending | Step::Later | Step::Stuck => None,
        })
    }

    fn total(&self) -> usize {
        self.sizes().sum()
    }

    fn declared(&self) -> Option<u64> {
        Some(self.declared?.of(self.total()))
    }

    fn script(&self, token: Token, seen: &Seen) -> Script {
        Script {
            steps: self.steps.clone().into(),
            end: Some(self.end),
            text: self.text,
            at: 0,
            hint: self.hinted.then_some(self.total() as u64),
            polls: seen.polls.clone(),
            passed: seen.passed.clone(),
            _token: token,
        }
    }

    fn run(&self) {
        let (ledger, seen) = (Ledger::default(), Seen::default());
        let token = ledger.token("body");
        let input = match self.kind {
            Kind::Crossed { prefetch } => {
                return self.cross(prefetch, &ledger, self.script(token, &seen), seen);
            }
            Kind::Request => Input::new(self.script(token, &seen)),
            Kind::Response => Output::body(self.script(token, &seen)).into_reader(),
            Kind::Reader => Input::reader(Reader(self.script(token, &seen))),
            Kind::Iterator => {
                let mut reader = Reader(self.script(token, &seen));
                Output::try_iter(std::iter::from_fn(move || reader.next())).into_reader()
            }
            Kind::Full => {
                drop(token);
                Input::from(self.text.bytes(0, self.total()))
            }
        };
        let input = match self.declared() {
            Some(length) => input.with_length(length),
            None => input,
        };
        self.read(input, &seen);
        ledger.settle();
    }

    /// Has a worker read.
    fn cross(&self, prefetch: u8, ledger: &Ledger, script: Script, seen: Seen) {
        let pool = pool(1);
        let case = self.clone();
        let handler = move |request: Request<Input>| {
            case.read(request.into_body(), &seen);
            Response::new(())
        };
        let layer = WsgiLayer::adapter().pool(pool.clone()).prefetch(prefetch.into());
        let mut request = Request::new(script);
        if let Some(length) = self.declared() {
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        let response = block_on(layer.layer(handler).oneshot(request)).expect("never an error");
        let error = response.extensions().get::<Error>();
        assert!(response.status() == 200, "{error:?}");
        drop(response);
        ledger.settle();
        idle(&pool);
    }

    fn model(&self) -> Model {
        let role = match self.kind {
            Kind::Response | Kind::Iterator => Role::Response,
            Kind::Request | Kind::Crossed { .. } | Kind::Reader | Kind::Full => Role::Request,
        };
        let told = (self.hinted || self.kind == Kind::Full).then_some(self.total() as u64);
        let mut model = Model::new(role, self.declared().or(told), self.end);
        let mut at = 0;
        for step in &self.steps {
            match step {
                Step::Data(size) => {
                    model.data(self.text.bytes(at, size.get()));
                    at += size.get();
                }
                Step::Stuck => model.stuck(),
                Step::Pending | Step::Later => {}
            }
        }
        if self.kind == Kind::Full {
            model.join();
        }
        model
    }

    /// Reads the input as the case says, and compares.
    fn read(&self, mut input: Input, seen: &Seen) {
        let mut model = self.model();
        for op in &self.ops {
            let stuck = model.stuck_left();
            // Another thread, where there is one, may be in a poll at this moment.
            let is_alone = matches!(self.kind, Kind::Request | Kind::Response | Kind::Full);
            let is_complete = input.is_complete() && is_alone;
            let complete = is_complete.then(|| seen.polls.load(Ordering::Relaxed));
            match op {
                Op::Declare(more) => {
                    let length = model.received().saturating_add_signed(more.get());
                    input = input.with_length(length);
                    model.declare(length);
                }
                Op::Round => {
                    let body = input.into_body();
                    input = match model.role() {
                        Role::Request => Input::new(body),
                        Role::Response => Output::body(body).into_reader(),
                    };
                    model.turn_round();
                }
                Op::Chunk => {
                    let chunk = input.chunk().map_err(|error| error.kind());
                    assert_eq!(chunk, model.chunk().map_err(|error| error.kind()));
                }
                _ => assert_eq!(read(&mut input, *op), read(&mut model, *op), "{op:?}"),
            }
            // What is cut off is no step that was taken.
            if !matches!(op, Op::Declare(_) | Op::Round) {
                seen.pass(stuck - model.stuck_left());
            }
            // Where the end was read ahead, its trailers are here with the last byte.
            let ahead = matches!(self.kind, Kind::Crossed { .. }) && model.only_trailers_left();
            if !ahead || input.trailers().is_none() {
                assert_eq!(input.trailers(), model.trailers(), "after {op:?}");
            }
            if let Some(before) = complete {
                let after = seen.polls.load(Ordering::Relaxed);
                assert!(matches!(op, Op::Declare(_)) || before == after, "a complete input is not polled");
            }
        }
        match self.last {
            Last::Drop => {}
            Last::ToEnd => {
                // What is stuck may go on.
                while model.stuck_left() > 0 {
                    assert_eq!(read(&mut input, Op::ToEnd), read(&mut model, Op::ToEnd));
                    seen.pass(1);
                }
                assert_eq!(read(&mut input, Op::ToEnd), read(&mut model, Op::ToEnd));
                assert_eq!(input.trailers(), model.trailers());
                // An end stays an end, and an error an error.
                assert_eq!(read(&mut input, Op::Byte), read(&mut model, Op::Byte));
            }
            Last::IntoBody => {
                let mut body = input.into_body();
                let mut expected = Collected { bytes: Vec::new(), trailers: None, whole: false };
                seen.pass(model.stuck_left());
                while model.stuck_left() > 0 {
                    expected.bytes.extend(read(&mut model, Op::ToEnd).bytes);
                }
                let rest = read(&mut model, Op::ToEnd);
                expected.bytes.extend(rest.bytes);
                expected.whole = rest.result.is_ok();
                expected.trailers = model.trailers().filter(|_| expected.whole).cloned();
                let mut cx = Context::from_waker(Waker::noop());
                let collected = collect(&mut body, |body: &mut Body| {
                    loop {
                        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut cx) {
                            return frame;
                        }
                        std::thread::yield_now();
                    }
                });
                assert_eq!(collected, expected);
            }
        }
    }
}

/// What the test has of a body's script while that is read.
#[derive(Default)]
struct Seen {
    polls: Arc<AtomicUsize>,
    passed: Arc<AtomicUsize>,
}

impl Seen {
    /// Lets so many steps pass that were stuck.
    fn pass(&self, stuck: usize) {
        self.passed.fetch_add(stuck, Ordering::Relaxed);
    }
}

/// What a read gave.
#[derive(Debug, PartialEq)]
struct Gave {
    result: Result<usize, std::io::ErrorKind>,
    bytes: Vec<u8>,
}

/// Reads in some way: the input, and the model, which has the standard library's.
fn read(reader: &mut impl BufRead, op: Op) -> Gave {
    let mut bytes = Vec::new();
    let result = match op {
        Op::Read(size) => {
            bytes.resize(size.get(), 0);
            reader.read(&mut bytes).inspect(|n| bytes.truncate(*n))
        }
        Op::Vectored(first, second) => {
            let (mut first, mut second) = (vec![0; first.get()], vec![0; second.get()]);
            let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            let result = reader.read_vectored(&mut bufs);
            bytes = [first, second].concat();
            result.inspect(|n| bytes.truncate(*n))
        }
        Op::Exact(size) => {
            bytes.resize(size.get(), 0);
            let result = reader.read_exact(&mut bytes);
            result.inspect_err(|_| bytes.clear()).map(|()| 0)
        }
        Op::Fill { consume } => reader.fill_buf().map(<[u8]>::to_vec).map(|here| {
            reader.consume(consume.get().min(here.len()));
            bytes = here;
            0
        }),
        Op::Line => {
            let mut line = String::new();
            let result = reader.read_line(&mut line);
            bytes = line.into_bytes();
            result
        }
        Op::Until(byte) => reader.read_until(byte, &mut bytes),
        Op::Skip(byte) => reader.skip_until(byte),
        Op::Byte => match reader.bytes().next().transpose() {
            Ok(byte) => {
                bytes.extend(byte);
                Ok(bytes.len())
            }
            Err(error) => Err(error),
        },
        Op::ToEnd => reader.read_to_end(&mut bytes),
        Op::ToString => {
            let mut text = String::from("before");
            let result = reader.read_to_string(&mut text);
            bytes = text.into_bytes();
            result
        }
        Op::Chunk | Op::Round | Op::Declare(_) => unreachable!("no reader's own"),
    };
    Gave { result: result.map_err(|error| error.kind()), bytes }
}

/// A script that blocks.
struct Reader(Script);

impl Reader {
    fn next(&mut self) -> Option<Result<bytes::Bytes, tower_wsgi::BoxError>> {
        let script = &mut self.0;
        script.polls.fetch_add(1, Ordering::Relaxed);
        match script.steps.pop_front() {
            Some(Step::Data(size)) => {
                let data = script.text.bytes(script.at, size.get());
                script.at += data.len();
                Some(Ok(data))
            }
            Some(_) => Some(Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into())),
            None => match script.end.take() {
                Some(End::Panic) => panic_on_purpose(),
                Some(end @ (End::Failure | End::Interrupted)) => Some(Err(failure(end))),
                _ => None,
            },
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.next() {
            None => Ok(0),
            Some(Ok(data)) => {
                buf[..data.len()].copy_from_slice(&data);
                Ok(data.len())
            }
            Some(Err(error)) => Err(match error.downcast::<std::io::Error>() {
                Ok(error) => *error,
                Err(error) => std::io::Error::other(error),
            }),
        }
    }
}
