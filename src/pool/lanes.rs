//! What waits for a worker, and the books of a pool: who works, who looks, who sleeps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::Job;
use super::thread::Thread;
use crate::parker::Parker;
use crate::sync::{AtomicBool, Ordering, is_timed};

/// How many handlers, per worker, may run, or wait for something that may itself need a worker, before no new request is taken up. What those wait for
/// still is, so that they go on: the bound is on threads and not on progress. (A model has too few threads to come to more than one.)
const NESTING: usize = if cfg!(tower_wsgi_loom) { 1 } else { 4 };

/// Jobs that take less than this are not worth another thread while one works: it is free again before the other is awake.
const SHORT: Duration = Duration::from_micros(50);

/// The state of a pool, under its lock.
pub(super) struct State {
    pub(super) discards: VecDeque<Arc<dyn Job>>,
    pub(super) fresh: VecDeque<Arc<dyn Job>>,
    pub(super) resumed: VecDeque<Arc<dyn Job>>,
    /// Whose turn it is.
    resumed_next: bool,
    pub(super) threads: usize,
    /// Those of them that have begun.
    pub(super) crew: Vec<Arc<Thread>>,
    /// Threads that run a job and are not in `lend`.
    pub(super) active: usize,
    /// Threads in `lend`.
    pub(super) lending: usize,
    /// Threads that look for work, or were just woken to.
    pub(super) searching: usize,
    /// The handlers that threads are on their way into, one each, where that may take a while.
    pub(super) entering: Vec<usize>,
    /// Threads on their way out of a handler: they will look for work there as well.
    pub(super) leaving: usize,
    /// Whether a sleeper looks, again and again, for jobs that have waited for too long.
    pub(super) watching: bool,
    /// The handler in which more threads would only be in the way, as far as the watcher knows.
    pub(super) deferred: Option<usize>,
    /// Idle threads, the most recently used last.
    pub(super) sleepers: Vec<Arc<Sleeper>>,
    /// Threads that were in `lend` and want their place back, first come first.
    pub(super) returning: VecDeque<Arc<Sleeper>>,
    /// Extra threads that only drop what vanished clients left.
    pub(super) reapers: usize,
    /// Those who wait until the pool has nothing to do.
    pub(super) onlookers: Vec<Arc<Sleeper>>,
    pub(super) shutdown: bool,
    /// New requests taken up so far.
    taken: u64,
    /// Requests refused so far.
    pub(super) rejected: u64,
    /// Jobs done so far, and the handler of the last one.
    pub(super) done: u64,
    pub(super) last: Option<usize>,
    /// How long a job takes, averaged over the last few.
    pace: Duration,
}

/// The lane whose turn it is.
#[derive(Clone, Copy)]
enum Lane {
    Discards,
    Fresh,
    Resumed,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            discards: VecDeque::new(),
            fresh: VecDeque::new(),
            resumed: VecDeque::new(),
            resumed_next: false,
            threads: 0,
            crew: Vec::new(),
            active: 0,
            lending: 0,
            searching: 0,
            entering: Vec::new(),
            leaving: 0,
            watching: false,
            deferred: None,
            sleepers: Vec::new(),
            returning: VecDeque::new(),
            reapers: 0,
            onlookers: Vec::new(),
            shutdown: false,
            taken: 0,
            rejected: 0,
            done: 0,
            last: None,
            // Not known yet.
            pace: SHORT,
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.discards.len() + self.fresh.len() + self.resumed.len()
    }

    /// How many new requests could be taken up at once.
    pub(super) fn free(&self, workers: usize) -> usize {
        // Those that run may come to lend, too.
        let may_lend = (workers * NESTING).saturating_sub(self.lending + self.active);
        may_lend.min(workers.saturating_sub(self.active))
    }

    /// Whether a thread that comes now would find something to do.
    pub(super) fn runnable(&self, workers: usize) -> bool {
        self.next(workers, None).is_some()
    }

    /// The job whose turn it is, and where it stands. Those of a handler that a thread is on its way into are left to that thread, and those of one in which others would be
    /// in the way to the ones in there, unless the one who asks is `inside` of it.
    fn turn(&self, workers: usize, inside: Option<usize>) -> Option<(Lane, usize)> {
        let deferred = self.deferred.filter(|_| self.active > 0);
        let is_free = |group: usize| {
            Some(group) == inside || !self.entering.contains(&group) && Some(group) != deferred
        };
        let place = |lane: &VecDeque<Arc<dyn Job>>| lane.iter().position(|job| is_free(job.group_id()));
        if let Some(place) = place(&self.discards) {
            return Some((Lane::Discards, place));
        }
        if self.active >= workers {
            return None;
        }
        let fresh = if self.free(workers) > 0 { place(&self.fresh) } else { None };
        let resumed = if self.resumed_next || fresh.is_none() { place(&self.resumed) } else { None };
        let resumed = resumed.map(|place| (Lane::Resumed, place));
        resumed.or(fresh.map(|place| (Lane::Fresh, place)))
    }

    /// The job that [`pop`](Self::pop) would take.
    pub(super) fn next(&self, workers: usize, inside: Option<usize>) -> Option<&Arc<dyn Job>> {
        let (lane, place) = self.turn(workers, inside)?;
        match lane {
            Lane::Discards => self.discards.get(place),
            Lane::Fresh => self.fresh.get(place),
            Lane::Resumed => self.resumed.get(place),
        }
    }

    pub(super) fn pop(&mut self, workers: usize, inside: Option<usize>) -> Option<Arc<dyn Job>> {
        let (lane, place) = self.turn(workers, inside)?;
        match lane {
            Lane::Discards => self.discards.remove(place),
            Lane::Fresh => {
                self.resumed_next = true;
                self.taken += 1;
                self.fresh.remove(place)
            }
            Lane::Resumed => {
                self.resumed_next = false;
                self.resumed.remove(place)
            }
        }
    }

    /// Notes that a thread has arrived in a handler, or turned back.
    pub(super) fn entered(&mut self, group: usize) {
        self.entering.retain(|entering| *entering != group);
    }

    /// Takes a job out of its lane before its turn.
    pub(super) fn remove(&mut self, job: &Arc<dyn Job>) -> Option<Arc<dyn Job>> {
        if let Some(place) = place_of(job, &self.fresh) {
            // Whoever waits behind it has waited for as long as before.
            self.taken += 1;
            return self.fresh.remove(place);
        }
        self.resumed.remove(place_of(job, &self.resumed)?)
    }

    /// How many new requests have come so far.
    pub(super) fn arrived(&self) -> u64 {
        self.taken + self.fresh.len() as u64
    }

    /// Whether a new request waits that was there when `arrived` had come.
    pub(super) fn is_stale(&self, arrived: u64) -> bool {
        !self.fresh.is_empty() && self.taken < arrived
    }

    /// Notes how long a job of a handler took.
    pub(super) fn note(&mut self, group: usize, took: Duration) {
        self.done += 1;
        self.last = Some(group);
        // A job that was only interrupted by the operating system must not count for many.
        self.pace = self.pace - self.pace / 8 + took.min(SHORT * 4) / 8;
    }

    /// Whether a new request may wait for a thread that works already: the watcher sees to it that it does not wait for long.
    pub(super) fn can_wait(&self) -> bool {
        self.watching && self.active + self.leaving > 0 && self.is_quick()
    }

    /// Whether those who look for work are enough for the jobs that wait. Quick ones need only one, which wakes the next if it sees more; for others that would take too long, and each has a thread of its own woken.
    pub(super) fn is_seen(&self) -> bool {
        self.searching > 0 && (self.is_quick() || self.searching >= self.pending())
    }

    /// Whether jobs are done before another thread is awake.
    pub(super) fn is_quick(&self) -> bool {
        is_timed() && self.pace < SHORT
    }

    /// Lets those go on who wait to, as far as there are places.
    pub(super) fn grant_returning(&mut self, workers: usize) {
        while self.active < workers {
            let Some(sleeper) = self.returning.pop_front() else { break };
            self.active += 1;
            sleeper.grant();
        }
    }

    /// Whether there is nothing to do, and nobody does anything, nor is in a handler's way in or out.
    pub(super) fn is_at_rest(&self) -> bool {
        let inside = self.active + self.lending + self.entering.len() + self.leaving;
        inside + self.reapers + self.pending() == 0
    }

    /// Lets those go on who wait until the pool is at rest, if it is.
    pub(super) fn grant_onlookers(&mut self) {
        if !self.onlookers.is_empty() && self.is_at_rest() {
            self.onlookers.drain(..).for_each(|onlooker| onlooker.grant());
        }
    }

    /// The threads beside this one.
    pub(super) fn others(&self, thread: &Arc<Thread>) -> Vec<Arc<Thread>> {
        self.crew.iter().filter(|other| !Arc::ptr_eq(other, thread)).cloned().collect()
    }

    /// Notes that a thread is at its end.
    pub(super) fn left(&mut self, thread: &Arc<Thread>) {
        self.threads -= 1;
        self.crew.retain(|other| !Arc::ptr_eq(other, thread));
    }

    /// Whether nobody has woken a thread that went to sleep.
    pub(super) fn is_asleep(&self, sleeper: &Arc<Sleeper>) -> bool {
        self.sleepers.iter().any(|other| Arc::ptr_eq(other, sleeper))
    }

    /// Takes a thread out of the idle ones; false if somebody has woken it.
    pub(super) fn rouse(&mut self, sleeper: &Arc<Sleeper>) -> bool {
        let place = self.sleepers.iter().position(|other| Arc::ptr_eq(other, sleeper));
        place.map(|place| self.sleepers.remove(place)).is_some()
    }
}

/// Where a job stands in a lane. It is looked for from both ends: clients of a flood that leave in the order in which they came, or in the opposite one, are found at once,
/// however many there are.
fn place_of(job: &Arc<dyn Job>, lane: &VecDeque<Arc<dyn Job>>) -> Option<usize> {
    let mut places = (0..lane.len().div_ceil(2)).flat_map(|place| [place, lane.len() - 1 - place]);
    places.find(|place| Arc::ptr_eq(&lane[*place], job))
}

/// A thread that waits, and whether its wish was granted.
pub(super) struct Sleeper {
    granted: AtomicBool,
    waker: Waker,
}

impl Sleeper {
    pub(super) fn new(parker: &Parker) -> Arc<Self> {
        Arc::new(Self { granted: AtomicBool::new(false), waker: parker.waker().clone() })
    }

    pub(super) fn grant(&self) {
        self.granted.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }

    /// Waits for the grant; false if the deadline came first.
    pub(super) fn wait(&self, parker: &Parker, deadline: Option<Instant>) -> bool {
        while !self.granted.load(Ordering::Acquire) {
            if !parker.park_until(deadline) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
#[cfg(not(tower_wsgi_loom))]
mod tests {
    use std::io;

    use super::*;
    use crate::pool::Group;

    struct Idle;

    impl Job for Idle {
        fn run(self: Arc<Self>) {}
        fn refuse(self: Arc<Self>, _: io::Error) {}
        fn group(&self) -> Arc<dyn Group> {
            unreachable!("nobody runs it")
        }
        fn group_id(&self) -> usize {
            0
        }
    }

    #[test]
    fn slow_jobs_wake_a_thread_each_and_quick_ones_one_for_all() {
        let mut state = State::new();
        state.fresh.extend((0..3).map(|_| Arc::new(Idle) as Arc<dyn Job>));
        assert!(!state.is_seen(), "nobody looks");
        for searching in 1..=3 {
            state.searching = searching;
            assert_eq!(state.is_seen(), searching == 3, "{searching} look for 3 slow jobs");
        }
        state.searching = 1;
        state.pace = SHORT / 2;
        assert!(state.is_seen());
    }
    fn jobs(count: usize) -> impl Iterator<Item = Arc<dyn Job>> {
        (0..count).map(|_| Arc::new(Idle) as Arc<dyn Job>)
    }

    #[test]
    fn a_request_is_stale_once_it_was_seen_before() {
        let mut state = State::new();
        assert!(!state.is_stale(state.arrived()), "nobody waits");
        state.fresh.extend(jobs(3));
        let seen = state.arrived();
        assert_eq!(seen, 3);
        state.pop(1, None).expect("a job");
        let withdrawn = state.fresh.front().cloned().expect("a job");
        state.remove(&withdrawn).expect("it is there");
        assert_eq!(state.arrived(), 3, "who is taken has come all the same");
        assert!(state.is_stale(seen), "the third has waited since then");
        state.fresh.extend(jobs(1));
        state.pop(1, None).expect("a job");
        assert_eq!(state.arrived(), 4);
        assert!(!state.is_stale(seen), "the fourth came later");
        state.pop(1, None).expect("a job");
        assert!(!state.is_stale(state.arrived()) && !state.is_stale(seen + 9), "nobody waits");
    }

    #[test]
    fn jobs_are_quick_that_are_so_on_the_average() {
        let mut state = State::new();
        assert!(!state.is_quick(), "it is not known yet");
        for _ in 0..100 {
            state.note(0, SHORT / 10);
        }
        assert!(state.is_quick());
        state.note(0, Duration::from_secs(1));
        assert!(state.is_quick(), "one was only interrupted");
        for _ in 0..3 {
            state.note(0, SHORT * 4);
        }
        assert!(!state.is_quick());
        assert_eq!((state.done, state.last), (104, Some(0)));
    }

    #[test]
    fn a_request_may_wait_where_somebody_watches_and_somebody_is_soon_free() {
        for (watching, active, leaving, quick) in [
            (true, 1, 0, true),
            (true, 0, 1, true),
            (true, 0, 0, true),
            (false, 1, 0, true),
            (true, 1, 1, false),
        ] {
            let mut state = State::new();
            (state.watching, state.active, state.leaving) = (watching, active, leaving);
            state.pace = if quick { SHORT / 2 } else { SHORT * 2 };
            let may_wait = watching && quick && (active, leaving) != (0, 0);
            assert_eq!(state.can_wait(), may_wait, "{watching} {active} {leaving} {quick}");
        }
    }

    #[test]
    fn a_handler_is_left_to_those_inside_only_while_some_work() {
        let mut state = State::new();
        state.fresh.extend(jobs(1));
        state.deferred = Some(0);
        assert!(state.runnable(2), "nobody is inside");
        state.active = 1;
        assert!(!state.runnable(2));
        assert!(state.next(2, Some(0)).is_some(), "for the one inside it is there");
        state.deferred = Some(1);
        assert!(state.runnable(2), "another one's");
    }

    #[test]
    fn a_thread_that_has_left_is_in_no_book() {
        let mut state = State::new();
        let [one, other] = [(); 2].map(|()| Arc::new(Thread::current()));
        state.crew.extend([one.clone(), other.clone()]);
        state.threads = 2;
        assert!(matches!(&*state.others(&one), [found] if Arc::ptr_eq(found, &other)));
        state.left(&one);
        assert_eq!(state.threads, 1);
        assert!(matches!(&*state.crew, [found] if Arc::ptr_eq(found, &other)));
    }
}
