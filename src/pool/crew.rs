//! The threads of a pool: their starts, their sleeps and their ends.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::lanes::{Sleeper, State};
use super::thread::Thread;
use super::{CURRENT, Core, Job, PAUSED};
use crate::parker::Parker;
use crate::sync::{MutexGuard, Ordering, is_timed, lock, now, spawn, yield_now};

/// How long an idle thread stays (tokio's blocking pool keeps its threads as long).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often a thread that ran out of work yields and looks again before it sleeps: for some 60 microseconds on an idle machine. To be woken
/// costs more than the whole of a small handler, most of all where an idle core was given back to a hypervisor. Measured from 0 to 400: throughput
/// under load does not depend on it, but 20 to 100 are worse than none for one request at a time, and 200 halves its latency. Not after a job that [paused](super::pause).
#[cfg(not(tower_wsgi_loom))]
const SEARCHES: usize = 200;
#[cfg(tower_wsgi_loom)]
const SEARCHES: usize = 1;

/// How often the watcher looks: a new request that nobody was woken for waits at most for two of these. Longer than the operating system lets one thread run while another wants its core, or a thread that was
/// only interrupted would be taken for one that blocks.
const TICK: Duration = Duration::from_millis(3);

/// After so many looks at a pool that does nothing the watcher sleeps as the others do.
const QUIET: usize = 10;

/// A way into a handler that takes as long as this is one that somebody stands in: CPython's global lock changes hands every 5 milliseconds.
const SLOW: Duration = Duration::from_millis(4);

/// For how many looks of the watcher nobody else tries a way in that was found slow. It ends earlier where nothing gets done in there from one look to the next, or nobody in there runs: what they wait for leaves room for
/// another.
const DEFERRAL: usize = 64;

/// What came of a thread's way into a handler.
#[derive(PartialEq, Eq)]
enum Way {
    /// The handler did not call back.
    Closed,
    Entered,
    /// It was slow, and those who are inside got work done meanwhile: one more would only be in their way.
    Slow,
    /// Those who were inside before are back at work, and fast enough.
    Relieved,
}

/// What a watcher came for.
struct Relief {
    /// The requests that had come by then.
    arrived: u64,
    /// The jobs that were done by then.
    done: u64,
}

impl Core {
    /// Sees to it that somebody takes the job that was just queued. Consumes the guard: threads are woken and
    /// started without the lock.
    pub(super) fn attend(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        self.pending.store(state.pending(), Ordering::Relaxed);
        if state.is_seen() {
            return;
        }
        if state.runnable(self.workers) {
            if !state.sleepers.is_empty() {
                return self.wake(state);
            }
            if state.threads < self.workers + state.lending {
                state.threads += 1;
                state.searching += 1;
                drop(state);
                self.start_worker();
                return;
            }
        }
        if !state.discards.is_empty() && state.reapers < self.workers {
            state.reapers += 1;
            drop(state);
            let core = self.clone();
            if let Err(error) = spawn("tower-wsgi-reaper", move || core.reap()) {
                tracing::warn!(%error, "no thread for dropping what a client left; a worker will");
                let mut state = lock(&self.state);
                state.reapers -= 1;
                state.grant_onlookers();
            }
        }
    }

    /// Wakes an idle thread, if there is one.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.is_seen() {
            return;
        }
        if let Some(sleeper) = state.sleepers.pop() {
            state.searching += 1;
            drop(state);
            sleeper.grant();
        }
    }

    fn start_worker(self: &Arc<Self>) {
        let core = self.clone();
        let Err(error) = spawn("tower-wsgi-worker", move || core.work()) else {
            return;
        };
        let mut state = lock(&self.state);
        state.threads -= 1;
        state.searching -= 1;
        // One on its way into a handler will run jobs, too, and one on its way out will look for more.
        let is_manned = state.active + state.searching + state.leaving > 0 || !state.entering.is_empty();
        if is_manned || !state.sleepers.is_empty() {
            tracing::warn!(%error, threads = state.threads, "no thread for another worker");
            // One may have gone to sleep since, for this thread would have taken the job.
            if state.runnable(self.workers) {
                self.wake(state);
            }
            return;
        }
        // Nobody is left who would ever run these; threads that lend their place wait for some of them.
        let State { discards, fresh, resumed, rejected, .. } = &mut *state;
        *rejected += fresh.len() as u64;
        let refused: Vec<_> = discards.drain(..).chain(fresh.drain(..)).chain(resumed.drain(..)).collect();
        self.pending.store(state.pending(), Ordering::Relaxed);
        // This thread does what an extra one would.
        state.reapers += 1;
        drop(state);
        tracing::error!(%error, "no thread for a worker");
        for job in refused {
            job.refuse(io::Error::new(error.kind(), error.to_string()));
        }
        let mut state = lock(&self.state);
        state.reapers -= 1;
        state.grant_onlookers();
    }

    /// The life of a worker.
    fn work(self: Arc<Self>) {
        CURRENT.with(|current| *current.borrow_mut() = Some(self.clone()));
        let thread = Arc::new(Thread::current());
        let mut state = lock(&self.state);
        state.crew.push(thread.clone());
        state.searching -= 1;
        let mut relief = None;
        loop {
            let next = state.next(self.workers, None).cloned();
            let mut slow = None;
            if let Some(next) = next {
                let id = next.group_id();
                let way;
                (way, state) = self.enter(next, relief.take(), state);
                slow = (way == Way::Slow).then_some(id);
                if matches!(way, Way::Closed | Way::Entered) {
                    continue;
                }
            }
            if state.shutdown && !state.runnable(self.workers) {
                break;
            }
            let Some(roused) = self.idle(state, &thread, slow) else { return };
            (relief, state) = roused;
        }
        state.left(&thread);
    }

    /// Goes into the handler of the job that comes next, and runs its jobs there until another's turn comes, or there are none.
    fn enter<'a>(
        self: &'a Arc<Self>,
        next: Arc<dyn Job>,
        relief: Option<Relief>,
        mut state: MutexGuard<'a, State>,
    ) -> (Way, MutexGuard<'a, State>) {
        let (group, id) = (next.group(), next.group_id());
        // Not held in there: a job that is kept is not over.
        drop(next);
        state.entering.push(id);
        let before = state.done;
        if state.runnable(self.workers) {
            // What it was woken for may be another handler's, which must not wait for this one's way in.
            self.attend(state);
        } else {
            drop(state);
        }
        let began = now();
        let mut way = Way::Closed;
        let mut inside = || {
            if way != Way::Closed {
                return;
            }
            let mut state = lock(&self.state);
            state.entered(id);
            let is_worked = state.active > 0 && state.done != before && state.last == Some(id);
            let is_slow = is_worked && now() - began >= SLOW;
            way = if is_slow { Way::Slow } else { self.run_group(id, relief.as_ref(), state) };
        };
        if catch_unwind(AssertUnwindSafe(|| group.enter(&mut inside))).is_err() {
            tracing::error!("a panic in a handler's way in");
        }
        // It may be the last one to know the handler, and the pool's own handle with it: not under the lock.
        drop(group);
        let mut state = lock(&self.state);
        if way == Way::Closed {
            state.entered(id);
            self.run_group(id, None, state);
            state = lock(&self.state);
        }
        if way != Way::Slow {
            state.leaving -= 1;
        }
        state.grant_onlookers();
        (way, state)
    }

    /// Runs jobs of one handler, as long as it is their turn, or until the relief is not needed any more.
    fn run_group<'a>(
        self: &'a Arc<Self>,
        group: usize,
        relief: Option<&Relief>,
        mut state: MutexGuard<'a, State>,
    ) -> Way {
        let mut began = now();
        let mut done = 0;
        loop {
            if state.next(self.workers, Some(group)).is_none_or(|next| next.group_id() != group) {
                break;
            }
            if relief.is_some_and(|relief| {
                state.is_quick()
                    && state.active > 0
                    && !state.is_stale(relief.arrived)
                    && state.done > relief.done + done
            }) {
                state.leaving += 1;
                return Way::Relieved;
            }
            let Some(job) = state.pop(self.workers, Some(group)) else { break };
            state.active += 1;
            if state.runnable(self.workers) && !state.can_wait() {
                self.attend(state);
            } else {
                self.pending.store(state.pending(), Ordering::Relaxed);
                drop(state);
            }
            run(job);
            state = lock(&self.state);
            let ended = now();
            state.note(group, ended - began);
            began = ended;
            done += 1;
            state.active -= 1;
            state.grant_returning(self.workers);
        }
        state.leaving += 1;
        Way::Entered
    }

    /// Waits for work: looks for a moment, then sleeps. `None` if the thread was idle for so long that it ends.
    fn idle<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        thread: &Arc<Thread>,
        slow: Option<usize>,
    ) -> Option<(Option<Relief>, MutexGuard<'a, State>)> {
        // Where another thread does what comes at once, two that look would only take turns.
        let is_alone = state.active == 0 || !state.is_quick();
        let is_paused = PAUSED.with(Cell::get);
        if state.searching == 0 && is_alone && !is_paused && slow.is_none() {
            state.searching = 1;
            drop(state);
            for _ in 0..SEARCHES {
                yield_now();
                if self.pending.load(Ordering::Relaxed) > 0 {
                    break;
                }
            }
            state = lock(&self.state);
            state.searching -= 1;
            if state.runnable(self.workers) || state.shutdown {
                return Some((None, state));
            }
        }
        let parker = Parker::current();
        let sleeper = Sleeper::new(&parker);
        state.sleepers.push(sleeper.clone());
        let is_somebody_up = state.threads > state.sleepers.len();
        if slow.is_some() && (state.watching || is_somebody_up) {
            state.deferred = slow;
        }
        if is_timed() && !state.watching && is_somebody_up {
            let roused;
            (roused, state) = self.watch(state, thread, &sleeper, &parker);
            if let Some(relief) = roused {
                return Some((relief, state));
            }
        }
        drop(state);
        let woken = sleeper.wait(&parker, Some(now() + KEEP_ALIVE));
        let mut state = lock(&self.state);
        // It may have been granted between the timeout and the lock.
        if !woken && state.rouse(&sleeper) {
            state.left(thread);
            return None;
        }
        state.searching -= 1;
        Some((None, state))
    }

    /// Sleeps, and looks from time to time for a new request that has waited for too long although some thread works. `Some` if the thread is needed, as a relief or because it was woken; `None` when the pool
    /// has been doing nothing for a while.
    fn watch<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        thread: &Arc<Thread>,
        sleeper: &Arc<Sleeper>,
        parker: &Parker,
    ) -> (Option<Option<Relief>>, MutexGuard<'a, State>) {
        state.watching = true;
        let mut quiet = 0;
        let mut deferral = 0;
        let roused = loop {
            let (arrived, done) = (state.arrived(), state.done);
            drop(state);
            sleeper.wait(parker, Some(now() + TICK));
            state = lock(&self.state);
            if state.deferred.is_some() {
                let others = state.others(thread);
                drop(state);
                let is_somebody_running = others.iter().any(|other| other.is_running());
                state = lock(&self.state);
                deferral += 1;
                if !is_somebody_running || state.done == done || deferral == DEFERRAL {
                    state.deferred = None;
                    deferral = 0;
                }
            }
            if !state.is_asleep(sleeper) {
                state.searching -= 1;
                break Some(None);
            }
            if state.runnable(self.workers) && state.is_stale(arrived) {
                state.rouse(sleeper);
                break Some(Some(Relief { arrived: state.arrived(), done: state.done }));
            }
            quiet = if state.active == 0 { quiet + 1 } else { 0 };
            if quiet == QUIET {
                break None;
            }
        };
        state.watching = false;
        // Nobody else would end it.
        state.deferred = None;
        (roused, state)
    }

    /// The life of an extra thread: it drops what vanished clients left while every worker is busy.
    fn reap(&self) {
        loop {
            let mut state = lock(&self.state);
            let Some(job) = state.discards.pop_front() else {
                state.reapers -= 1;
                state.grant_onlookers();
                return;
            };
            self.pending.store(state.pending(), Ordering::Relaxed);
            drop(state);
            run(job);
        }
    }

    /// Gives a worker's place away.
    pub(super) fn lend(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.lending += 1;
        state.active -= 1;
        state.grant_returning(self.workers);
        if state.runnable(self.workers) {
            self.attend(state);
        }
    }

    /// Waits for a place.
    pub(super) fn take_back(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.lending -= 1;
        if state.active < self.workers && state.returning.is_empty() {
            state.active += 1;
            // Requests may have waited for fewer to be lending.
            if state.runnable(self.workers) {
                self.attend(state);
            }
            return;
        }
        let parker = Parker::current();
        let sleeper = Sleeper::new(&parker);
        state.returning.push_back(sleeper.clone());
        drop(state);
        sleeper.wait(&parker, None);
    }
}

/// Runs a job. What it drops last is a user's, too: a panic of it must not take the thread's place in the books with it.
fn run(job: Arc<dyn Job>) {
    PAUSED.with(|paused| paused.set(false));
    if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
        tracing::error!("a panic while a request was dropped");
    }
}
