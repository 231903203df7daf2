//! Background tasks: the end of a response against theirs.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::{Counted, block_on, large_model, model};
use crate::asgi::Lingering;
use crate::asgi::tasks::{Task, Tasks};

/// What is known of a task: whether it has ended, and who waits for that.
#[derive(Default)]
struct Known(Mutex<(bool, Option<Waker>)>);

impl Known {
    fn end(&self) {
        let mut known = self.0.lock().expect("a lock");
        known.0 = true;
        let waker = known.1.take();
        drop(known);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A task's handle.
struct Running(Arc<Known>, #[expect(dead_code, reason = "held for its drop")] Counted);

impl Task for Running {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut known = self.0.0.lock().expect("a lock");
        if known.0 {
            return Poll::Ready(());
        }
        known.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_finished(&self) -> bool {
        self.0.0.lock().expect("a lock").0
    }
}

fn running() -> (Running, Arc<Known>) {
    let known = Arc::new(Known::default());
    (Running(known.clone(), Counted::new().0), known)
}

async fn done(tasks: &Tasks<Running>) {
    std::future::poll_fn(|cx| tasks.poll_done(cx)).await;
}

/// The body's end waits for ever if the last task's is not told.
#[test]
fn the_end_comes_after_the_last_task() {
    model(|| {
        let tasks = Tasks::new();
        let known: Vec<_> = (0..2)
            .map(|_| {
                let (task, known) = running();
                assert!(tasks.add(task).is_ok());
                known
            })
            .collect();
        for known in known.clone() {
            thread::spawn(move || known.end());
        }
        block_on(done(&tasks));
        assert!(known.iter().all(|known| known.0.lock().expect("a lock").0));
        assert!(tasks.release().is_empty());
    });
}

/// A task that starts another while the body's end waits for it: the end waits for that one, too.
#[test]
fn the_end_comes_after_tasks_of_tasks() {
    model(|| {
        let tasks = Arc::new(Tasks::new());
        let (task, known) = running();
        assert!(tasks.add(task).is_ok());
        let (second, second_known) = running();
        let spawner = tasks.clone();
        let inner = second_known.clone();
        thread::spawn(move || {
            assert!(spawner.add(second).is_ok(), "the one that starts it still runs");
            known.end();
            inner.end();
        });
        block_on(done(&tasks));
        assert!(second_known.0.lock().expect("a lock").0);
        assert!(tasks.release().is_empty());
    });
}

/// Somebody else starts tasks, so many that those that have ended are looked for, while the end waits: each that still runs at the end is left to go on, none is forgotten, none counted twice.
#[test]
fn tasks_that_come_at_the_end_are_not_forgotten() {
    large_model(|| {
        let tasks = Arc::new(Tasks::new());
        let (first, known) = running();
        assert!(tasks.add(first).is_ok());
        thread::spawn(move || known.end());
        let spawner = tasks.clone();
        let added: Vec<_> = (0..2).map(|_| running()).collect();
        let spawned: Vec<_> = added.iter().map(|(_, known)| known.clone()).collect();
        let spawning = thread::spawn(move || {
            let mut refused = 0;
            for (task, known) in added {
                refused += usize::from(spawner.add(task).is_err());
                known.end();
            }
            refused
        });
        block_on(done(&tasks));
        let left = tasks.release().len();
        let refused = spawning.join().expect("no panic");
        assert!(left + refused <= 2);
        assert!(spawned.iter().all(|known| known.0.lock().expect("a lock").0));
    });
}

/// `wait_time` is over, against the last task's end, against one that comes then: whoever still runs is among those to be cancelled, or is told to its spawner.
#[test]
fn the_end_of_the_wait_misses_no_task() {
    model(|| {
        let tasks = Arc::new(Tasks::new());
        let (first, first_known) = running();
        assert!(tasks.add(first).is_ok());
        let ending = first_known.clone();
        thread::spawn(move || ending.end());
        let spawner = tasks.clone();
        let (second, second_known) = running();
        let spawning = thread::spawn(move || spawner.add(second).err().is_some());
        // What the body does with a `wait_time` of nothing.
        let is_done = tasks.poll_done(&mut Context::from_waker(Waker::noop())).is_ready();
        let left = tasks.release();
        let is_refused = spawning.join().expect("no panic");
        let is_left = |known: &Arc<Known>| left.iter().any(|task| Arc::ptr_eq(&task.0, known));
        assert!(is_refused || is_left(&second_known), "nobody cancels it");
        if !is_done {
            let has_ended = first_known.0.lock().expect("a lock").0;
            assert!(has_ended || is_left(&first_known), "nobody cancels it");
        }
    });
}

/// The body's drop against a spawn: the task goes on, in the hands of exactly one.
#[test]
fn a_drop_and_a_spawn_do_not_lose_a_task() {
    model(|| {
        let tasks = Arc::new(Tasks::new());
        let spawner = tasks.clone();
        let spawning = thread::spawn(move || spawner.add(running().0).is_err());
        let left = tasks.release().len();
        let refused = usize::from(spawning.join().expect("no panic"));
        assert_eq!(left + refused, 1);
    });
}

/// A host that ends with its request, against tasks that go on without it: it waits for ever if their end is not told, and loses them if it does not wait.
#[test]
fn a_host_waits_for_what_lingers() {
    model(|| {
        let lingering = Lingering::default();
        let ended = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        for place in 0..2 {
            let (lingers, ended) = (lingering.begin(), ended.clone());
            thread::spawn(move || {
                ended[place].store(true, Ordering::SeqCst);
                drop(lingers);
            });
        }
        lingering.wait();
        assert!(ended.iter().all(|ended| ended.load(Ordering::SeqCst)));
    });
}
