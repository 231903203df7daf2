//! Loom models of the primitives, and of a request's trip as a whole: every order in which their threads can meet.
//!
//! ```text
//! RUSTFLAGS="--cfg tower_wsgi_loom" cargo test --release --lib models
//! ```
//!
//! A lost wake shows as a deadlock, which loom reports, and so does a thread that never ends. Each model says whose wake that would be, or what it would take to break another promise. A clock stands
//! still but where the model moves it (see `sync/model.rs`).
//!
//! How often threads are interrupted where they need not be is bounded, for each model; `LOOM_MAX_PREEMPTIONS` raises the bound, and `LOOM_MAX_DURATION` ends a model after so many seconds.

mod bodies;
mod crossing;
mod exchange;
mod failures;
mod lend;
mod parker;
mod pool;
mod queue;
mod relay;
mod tasks;
mod ways;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use crate::exchange::Exchange;
use crate::parker::Parker;
use crate::sync::model::set_up;

/// Checks a model in which time does not pass.
fn model(test: impl Fn() + Send + Sync + 'static) {
    check(3, false, None, test);
}

/// Checks a model with so many threads that fewer interruptions must do.
fn large_model(test: impl Fn() + Send + Sync + 'static) {
    check(2, false, None, test);
}

/// Checks a model whose clock moves.
fn timed_model(test: impl Fn() + Send + Sync + 'static) {
    check(2, true, None, test);
}

/// Checks a model with a bound on needless interruptions, a clock that moves or does not, and a limit to the threads that can be started.
fn check(preemptions: usize, is_timed: bool, starts: Option<usize>, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.max(Some(preemptions));
    builder.max_branches = 20_000;
    builder.check(move || {
        set_up(is_timed, starts);
        test();
    });
}

/// Awaits a future on the calling thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let parker = Parker::current();
    let mut cx = Context::from_waker(parker.waker());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        parker.park();
    }
}

/// Something that counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let dropped = Arc::new(AtomicUsize::new(0));
        (Self(dropped.clone()), dropped)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Meeting = Exchange<Counted, u32, u32, &'static str>;

/// An exchange whose work is queued.
fn meeting(capacity: usize) -> (Arc<Meeting>, Arc<AtomicUsize>) {
    let (work, dropped) = Counted::new();
    let exchange = Arc::new(Exchange::new(capacity, Some(work)));
    exchange.submit(|_| ());
    (exchange, dropped)
}

async fn answer(exchange: &Meeting) -> Option<u32> {
    std::future::poll_fn(|cx| exchange.poll_answer(cx)).await
}

async fn frame(exchange: &Meeting, resume: &mut bool) -> Option<Result<u32, &'static str>> {
    std::future::poll_fn(|cx| exchange.poll_frame(cx, resume)).await
}

/// A count that threads can wait for.
#[derive(Default)]
struct Tally {
    count: loom::sync::Mutex<usize>,
    changed: loom::sync::Condvar,
}

impl Tally {
    fn add(&self) {
        *self.count.lock().expect("a lock") += 1;
        self.changed.notify_all();
    }

    fn wait_for(&self, reached: usize) {
        let mut count = self.count.lock().expect("a lock");
        while *count < reached {
            count = self.changed.wait(count).expect("a lock");
        }
    }

    fn count(&self) -> usize {
        *self.count.lock().expect("a lock")
    }
}
