//! What the targets share: time limits, threads that wake, values that tell of their drop, the case of a failure.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use tower_wsgi::WorkerPool;

/// How long anything may take. Most cases take well under a millisecond.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Whether cases are shown before they run: a fuzzer's process ends where it fails.
static SHOWN: LazyLock<bool> = LazyLock::new(|| std::env::var_os("SHOW_CASE").is_some());

/// Makes a case of bytes and runs it, with a limit on its time. Bytes that make no case are passed over.
pub(crate) fn with_case<T: for<'a> Arbitrary<'a> + Debug>(data: &[u8], run: impl FnOnce(&T)) {
    let Ok(case) = T::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    if *SHOWN {
        eprintln!("the case: {case:#?}");
    }
    let _watched = Watched::start(data);
    run(&case);
}

/// Runs something if the scope is left by a panic.
pub(crate) struct OnPanic<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)();
        }
    }
}

/// A case under a time limit: beyond it the process ends, since there is no other way out of a wait for ever.
pub(crate) struct Watched(u64);

/// The cases that run, by number.
static RUNNING: Mutex<Vec<(u64, Instant, Vec<u8>)>> = Mutex::new(Vec::new());

static WATCHDOG: LazyLock<()> = LazyLock::new(|| {
    thread::spawn(|| {
        loop {
            thread::sleep(PATIENCE / 10);
            let running = lock(&RUNNING);
            // Where something waits with a limit of its own, that one says more.
            let late = running.iter().find(|(_, since, _)| since.elapsed() > PATIENCE * 2);
            if let Some((_, _, data)) = late {
                eprintln!("it hangs: {}", data.escape_ascii());
                std::process::abort();
            }
        }
    });
});

impl Watched {
    pub(crate) fn start(data: &[u8]) -> Self {
        LazyLock::force(&WATCHDOG);
        let mut running = lock(&RUNNING);
        let number = running.last().map_or(0, |(number, ..)| number + 1);
        running.push((number, Instant::now(), data.to_owned()));
        Self(number)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&RUNNING).retain(|(number, ..)| *number != self.0);
    }
}

/// Waits until something is true; it is looked at again and again, since nothing announces it.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    for round in 0_u32.. {
        if holds() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        if round < 20 {
            thread::yield_now();
        } else {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Waits until no worker of a pool does anything, and nothing waits for one.
pub(crate) fn idle(pool: &WorkerPool) {
    eventually("the pool is idle", || {
        let stats = pool.stats();
        stats.busy + stats.lending + stats.queued + stats.resumed + stats.discards == 0
    });
}

/// A pool of so many workers, the same for all cases.
pub(crate) fn pool(workers: usize) -> WorkerPool {
    static POOLS: [LazyLock<WorkerPool>; 2] =
        [LazyLock::new(|| WorkerPool::new(1)), LazyLock::new(|| WorkerPool::new(2))];
    POOLS[workers - 1].clone()
}

/// Polls a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = unpark();
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "the future never ends");
        thread::park_timeout(PATIENCE);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A waker that unparks the calling thread.
pub(crate) fn unpark() -> Waker {
    Arc::new(Unpark(thread::current())).into()
}

/// Has another thread wake.
pub(crate) fn wake_elsewhere(waker: Waker) {
    static WAKER: LazyLock<mpsc::Sender<Waker>> = LazyLock::new(|| {
        let (sender, receiver) = mpsc::channel::<Waker>();
        thread::spawn(move || receiver.into_iter().for_each(Waker::wake));
        sender
    });
    WAKER.send(waker).expect("the thread that wakes");
}

/// Who was dropped, and on which thread.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    name: &'static str,
    dropped: Option<String>,
}

/// A value whose drop is noted.
pub(crate) struct Token {
    ledger: Ledger,
    index: usize,
}

impl Ledger {
    pub(crate) fn token(&self, name: &'static str) -> Token {
        let mut entries = lock(&self.0);
        entries.push(Entry { name, dropped: None });
        Token { ledger: self.clone(), index: entries.len() - 1 }
    }

    /// Waits until all are dropped.
    pub(crate) fn settle(&self) {
        let held = || {
            let entries = lock(&self.0);
            let held = entries.iter().filter(|entry| entry.dropped.is_none());
            held.map(|entry| entry.name).collect::<Vec<_>>()
        };
        let _shown = OnPanic(|| eprintln!("still there: {:?}", held()));
        eventually("everything is dropped", || held().is_empty());
    }

    /// The names of those that were dropped on threads that are not a pool's.
    pub(crate) fn dropped_elsewhere(&self) -> Vec<&'static str> {
        let is_worker = |thread: &String| matches!(&**thread, "tower-wsgi-worker" | "tower-wsgi-reaper");
        let entries = lock(&self.0);
        let elsewhere =
            entries.iter().filter(|entry| entry.dropped.as_ref().is_some_and(|at| !is_worker(at)));
        elsewhere.map(|entry| entry.name).collect()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        let before = lock(&self.ledger.0)[self.index].dropped.replace(thread);
        assert!(before.is_none(), "dropped once");
    }
}

/// What a thread that failed has left is still good for a report.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Panics as an application does that is meant to: no hook runs, which would end a fuzzer's process.
pub(crate) fn panic_on_purpose() -> ! {
    std::panic::resume_unwind(Box::new("on purpose"))
}
