//! A2, A6, A8, B5, B6: synchronous hosts whose connections fail at each call: readers of the request, writers of the response, and hosts that want no more.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::service_fn;
use tower_wsgi::gateway::{cgi, respond};
use tower_wsgi::{AsgiHandler, Body, BoxError, Error, Input, Output, SyncHandler, Variables};

use super::census::Census;
use super::nested::frames;
use super::panics::{PIECE, PIECES, Pieces, quiet};
use crate::support::{PATIENCE, watched};

const BODY: &[u8] = b"hello, world";

/// What a host's connection does once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fails(ErrorKind),
    Panics,
    /// It says that there were more bytes than there was room for.
    Lies,
    End,
}

const FAULTS: [Fault; 9] = [
    Fault::Fails(ErrorKind::Interrupted),
    Fault::Fails(ErrorKind::WouldBlock),
    Fault::Fails(ErrorKind::TimedOut),
    Fault::Fails(ErrorKind::ConnectionReset),
    Fault::Fails(ErrorKind::UnexpectedEof),
    Fault::Fails(ErrorKind::Other),
    Fault::Panics,
    Fault::Lies,
    Fault::End,
];

/// Gives a byte at a time, and has one fault.
struct Connection {
    given: usize,
    fault: Option<(usize, Fault)>,
    _held: super::census::Held,
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some((_, fault)) = self.fault.take_if(|(at, _)| *at == self.given) {
            match fault {
                Fault::Fails(kind) => return Err(kind.into()),
                Fault::Panics => quiet(),
                Fault::Lies => return Ok(buf.len() + 1),
                Fault::End => return Ok(0),
            }
        }
        let Some(byte) = BODY.get(self.given) else { return Ok(0) };
        buf[0] = *byte;
        self.given += 1;
        Ok(1)
    }
}

/// What a handler read, and whether it was told that it was all.
type Readings = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

fn echo(readings: Readings) -> impl SyncHandler {
    move |mut request: Request<Input>| {
        let mut bytes = Vec::new();
        let read = request.body_mut().read_to_end(&mut bytes);
        readings.lock().expect("a lock").push((bytes.clone(), read.is_ok()));
        read.map(|_| Response::new(bytes))
    }
}

fn echo_async(readings: Readings) -> impl SyncHandler {
    AsgiHandler::new(service_fn(move |request: Request<Body>| {
        let readings = readings.clone();
        async move {
            let (mut body, mut bytes) = (request.into_body(), Vec::new());
            let end = loop {
                match body.frame().await {
                    None => break Ok(()),
                    Some(Ok(frame)) => bytes.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => break Err(error),
                }
            };
            readings.lock().expect("a lock").push((bytes.clone(), end.is_ok()));
            end.map(|()| Response::new(Body::from(bytes)))
        }
    }))
}

/// Waits until no value of a request is alive: threads that produce may end a moment later.
fn cleared(census: &Census, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while census.alive() > 0 {
        assert!(Instant::now() < deadline, "{what}: {} are left", census.alive());
        std::thread::yield_now();
    }
}

fn readers_fail(handler: &impl SyncHandler, readings: &Readings, is_async: bool) {
    let census = Census::default();
    for fault in FAULTS {
        for at in 0..=BODY.len() {
            for is_declared in [true, false] {
                let what = format!("{fault:?} at {at}, declared: {is_declared}, async: {is_async}");
                let reader = Connection { given: 0, fault: Some((at, fault)), _held: census.hold_anywhere() };
                let mut input = Input::reader(reader);
                if is_declared {
                    input = input.with_length(BODY.len() as u64);
                }
                let mut response = respond(handler, Request::post("/").body(input).expect("a request"));
                let mut text = Vec::new();
                response.body_mut().read_to_end(&mut text).expect("a whole response");
                let (bytes, is_whole) = readings.lock().expect("a lock").pop().expect("a reading");
                let is_end = fault == Fault::End && !is_declared;
                if fault == Fault::Fails(ErrorKind::Interrupted) || at == BODY.len() && fault == Fault::End {
                    assert_eq!((&*bytes, is_whole, &*text), (BODY, true, BODY), "{what}");
                } else if is_end {
                    assert_eq!((&*bytes, is_whole), (&BODY[..at], true), "{what}");
                } else {
                    assert_eq!((&*bytes, is_whole), (&BODY[..at], false), "{what}");
                    let is_panic = matches!(fault, Fault::Panics | Fault::Lies);
                    // An async service passes an untouched body's own error on, which says nothing of whose fault it is.
                    let status = if is_panic || is_async && !is_declared { 500 } else { 400 };
                    assert_eq!(response.status(), status, "{what}");
                }
                drop(response);
                cleared(&census, &what);
            }
        }
    }
}

#[test]
fn a2_a_host_s_reader_that_fails_at_any_call_is_an_error_to_who_reads() {
    watched(|| {
        let readings = Readings::default();
        readers_fail(&echo(readings.clone()), &readings, false);
    });
}

#[test]
fn b6_a_host_s_reader_that_fails_at_any_call_is_an_error_to_the_service() {
    watched(|| {
        let readings = Readings::default();
        readers_fail(&echo_async(readings.clone()), &readings, true);
    });
}

/// Responses of each kind, all of the same pieces.
const KINDS: [&str; 6] = ["full", "iter", "reader", "writer", "body", "asgi"];

struct App(Census);

impl SyncHandler for App {
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let pieces = Pieces::new(self.0.hold_anywhere());
        Ok(Response::new(match &request.uri().path()[1..] {
            "full" => PIECE.repeat(PIECES).into(),
            "iter" => Output::iter(pieces),
            "reader" => Output::reader(pieces),
            "writer" => Output::writer(move |w| {
                let mut pieces = pieces;
                pieces.try_for_each(|piece| w.write_all(&piece).and_then(|()| w.flush()))
            }),
            "body" => Output::body(frames(pieces)),
            _ => {
                let pieces = Arc::new(Mutex::new(Some(pieces)));
                let service = service_fn(move |_: Request<Body>| {
                    let pieces = pieces.lock().expect("a lock").take().expect("one call");
                    async { Ok::<_, Infallible>(Response::new(Body::new(frames(pieces)))) }
                });
                return AsgiHandler::new(service).call(request);
            }
        }))
    }
}

#[test]
fn b5_a_host_that_drops_the_response_at_any_chunk_leaves_nothing_behind() {
    watched(|| {
        let app = App(Census::default());
        for kind in KINDS {
            for taken in 0..=PIECES + 1 {
                let request = Request::get(format!("/{kind}")).body(Input::empty()).expect("a request");
                let mut response = respond(&app, request);
                let mut got = 0;
                for _ in 0..taken {
                    got += response.body_mut().chunk().expect("no error").map_or(0, |chunk| chunk.len());
                }
                assert!(got == (taken * 3).min(12) || kind == "full", "{kind}: {got} bytes");
                drop(response);
                cleared(&app.0, &format!("{kind}, {taken} chunks"));
            }
        }
    });
}

/// Takes so many bytes, and then fails.
struct Narrow {
    taken: Vec<u8>,
    room: usize,
    /// How many bytes it takes at once.
    step: usize,
    then: Option<Fault>,
}

impl Write for Narrow {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let length = buf.len().min(self.step).min(self.room - self.taken.len());
        if length == 0 && !buf.is_empty() {
            match self.then {
                Some(Fault::Fails(ErrorKind::Interrupted)) => {
                    self.then = None;
                    self.room = usize::MAX;
                    return Err(ErrorKind::Interrupted.into());
                }
                Some(Fault::Fails(kind)) => return Err(kind.into()),
                Some(Fault::Panics) => quiet(),
                _ => return Ok(0),
            }
        }
        self.taken.extend_from_slice(&buf[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has a response written to an output.
fn write(app: &App, kind: &str, output: &mut Narrow) -> Result<(), Error> {
    let path = format!("/{kind}");
    let variables = Variables::from_iter([("REQUEST_METHOD", "GET"), ("PATH_INFO", &*path)]);
    cgi::serve(app, variables, io::empty(), output)
}

#[test]
fn a8_an_output_that_fails_at_any_byte_ends_the_response_there() {
    watched(|| {
        let app = App(Census::default());
        for kind in KINDS {
            let mut whole = Narrow { taken: Vec::new(), room: usize::MAX, step: usize::MAX, then: None };
            write(&app, kind, &mut whole).expect("no error");
            let whole = whole.taken;
            assert!(whole.ends_with(&PIECE.repeat(PIECES)), "{kind}");
            for room in 0..=whole.len() {
                for step in [1, 5, usize::MAX] {
                    for fault in [
                        Fault::Fails(ErrorKind::BrokenPipe),
                        Fault::Fails(ErrorKind::StorageFull),
                        Fault::Fails(ErrorKind::WouldBlock),
                        Fault::Fails(ErrorKind::Interrupted),
                        Fault::Panics,
                        Fault::End,
                    ] {
                        let what = format!("{kind}, {fault:?} after {room} bytes, {step} at once");
                        let mut output = Narrow { taken: Vec::new(), room, step, then: Some(fault) };
                        let written = catch_unwind(AssertUnwindSafe(|| write(&app, kind, &mut output)));
                        let is_all = room == whole.len() || fault == Fault::Fails(ErrorKind::Interrupted);
                        match written {
                            Ok(Ok(())) => assert!(is_all, "{what}: no error"),
                            Ok(Err(error)) => {
                                assert!(!is_all && error.is_disconnected(), "{what}: {error:?}");
                            }
                            Err(_) => assert!(!is_all && fault == Fault::Panics, "{what}: a panic"),
                        }
                        let expected = if is_all { &*whole } else { &whole[..room] };
                        assert_eq!(output.taken, expected, "{what}");
                        cleared(&app.0, &what);
                    }
                }
            }
        }
    });
}
