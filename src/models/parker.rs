//! A thread that sleeps until a waker is woken, or until nobody is left who could.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::sync::Mutex;
use loom::thread;

use super::{Tally, model, timed_model};
use crate::body::Body;
use crate::parker::{Parker, Watch};
use crate::sync::model::elapse;
use crate::wait::{Ended, Wait};

/// Something to wait for, and who does.
#[derive(Default)]
struct Flag(Mutex<(bool, Option<Waker>)>);

impl Flag {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut flag = self.0.lock().expect("a lock");
        if flag.0 {
            return Poll::Ready(());
        }
        flag.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn set(&self) {
        let mut flag = self.0.lock().expect("a lock");
        flag.0 = true;
        let waker = flag.1.take();
        drop(flag);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets go of whoever waits.
    fn forget(&self) {
        let waker = self.0.lock().expect("a lock").1.take();
        drop(waker);
    }
}

/// A wake between a failed poll and the wait ends the wait; the thread sleeps for ever if it is lost.
#[test]
fn a_parker_does_not_lose_a_wake() {
    model(|| {
        let flag = Arc::new(Flag::default());
        let setter = flag.clone();
        thread::spawn(move || setter.set());
        let parker = Parker::current();
        let mut cx = Context::from_waker(parker.waker());
        while flag.poll(&mut cx).is_pending() {
            parker.park();
        }
    });
}

/// A wait inside a wait: the inner one swallows no wake of the outer one, or that sleeps for ever.
#[test]
fn a_nested_wait_keeps_the_outer_wake() {
    model(|| {
        // What an earlier wait has left to be used again, one of the two may use.
        drop(Parker::current());
        let (outer, inner) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
        let flags = (outer.clone(), inner.clone());
        thread::spawn(move || flags.0.set());
        thread::spawn(move || flags.1.set());
        let parker = Parker::current();
        let mut cx = Context::from_waker(parker.waker());
        while outer.poll(&mut cx).is_pending() {
            assert_eq!(Wait::default().until(|cx| inner.poll(cx)), Ok(()));
            parker.park();
        }
    });
}

/// Two waits one after the other, of which the first leaves its waker behind: a late wake of it does not end the second for good, and takes nothing from it.
#[test]
fn a_late_wake_does_no_harm() {
    model(|| {
        let (first, second) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
        let flags = (first.clone(), second.clone());
        thread::spawn(move || {
            flags.0.set();
            flags.1.set();
        });
        {
            let parker = Parker::current();
            // Looked at once, and given up.
            let _ = first.poll(&mut Context::from_waker(parker.waker()));
        }
        let parker = Parker::current();
        let mut cx = Context::from_waker(parker.waker());
        while second.poll(&mut cx).is_pending() {
            parker.park();
        }
    });
}

/// Whoever wakes lets go of the waker: that is not to be taken for one who lets go without a wake. The wait would end with an error instead of a value.
#[test]
fn a_wake_is_not_taken_for_the_lack_of_one() {
    model(|| {
        let flag = Arc::new(Flag::default());
        let setter = flag.clone();
        thread::spawn(move || setter.set());
        assert_eq!(Wait::default().until(|cx| flag.poll(cx)), Ok(()));
    });
}

/// A waker that is let go, before the thread sleeps or while it does: it sleeps for ever if it does not look again.
#[test]
fn a_waker_that_is_let_go_is_missed() {
    timed_model(|| {
        let flag = Arc::new(Flag::default());
        let polled = Arc::new(Tally::default());
        let (forgetter, seen) = (flag.clone(), polled.clone());
        thread::spawn(move || {
            seen.wait_for(1);
            forgetter.forget();
            elapse(Duration::from_millis(10));
        });
        let ended = Wait::default().until(|cx| {
            let poll = flag.poll(cx);
            polled.add();
            poll
        });
        assert_eq!(ended, Err(Ended::Stuck));
    });
}

/// A time limit against what is waited for: one of the two ends the wait, and what came in time is not lost.
#[test]
fn a_time_limit_ends_a_wait() {
    timed_model(|| {
        let flag = Arc::new(Flag::default());
        let setter = flag.clone();
        thread::spawn(move || elapse(Duration::from_secs(1)));
        thread::spawn(move || setter.set());
        let wait = Wait { timeout: Some(Duration::from_secs(1)), ..Wait::default() };
        let ended = wait.until(|cx| flag.poll(cx));
        assert!(matches!(ended, Ok(()) | Err(Ended::TimedOut)), "{ended:?}");
    });
}

/// The response's end against what is waited for: the thread sleeps for ever if the close is not told.
#[test]
fn a_close_ends_a_wait() {
    struct Response(Flag);
    impl Watch for Response {
        fn is_closed(&self) -> bool {
            self.0.0.lock().expect("a lock").0
        }

        fn watch(&self, waker: &Waker) -> bool {
            self.0.poll(&mut Context::from_waker(waker)).is_pending()
        }

        fn relay(&self, body: Body) -> Body {
            body
        }
    }

    model(|| {
        let response = Arc::new(Response(Flag::default()));
        let (flag, closer) = (Flag::default(), response.clone());
        thread::spawn(move || closer.0.set());
        let watch = response as Arc<dyn Watch>;
        let ended = Wait { watch: Some(&watch), ..Wait::default() }.until(|cx| flag.poll(cx));
        assert_eq!(ended, Err(Ended::Closed));
    });
    model(|| {
        let response = Arc::new(Response(Flag::default()));
        let flag = Arc::new(Flag::default());
        let (closer, setter) = (response.clone(), flag.clone());
        thread::spawn(move || closer.0.set());
        thread::spawn(move || setter.set());
        let watch = response as Arc<dyn Watch>;
        let ended = Wait { watch: Some(&watch), ..Wait::default() }.until(|cx| flag.poll(cx));
        assert!(matches!(ended, Ok(()) | Err(Ended::Closed)), "{ended:?}");
    });
}
