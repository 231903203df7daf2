//! Threads that cannot be started.

use std::io;
use std::sync::Arc;

use loom::thread;

use super::pool::Open;
use super::{Tally, check};
use crate::pool::{Group, Job, WorkerPool};

/// A job that is run or refused.
struct Tried {
    ended: Arc<Tally>,
    refused: Arc<Tally>,
}

impl Job for Tried {
    fn run(self: Arc<Self>) {
        self.ended.add();
    }

    fn refuse(self: Arc<Self>, _: io::Error) {
        self.refused.add();
        self.ended.add();
    }

    fn group(&self) -> Arc<dyn Group> {
        Arc::new(Open)
    }

    fn group_id(&self) -> usize {
        0
    }
}

fn tried() -> (Arc<dyn Job>, Arc<Tally>, Arc<Tally>) {
    let (ended, refused) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
    (Arc::new(Tried { ended: ended.clone(), refused: refused.clone() }), ended, refused)
}

/// Checks a model in which only so many threads can be started.
fn limited_model(starts: usize, test: impl Fn() + Send + Sync + 'static) {
    check(3, false, Some(starts), test);
}

/// No thread at all: a job is refused, and not forgotten, and so is the next.
#[test]
fn a_job_without_a_thread_is_refused() {
    limited_model(0, || {
        let pool = WorkerPool::new(2);
        for _ in 0..2 {
            let (job, ended, refused) = tried();
            pool.submit(job, 10).expect("room");
            ended.wait_for(1);
            assert_eq!(refused.count(), 1);
        }
        assert_eq!(pool.stats().threads, 0);
        drop(pool);
    });
}

/// A second thread cannot be started. Until that is known, the first goes to sleep, and nobody is woken for a job that comes then, since the second would take it: it is never run if nobody wakes the
/// first after all. Nor is one refused while the first is about to look for it.
#[test]
fn a_job_without_a_second_thread_is_left_to_the_first() {
    limited_model(1, || {
        let pool = WorkerPool::new(2);
        let [(one, first, not_one), (two, second, not_two), (three, third, not_three)] =
            [(); 3].map(|()| tried());
        let other = pool.clone();
        thread::spawn(move || other.submit(one, 10).expect("room"));
        pool.submit(two, 10).expect("room");
        pool.submit(three, 10).expect("room");
        for (ended, refused) in [(first, not_one), (second, not_two), (third, not_three)] {
            ended.wait_for(1);
            assert_eq!(refused.count(), 0);
        }
        drop(pool);
    });
}

/// No extra thread for what a vanished client left: a worker drops it when it is free.
#[test]
fn discards_without_a_thread_are_left_to_a_worker() {
    limited_model(1, || {
        let pool = WorkerPool::new(1);
        let (one, first, _) = tried();
        let (left, dropped, refused) = tried();
        pool.submit(one, 10).expect("room");
        pool.discard(left);
        first.wait_for(1);
        dropped.wait_for(1);
        assert_eq!(refused.count(), 0);
        drop(pool);
    });
}
