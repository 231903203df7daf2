//! Work that outlives its response.

use std::fmt;
use std::future::Future;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};

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
    state: Mutex<State>,
}

enum State {
    /// Nothing was spawned yet.
    Empty,
    Running(JoinSet<()>),
    /// The host waits no more.
    Released,
}

impl BackgroundTasks {
    pub(super) fn new(runtime: Handle, wait_time: Option<Duration>) -> Self {
        Self { inner: Arc::new(Inner { runtime, wait_time, state: Mutex::new(State::Empty) }) }
    }

    /// Starts a task on the service's runtime. A panic of it is logged.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let task = async move {
            task.await;
        };
        let mut state = self.state();
        match &mut *state {
            State::Running(tasks) => {
                tasks.spawn_on(task, &self.inner.runtime);
            }
            State::Empty => {
                let mut tasks = JoinSet::new();
                tasks.spawn_on(task, &self.inner.runtime);
                *state = State::Running(tasks);
            }
            State::Released => {
                drop(state);
                let mut tasks = JoinSet::new();
                tasks.spawn_on(task, &self.inner.runtime);
                self.watch(tasks);
            }
        }
    }

    /// Whether the end of the response may have to wait: for tasks that run, or for those that somebody may still spawn.
    pub(super) fn may_run(&self) -> bool {
        Arc::strong_count(&self.inner) > 1 || !matches!(*self.state(), State::Empty)
    }

    pub(super) fn wait_time(&self) -> Option<Duration> {
        self.inner.wait_time
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// Ready when no task runs.
    pub(super) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        let State::Running(tasks) = &mut *state else {
            return Poll::Ready(());
        };
        while let Some(ended) = ready!(tasks.poll_join_next(cx)) {
            log(ended);
        }
        Poll::Ready(())
    }

    /// Cancels what runs.
    pub(super) fn cancel(&self) {
        let state = mem::replace(&mut *self.state(), State::Released);
        // The tasks are a user's: they are dropped without the lock.
        drop(state);
    }

    /// Lets what runs go on without the host, up to `wait_time`.
    pub(super) fn release(&self) {
        let state = mem::replace(&mut *self.state(), State::Released);
        if let State::Running(tasks) = state {
            self.watch(tasks);
        }
    }

    /// Has a task of the runtime wait for others, and cancel them after `wait_time`.
    fn watch(&self, mut tasks: JoinSet<()>) {
        let wait_time = self.inner.wait_time;
        let all = async move {
            while let Some(ended) = tasks.join_next().await {
                log(ended);
            }
        };
        match wait_time {
            Some(wait_time) => drop(self.inner.runtime.spawn(async move {
                // The tasks are cancelled by the drop of their set.
                let _ = tokio::time::timeout(wait_time, all).await;
            })),
            None => drop(self.inner.runtime.spawn(all)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BackgroundTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = match &*self.state() {
            State::Running(tasks) => tasks.len(),
            State::Empty | State::Released => 0,
        };
        f.debug_struct("BackgroundTasks").field("running", &running).finish_non_exhaustive()
    }
}

fn log(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a background task panicked");
    }
}
