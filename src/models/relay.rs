//! A request's body on its way to the thread, relayed by the task that awaits the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use loom::thread;

use super::{Tally, answer, block_on, meeting, model};
use crate::body::{Body, PollFrame};
use crate::error::BoxError;
use crate::relay::{AHEAD, relay};

/// A body of two frames, the second of which comes once its reader has the first.
struct Pieces {
    frame: &'static [u8],
    given: usize,
    reader: Arc<Reader>,
}

/// Whether the reader has the first frame, and who waits for that.
type Reader = loom::sync::Mutex<(bool, Option<Waker>)>;

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        let mut reader = self.reader.lock().expect("a lock");
        if self.given == 1 && !reader.0 {
            reader.1 = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(reader);
        self.given += 1;
        let frame = (self.given <= 2).then(|| Ok(Frame::data(Bytes::from_static(self.frame))));
        Poll::Ready(frame)
    }
}

/// Has a task relay a body while it awaits an answer, which the reader gives before or after it reads all. One of the two sleeps for ever if its wake is lost: the reader if it is not told of a frame,
/// of the end, or that the task is gone; the task if it is not told that there is work, or room.
fn relays(frame: &'static [u8], is_answered_first: bool) {
    let (exchange, _) = meeting(1);
    let worker = exchange.clone();
    thread::spawn(move || {
        drop(worker.begin());
        let reader = Arc::new(Reader::new((false, None)));
        let mut body = relay(Body::new(Pieces { frame, given: 0, reader: reader.clone() }), &worker);
        if is_answered_first {
            worker.answer(7).expect("a consumer");
        }
        let mut length = 0;
        while let Some(frame) = block_on(std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))) {
            length += frame.expect("no error").data_ref().map_or(0, Bytes::len);
            let waiting = {
                let mut reader = reader.lock().expect("a lock");
                reader.0 = true;
                reader.1.take()
            };
            if let Some(waiting) = waiting {
                waiting.wake();
            }
        }
        assert_eq!(length, 2 * frame.len());
        if !is_answered_first {
            worker.answer(7).expect("a consumer");
        }
    });
    assert_eq!(block_on(answer(&exchange)), Some(7));
}

#[test]
fn a_relayed_body_reaches_its_reader() {
    model(|| relays(b"piece", false));
}

#[test]
fn a_relay_that_is_full_goes_on_when_there_is_room() {
    static FRAME: [u8; AHEAD] = [0; AHEAD];
    model(|| relays(&FRAME, false));
}

#[test]
fn a_reader_goes_on_where_its_relay_stopped() {
    model(|| relays(b"piece", true));
}

/// A body of one frame, the end of which does not come.
struct Unfinished {
    frame: Option<Frame<Bytes>>,
    waits: Arc<loom::sync::Mutex<Option<Waker>>>,
    _held: Held,
}

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PollFrame {
        if let Some(frame) = self.frame.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        *self.waits.lock().expect("a lock") = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Something whose drop can be waited for.
struct Held(Arc<Tally>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// A thread that lets go of a body in the middle, while the task may be polling it: the body is gone then, though the answer is yet to come. The thread waits for ever for that if the task keeps it.
#[test]
fn a_relayed_body_that_is_let_go_is_dropped() {
    model(|| {
        let (exchange, _) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            drop(worker.begin());
            let dropped = Arc::new(Tally::default());
            let frame = Some(Frame::data(Bytes::from_static(b"piece")));
            let body = Unfinished { frame, waits: Arc::default(), _held: Held(dropped.clone()) };
            let mut body = relay(Body::new(body), &worker);
            let first = block_on(std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
            assert!(first.is_some_and(|frame| frame.is_ok()));
            drop(body);
            dropped.wait_for(1);
            worker.answer(7).expect("a consumer");
        });
        assert_eq!(block_on(answer(&exchange)), Some(7));
        worker.join().expect("no panic");
    });
}

/// A task that leaves, at any moment, while the thread waits for what it relays: the thread sleeps for ever if it is not told that it has to read for itself.
#[test]
fn a_relay_whose_task_leaves_is_gone_on_with() {
    model(|| {
        let (exchange, _) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            drop(worker.begin());
            let reader = Arc::new(Reader::new((true, None)));
            let mut body = relay(Body::new(Pieces { frame: b"piece", given: 0, reader }), &worker);
            let mut length = 0;
            while let Some(frame) = block_on(std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))) {
                length += frame.expect("no error").data_ref().map_or(0, Bytes::len);
            }
            assert_eq!(length, 2 * b"piece".len());
        });
        let _ = exchange.poll_answer(&mut Context::from_waker(Waker::noop()));
        exchange.close();
        worker.join().expect("no panic");
    });
}

/// A body that panics when the task polls it: the thread gets an error, and sleeps for ever if that is not told.
#[test]
fn a_panic_of_a_relayed_body_is_the_readers() {
    struct Panics;
    impl http_body::Body for Panics {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> PollFrame {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }

    model(|| {
        let (exchange, _) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            drop(worker.begin());
            let mut body = relay(Body::new(Panics), &worker);
            let read = block_on(std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
            assert!(read.is_some_and(|frame| frame.is_err()));
            worker.answer(7).expect("a consumer");
        });
        assert_eq!(block_on(answer(&exchange)), Some(7));
        worker.join().expect("no panic");
    });
}
