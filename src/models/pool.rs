//! The pool's threads: who is woken for a job, who starts, who ends.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use super::{Tally, check, large_model, model, timed_model};
use crate::pool::{Group, Job, WorkerPool, is_worker};
use crate::sync::model::elapse;

/// A job.
struct Doing<F>(F);

/// A handler that anybody can go into.
pub(super) struct Open;

impl Group for Open {
    fn enter(&self, inside: &mut dyn FnMut()) {
        inside();
    }
}

impl<F: Fn() + Send + Sync + 'static> Job for Doing<F> {
    fn run(self: Arc<Self>) {
        (self.0)();
    }

    fn refuse(self: Arc<Self>, _: io::Error) {
        unreachable!("threads can be started in this model");
    }

    fn group(&self) -> Arc<dyn Group> {
        Arc::new(Open)
    }

    fn group_id(&self) -> usize {
        0
    }
}

pub(super) fn job(act: impl Fn() + Send + Sync + 'static) -> Arc<dyn Job> {
    Arc::new(Doing(act))
}

/// A job that counts its runs.
pub(super) fn counting() -> (Arc<dyn Job>, Arc<Tally>) {
    let runs = Arc::new(Tally::default());
    let tally = runs.clone();
    (job(move || tally.add()), runs)
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

/// Jobs from two threads, one of which drops the last handle: each is run, or the model waits for it for ever.
#[test]
fn a_pool_ends_after_the_jobs_of_all() {
    large_model(|| {
        let pool = WorkerPool::new(1);
        let (one, first) = counting();
        let (two, second) = counting();
        let other = pool.clone();
        thread::spawn(move || other.submit(one, 10).expect("room"));
        pool.submit(two, 10).expect("room");
        drop(pool);
        first.wait_for(1);
        second.wait_for(1);
    });
}

/// A pool whose last handle is a job's, and is dropped by its own worker: the worker has to see for itself that it is to end.
#[test]
fn a_pool_that_a_job_holds_ends_with_it() {
    model(|| {
        let pool = WorkerPool::new(1);
        let done = Arc::new(Tally::default());
        let (held, tally) = (pool.clone(), done.clone());
        let job = job(move || {
            let _ = held.stats();
            tally.add();
        });
        pool.submit(job, 10).expect("room");
        drop(pool);
        done.wait_for(1);
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
    large_model(|| {
        let pool = WorkerPool::new(2);
        let met = Arc::new(Tally::default());
        for _ in 0..2 {
            let met = met.clone();
            let meet = job(move || {
                met.add();
                met.wait_for(2);
            });
            pool.submit(meet, 10).expect("room");
        }
        met.wait_for(2);
        drop(pool);
    });
}

/// The same with two threads that submit, and workers that sleep or are about to.
#[test]
fn two_workers_are_woken_for_two_jobs() {
    large_model(|| {
        let pool = WorkerPool::new(2);
        let (warm_up, ran) = counting();
        pool.submit(warm_up, 10).expect("room");
        ran.wait_for(1);
        let met = Arc::new(Tally::default());
        let meet = || {
            let met = met.clone();
            job(move || {
                met.add();
                met.wait_for(2);
            })
        };
        let (other, one) = (pool.clone(), meet());
        thread::spawn(move || other.submit(one, 10).expect("room"));
        pool.submit(meet(), 10).expect("room");
        met.wait_for(2);
        drop(pool);
    });
}

/// While jobs are quick, one thread is woken for several: the second is never run if who takes the first wakes nobody for it.
#[test]
fn whoever_takes_a_quick_job_wakes_the_next() {
    timed_model(|| {
        let pool = WorkerPool::new(2);
        let (warm_up, ran) = counting();
        pool.submit(warm_up, 10).expect("room");
        ran.wait_for(1);
        let met = Arc::new(Tally::default());
        for _ in 0..2 {
            let met = met.clone();
            let meet = job(move || {
                met.add();
                met.wait_for(2);
            });
            pool.submit(meet, 10).expect("room");
        }
        met.wait_for(2);
        drop(pool);
    });
}

/// A body that goes on and a new request: neither lane's wake is lost to the other.
#[test]
fn both_lanes_are_served() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (one, first) = counting();
        let (two, second) = counting();
        let other = pool.clone();
        thread::spawn(move || other.resume(one));
        pool.submit(two, 10).expect("room");
        first.wait_for(1);
        second.wait_for(1);
        drop(pool);
    });
}

/// What a vanished client left may be what every worker waits for: the model deadlocks if nobody else drops it.
#[test]
fn discards_do_not_wait_for_busy_workers() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (left, dropped) = counting();
        let (done, awaited) = (Arc::new(Tally::default()), dropped.clone());
        let tally = done.clone();
        let busy = job(move || {
            awaited.wait_for(1);
            tally.add();
        });
        pool.submit(busy, 10).expect("room");
        pool.discard(left);
        done.wait_for(1);
        assert_eq!(dropped.count(), 1);
        drop(pool);
    });
}

/// A job that panics: its worker lives on, and its place is free. The next one is never run otherwise.
#[test]
fn a_panic_frees_its_place() {
    model(|| {
        let pool = WorkerPool::new(1);
        let panics = job(|| {
            assert!(is_worker());
            resume_unwind(Box::new("on purpose"));
        });
        pool.submit(panics, 10).expect("room");
        let (next, runs) = counting();
        pool.submit(next, 10).expect("room");
        runs.wait_for(1);
        drop(pool);
    });
}

/// An idle thread whose time is over, while a job comes that counts on it: the job is never run if the thread ends all the same, and nobody else starts.
#[test]
fn an_idle_thread_does_not_end_with_a_job_at_hand() {
    timed_model(|| {
        let pool = WorkerPool::new(1);
        let (one, first) = counting();
        pool.submit(one, 10).expect("room");
        first.wait_for(1);
        thread::spawn(|| elapse(Duration::from_secs(10)));
        let (two, second) = counting();
        pool.submit(two, 10).expect("room");
        second.wait_for(1);
        drop(pool);
    });
}

/// An idle thread whose time is over, while its pool ends: it ends once. The books would wrap otherwise, or the model wait for it.
#[test]
fn an_idle_thread_ends_once() {
    timed_model(|| {
        let pool = WorkerPool::new(1);
        let (one, first) = counting();
        pool.submit(one, 10).expect("room");
        first.wait_for(1);
        thread::spawn(|| elapse(Duration::from_secs(10)));
        let stats = pool.stats();
        assert!(stats.threads <= 1);
        drop(pool);
    });
}

/// While jobs are quick, a new one wakes nobody but is left to the thread that works, under the eyes of a watcher. If that thread waits for the new job, the watcher has to take it: it is never
/// run if the watcher does not look at the queue, or nobody watches.
#[test]
fn a_watcher_takes_what_nobody_was_woken_for() {
    check(1, true, None, || {
        let pool = WorkerPool::new(2);
        // Has two threads start. One of them goes to rest while the other is still up, and so becomes the watcher.
        let met = Arc::new(Tally::default());
        for _ in 0..2 {
            let met = met.clone();
            let meet = job(move || {
                met.add();
                met.wait_for(2);
            });
            pool.submit(meet, 10).expect("room");
        }
        met.wait_for(2);
        let (new, ran) = counting();
        let (inside, awaited) = (Arc::new(Tally::default()), ran.clone());
        let enters = inside.clone();
        let waits = job(move || {
            enters.add();
            awaited.wait_for(1);
        });
        pool.submit(waits, 10).expect("room");
        inside.wait_for(1);
        pool.submit(new, 10).expect("room");
        while ran.count() == 0 {
            elapse(Duration::from_millis(3));
            thread::yield_now();
        }
        drop(pool);
    });
}

/// Who waits until the pool has nothing to do sleeps for ever if the last one to do something does not wake it, and goes on too early if a job counts as over before it is.
#[test]
fn a_pool_at_rest_is_told() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (job, runs) = counting();
        pool.submit(job, 10).expect("room");
        assert!(pool.wait_idle(Duration::MAX));
        assert_eq!(runs.count(), 1);
    });
}

/// The same where the last one may be an extra thread that drops what a client left.
#[test]
fn a_pool_at_rest_has_dropped_what_was_left() {
    large_model(|| {
        let pool = WorkerPool::new(1);
        let (left, dropped) = counting();
        let seen = dropped.clone();
        pool.submit(job(move || seen.wait_for(1)), 10).expect("room");
        pool.discard(left);
        assert!(pool.wait_idle(Duration::MAX));
        assert_eq!(dropped.count(), 1);
    });
}
