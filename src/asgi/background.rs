//! Work that outlives its response.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};

/// From how many tasks on those that have ended are looked for.
const PURGE: usize = 16;

/// A request extension that [`AsgiHandler`](crate::AsgiHandler) gives to the async service: work that belongs to the request but outlives its response, like a mail to
/// be sent or a cache to be filled.
///
/// Unlike with `tokio::spawn`, the synchronous host knows of it: the end of the response's body is given to the host only when the tasks are
/// done, or after [`wait_time`](crate::AsgiLayer::wait_time). The bytes of the response are not held back. A host that ends with its request (CGI) so lets
/// the tasks finish.
///
/// ```
/// use axum::{Extension, Router, routing::post};
/// use tower_wsgi::{AsgiHandler, BackgroundTasks};
/// # async fn send_mail() {}
///
/// async fn order(Extension(background): Extension<BackgroundTasks>) -> &'static str {
///     background.spawn(send_mail());
///     "thank you\n"
/// }
///
/// let handler = AsgiHandler::new(Router::<()>::new().route("/order", post(order)));
/// ```
///
/// A synchronous handler behind a further [`WsgiService`](crate::WsgiService) finds it among the extensions, too.
///
/// # Cancellation
/// When the host drops the response early, tasks go on, up to `wait_time`; so do those that are spawned after the end. What is over `wait_time` is cancelled at its next `await`.
#[derive(Clone)]
pub struct BackgroundTasks {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Handle,
    wait_time: Option<Duration>,
    /// Where the host ends with its request.
    lingering: Option<Lingering>,
    state: Mutex<State>,
}

/// No code of a user runs under its lock: what tasks and their results hold is dropped without it.
#[derive(Default)]
struct State {
    tasks: Vec<JoinHandle<()>>,
    /// At how many of them those that have ended are looked for.
    purge_at: usize,
    /// Whether nothing was ever spawned.
    unused: bool,
    /// Whether the host waits no more.
    released: bool,
}

impl BackgroundTasks {
    pub(super) fn new(runtime: Handle, wait_time: Option<Duration>, lingering: Option<Lingering>) -> Self {
        let state = Mutex::new(State { purge_at: PURGE, unused: true, ..State::default() });
        Self { inner: Arc::new(Inner { runtime, wait_time, lingering, state }) }
    }

    /// Starts a task on the service's runtime. A panic of it is logged.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let task = self.inner.runtime.spawn(async move {
            task.await;
        });
        let mut state = self.state();
        if state.released {
            drop(state);
            self.watch(vec![task]);
            return;
        }
        state.unused = false;
        // A body without an end may spawn tasks without an end. To look at all of them whenever they have doubled costs each spawn the same.
        let mut ended = Vec::new();
        if state.tasks.len() >= state.purge_at {
            ended.extend(state.tasks.extract_if(.., |task| task.is_finished()));
            state.purge_at = PURGE.max(state.tasks.len() * 2);
        }
        state.tasks.push(task);
        drop(state);
        let mut cx = Context::from_waker(Waker::noop());
        ended.into_iter().for_each(|mut task| {
            let _ = poll_task(&mut task, &mut cx);
        });
    }

    /// Whether the end of the response may have to wait: for tasks that run, or for those that somebody may still spawn.
    pub(super) fn may_run(&self) -> bool {
        Arc::strong_count(&self.inner) > 1 || !self.state().unused
    }

    pub(super) fn wait_time(&self) -> Option<Duration> {
        self.inner.wait_time
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// Ready when no task runs.
    pub(super) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pending = Vec::new();
        loop {
            let tasks = mem::take(&mut self.state().tasks);
            if tasks.is_empty() {
                break;
            }
            // Those that are spawned meanwhile are asked next.
            pending.extend(
                tasks
                    .into_iter()
                    .filter_map(|mut task| poll_task(&mut task, cx).is_pending().then_some(task)),
            );
        }
        if pending.is_empty() {
            return Poll::Ready(());
        }
        self.state().tasks.append(&mut pending);
        Poll::Pending
    }

    /// Cancels what runs.
    pub(super) fn cancel(&self) {
        for task in self.take() {
            task.abort();
        }
    }

    /// Lets what runs go on without the host, up to `wait_time`.
    pub(super) fn release(&self) {
        let tasks = self.take();
        if !tasks.is_empty() {
            self.watch(tasks);
        }
    }

    fn take(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.state();
        state.released = true;
        mem::take(&mut state.tasks)
    }

    /// Has a task of the runtime wait for others, and cancel them after `wait_time`.
    fn watch(&self, tasks: Vec<JoinHandle<()>>) {
        let wait_time = self.inner.wait_time;
        let lingers = self.inner.lingering.as_ref().map(Lingering::begin);
        drop(self.inner.runtime.spawn(async move {
            let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
            let all = async {
                for mut task in tasks {
                    poll_fn(|cx| poll_task(&mut task, cx)).await;
                }
            };
            match wait_time {
                Some(wait_time) => {
                    if tokio::time::timeout(wait_time, all).await.is_err() {
                        aborts.iter().for_each(AbortHandle::abort);
                    }
                }
                None => all.await,
            }
            drop(lingers);
        }));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready when a task has ended. A panic of it is logged.
fn poll_task(task: &mut JoinHandle<()>, cx: &mut Context<'_>) -> Poll<()> {
    if let Err(error) = ready!(Pin::new(task).poll(cx))
        && error.is_panic()
    {
        tracing::error!(%error, "a background task panicked");
    }
    Poll::Ready(())
}

/// A request extension, for hosts that end with their request: how many sets of tasks go on without their response.
#[derive(Clone, Default)]
pub(crate) struct Lingering(Arc<(Mutex<usize>, Condvar)>);

impl Lingering {
    /// Counts one, until the guard is dropped.
    fn begin(&self) -> impl Send + Sync + 'static {
        struct Guard(Lingering);
        impl Drop for Guard {
            fn drop(&mut self) {
                *self.0.count() -= 1;
                self.0.0.1.notify_all();
            }
        }

        *self.count() += 1;
        Guard(self.clone())
    }

    /// Blocks until there are none.
    pub(crate) fn wait(&self) {
        let waited = self.0.1.wait_while(self.count(), |count| *count > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BackgroundTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.state().tasks.iter().filter(|task| !task.is_finished()).count();
        f.debug_struct("BackgroundTasks").field("running", &running).finish_non_exhaustive()
    }
}
