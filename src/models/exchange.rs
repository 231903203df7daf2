//! One request's exchange: answer, cancel, failure and time-out, in every order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use loom::thread;

use super::{Counted, answer, block_on, frame, meeting, model};
use crate::exchange::{Begin, Exchange, Leftover, Room};
use crate::parker::Parker;

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
        let next = || block_on(frame(&exchange, &mut false));
        assert_eq!(next(), Some(Ok(0)));
        assert_eq!(next(), Some(Err("cut off")));
        assert_eq!(next(), None);
        worker.join().expect("no panic");
    });
}

/// An answer against a consumer that leaves, whether it looked before or not: the answer is taken, given back to the worker, or dropped with the close; it does not stay.
#[test]
fn an_answer_is_not_left_behind() {
    model(|| {
        let exchange: Arc<Exchange<(), Counted, u32, ()>> = Arc::new(Exchange::new(1, Some(())));
        exchange.submit(|_| ());
        let (answer, dropped) = Counted::new();
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            if let Begin::Run(()) = worker.begin() {
                drop(worker.answer(answer));
            }
        });
        let looked = exchange.poll_answer(&mut Context::from_waker(Waker::noop()));
        exchange.close();
        worker.join().expect("no panic");
        drop(looked);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

/// Frames that nobody takes any more do not stay, be they pushed before the close or after it, and the worker is told.
#[test]
fn frames_are_not_left_behind() {
    model(|| {
        let exchange: Arc<Exchange<(), u32, Counted, ()>> = Arc::new(Exchange::new(4, Some(())));
        exchange.submit(|_| ());
        let (first, dropped) = Counted::new();
        let second = Counted(dropped.clone());
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            let Begin::Run(()) = worker.begin() else { return };
            let _ = worker.answer_with(7, first);
            worker.push(second);
            worker.finish(Ok(()));
        });
        drop(exchange.poll_frame(&mut Context::from_waker(Waker::noop()), &mut false));
        exchange.close();
        worker.join().expect("no panic");
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        assert!(exchange.is_closed());
        assert_eq!(exchange.room(), Room::Closed);
    });
}

/// Work that a worker gives back for another, against a consumer that leaves: whoever has it then drops it, and nobody runs it once it is closed.
#[test]
fn work_that_is_given_back_is_not_forgotten() {
    model(|| {
        let (exchange, dropped) = meeting(1);
        let worker = exchange.clone();
        let worker = thread::spawn(move || {
            let Begin::Run(work) = worker.begin() else { return };
            if worker.requeue(work).is_ok() {
                // The pool has it run again.
                drop(worker.begin());
            }
        });
        match exchange.close() {
            Leftover::None => {}
            Leftover::InQueue => assert!(!matches!(exchange.begin(), Begin::Run(_))),
            Leftover::Parked => panic!("it was not put aside"),
        }
        worker.join().expect("no panic");
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

/// Two who close it, as a future that is dropped while a time-out ends it: the work is left to one of them.
#[test]
fn a_close_has_one_winner() {
    model(|| {
        let (exchange, dropped) = meeting(1);
        let other = exchange.clone();
        let other = thread::spawn(move || other.close_if_queued());
        let leftovers = [Some(exchange.close()), other.join().expect("no panic")];
        let winners = leftovers.iter().filter(|leftover| **leftover == Some(Leftover::InQueue)).count();
        assert_eq!(winners, 1);
        assert!(matches!(exchange.begin(), Begin::Drop(_)));
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

/// A worker that ends without an answer, or after half a body, against a consumer that comes and goes: the end is an error for one that stays, and never a clean end.
#[test]
fn a_failure_is_no_clean_end() {
    model(|| {
        let (exchange, _) = meeting(1);
        let worker = exchange.clone();
        thread::spawn(move || {
            drop(worker.begin());
            let _ = worker.answer_with(7, 0);
            worker.finish(Err("cut off"));
        });
        assert_eq!(block_on(answer(&exchange)), Some(7));
        assert_eq!(block_on(frame(&exchange, &mut false)), Some(Ok(0)));
        assert!(!exchange.is_drained());
        assert_eq!(block_on(frame(&exchange, &mut false)), Some(Err("cut off")));
    });
}
