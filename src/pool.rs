//! The worker pool: the threads that synchronous code runs on.
//!
//! One queue for all threads, under one lock. A job is a shared object (see `wsgi::call`) and queueing it allocates
//! nothing. Three lanes: *discards* (values whose drop has to run off the async threads) come first, then
//! *fresh* requests and *resumed* bodies take turns, so that neither a flood of downloads nor a flood of requests
//! starves the other.
//!
//! Threads start on demand, sleep when idle, the most recently used one is woken first, and those that
//! nobody needed for a while end. A thread that found nothing looks again for a moment before it sleeps; while one
//! looks, nobody is woken. Whoever takes a job and sees another wakes the next thread, unless jobs are so short that the thread would come too late: then an idle
//! one watches, and comes when a request has waited for some milliseconds.
//!
//! A thread goes into a handler ([`Group::enter`]) once for as many jobs as it finds there. It takes none before it is in, so that a handler that lets in one thread at a time keeps no request
//! waiting in the hands of another.

mod crew;
mod lanes;
mod thread;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::lanes::{Sleeper, State};
use crate::parker::Parker;
use crate::sync::{AtomicUsize, Mutex, Ordering, local, lock, now};

/// Something for a worker to do.
pub(crate) trait Job: Send + Sync {
    /// Does it, or drops what is left of it if nobody waits for it any more. Must not unwind.
    fn run(self: Arc<Self>);

    /// Nobody will run it: no thread could be started. Must not block.
    fn refuse(self: Arc<Self>, error: io::Error);

    /// The handler whose job it is.
    fn group(&self) -> Arc<dyn Group>;

    /// What tells its handler from others.
    fn group_id(&self) -> usize;
}

/// What several jobs have in common: a handler, which a worker goes into once for as many of them as there are.
pub(crate) trait Group: Send + Sync {
    /// Calls `inside`, once.
    fn enter(&self, inside: &mut dyn FnMut());
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
/// let blog = WsgiLayer::new(blog).at("/blog").pool(pool.clone());
/// assert_eq!(pool.workers(), 15); // for both of them
/// assert_eq!(pool.stats().threads, 0); // nothing to do yet
/// ```
///
/// # Dropping
/// When the last clone and the last request are gone, the threads end on their own. Dropping never blocks.
#[derive(Clone)]
pub struct WorkerPool {
    handle: Arc<Handle>,
}

/// A moment's view of a [`WorkerPool`], from [`WorkerPool::stats`].
///
/// ```
/// use tower_wsgi::{PoolStats, WorkerPool};
///
/// /// What a page of metrics says.
/// fn metrics(pool: &WorkerPool) -> String {
///     let PoolStats { busy, queued, rejected, .. } = pool.stats();
///     format!("busy {busy} of {}, queued {queued}, rejected {rejected}", pool.workers())
/// }
///
/// assert_eq!(metrics(&WorkerPool::new(4)), "busy 0 of 4, queued 0, rejected 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Threads that run a handler or a body at this moment. One that has handed over the end of its response is among them until it has cleaned up.
    pub busy: usize,
    /// Threads that sleep, or look for work.
    pub idle: usize,
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
    /// Requests that were refused so far, since the pool was made: over `max_queued`, over `queue_timeout`, or for want of a thread.
    pub rejected: u64,
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

/// A pool has too much to do.
#[derive(Debug)]
pub(crate) struct Full;

local! {
    /// The pool whose worker this thread is.
    static CURRENT: RefCell<Option<Arc<Core>>> = RefCell::new(None);
}

local! {
    /// Whether this thread's last job comes back when somebody has used up what it made, and not at once.
    static PAUSED: Cell<bool> = Cell::new(false);
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
                    state: Mutex::new(State::new()),
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
    ///
    /// # Blocking
    /// Takes the pool's lock for a moment: for every second or so, not for every request.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let state = lock(&self.handle.core.state);
        PoolStats {
            busy: state.active,
            idle: state.sleepers.len() + state.searching,
            lending: state.lending,
            threads: state.threads,
            queued: state.fresh.len(),
            resumed: state.resumed.len(),
            discards: state.discards.len(),
            rejected: state.rejected,
        }
    }

    /// Waits until nothing runs on the pool, nothing waits for a worker, and what vanished clients left is dropped. True once that is so, false if it did not come to it within `timeout`. For the end of a
    /// program, which would cut off a thread wherever it is: behind the server's graceful shutdown, when no new requests come.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_wsgi::{WorkerPool, WsgiLayer};
    ///
    /// let pool = WorkerPool::new(15);
    /// let layer = WsgiLayer::adapter().pool(pool.clone());
    /// // … a server runs with the layer, and ends.
    /// # drop(layer);
    /// assert!(pool.wait_idle(Duration::from_secs(5)), "handlers are cut off: {:?}", pool.stats());
    /// ```
    ///
    /// Handlers whose client has left hear of it ([`Environ::is_disconnected`](crate::Environ::is_disconnected)), and end when they do. A body that was put aside until its client reads on does nothing, and is not waited for: end
    /// the server's connections first, a runtime by its `shutdown_timeout`.
    ///
    /// # Blocking
    /// Blocks the calling thread, which the last one to do something wakes. Not for async tasks: there it belongs into `spawn_blocking`. A worker of the same pool would wait for itself.
    #[must_use = "it tells whether something was cut off"]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let core = &self.handle.core;
        let mut state = lock(&core.state);
        if state.is_at_rest() {
            return true;
        }
        let parker = Parker::current();
        let sleeper = Sleeper::new(&parker);
        state.onlookers.push(sleeper.clone());
        drop(state);
        // A time limit too long to be told is none.
        let rested = sleeper.wait(&parker, now().checked_add(timeout));
        if !rested {
            lock(&core.state).onlookers.retain(|other| !Arc::ptr_eq(other, &sleeper));
        }
        rested
    }

    /// Queues a new request, unless `max_queued` others wait already that no free worker could take.
    pub(crate) fn submit(&self, job: Arc<dyn Job>, max_queued: usize) -> Result<(), Full> {
        let core = &self.handle.core;
        let mut state = lock(&core.state);
        let free = state.free(core.workers);
        if state.fresh.len() >= max_queued.saturating_add(free) {
            state.rejected += 1;
            return Err(Full);
        }
        state.fresh.push_back(job);
        if state.can_wait() {
            core.pending.store(state.pending(), Ordering::Relaxed);
        } else {
            core.attend(state);
        }
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
        if let Some(job) = state.remove(job) {
            state.discards.push_back(job);
            core.attend(state);
        }
    }

    /// A request was refused that had been queued.
    pub(crate) fn count_rejected(&self) {
        lock(&self.handle.core.state).rejected += 1;
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
    /// Ten workers, as in a2wsgi. Handlers that block need more, the longer they block; those that compute need no more than there are cores, and lose nothing by ten.
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

/// Notes that the job which the calling worker ends with comes back when somebody has used up what it made: to look for it until then would take a core from whoever that is.
pub(crate) fn pause() {
    PAUSED.with(|paused| paused.set(true));
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
}
