//! Who waits for whom: what keeps handlers that wait for their own pool from waiting for ever.
//!
//! A worker that waits lends its place (see [`pool`](crate::pool)). That is not enough where so many wait already that no new request is taken up: those that are waited
//! for have to be known. And a worker that does not lend has to know when what it waits for needs a worker.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use http::Request;

use crate::pool::{WorkerPool, current};
use crate::sync::local;

/// A request extension: the pools on which handlers wait for this request. It goes with the request, so that it is not lost where a
/// service in between runs it in a task of its own.
#[derive(Clone)]
struct Nested(Arc<Waiting>);

struct Waiting {
    pool: usize,
    outer: Option<Nested>,
}

local! {
    /// Who waits for the request whose handler this thread runs.
    static ON_BEHALF: RefCell<Option<Nested>> = RefCell::new(None);
}

local! {
    /// Whether something that this thread polled waits for a worker of its pool.
    static RELIES: Cell<bool> = Cell::new(false);
}

local! {
    /// For whose pool this thread polls, if not for itself.
    static POLLS_FOR: Cell<Option<usize>> = Cell::new(None);
}

/// For whom a thread polls: what has to be known where another thread does it instead.
pub(crate) struct Behalf {
    pool: Option<usize>,
    waiting: Option<Nested>,
}

impl Behalf {
    pub(crate) fn current() -> Self {
        Self { pool: current(), waiting: ON_BEHALF.with(|waiting| waiting.borrow().clone()) }
    }

    /// Polls as the thread itself would; tells too whether something that was polled waits for a worker of that one's pool.
    pub(crate) fn poll<T>(&self, poll: impl FnOnce() -> T) -> (T, bool) {
        struct Restore(Option<usize>, bool);
        impl Drop for Restore {
            fn drop(&mut self) {
                POLLS_FOR.with(|polls_for| polls_for.set(self.0));
                RELIES.with(|relies| relies.set(relies.get() || self.1));
            }
        }

        let polls_for = POLLS_FOR.with(|polls_for| polls_for.replace(self.pool));
        let _restore = Restore(polls_for, RELIES.with(|relies| relies.replace(false)));
        let polled = waiting_for(self.waiting.clone(), poll);
        (polled, relies_on_pool())
    }
}

/// Whether a handler on `pool` waits for the request.
pub(crate) fn is_waited_for<B>(request: &Request<B>, pool: &WorkerPool) -> bool {
    let mut next = request.extensions().get::<Nested>();
    while let Some(Nested(waiting)) = next {
        if waiting.pool == pool.id() {
            return true;
        }
        next = waiting.outer.as_ref();
    }
    false
}

/// Notes that something that is polled here waits for one of the workers of `pool`.
pub(crate) fn note_reliance(pool: &WorkerPool) {
    if [current(), POLLS_FOR.with(Cell::get)].contains(&Some(pool.id())) {
        RELIES.with(|relies| relies.set(true));
    }
}

/// Whether something that was polled since [`forget_reliance`] waits for a worker of the calling worker's pool.
pub(crate) fn relies_on_pool() -> bool {
    RELIES.with(Cell::get)
}

pub(crate) fn forget_reliance() {
    RELIES.with(|relies| relies.set(false));
}

/// Marks a request as one that the calling worker waits for, and all that wait for that one's own. Elsewhere it does nothing.
pub(crate) fn mark_waited_for<B>(request: &mut Request<B>) {
    let Some(pool) = POLLS_FOR.with(Cell::get).or_else(current) else {
        return;
    };
    let carried = request.extensions_mut().remove::<Nested>();
    let outer = carried.or_else(|| ON_BEHALF.with(|waiting| waiting.borrow().clone()));
    request.extensions_mut().insert(Nested(Arc::new(Waiting { pool, outer })));
}

/// The same for a request that turns up without a mark while the calling worker polls: a service that is waited for made it.
pub(crate) fn adopt<B>(request: &mut Request<B>) {
    if request.extensions().get::<Nested>().is_none() {
        mark_waited_for(request);
    }
}

/// Runs a request's handler; what it waits for is waited for by those who wait for it.
pub(crate) fn on_behalf_of<B, R>(request: Request<B>, handle: impl FnOnce(Request<B>) -> R) -> R {
    let waiting = request.extensions().get::<Nested>().cloned();
    waiting_for(waiting, || handle(request))
}

fn waiting_for<R>(waiting: Option<Nested>, run: impl FnOnce() -> R) -> R {
    struct Restore(Option<Nested>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ON_BEHALF.with(|waiting| waiting.replace(self.0.take()));
        }
    }

    let _restore = Restore(ON_BEHALF.with(|outer| outer.replace(waiting)));
    run()
}
