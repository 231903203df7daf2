//! An [`Input`] against a plain model of it: whatever the frames, and in whatever order its ways to read are mixed, the reader gets the
//! same bytes and the same end.

use std::collections::VecDeque;
use std::io::{BufRead as _, Read as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use proptest::collection::vec;
use proptest::prelude::*;
use tower::{Layer, ServiceExt};
use tower_wsgi::{BoxError, Error, Input, WsgiLayer};

use super::trailers;

#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    end: End,
    /// How much more is declared than will come, if a length is.
    declared: Option<i64>,
    reads: Vec<Read>,
    finish: Finish,
}

/// What the body does when polled.
#[derive(Clone, Debug)]
enum Step {
    Data(Bytes),
    Pending,
    /// Pending, until another thread wakes.
    Later,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Clean,
    Trailers,
    Failure,
}

#[derive(Clone, Debug)]
enum Read {
    Some(usize),
    Fill(usize),
    Chunk,
    Line,
}

#[derive(Clone, Debug)]
enum Finish {
    Read,
    IntoBody,
}

/// A body that follows its case.
struct Script {
    steps: VecDeque<Step>,
    end: Option<End>,
    length: Option<u64>,
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.steps.pop_front() {
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Later) => {
                let waker = cx.waker().clone();
                std::thread::spawn(move || waker.wake());
                Poll::Pending
            }
            None => Poll::Ready(match self.end.take() {
                Some(End::Trailers) => Some(Ok(Frame::trailers(trailers()))),
                Some(End::Failure) => Some(Err("the body failed".into())),
                Some(End::Clean) | None => None,
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Case {
    fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.steps.iter().filter_map(|step| match step {
            Step::Data(data) => Some(data),
            Step::Pending | Step::Later => None,
        })
    }

    fn length(&self) -> Option<u64> {
        let comes = self.data().map(|data| data.len() as i64).sum::<i64>();
        Some(u64::try_from(comes + self.declared?).unwrap_or(0))
    }

    fn body(&self) -> Script {
        let steps = self.steps.clone().into();
        Script { steps, end: Some(self.end), length: self.length() }
    }

    /// What can be read of the body, frame by frame, and whether its true end comes after it.
    fn model(&self) -> (VecDeque<Bytes>, bool) {
        let (mut frames, mut received) = (VecDeque::new(), 0);
        for data in self.data() {
            received += data.len() as u64;
            if self.length().is_some_and(|length| received > length) {
                return (frames, false);
            }
            if !data.is_empty() {
                frames.push_back(data.clone());
            }
        }
        (frames, self.end != End::Failure && self.length().is_none_or(|length| received == length))
    }

    /// Reads the input as the case says, and compares.
    fn check(&self, mut input: Input) {
        let (mut frames, ends) = self.model();
        for read in &self.reads {
            match read {
                Read::Some(most) => {
                    let mut buf = vec![0; *most];
                    match input.read(&mut buf) {
                        Ok(0) => assert!(*most == 0 || frames.is_empty() && ends, "{read:?}: no end"),
                        Ok(n) => assert_eq!(buf[..n], take(&mut frames, n), "{read:?}"),
                        Err(_) => assert!(frames.is_empty() && !ends, "{read:?}: no error"),
                    }
                }
                Read::Fill(most) => match input.fill_buf() {
                    Ok([]) => assert!(frames.is_empty() && ends, "{read:?}: no end"),
                    Ok(bytes) => {
                        let n = bytes.len().min(*most);
                        assert_eq!(bytes[..n], take(&mut frames, n), "{read:?}");
                        input.consume(n);
                    }
                    Err(_) => assert!(frames.is_empty() && !ends, "{read:?}: no error"),
                },
                Read::Chunk => match input.chunk() {
                    // What is left of a frame, whole.
                    Ok(Some(chunk)) => assert_eq!(Some(chunk), frames.pop_front()),
                    Ok(None) => assert!(frames.is_empty() && ends, "{read:?}: no end"),
                    Err(_) => assert!(frames.is_empty() && !ends, "{read:?}: no error"),
                },
                Read::Line => {
                    let mut line = String::new();
                    let result = input.read_line(&mut line);
                    let rest: Vec<_> = frames.iter().flatten().copied().collect();
                    let newline = rest.iter().position(|byte| *byte == b'\n');
                    let expected = take(&mut frames, newline.map_or(rest.len(), |at| at + 1));
                    match result {
                        Ok(n) => {
                            assert_eq!((n, line.into_bytes()), (expected.len(), expected));
                            assert!(newline.is_some() || ends, "{read:?}: no end");
                        }
                        Err(_) => assert!(newline.is_none() && !ends, "{read:?}: no error"),
                    }
                }
            }
        }
        let rest: Vec<_> = frames.iter().flatten().copied().collect();
        let trailing = (ends && self.end == End::Trailers).then(trailers);
        match self.finish {
            Finish::Read => {
                let mut bytes = Vec::new();
                assert_eq!(input.read_to_end(&mut bytes).is_ok(), ends);
                assert_eq!(bytes, rest);
                assert_eq!(input.trailers(), trailing.as_ref());
            }
            // The async side compares with the declared length itself.
            Finish::IntoBody if self.declared.unwrap_or(0) == 0 => {
                let (bytes, trailers, whole) = collect(input.into_body());
                assert_eq!((bytes, trailers, whole), (rest, trailing, ends));
            }
            Finish::IntoBody => {}
        }
    }
}

/// Takes bytes off the front.
fn take(frames: &mut VecDeque<Bytes>, mut n: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while n > 0 {
        let frame = frames.front_mut().expect("no more than there is");
        let part = frame.split_to(n.min(frame.len()));
        if frame.is_empty() {
            frames.pop_front();
        }
        n -= part.len();
        taken.extend(part);
    }
    taken
}

/// Polls a body that is never pending for long.
fn collect(mut body: tower_wsgi::Body) -> (Vec<u8>, Option<http::HeaderMap>, bool) {
    let (mut bytes, mut trailers) = (Vec::new(), None);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(&mut cx) else {
            continue;
        };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => bytes.extend(data),
            Some(Ok(Err(frame))) => trailers = frame.into_trailers().ok(),
            Some(Err(_)) => return (bytes, trailers, false),
            None => return (bytes, trailers, true),
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let data = vec(prop::sample::select(&b"ab\n"[..]), 0..8);
    let step = prop_oneof![
        8 => data.prop_map(|data| Step::Data(data.into())),
        3 => Just(Step::Pending),
        1 => Just(Step::Later),
    ];
    let end = prop_oneof![2 => Just(End::Clean), 1 => Just(End::Trailers), 1 => Just(End::Failure)];
    let declared = prop_oneof![4 => Just(None), 2 => Just(Some(0)), 1 => (-3_i64..=3).prop_map(Some)];
    let read = prop_oneof![
        (0_usize..6).prop_map(Read::Some),
        (0_usize..6).prop_map(Read::Fill),
        Just(Read::Chunk),
        Just(Read::Line),
    ];
    let finish = prop_oneof![Just(Finish::Read), Just(Finish::IntoBody)];
    (vec(step, 0..12), end, declared, vec(read, 0..16), finish)
        .prop_map(|(steps, end, declared, reads, finish)| Case { steps, end, declared, reads, finish })
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn a2_an_input_reads_like_the_model_of_it() {
    proptest!(config(), |(case in cases())| case.check(Input::new(case.body())));
}

#[test]
fn a2_an_input_that_was_read_ahead_reads_like_the_model_of_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let layer = WsgiLayer::adapter();
    proptest!(config(), |(case in cases(), prefetch in 0_usize..30)| {
        let service = layer.clone().prefetch(prefetch).layer(|request: Request<Input>| {
            let (parts, input) = request.into_parts();
            parts.extensions.get::<Arc<Case>>().expect("the case").check(input);
            Response::new(())
        });
        let mut request = Request::new(case.body());
        request.extensions_mut().insert(Arc::new(case));
        let response = runtime.block_on(service.oneshot(request)).expect("a response");
        let error = response.extensions().get::<Error>();
        prop_assert!(response.status() == 200, "{:?}", error);
    });
}
