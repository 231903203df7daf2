//! Admission: how many of a burst are let in.

use std::sync::Arc;

use loom::thread;

use super::pool::{counting, job};
use super::{Tally, large_model, model};
use crate::pool::WorkerPool;

/// One worker and a queue of one: of three requests that come from two threads exactly two are let in, however far the worker's thread is.
#[test]
fn as_many_are_admitted_as_there_is_room_for() {
    large_model(|| {
        let pool = WorkerPool::new(1);
        let gate = Arc::new(Tally::default());
        let waits = || {
            let gate = gate.clone();
            job(move || gate.wait_for(1))
        };
        let (other, one) = (pool.clone(), waits());
        let other = thread::spawn(move || usize::from(other.submit(one, 1).is_ok()));
        let mut admitted = (0..2).filter(|_| pool.submit(waits(), 1).is_ok()).count();
        admitted += other.join().expect("no panic");
        assert_eq!(admitted, 2);
        let stats = pool.stats();
        assert_eq!(stats.queued + stats.busy, 2);
        gate.add();
        drop(pool);
    });
}

/// A request that is done leaves room: one that comes after it is let in where no queue is.
#[test]
fn whoever_is_done_leaves_room() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (one, first) = counting();
        pool.submit(one, 0).expect("room");
        first.wait_for(1);
        // It may not have left the books yet.
        let (two, second) = counting();
        if pool.submit(two.clone(), 0).is_err() {
            while pool.stats().busy > 0 {
                thread::yield_now();
            }
            pool.submit(two, 0).expect("room");
        }
        second.wait_for(1);
        drop(pool);
    });
}

/// A queued request whose client leaves makes room for another at once, and is run, for its drop, all the same: whether the worker is there already or not.
#[test]
fn whoever_leaves_leaves_room() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (gate, inside) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
        let busy = {
            let (gate, inside) = (gate.clone(), inside.clone());
            job(move || {
                inside.add();
                gate.wait_for(1);
            })
        };
        pool.submit(busy, 1).expect("room");
        inside.wait_for(1);
        let (leaves, left) = counting();
        pool.submit(leaves.clone(), 1).expect("room");
        let (full, _) = counting();
        assert!(pool.submit(full, 1).is_err());
        pool.withdraw(&leaves);
        let (next, runs) = counting();
        pool.submit(next, 1).expect("room, since one has left");
        gate.add();
        left.wait_for(1);
        runs.wait_for(1);
        drop(pool);
    });
}
