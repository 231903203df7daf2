//! The ways into handlers: where they are slow, or lead nowhere.

use std::io;
use std::sync::Arc;

use super::pool::Open;
use super::{Tally, large_model, model, timed_model};
use crate::pool::{Group, Job, WorkerPool};

/// A job of a handler with a way in of its own.
struct Behind {
    ran: Arc<Tally>,
    group: Arc<dyn Group>,
    id: usize,
}

impl Job for Behind {
    fn run(self: Arc<Self>) {
        self.ran.add();
    }

    fn refuse(self: Arc<Self>, _: io::Error) {
        unreachable!("threads can be started in this model");
    }

    fn group(&self) -> Arc<dyn Group> {
        self.group.clone()
    }

    fn group_id(&self) -> usize {
        self.id
    }
}

/// A handler that lets in once a job of another is done.
struct After(Arc<Tally>);

impl Group for After {
    fn enter(&self, inside: &mut dyn FnMut()) {
        self.0.wait_for(1);
        inside();
    }
}

/// A handler that never lets in.
struct Shut;

impl Group for Shut {
    fn enter(&self, _: &mut dyn FnMut()) {}
}

/// Who stands in the way into one handler keeps no request of another waiting, nor in its hands: the model deadlocks if nobody else is found for it.
#[test]
fn a_slow_way_in_keeps_no_other_handler_waiting() {
    large_model(meets_a_slow_way);
}

/// The same while jobs are quick, where one thread is woken for both requests.
#[test]
fn a_slow_way_in_keeps_no_other_quick_handler_waiting() {
    timed_model(meets_a_slow_way);
}

fn meets_a_slow_way() {
    let pool = WorkerPool::new(2);
    let (first, slow, quick) =
        (Arc::new(Tally::default()), Arc::new(Tally::default()), Arc::new(Tally::default()));
    let warm_up = Behind { ran: first.clone(), group: Arc::new(Open), id: 2 };
    pool.submit(Arc::new(warm_up), 10).expect("room");
    first.wait_for(1);
    let behind = Behind { ran: slow.clone(), group: Arc::new(After(quick.clone())), id: 1 };
    pool.submit(Arc::new(behind), 10).expect("room");
    let open = Behind { ran: quick, group: Arc::new(Open), id: 2 };
    pool.submit(Arc::new(open), 10).expect("room");
    slow.wait_for(1);
    drop(pool);
}

/// A handler that forgets to let anybody in: its jobs are run all the same, and the worker is free again.
#[test]
fn a_way_that_leads_nowhere_keeps_no_job() {
    model(|| {
        let pool = WorkerPool::new(1);
        let (one, two) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
        for (ran, group, id) in [(&one, Arc::new(Shut) as Arc<dyn Group>, 1), (&two, Arc::new(Open), 2)] {
            pool.submit(Arc::new(Behind { ran: ran.clone(), group, id }), 10).expect("room");
        }
        one.wait_for(1);
        two.wait_for(1);
        drop(pool);
    });
}
