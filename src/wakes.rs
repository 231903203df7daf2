//! Wakes of tasks that wait for an answer, put off while the worker that gives it has more to do at once.
//!
//! To wake a runtime's thread costs a system call, and often the core that the worker is running on. A worker with other requests in its queue, which take microseconds, lets a few answers come together. Only the last
//! thing that a job does is put off, never a frame of a body that goes on.

use std::cell::RefCell;
use std::mem;
use std::task::Waker;

use crate::sync::local;

local! {
    /// The wakes that the job on this thread has put off, if it may.
    static PUT_OFF: RefCell<Option<Vec<Waker>>> = RefCell::new(None);
}

/// Wakes, or leaves it to who runs this thread's job.
pub(crate) fn wake_soon(waker: Waker) {
    let now = PUT_OFF.with(|put_off| match &mut *put_off.borrow_mut() {
        Some(wakers) => {
            wakers.push(waker);
            None
        }
        None => Some(waker),
    });
    if let Some(waker) = now {
        waker.wake();
    }
}

/// Runs a job, and adds the wakes that it puts off to `wakers`.
pub(crate) fn gather(wakers: &mut Vec<Waker>, job: impl FnOnce()) {
    PUT_OFF.with(|put_off| *put_off.borrow_mut() = Some(mem::take(wakers)));
    // A job does not unwind.
    job();
    if let Some(gathered) = PUT_OFF.with(|put_off| put_off.borrow_mut().take()) {
        *wakers = gathered;
    }
}
