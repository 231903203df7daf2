//! What takes the standard library's place in a model: loom's types, threads whose start can fail, and a clock that only the model moves.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, fence};
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use loom::thread::yield_now;

use super::{Ordering, lock, wait};

/// A thread, as the one to be unparked.
///
/// Not loom's own: there a wake that comes late also ends a `join`, or a wait for a lock, and panics; and loom takes a park and an unpark for independent of each other.
#[derive(Clone)]
pub(crate) struct Thread(Arc<Token>);

struct Token {
    is_here: Mutex<bool>,
    came: Condvar,
}

loom::thread_local! {
    static CURRENT: Thread = Thread(Arc::new(Token { is_here: Mutex::new(false), came: Condvar::new() }));
}

/// What a model sets up. Kept by the thread of the operating system, which runs all threads of a model in turns.
struct World {
    /// How much time has passed, where time passes: each look at it is a step more.
    millis: Option<AtomicUsize>,
    /// Those who wait for a time, or did. No step of the model: whoever moves the clock wakes all that looked at it before.
    waiting: std::sync::Mutex<Vec<Thread>>,
    /// How many threads can still be started, where that is limited.
    starts: Option<AtomicUsize>,
}

std::thread_local! {
    static WORLD: RefCell<Arc<World>> = RefCell::new(World::new(false, None));
}

impl World {
    fn new(is_timed: bool, starts: Option<usize>) -> Arc<Self> {
        let millis = is_timed.then(|| AtomicUsize::new(0));
        Arc::new(Self { millis, waiting: std::sync::Mutex::default(), starts: starts.map(AtomicUsize::new) })
    }

    fn current() -> Arc<Self> {
        WORLD.with_borrow(Arc::clone)
    }
}

pub(crate) fn current() -> Thread {
    CURRENT.with(Clone::clone)
}

impl Thread {
    pub(crate) fn unpark(&self) {
        *lock(&self.0.is_here) = true;
        self.0.came.notify_one();
    }
}

pub(crate) fn park() {
    let Thread(token) = current();
    let mut is_here = lock(&token.is_here);
    while !*is_here {
        is_here = wait(&token.came, is_here);
    }
    *is_here = false;
}

/// Where time does not pass, a thread that is never woken is a deadlock, and reported.
pub(crate) fn park_before(deadline: Instant) -> bool {
    if !is_timed() {
        park();
        return true;
    }
    let (thread, world) = (current(), World::current());
    let mut waiting = world.waiting.lock().expect("no panic");
    if !waiting.iter().any(|other| Arc::ptr_eq(&other.0, &thread.0)) {
        waiting.push(thread.clone());
    }
    drop(waiting);
    let Thread(token) = thread;
    let mut is_here = lock(&token.is_here);
    while !*is_here {
        if now() >= deadline {
            return false;
        }
        is_here = wait(&token.came, is_here);
    }
    *is_here = false;
    true
}

pub(crate) fn now() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let millis = World::current().millis.as_ref().map_or(0, |millis| millis.load(Ordering::SeqCst));
    *START + Duration::from_millis(millis as u64)
}

pub(crate) fn is_timed() -> bool {
    World::current().millis.is_some()
}

pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let take = |left: usize| left.checked_sub(1);
    if let Some(starts) = &World::current().starts
        && starts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err()
    {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    loom::thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

// What models do.

/// Begins a model: says whether time passes, and how many threads can be started by the code under test.
pub(crate) fn set_up(is_timed: bool, starts: Option<usize>) {
    WORLD.set(World::new(is_timed, starts));
}

/// Lets time pass.
pub(crate) fn elapse(time: Duration) {
    let world = World::current();
    let millis = world.millis.as_ref().expect("a model in which time passes");
    millis.fetch_add(usize::try_from(time.as_millis()).expect("a short time"), Ordering::SeqCst);
    let waiting = world.waiting.lock().expect("no panic").clone();
    for Thread(token) in waiting {
        // Behind the lock a thread has seen the new time, or waits for the wake.
        drop(lock(&token.is_here));
        token.came.notify_one();
    }
}
