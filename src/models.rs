//! Loom models of the exchange and the pool: every order in which their threads can meet.
//!
//! ```text
//! RUSTFLAGS="--cfg tower_wsgi_loom" cargo test --release --lib models
//! ```
//!
//! A lost wake shows as a deadlock, which loom reports; each model says whose wake that would be.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::body::{Body, PollFrame};
use crate::error::BoxError;
use crate::exchange::{Begin, Exchange, Leftover, Room};
use crate::parker::Parker;
use crate::pool::{Group, Job, WorkerPool, lend};
use crate::relay::{AHEAD, relay};

/// Work that counts how it ended.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Meeting = Exchange<Counted, u32, u32, &'static str>;

fn meeting(capacity: usize) -> (Arc<Meeting>, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let exchange = Arc::new(Exchange::new(capacity, Some(Counted(dropped.clone()))));
    exchange.submit(|_| ());
    (exchange, dropped)
}

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

/// Awaits a future on the calling thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let parker = Parker::current();
    let mut cx = Context::from_waker(parker.waker());
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        parker.park();
    }
}

async fn answer(exchange: &Meeting) -> Option<u32> {
    std::future::poll_fn(|cx| exchange.poll_answer(cx)).await
}

/// The consumer sleeps for ever if the answer's wake is lost.
#[test]
fn an_answer_wakes_its_consumer() {
    model(|| {
        let (exchange, dropped) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            let Begin::Run(work) = worker.begin() else { panic!("nobody else has it") };
            drop(work);
            worker.answer(7).expect("a consumer");
        });
        assert_eq!(block_on(answer(&exchange)), Some(7));
        worker.join().expect("no panic");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

/// The consumer sleeps for ever if a worker that gave up without an answer does not wake it.
#[test]
fn no_answer_is_an_error_and_not_a_wait() {
    model(|| {
        let (exchange, _) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            drop(worker.begin());
            worker.finish(Err("gave up"));
        });
        assert_eq!(block_on(answer(&exchange)), None);
        assert_eq!(exchange.take_failure(), Some("gave up"));
        worker.join().expect("no panic");
    });
}

/// A cancel, a worker that begins, and whoever takes care of the leftover: the work is run or dropped by exactly one.
#[test]
fn work_is_run_or_dropped_once() {
    model(|| {
        let (exchange, dropped) = meeting(1);
        let ran = Arc::new(AtomicUsize::new(0));
        let (worker, counter) = (exchange.clone(), ran.clone());
        let worker = thread::spawn(move || match worker.begin() {
            Begin::Run(work) => {
                counter.fetch_add(1, Ordering::SeqCst);
                drop(work);
                let _ = worker.answer(7);
            }
            Begin::Drop(work) => drop(work),
            Begin::Nothing => {}
        });
        let leftover = exchange.close();
        if leftover == Leftover::InQueue {
            // The pool runs it among its discards.
            match exchange.begin() {
                Begin::Run(_) => panic!("it is closed"),
                Begin::Drop(work) => drop(work),
                Begin::Nothing => {}
            }
        }
        worker.join().expect("no panic");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        if leftover == Leftover::InQueue {
            assert_eq!(ran.load(Ordering::SeqCst), 0, "closed while it was queued, and run all the same");
        }
    });
}

/// A queue's timeout against a worker that begins: exactly one of them wins.
#[test]
fn a_timeout_and_a_worker_do_not_both_win() {
    model(|| {
        let (exchange, _) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || match worker.begin() {
            Begin::Run(_work) => worker.answer(7).is_ok(),
            Begin::Drop(_) | Begin::Nothing => false,
        });
        let timed_out = exchange.close_if_queued().is_some();
        assert_ne!(worker.join().expect("no panic"), timed_out);
    });
}

/// A worker that produces frames, puts itself aside when the queue is full, and goes on when it is resumed. The consumer sleeps for ever if a frame's
/// wake is lost, or if nobody resumes the parked work.
#[test]
fn parked_work_goes_on() {
    model(|| {
        let (exchange, dropped) = meeting(1);
        let producer = exchange.clone();
        let produce = move |exchange: &Meeting, next: &mut u32| {
            let Begin::Run(mut work) = exchange.begin() else { return };
            loop {
                if *next == 3 {
                    drop(work);
                    return exchange.finish(Ok(()));
                }
                match exchange.room() {
                    Room::Free => {
                        exchange.push(*next);
                        *next += 1;
                    }
                    Room::Full => match exchange.park(work) {
                        Ok(()) => return,
                        Err(back) => work = back,
                    },
                    Room::Closed => return,
                }
            }
        };
        let first = thread::spawn(move || {
            let mut next = 0;
            produce(&producer, &mut next);
            next
        });
        // The consumer runs resumed work itself, in place of a second worker.
        let mut first = Some(first);
        let mut next = 0;
        let mut frames = Vec::new();
        loop {
            let mut resume = false;
            let frame = block_on(std::future::poll_fn(|cx| exchange.poll_frame(cx, &mut resume)));
            if resume {
                if let Some(first) = first.take() {
                    next = first.join().expect("no panic");
                }
                produce(&exchange, &mut next);
            }
            match frame {
                Some(frame) => frames.push(frame.expect("no failure")),
                None => break,
            }
        }
        assert_eq!(frames, [0, 1, 2]);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        if let Some(first) = first {
            first.join().expect("no panic");
        }
    });
}

/// A consumer that leaves while the work is put aside: the work is never forgotten.
#[test]
fn parked_work_is_not_forgotten_by_a_close() {
    model(|| {
        let (exchange, dropped) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            let Begin::Run(work) = worker.begin() else { return false };
            worker.push(0);
            // If it cannot be put aside, the worker drops it.
            worker.park(work).is_ok()
        });
        let leftover = exchange.close();
        let parked = worker.join().expect("no panic");
        match leftover {
            Leftover::None => assert!(!parked),
            // The worker that finds it closed may have been faster.
            Leftover::InQueue => drop(exchange.begin()),
            Leftover::Parked => assert!(matches!(exchange.begin(), Begin::Drop(_))),
        }
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

/// The writer's thread sleeps for ever if the room that a frame leaves does not wake it.
#[test]
fn room_wakes_a_writer() {
    model(|| {
        let (exchange, _) = meeting(1);
        let writer = exchange.clone();
        let writer = thread::spawn(move || {
            let _work = writer.begin();
            for n in 0..3 {
                assert!(writer.wait_room());
                writer.push(n);
            }
            writer.finish(Ok(()));
        });
        for n in 0..3 {
            let frame = block_on(std::future::poll_fn(|cx| exchange.poll_frame(cx, &mut false)));
            assert_eq!(frame, Some(Ok(n)));
        }
        let end = block_on(std::future::poll_fn(|cx| exchange.poll_frame(cx, &mut false)));
        assert_eq!(end, None);
        writer.join().expect("no panic");
    });
}

/// The writer's thread sleeps for ever if a close does not wake it.
#[test]
fn a_close_wakes_a_writer() {
    model(|| {
        let (exchange, _) = meeting(1);
        let writer = exchange.clone();
        let writer = thread::spawn(move || {
            while writer.wait_room() {
                writer.push(0);
            }
        });
        exchange.close();
        writer.join().expect("no panic");
    });
}

/// The reader's thread sleeps for ever if a close does not wake it.
#[test]
fn a_close_wakes_a_reader() {
    model(|| {
        let (exchange, _) = meeting(1);
        let reader = exchange.clone();
        let reader = thread::spawn(move || {
            let parker = Parker::current();
            while reader.watch_close(parker.waker()) {
                parker.park();
            }
        });
        exchange.close();
        reader.join().expect("no panic");
    });
}

/// A failure against a close: neither hangs, and the consumer that stays sees it.
#[test]
fn an_end_is_seen() {
    model(|| {
        let (exchange, _) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            drop(worker.begin());
            worker.push(0);
            worker.finish(Err("cut off"));
        });
        let next = || block_on(std::future::poll_fn(|cx| exchange.poll_frame(cx, &mut false)));
        assert_eq!(next(), Some(Ok(0)));
        assert_eq!(next(), Some(Err("cut off")));
        assert_eq!(next(), None);
        worker.join().expect("no panic");
    });
}

/// A count that threads can wait for.
#[derive(Default)]
struct Tally {
    count: loom::sync::Mutex<usize>,
    changed: loom::sync::Condvar,
}

impl Tally {
    fn add(&self) {
        *self.count.lock().expect("a lock") += 1;
        self.changed.notify_all();
    }

    fn wait_for(&self, reached: usize) {
        let mut count = self.count.lock().expect("a lock");
        while *count < reached {
            count = self.changed.wait(count).expect("a lock");
        }
    }
}

/// A job that counts its runs.
struct Count(Arc<Tally>);

/// The handler that all jobs here are of.
struct Handler;

impl Group for Handler {
    fn enter(&self, inside: &mut dyn FnMut()) {
        inside();
    }
}

macro_rules! one_group {
    () => {
        fn group(&self) -> Arc<dyn Group> {
            Arc::new(Handler)
        }

        fn group_id(&self) -> usize {
            0
        }
    };
}

impl Job for Count {
    fn run(self: Arc<Self>) {
        self.0.add();
    }

    fn refuse(self: Arc<Self>, _: io::Error) {
        unreachable!("threads can be started in a model");
    }

    one_group!();
}

fn counting() -> (Arc<dyn Job>, Arc<Tally>) {
    let runs = Arc::new(Tally::default());
    (Arc::new(Count(runs.clone())), runs)
}

/// A job that comes while its worker goes to sleep is never run if the wake is lost.
#[test]
fn a_pool_runs_each_job_once() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (one, first) = counting();
        let (two, second) = counting();
        pool.submit(one, 10).expect("room");
        pool.submit(two, 10).expect("room");
        first.wait_for(1);
        second.wait_for(1);
        drop(pool);
    });
}

/// A worker that ends with its pool leaves no job: the model deadlocks if the worker is not woken to end.
#[test]
fn a_pool_ends_after_its_jobs() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (job, runs) = counting();
        pool.submit(job, 10).expect("room");
        drop(pool);
        runs.wait_for(1);
    });
}

/// A queued job that is withdrawn is still run once (and drops what is left of its work).
#[test]
fn a_withdrawn_job_is_run_once() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (job, runs) = counting();
        pool.submit(job.clone(), 10).expect("room");
        pool.withdraw(&job);
        runs.wait_for(1);
        drop(pool);
    });
}

/// Two workers take two jobs that wait for each other: the second job is never run if nobody wakes or starts another worker.
#[test]
fn two_workers_run_two_jobs_at_once() {
    struct Meet(Arc<Tally>);
    impl Job for Meet {
        fn run(self: Arc<Self>) {
            self.0.add();
            self.0.wait_for(2);
        }

        fn refuse(self: Arc<Self>, _: io::Error) {}

        one_group!();
    }

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let pool = WorkerPool::new(2);
        let met = Arc::new(Tally::default());
        pool.submit(Arc::new(Meet(met.clone())), 10).expect("room");
        pool.submit(Arc::new(Meet(met.clone())), 10).expect("room");
        met.wait_for(2);
        drop(pool);
    });
}

/// A worker that waits for a job which needs a worker: both deadlock if the place is not lent, or not given back.
#[test]
fn a_waiting_worker_lends_its_place() {
    struct Outer(WorkerPool, Arc<Tally>);
    impl Job for Outer {
        fn run(self: Arc<Self>) {
            let inner: Arc<dyn Job> = Arc::new(Count(self.1.clone()));
            self.0.submit(inner, 10).expect("room");
            lend(|| self.1.wait_for(1));
            self.1.add();
        }

        fn refuse(self: Arc<Self>, _: io::Error) {}

        one_group!();
    }

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let pool = WorkerPool::new(1);
        let done = Arc::new(Tally::default());
        pool.submit(Arc::new(Outer(pool.clone(), done.clone())), 10).expect("room");
        done.wait_for(2);
        drop(pool);
    });
}

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
    // Not joined: a park token that is left over would end loom's join early.
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

/// A wake between a failed poll and the wait ends the wait.
#[test]
fn a_parker_does_not_lose_a_wake() {
    struct Flag(AtomicUsize, loom::sync::Mutex<Option<Waker>>);
    model(|| {
        let flag = Arc::new(Flag(AtomicUsize::new(0), loom::sync::Mutex::new(None)));
        let setter = flag.clone();
        thread::spawn(move || {
            setter.0.store(1, Ordering::SeqCst);
            let waker = setter.1.lock().expect("a lock").take();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        let parker = Parker::current();
        loop {
            *flag.1.lock().expect("a lock") = Some(parker.waker().clone());
            if flag.0.load(Ordering::SeqCst) == 1 {
                break;
            }
            parker.park();
        }
        // Not joined: a park token that is left over would end loom's join early.
    });
}
