//! Bodies on their way out: put aside and gone on with, or written by a thread that waits for room.

use std::sync::atomic::Ordering;

use loom::thread;

use super::{Meeting, block_on, frame, meeting, model};
use crate::exchange::{Begin, Leftover, Room};

/// A worker that produces frames, puts itself aside when the queue is full, and goes on when it is resumed. The consumer sleeps for ever if a frame's
/// wake is lost, or if nobody resumes the parked work.
#[test]
fn parked_work_goes_on() {
    model(|| goes_on(1, 3));
}

/// The same where there is room long before the work is resumed: at half the queue.
#[test]
fn parked_work_goes_on_at_half_the_queue() {
    model(|| goes_on(3, 5));
}

fn goes_on(capacity: usize, count: u32) {
    let (exchange, dropped) = meeting(capacity);
    let producer = exchange.clone();
    let produce = move |exchange: &Meeting, next: &mut u32| {
        let Begin::Run(mut work) = exchange.begin() else { return };
        loop {
            if *next == count {
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
        let next_frame = block_on(frame(&exchange, &mut resume));
        if resume {
            if let Some(first) = first.take() {
                next = first.join().expect("no panic");
            }
            produce(&exchange, &mut next);
        }
        match next_frame {
            Some(frame) => frames.push(frame.expect("no failure")),
            None => break,
        }
    }
    assert!(frames.into_iter().eq(0..count));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    if let Some(first) = first {
        first.join().expect("no panic");
    }
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
            let next_frame = block_on(frame(&exchange, &mut false));
            assert_eq!(next_frame, Some(Ok(n)));
        }
        let end = block_on(frame(&exchange, &mut false));
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
