//! Work that outlives its response.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, Request};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};

use super::tasks::{Task, Tasks};
use crate::sync::{Condvar, Mutex, MutexGuard, lock, wait};

/// Work that belongs to a request but outlives its response, like a mail to be sent or a cache to be filled: a request extension that [`AsgiHandler`](crate::AsgiHandler) gives to the
/// async service, and an extractor of axum's.
///
/// Unlike with `tokio::spawn`, the synchronous host knows of it: the end of the response's body is given to the host only when the tasks are
/// done, or after [`wait_time`](crate::AsgiLayer::wait_time). The bytes of the response are not held back. A host that ends with its request (CGI) so lets
/// the tasks finish.
///
/// ```
/// use axum::{Router, routing::post};
/// use tower_wsgi::{AsgiHandler, BackgroundTasks};
/// # async fn send_mail() {}
///
/// async fn order(background: BackgroundTasks) -> &'static str {
///     background.spawn(send_mail());
///     "thank you\n"
/// }
///
/// let handler = AsgiHandler::new(Router::<()>::new().route("/order", post(order)));
/// # use tower_wsgi::{Input, SyncHandler};
/// # let response = handler.call(http::Request::post("/order").body(Input::empty())?)?;
/// # assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "thank you\n");
/// # Ok::<(), tower_wsgi::BoxError>(())
/// ```
///
/// The same router in a server that goes on after the response, `axum::serve` say, has nobody to wait for the tasks: there they are just spawned. ([`of`](Self::of) does so too, where the extractor does not reach.
/// `Extension<BackgroundTasks>` finds those of an `AsgiHandler` only.)
///
/// A synchronous handler behind a further [`WsgiService`](crate::WsgiService) finds it among the extensions, too.
///
/// # Blocking
/// A synchronous host's thread waits in the read that would tell the end of the body. The end of the last task wakes it, or that of `wait_time`.
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
    tasks: Tasks<JoinHandle<()>>,
}

impl BackgroundTasks {
    pub(super) fn new(runtime: Handle, wait_time: Option<Duration>, lingering: Option<Lingering>) -> Self {
        Self { inner: Arc::new(Inner { runtime, wait_time, lingering, tasks: Tasks::new() }) }
    }

    /// Those of a request, or ones that nobody waits for where it came through no [`AsgiHandler`](crate::AsgiHandler): they run on the runtime that the caller is in.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower_wsgi::{BackgroundTasks, Body, BoxError};
    ///
    /// /// A service's function, in an `AsgiHandler` or in a server.
    /// async fn order(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    ///     BackgroundTasks::of(&request).spawn(async { /* send a mail */ });
    ///     Ok(Response::new("thank you\n".into()))
    /// }
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let response = order(Request::new(Body::empty())).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok::<(), BoxError>(()) })?;
    /// # Ok::<(), BoxError>(())
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime, if the request has none.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        Self::found(request.extensions())
    }

    fn found(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| {
            let tasks = Self::new(Handle::current(), None, None);
            tasks.release();
            tasks
        })
    }

    /// Starts a task on the service's runtime. A panic of it is logged. On a runtime that is shut down it is dropped without being run.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use axum::{Router, routing::post};
    /// use http::Request;
    /// use tower_wsgi::{AsgiHandler, BackgroundTasks, Input, SyncHandler};
    ///
    /// let (mail, sent) = mpsc::channel();
    /// let order = async move |background: BackgroundTasks| {
    ///     background.spawn(async move { mail.send("an invoice") });
    ///     "thank you\n"
    /// };
    /// let handler = AsgiHandler::new(Router::<()>::new().route("/order", post(order)));
    ///
    /// let response = handler.call(Request::post("/order").body(Input::empty())?)?;
    /// assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "thank you\n");
    /// assert_eq!(sent.try_recv()?, "an invoice"); // the end of the body waited for it
    /// # Ok::<(), tower_wsgi::BoxError>(())
    /// ```
    pub fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let task = self.inner.runtime.spawn(async move {
            task.await;
        });
        if let Err(task) = self.inner.tasks.add(task) {
            self.watch(vec![task]);
        }
    }

    /// Whether the end of the response may have to wait: for tasks that run, or for those that somebody may still spawn.
    pub(super) fn may_run(&self) -> bool {
        Arc::strong_count(&self.inner) > 1 || !self.inner.tasks.is_unused()
    }

    pub(super) fn wait_time(&self) -> Option<Duration> {
        self.inner.wait_time
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// Ready when no task runs.
    pub(super) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.tasks.poll_done(cx)
    }

    /// Cancels what runs.
    pub(super) fn cancel(&self) {
        for task in self.inner.tasks.release() {
            task.abort();
        }
    }

    /// Lets what runs go on without the host, up to `wait_time`.
    pub(super) fn release(&self) {
        let tasks = self.inner.tasks.release();
        if !tasks.is_empty() {
            self.watch(tasks);
        }
    }

    /// Has a task of the runtime wait for others, and cancel them after `wait_time`.
    fn watch(&self, tasks: Vec<JoinHandle<()>>) {
        let wait_time = self.inner.wait_time;
        let lingers = self.inner.lingering.as_ref().map(Lingering::begin);
        drop(self.inner.runtime.spawn(async move {
            let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
            let all = async {
                for mut task in tasks {
                    poll_fn(|cx| task.poll_end(cx)).await;
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
}

/// Those of the request: see [`BackgroundTasks::of`].
#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::FromRequestParts<S> for BackgroundTasks {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::found(&parts.extensions))
    }
}

impl Task for JoinHandle<()> {
    /// A panic of it is logged.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(Pin::new(self).poll(cx)) {
            Err(error) if error.is_panic() => tracing::error!(%error, "a background task panicked"),
            _ => {}
        }
        Poll::Ready(())
    }

    fn is_finished(&self) -> bool {
        JoinHandle::is_finished(self)
    }
}

/// A request extension, for hosts that end with their request: how many sets of tasks go on without their response.
#[derive(Clone, Default)]
pub(crate) struct Lingering(Arc<(Mutex<usize>, Condvar)>);

impl Lingering {
    /// Counts one, until the guard is dropped.
    pub(crate) fn begin(&self) -> impl Send + Sync + 'static {
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
        let mut count = self.count();
        while *count > 0 {
            count = wait(&self.0.1, count);
        }
    }

    fn count(&self) -> MutexGuard<'_, usize> {
        lock(&self.0.0)
    }
}

impl fmt::Debug for BackgroundTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundTasks")
            .field("running", &self.inner.tasks.running())
            .finish_non_exhaustive()
    }
}
