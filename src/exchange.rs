//! The exchange: the one object that the two sides of a request share.
//!
//! The *consumer* lives in async code: it submits work, awaits the answer, then the frames of the body.
//! The *producer* is whatever worker holds the work at the moment. Both meet only here, so that every order
//! of answer, cancel, panic and disconnect is decided under one lock.
//!
//! The work itself (a request to start with, later a body to go on with) stays in the exchange while no
//! worker has it. It leaves only through [`Exchange::begin`], which workers call: that is what keeps its
//! drop off the runtime's threads.
//!
//! Nothing here knows of HTTP, tokio or threads other than through [`Waker`] and [`Parker`]; the
//! loom models in `models.rs` run this very code.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::parker::Parker;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// `W`: work, `A`: answer, `F`: a frame of the body, `E`: what ends a body early.
pub(crate) struct Exchange<W, A, F, E> {
    /// A mirror of `State::closed` for readers without the lock.
    closed: AtomicBool,
    capacity: usize,
    state: Mutex<State<W, A, F, E>>,
}

struct State<W, A, F, E> {
    stage: Stage,
    closed: bool,
    work: Option<W>,
    answer: Option<A>,
    /// Whether the answer was taken.
    answered: bool,
    /// What the consumer does until then.
    errand: Option<Arc<dyn Errand>>,
    frames: VecDeque<F>,
    end: Option<Result<(), E>>,
    /// The task that waits for the answer or a frame.
    consumer: Option<Waker>,
    /// The thread that waits for room.
    writer: Option<Waker>,
    /// The threads that wait for something else and want to hear of a close.
    watchers: Vec<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Not submitted yet: `work` may be here.
    Idle,
    /// `work` waits for a worker.
    Queued,
    /// A worker has the work.
    Running,
    /// `work` waits for room in `frames`.
    Parked,
    /// There is no more work.
    Over,
}

/// What [`Exchange::begin`] tells a worker to do.
pub(crate) enum Begin<W> {
    /// Do the work.
    Run(W),
    /// The consumer is gone: drop the work here, on the worker.
    Drop(W),
    /// Somebody else has or had it.
    Nothing,
}

/// Whether a producer may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// The queue takes another frame.
    Free,
    /// The queue is full.
    Full,
    /// Nobody listens any more.
    Closed,
}

/// What a consumer does for its producer while it awaits the answer.
pub(crate) trait Errand: Send + Sync {
    /// Does what can be done now; the task is woken when there is more.
    fn run(&self, cx: &mut Context<'_>);

    /// It will not be run again.
    fn stop(&self);
}

/// What the caller of [`Exchange::close`] has to do about work that is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leftover {
    /// None is left, or a running worker takes care of it.
    None,
    /// It stands in the pool's queue and should be moved to the front.
    InQueue,
    /// It was parked and must be given to a worker.
    Parked,
}

impl<W, A, F, E> Exchange<W, A, F, E> {
    /// An exchange whose queue holds `capacity` frames (at least one), and that holds `work`, if it is here already.
    pub(crate) fn new(capacity: usize, work: Option<W>) -> Self {
        Self {
            closed: AtomicBool::new(false),
            capacity: capacity.max(1),
            state: Mutex::new(State {
                stage: Stage::Idle,
                closed: false,
                work,
                answer: None,
                answered: false,
                errand: None,
                frames: VecDeque::new(),
                end: None,
                consumer: None,
                writer: None,
                watchers: Vec::new(),
            }),
        }
    }

    /// Whether the consumer is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    // The producer's side.

    /// A worker asks for the work.
    pub(crate) fn begin(&self) -> Begin<W> {
        let mut state = lock(&self.state);
        if state.stage != Stage::Queued {
            return Begin::Nothing;
        }
        let Some(work) = state.work.take() else {
            return Begin::Nothing;
        };
        if state.closed {
            state.stage = Stage::Over;
            Begin::Drop(work)
        } else {
            state.stage = Stage::Running;
            Begin::Run(work)
        }
    }

    /// Gives the answer, with nothing to follow.
    ///
    /// # Errors
    /// The answer, if the consumer is gone.
    pub(crate) fn answer(&self, answer: A) -> Result<(), A> {
        self.put_answer(answer, None, true)
    }

    /// Gives the answer together with the first frame of a body that goes on.
    ///
    /// # Errors
    /// The answer, if the consumer is gone.
    pub(crate) fn answer_with(&self, answer: A, first: F) -> Result<(), A> {
        self.put_answer(answer, Some(first), false)
    }

    fn put_answer(&self, answer: A, first: Option<F>, over: bool) -> Result<(), A> {
        let mut state = lock(&self.state);
        if over {
            state.stage = Stage::Over;
        }
        if state.closed {
            return Err(answer);
        }
        state.answer = Some(answer);
        state.frames.extend(first);
        state.wake_consumer();
        Ok(())
    }

    /// Whether another frame may be produced. Only the consumer makes room, so that what is free stays free
    /// until this producer pushes.
    pub(crate) fn room(&self) -> Room {
        let state = lock(&self.state);
        if state.closed {
            Room::Closed
        } else if state.frames.len() < self.capacity {
            Room::Free
        } else {
            Room::Full
        }
    }

    /// Adds a frame and tells whether there is room for the next. The frame is taken even when the queue is
    /// full (trailers are sent this way); when nobody listens it is dropped.
    pub(crate) fn push(&self, frame: F) -> Room {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return Room::Closed;
        }
        state.frames.push_back(frame);
        let room = if state.frames.len() < self.capacity { Room::Free } else { Room::Full };
        state.wake_consumer();
        room
    }

    /// Puts the work aside until there is room.
    ///
    /// # Errors
    /// The work, if there is room by now or nobody listens: the worker keeps it.
    pub(crate) fn park(&self, work: W) -> Result<(), W> {
        let mut state = lock(&self.state);
        if state.closed || state.frames.len() < self.capacity {
            return Err(work);
        }
        state.stage = Stage::Parked;
        state.work = Some(work);
        Ok(())
    }

    /// Gives the work back for another worker, or this one, to begin again later; the caller submits it.
    ///
    /// # Errors
    /// The work, if nobody listens: the worker drops it.
    pub(crate) fn requeue(&self, work: W) -> Result<(), W> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(work);
        }
        state.stage = Stage::Queued;
        state.work = Some(work);
        Ok(())
    }

    /// Blocks the calling thread until there is room; false if nobody listens any more.
    pub(crate) fn wait_room(&self) -> bool {
        match self.room() {
            Room::Free => return true,
            Room::Closed => return false,
            Room::Full => {}
        }
        let parker = Parker::current();
        loop {
            {
                let mut state = lock(&self.state);
                if state.closed {
                    return false;
                }
                if state.frames.len() < self.capacity {
                    return true;
                }
                state.writer = Some(parker.waker().clone());
            }
            parker.park();
        }
    }

    /// Asks to be woken when the consumer goes; false if it is gone already.
    pub(crate) fn watch_close(&self, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        if !state.watchers.iter().any(|watcher| watcher.will_wake(waker)) {
            state.watchers.push(waker.clone());
        }
        true
    }

    /// Has the consumer run an errand while it awaits the answer; false if it awaits none any more, or runs one.
    pub(crate) fn entrust(&self, errand: Arc<dyn Errand>) -> bool {
        let mut state = lock(&self.state);
        let is_free = !state.closed && !state.answered && state.errand.is_none();
        if is_free {
            state.errand = Some(errand);
            state.wake_consumer();
        }
        is_free
    }

    /// Ends the body: `Ok` is its true end, `Err` aborts it. Only the worker that has the work can; for one that has put it aside, or has
    /// ended it, this does nothing.
    pub(crate) fn finish(&self, end: Result<(), E>) {
        let mut state = lock(&self.state);
        if state.stage != Stage::Running {
            return;
        }
        state.stage = Stage::Over;
        if !state.closed {
            state.end = Some(end);
            state.wake_consumer();
        }
    }

    // The consumer's side.

    /// Takes the work that was not here at first.
    pub(crate) fn hold(&self, work: W) {
        let mut state = lock(&self.state);
        debug_assert!(state.stage == Stage::Idle && state.work.is_none(), "work is given once");
        state.work = Some(work);
    }

    /// Makes the work ready for a worker, after a last look at it, in which no code of a user runs; the caller then submits the exchange to the pool. `None` if there is no work.
    pub(crate) fn submit<T>(&self, look: impl FnOnce(&mut W) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        debug_assert_eq!(state.stage, Stage::Idle, "work is submitted once");
        state.stage = Stage::Queued;
        state.work.as_mut().map(look)
    }

    /// Awaits the answer. `None` if there will be none, since the work was dropped without one.
    pub(crate) fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<Option<A>> {
        let mut state = lock(&self.state);
        let answer = state.answer.take();
        if answer.is_some() || state.stage == Stage::Over {
            state.answered = true;
            let errand = state.errand.take();
            drop(state);
            if let Some(errand) = errand {
                errand.stop();
            }
            return Poll::Ready(answer);
        }
        state.wait(cx);
        let errand = state.errand.clone();
        drop(state);
        if let Some(errand) = errand {
            errand.run(cx);
        }
        Poll::Pending
    }

    /// Why there is no answer.
    pub(crate) fn take_failure(&self) -> Option<E> {
        lock(&self.state).end.replace(Ok(()))?.err()
    }

    /// Awaits a frame, the end (`None`) or the error that ended the body. Sets `resume` when
    /// parked work has room again and the caller has to submit it.
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>, resume: &mut bool) -> Poll<Option<Result<F, E>>> {
        let mut state = lock(&self.state);
        let Some(frame) = state.frames.pop_front() else {
            return match state.end.take() {
                Some(Ok(())) => {
                    state.end = Some(Ok(()));
                    Poll::Ready(None)
                }
                Some(Err(error)) => {
                    state.end = Some(Ok(()));
                    Poll::Ready(Some(Err(error)))
                }
                None => {
                    state.wait(cx);
                    Poll::Pending
                }
            };
        };
        let mut writer = None;
        // Half the queue is enough of a head start for the worker to be back before the queue is empty, and
        // few enough trips that each moves several frames.
        if state.frames.len() <= self.capacity / 2 {
            if state.stage == Stage::Parked {
                state.stage = Stage::Queued;
                *resume = true;
            }
            writer = state.writer.take();
        }
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// Whether the body has ended and every frame of it was taken.
    pub(crate) fn is_drained(&self) -> bool {
        let state = lock(&self.state);
        state.frames.is_empty() && matches!(state.end, Some(Ok(())))
    }

    /// The consumer goes. Whatever was produced for it is dropped here; the work is not, see [`Leftover`].
    pub(crate) fn close(&self) -> Leftover {
        self.close_if(|_| true).unwrap_or(Leftover::None)
    }

    /// Like [`close`](Self::close), but only while no worker has begun; `None` otherwise.
    pub(crate) fn close_if_queued(&self) -> Option<Leftover> {
        self.close_if(|stage| matches!(stage, Stage::Idle | Stage::Queued))
    }

    fn close_if(&self, condition: impl FnOnce(Stage) -> bool) -> Option<Leftover> {
        let mut state = lock(&self.state);
        if state.closed || !condition(state.stage) {
            return None;
        }
        state.closed = true;
        self.closed.store(true, Ordering::Release);
        let leftover = match state.stage {
            Stage::Queued => Leftover::InQueue,
            Stage::Parked => {
                state.stage = Stage::Queued;
                Leftover::Parked
            }
            Stage::Idle | Stage::Running | Stage::Over => Leftover::None,
        };
        let errand = state.errand.take();
        let mut waiting = std::mem::take(&mut state.watchers);
        waiting.extend(state.writer.take());
        let gone = (
            state.answer.take(),
            std::mem::take(&mut state.frames),
            state.end.replace(Ok(())),
            state.consumer.take(),
        );
        drop(state);
        if let Some(errand) = errand {
            errand.stop();
        }
        waiting.into_iter().for_each(Waker::wake);
        drop(gone);
        Some(leftover)
    }
}

impl<W, A, F, E> State<W, A, F, E> {
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.consumer {
            Some(consumer) => consumer.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

/// Unlocks, then wakes: the woken task would otherwise run into the lock.
trait WakeConsumer {
    fn wake_consumer(self);
}

impl<W, A, F, E> WakeConsumer for crate::sync::MutexGuard<'_, State<W, A, F, E>> {
    fn wake_consumer(mut self) {
        let consumer = self.consumer.take();
        drop(self);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }
}
