//! Responses that are read as they are made, or not to their end.

use std::panic::resume_unwind;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service as _;

use super::{Probe, next_frame, read, request, service, trip};
use crate::body::Body;
use crate::error::BoxError;
use crate::input::Input;
use crate::models::{Tally, block_on};
use crate::output::Output;

/// A response's body of so many chunks, which ends as it is told to.
struct Chunks {
    left: usize,
    end: End,
    _probe: Probe,
}

#[derive(Clone, Copy)]
enum End {
    Clean,
    Fails,
    Panics,
}

impl Iterator for Chunks {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left > 0 {
            self.left -= 1;
            return Some(Ok(Bytes::from_static(b"chunk")));
        }
        match self.end {
            End::Clean => None,
            End::Fails => Some(Err("on purpose".into())),
            End::Panics => resume_unwind(Box::new("on purpose")),
        }
    }
}

/// Serves a request whose handler returns chunks, and hands the body over.
fn with_chunks(count: usize, end: End, then: impl Fn(Response<Body>)) {
    let dropped = Arc::new(Tally::default());
    let probe = dropped.clone();
    let mut service = service(move |_: Request<Input>| {
        Response::new(Output::try_iter(Chunks { left: count, end, _probe: Probe(probe.clone()) }))
    });
    let Ok(response) = block_on(service.call(request(Body::empty())));
    drop(service);
    then(response);
    // With the last handle the pool ends; what is left is dropped before that, which the end of the model waits for.
    dropped.wait_for(1);
}

/// More chunks than there is room for, read to the end: the reader waits for ever if parked work is not gone on with.
#[test]
fn a_body_is_read_to_its_end() {
    trip(|| {
        with_chunks(3, End::Clean, |response| assert_eq!(read(&mut response.into_body()), (3, true)));
    });
}

/// A reader that leaves after so many chunks, whether the body is parked, on its way, or over.
#[test]
fn a_body_is_let_go() {
    for taken in 0..3 {
        trip(move || {
            with_chunks(3, End::Clean, |response| {
                let mut body = response.into_body();
                for _ in 0..taken {
                    assert!(block_on(next_frame(&mut body)).is_some_and(|frame| frame.is_ok()));
                }
                drop(body);
            });
        });
    }
}

/// A body that fails or panics in the middle has no clean end.
#[test]
fn a_body_that_breaks_off_is_no_whole_one() {
    for end in [End::Fails, End::Panics] {
        trip(move || {
            with_chunks(2, end, |response| assert_eq!(read(&mut response.into_body()), (2, false)));
        });
    }
}

/// A writer that waits for room, against a reader that leaves: the thread sleeps for ever if it is not told.
#[test]
fn a_writer_meets_a_reader_that_leaves() {
    for taken in 0..2 {
        trip(move || {
            let dropped = Arc::new(Tally::default());
            let probe = dropped.clone();
            let mut service = service(move |_: Request<Input>| {
                let probe = Probe(probe.clone());
                Response::new(Output::writer(move |writer| {
                    let _probe = probe;
                    (0..4).try_for_each(|_| writer.send("chunk"))
                }))
            });
            let Ok(response) = block_on(service.call(request(Body::empty())));
            drop(service);
            let mut body = response.into_body();
            for _ in 0..taken {
                assert!(block_on(next_frame(&mut body)).is_some_and(|frame| frame.is_ok()));
            }
            drop(body);
            dropped.wait_for(1);
        });
    }
}

/// A writer to its end: reader and writer wait for each other in turns.
#[test]
fn a_writer_is_read_to_its_end() {
    trip(|| {
        let mut service = service(|_: Request<Input>| {
            Response::new(Output::writer(|writer| (0..3).try_for_each(|_| writer.send("chunk"))))
        });
        let Ok(response) = block_on(service.call(request(Body::empty())));
        assert_eq!(read(&mut response.into_body()), (3, true));
    });
}
