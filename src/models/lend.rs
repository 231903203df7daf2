//! Workers that wait for workers: a place is lent, and given back.

use std::sync::Arc;

use super::pool::{counting, job};
use super::{Tally, check, large_model, model};
use crate::pool::{WorkerPool, lend};

/// A job that has the pool run another and waits for it.
fn nests(pool: &WorkerPool, done: &Arc<Tally>) -> Arc<dyn crate::pool::Job> {
    let (pool, done) = (pool.clone(), done.clone());
    job(move || {
        let (inner, ran) = counting();
        // One that a handler waits for was let in with it.
        pool.resume(inner);
        lend(|| ran.wait_for(1));
        done.add();
    })
}

/// A worker that waits for a job which needs a worker: both deadlock if the place is not lent, or not given back.
#[test]
fn a_waiting_worker_lends_its_place() {
    large_model(|| {
        let pool = WorkerPool::new(1);
        let done = Arc::new(Tally::default());
        pool.submit(nests(&pool, &done), 10).expect("room");
        done.wait_for(1);
        drop(pool);
    });
}

/// Two workers that both wait for a job of their own pool: they deadlock if not every one that waits is made up for.
#[test]
fn all_workers_may_wait() {
    check(1, false, None, || {
        let pool = WorkerPool::new(2);
        let done = Arc::new(Tally::default());
        for _ in 0..2 {
            pool.submit(nests(&pool, &done), 10).expect("room");
        }
        done.wait_for(2);
        drop(pool);
    });
}

/// One worker, and two jobs that wait one after the other: who wants its place back waits for the one that has it, and never gets it if nobody tells it.
#[test]
fn places_are_given_back() {
    large_model(|| {
        let pool = WorkerPool::new(1);
        let done = Arc::new(Tally::default());
        for _ in 0..2 {
            pool.submit(nests(&pool, &done), 10).expect("room");
        }
        done.wait_for(2);
        drop(pool);
    });
}

/// Never more run than there are workers, however many have lent their place.
#[test]
fn no_more_run_than_there_are_workers() {
    large_model(|| {
        let pool = WorkerPool::new(1);
        let done = Arc::new(Tally::default());
        let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let outer = {
            let (pool, done, running) = (pool.clone(), done.clone(), running.clone());
            job(move || {
                let (done, inner_running) = (done.clone(), running.clone());
                let ran = Arc::new(Tally::default());
                let tally = ran.clone();
                pool.resume(job(move || {
                    assert_eq!(inner_running.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    tally.add();
                    loom::thread::yield_now();
                    inner_running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }));
                lend(|| ran.wait_for(1));
                assert_eq!(running.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                done.add();
            })
        };
        pool.submit(outer, 10).expect("room");
        done.wait_for(1);
        drop(pool);
    });
}

/// While as many wait as may, a new request is not taken up; it is when one of them goes on, and never if nobody looks for it then.
#[test]
fn whoever_goes_on_lets_others_in() {
    large_model(|| {
        let pool = WorkerPool::new(1);
        let done = Arc::new(Tally::default());
        pool.submit(nests(&pool, &done), 10).expect("room");
        let (other, ran) = counting();
        pool.submit(other, 10).expect("room");
        done.wait_for(1);
        ran.wait_for(1);
        drop(pool);
    });
}

/// Elsewhere than on a worker there is no place to lend.
#[test]
fn nobody_else_lends() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (one, ran) = counting();
        pool.submit(one, 10).expect("room");
        lend(|| ran.wait_for(1));
        assert_eq!(pool.stats().lending, 0);
        drop(pool);
    });
}
