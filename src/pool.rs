//! The worker pool: the threads that synchronous code runs on.
//!
//! One queue for all threads, under one lock. A job is a shared object (see `wsgi::call`) and queueing it allocates
//! nothing. Three lanes: *discards* (values whose drop has to run off the async threads) come first, then
//! *fresh* requests and *resumed* bodies take turns, so that neither a flood of downloads nor a flood of requests
//! starves the other.
//!
//! Threads start on demand, sleep when idle, the most recently used one is woken first, and those that
//! nobody needed for [`KEEP_ALIVE`] end. A thread that found nothing looks again for a moment before it sleeps; while one
//! looks, nobody is woken. Whoever takes a job and sees another wakes the next thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::parker::Parker;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, local, lock, yield_now};

/// How long an idle thread stays (tokio's blocking pool keeps its threads as long).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often a thread that ran out of work yields and looks again before it sleeps: for some 60 microseconds on an idle machine. To be woken
/// costs more than the whole of a small handler, most of all where an idle core was given back to a hypervisor. Measured from 0 to 400: throughput
/// under load does not depend on it, but 20 to 100 are worse than none for one request at a time, and 200 halves its latency.
#[cfg(not(tower_wsgi_loom))]
const SEARCHES: usize = 200;
#[cfg(tower_wsgi_loom)]
const SEARCHES: usize = 1;

/// How many handlers, per worker, may run, or wait for something that may itself need a worker, before no new request is taken up. What those wait for
/// still is, so that they go on: the bound is on threads and not on progress.
const NESTING: usize = 4;

/// Something for a worker to do.
pub(crate) trait Job: Send + Sync {
    /// Does it, or drops what is left of it if nobody waits for it any more. Must not unwind.
    fn run(self: Arc<Self>);

    /// Nobody will run it: no thread could be started. Must not block.
    fn refuse(self: Arc<Self>, error: io::Error);
}

/// The threads that synchronous handlers run on.
///
/// At most `workers` handlers run at once. Threads start when there is work and end after ten idle seconds. A handler
/// that waits inside [`Next::run`](crate::Next::run) lends its place to another one meanwhile, so that waiting handlers cannot
/// keep the service they wait for from running. What they wait for is recognised by its request's extensions, and by being polled by them; a service that gets at its own pool over a
/// connection, or from a task with a request of its own, needs another pool, or [`queue_timeout`](crate::WsgiLayer::queue_timeout). Cloning is cheap and shares the pool, so that several layers can draw on the same threads:
///
/// ```
/// use tower_wsgi::{WorkerPool, WsgiLayer};
/// # use tower_wsgi::{Input, Output};
/// # use http::{Request, Response};
/// # fn shop(_: Request<Input>) -> Response<Output> { Response::new("".into()) }
/// # fn blog(_: Request<Input>) -> Response<Output> { Response::new("".into()) }
///
/// let pool = WorkerPool::new(15);
/// let shop = WsgiLayer::new(shop).at("/shop").pool(pool.clone());
/// let blog = WsgiLayer::new(blog).at("/blog").pool(pool);
/// ```
///
/// # Dropping
/// When the last clone and the last request are gone, the threads end on their own. Dropping never blocks.
#[derive(Clone)]
pub struct WorkerPool {
    handle: Arc<Handle>,
}

/// A moment's view of a [`WorkerPool`], from [`WorkerPool::stats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Threads that run a handler or a body at this moment.
    pub busy: usize,
    /// Threads inside a handler that waits for an inner service and has lent its place to another.
    pub lending: usize,
    /// Workers alive, whatever they do.
    pub threads: usize,
    /// Requests that wait for a worker.
    pub queued: usize,
    /// Response bodies that have room again, and requests that a handler waits for, both waiting for a worker.
    pub resumed: usize,
    /// What vanished and refused clients left, waiting to be dropped.
    pub discards: usize,
}

/// Ends the threads when the last user of the pool goes.
struct Handle {
    core: Arc<Core>,
}

struct Core {
    workers: usize,
    /// Jobs in all lanes, for the thread that looks without the lock.
    pending: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    discards: VecDeque<Arc<dyn Job>>,
    fresh: VecDeque<Arc<dyn Job>>,
    resumed: VecDeque<Arc<dyn Job>>,
    /// Whose turn it is.
    resumed_next: bool,
    threads: usize,
    /// Threads that run a job and are not in [`lend`].
    active: usize,
    /// Threads in [`lend`].
    lending: usize,
    /// Threads that look for work, or were just woken to.
    searching: usize,
    /// Idle threads, the most recently used last.
    sleepers: Vec<Arc<Sleeper>>,
    /// Threads that were in [`lend`] and want their place back, first come first.
    returning: VecDeque<Arc<Sleeper>>,
    /// Extra threads that only drop what vanished clients left.
    reapers: usize,
    shutdown: bool,
}

/// A thread that waits, and whether its wish was granted.
struct Sleeper {
    granted: AtomicBool,
    waker: Waker,
}

/// A pool has too much to do.
#[derive(Debug)]
pub(crate) struct Full;

local! {
    /// The pool whose worker this thread is.
    static CURRENT: RefCell<Option<Arc<Core>>> = RefCell::new(None);
}

impl WorkerPool {
    /// A pool that runs at most `workers` handlers at once. No thread is started before the first job. Threads inside [`Next::run`](crate::Next::run)
    /// come on top, and so do, while all workers are busy, up to `workers` threads that only drop what vanished clients left.
    ///
    /// # Panics
    /// If `workers` is 0.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        assert!(workers > 0, "a WorkerPool needs at least one worker");
        Self {
            handle: Arc::new(Handle {
                core: Arc::new(Core {
                    workers,
                    pending: AtomicUsize::new(0),
                    state: Mutex::new(State {
                        discards: VecDeque::new(),
                        fresh: VecDeque::new(),
                        resumed: VecDeque::new(),
                        resumed_next: false,
                        threads: 0,
                        active: 0,
                        lending: 0,
                        searching: 0,
                        sleepers: Vec::new(),
                        returning: VecDeque::new(),
                        reapers: 0,
                        shutdown: false,
                    }),
                }),
            }),
        }
    }

    /// How many handlers can run at once.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.handle.core.workers
    }

    /// What the pool does at this moment.
    ///
    /// ```
    /// let pool = tower_wsgi::WorkerPool::new(4);
    /// assert_eq!(pool.stats().threads, 0);
    /// ```
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let state = lock(&self.handle.core.state);
        PoolStats {
            busy: state.active,
            lending: state.lending,
            threads: state.threads,
            queued: state.fresh.len(),
            resumed: state.resumed.len(),
            discards: state.discards.len(),
        }
    }

    /// Queues a new request, unless `max_queued` others wait already that no free worker could take.
    pub(crate) fn submit(&self, job: Arc<dyn Job>, max_queued: usize) -> Result<(), Full> {
        let core = &self.handle.core;
        let mut state = lock(&core.state);
        let free = state.free(core.workers);
        if state.fresh.len() >= max_queued.saturating_add(free) {
            return Err(Full);
        }
        state.fresh.push_back(job);
        core.attend(state);
        Ok(())
    }

    /// Queues a job that was admitted before: a body that goes on, or a request that a handler on this pool waits for.
    pub(crate) fn resume(&self, job: Arc<dyn Job>) {
        let core = &self.handle.core;
        let mut state = lock(&core.state);
        state.resumed.push_back(job);
        core.attend(state);
    }

    /// Has a worker drop what is left of `job`. If none is free, an extra thread does it: what is dropped may be
    /// what all workers wait for (a connection of a pool, say).
    pub(crate) fn discard(&self, job: Arc<dyn Job>) {
        let core = &self.handle.core;
        let mut state = lock(&core.state);
        state.discards.push_back(job);
        core.attend(state);
    }

    /// Moves a queued job to the discards. Does nothing if a worker has it already.
    pub(crate) fn withdraw(&self, job: &Arc<dyn Job>) {
        let core = &self.handle.core;
        let mut state = lock(&core.state);
        let State { fresh, resumed, .. } = &mut *state;
        let found = [fresh, resumed].into_iter().find_map(|lane| {
            let place = lane.iter().position(|other| Arc::ptr_eq(other, job))?;
            lane.remove(place)
        });
        if let Some(job) = found {
            state.discards.push_back(job);
            core.attend(state);
        }
    }

    /// What tells it from other pools.
    pub(crate) fn id(&self) -> usize {
        self.handle.core.id()
    }

    /// Whether somebody waits for a worker.
    pub(crate) fn is_wanted(&self) -> bool {
        self.handle.core.pending.load(Ordering::Relaxed) > 0
    }
}

impl Default for WorkerPool {
    /// Ten workers, as in a2wsgi.
    fn default() -> Self {
        Self::new(10)
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("workers", &self.workers()).field("stats", &self.stats()).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = lock(&self.core.state);
        state.shutdown = true;
        let sleepers = std::mem::take(&mut state.sleepers);
        state.searching += sleepers.len();
        drop(state);
        for sleeper in sleepers {
            sleeper.grant();
        }
    }
}

/// Runs `wait`, which blocks, with the calling worker's place lent to another one. Elsewhere it only runs it.
///
/// Without this, as many handlers as there are workers could wait for an inner service that needs a worker, for ever.
pub(crate) fn lend<R>(wait: impl FnOnce() -> R) -> R {
    struct Return(Arc<Core>);
    impl Drop for Return {
        fn drop(&mut self) {
            self.0.take_back();
        }
    }

    let core = CURRENT.with(|current| current.borrow().clone());
    let _return = core.map(|core| {
        core.lend();
        Return(core)
    });
    wait()
}

/// The [`id`](WorkerPool::id) of the pool whose worker the calling thread is.
pub(crate) fn current() -> Option<usize> {
    CURRENT.with(|current| current.borrow().as_ref().map(Core::id))
}

/// Whether the calling thread is a worker of a pool.
pub(crate) fn is_worker() -> bool {
    current().is_some()
}

impl Core {
    fn id(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Sees to it that somebody takes the job that was just queued. Consumes the guard: threads are woken and
    /// started without the lock.
    fn attend(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        self.pending.store(state.pending(), Ordering::Relaxed);
        if state.searching > 0 {
            // It will see the job, and if there is more it will wake the next.
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
                lock(&self.state).reapers -= 1;
            }
        }
    }

    /// Wakes an idle thread, if there is one.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.searching == 0
            && let Some(sleeper) = state.sleepers.pop()
        {
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
        if state.active > 0 || state.searching > 0 || !state.sleepers.is_empty() {
            tracing::warn!(%error, threads = state.threads, "no thread for another worker");
            // One may have gone to sleep since, for this thread would have taken the job.
            if state.runnable(self.workers) {
                self.wake(state);
            }
            return;
        }
        // Nobody is left who would ever run these; threads that lend their place wait for some of them.
        let State { discards, fresh, resumed, .. } = &mut *state;
        let refused: Vec<_> = discards.drain(..).chain(fresh.drain(..)).chain(resumed.drain(..)).collect();
        self.pending.store(state.pending(), Ordering::Relaxed);
        drop(state);
        tracing::error!(%error, "no thread for a worker");
        for job in refused {
            job.refuse(io::Error::new(error.kind(), error.to_string()));
        }
    }

    /// The life of a worker.
    fn work(self: Arc<Self>) {
        CURRENT.with(|current| *current.borrow_mut() = Some(self.clone()));
        let mut state = lock(&self.state);
        state.searching -= 1;
        loop {
            if let Some(job) = state.pop(self.workers) {
                state.active += 1;
                if state.runnable(self.workers) {
                    self.attend(state);
                } else {
                    self.pending.store(state.pending(), Ordering::Relaxed);
                    drop(state);
                }
                run(job);
                state = lock(&self.state);
                state.active -= 1;
                state.grant_returning(self.workers);
                continue;
            }
            if state.shutdown {
                break;
            }
            state = match self.idle(state) {
                Some(state) => state,
                None => return,
            };
        }
        state.threads -= 1;
    }

    /// Waits for work: looks for a moment, then sleeps. `None` if the thread was idle for so long that it ends.
    fn idle<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Option<MutexGuard<'a, State>> {
        if state.searching == 0 {
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
                return Some(state);
            }
        }
        let parker = Parker::current();
        let sleeper = Sleeper::new(&parker);
        state.sleepers.push(sleeper.clone());
        drop(state);
        let woken = sleeper.wait(&parker, Some(Instant::now() + KEEP_ALIVE));
        let mut state = lock(&self.state);
        if !woken {
            let place = state.sleepers.iter().position(|other| Arc::ptr_eq(other, &sleeper));
            if let Some(place) = place {
                state.sleepers.remove(place);
                state.threads -= 1;
                return None;
            }
            // It was granted between the timeout and the lock.
        }
        state.searching -= 1;
        Some(state)
    }

    /// The life of an extra thread: it drops what vanished clients left while every worker is busy.
    fn reap(&self) {
        loop {
            let mut state = lock(&self.state);
            let Some(job) = state.discards.pop_front() else {
                state.reapers -= 1;
                return;
            };
            self.pending.store(state.pending(), Ordering::Relaxed);
            drop(state);
            run(job);
        }
    }

    /// Gives a worker's place away.
    fn lend(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.lending += 1;
        state.active -= 1;
        state.grant_returning(self.workers);
        if state.runnable(self.workers) {
            self.attend(state);
        }
    }

    /// Waits for a place.
    fn take_back(self: &Arc<Self>) {
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

impl State {
    fn pending(&self) -> usize {
        self.discards.len() + self.fresh.len() + self.resumed.len()
    }

    /// How many new requests could be taken up at once.
    fn free(&self, workers: usize) -> usize {
        // Those that run may come to lend, too.
        let may_lend = (workers * NESTING).saturating_sub(self.lending + self.active);
        may_lend.min(workers.saturating_sub(self.active))
    }

    /// Whether a thread that comes now would find something to do.
    fn runnable(&self, workers: usize) -> bool {
        !self.discards.is_empty()
            || self.active < workers && !self.resumed.is_empty()
            || self.free(workers) > 0 && !self.fresh.is_empty()
    }

    fn pop(&mut self, workers: usize) -> Option<Arc<dyn Job>> {
        if let Some(job) = self.discards.pop_front() {
            return Some(job);
        }
        if self.active >= workers {
            return None;
        }
        let fresh_allowed = self.free(workers) > 0 && !self.fresh.is_empty();
        let resumed = !fresh_allowed || self.resumed_next && !self.resumed.is_empty();
        self.resumed_next = !resumed;
        if resumed { self.resumed.pop_front() } else { self.fresh.pop_front() }
    }

    /// Lets those go on who wait to, as far as there are places.
    fn grant_returning(&mut self, workers: usize) {
        while self.active < workers
            && let Some(sleeper) = self.returning.pop_front()
        {
            self.active += 1;
            sleeper.grant();
        }
    }
}

impl Sleeper {
    fn new(parker: &Parker) -> Arc<Self> {
        Arc::new(Self { granted: AtomicBool::new(false), waker: parker.waker().clone() })
    }

    fn grant(&self) {
        self.granted.store(true, Ordering::Release);
        self.waker.wake_by_ref();
    }

    /// Waits for the grant; false if the deadline came first.
    fn wait(&self, parker: &Parker, deadline: Option<Instant>) -> bool {
        while !self.granted.load(Ordering::Acquire) {
            if !parker.park_until(deadline) {
                return false;
            }
        }
        true
    }
}

/// Runs a job. What it drops last is a user's, too: a panic of it must not take the thread's place in the books with it.
fn run(job: Arc<dyn Job>) {
    if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
        tracing::error!("a panic while a request was dropped");
    }
}

#[cfg(not(tower_wsgi_loom))]
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

#[cfg(tower_wsgi_loom)]
fn spawn(_: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    drop(loom::thread::spawn(work));
    Ok(())
}
