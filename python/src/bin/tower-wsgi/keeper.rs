//! Which connections there are, and which of them have to go: those whose client sends no request, and all of them at the end.
//!
//! One tick a second serves them all, so that a request costs no timer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How exact the time limit is.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// How long a client may take to send a request's head, counted from the connection's start or the response before: a connection without a request costs a
/// file descriptor for as long.
const HEAD_TICKS: u64 = 30;

/// Keeps the connections.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    clock: Arc<Clock>,
    connections: Vec<Arc<Activity>>,
}

#[derive(Debug, Default)]
struct Clock {
    ticks: AtomicU64,
    is_stopping: AtomicBool,
}

/// What a connection is doing.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Arc<Clock>,
    /// Requests that were not answered to their end.
    running: AtomicUsize,
    /// The client has to read before more can be sent to it.
    is_sending: AtomicBool,
    /// The tick at which there was something to do last.
    since: AtomicU64,
    /// It is HTTP/2, which asks its clients itself whether they are there.
    is_multiplexed: AtomicBool,
    is_overdue: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// A request that is not answered to its end.
#[derive(Debug)]
pub(crate) struct Running(Arc<Activity>);

/// A connection that can be asked to take no more requests.
pub(crate) trait Stoppable: Future {
    fn stop(self: Pin<&mut Self>);
}

impl Keeper {
    /// Another connection.
    pub(crate) fn admit(&mut self) -> Arc<Activity> {
        let activity = Arc::new(Activity {
            clock: self.clock.clone(),
            running: AtomicUsize::new(0),
            is_sending: AtomicBool::new(false),
            since: AtomicU64::new(self.clock.ticks.load(Ordering::Relaxed)),
            is_multiplexed: AtomicBool::new(false),
            is_overdue: AtomicBool::new(false),
            waker: Mutex::new(None),
        });
        self.connections.push(activity.clone());
        activity
    }

    /// Time passes: by [`TICK`]. Closes what was idle for too long.
    pub(crate) fn tick(&mut self) {
        let now = self.clock.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        // Nobody else holds what is over.
        self.connections.retain(|connection| Arc::strong_count(connection) > 1);
        for connection in &self.connections {
            if connection.idle(now) > HEAD_TICKS {
                connection.is_overdue.store(true, Ordering::Release);
                connection.wake();
            }
        }
    }

    /// Lets all connections finish their requests, and take no more.
    pub(crate) fn stop(&self) {
        self.clock.is_stopping.store(true, Ordering::Release);
        self.connections.iter().for_each(|connection| connection.wake());
    }
}

impl Activity {
    /// Takes note of a request.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> Running {
        self.is_multiplexed.store(version == Version::HTTP_2, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// Serves the connection until it is over; `None` if no request came for too long.
    pub(crate) async fn keep<C: Stoppable>(&self, connection: C) -> Option<C::Output> {
        let mut connection = pin!(connection);
        let mut known: Option<Waker> = None;
        let mut is_stopped = false;
        poll_fn(|cx| {
            if !known.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                known = Some(cx.waker().clone());
                *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
            }
            loop {
                if let Poll::Ready(served) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(served));
                }
                if self.is_overdue.load(Ordering::Acquire) {
                    // A request may have come since.
                    if !self.is_at_work() {
                        return Poll::Ready(None);
                    }
                    self.is_overdue.store(false, Ordering::Relaxed);
                }
                if is_stopped || !self.clock.is_stopping.load(Ordering::Acquire) {
                    return Poll::Pending;
                }
                is_stopped = true;
                connection.as_mut().stop();
            }
        })
        .await
    }

    /// How many ticks the client has left the connection alone for.
    fn idle(&self, now: u64) -> u64 {
        if self.is_at_work() || self.is_multiplexed.load(Ordering::Relaxed) {
            return 0;
        }
        now.saturating_sub(self.since.load(Ordering::Relaxed))
    }

    fn is_at_work(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0 || self.is_sending.load(Ordering::Relaxed)
    }

    /// The client's time starts now.
    fn note(&self) {
        self.since.store(self.clock.ticks.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A connection's stream, which tells whether a response is still on its way: a slow client may take minutes after the last byte was made.
#[derive(Debug)]
pub(crate) struct Kept<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Kept<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.activity.note();
        }
        self.activity.is_sending.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Kept<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Kept<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Self(activity) = self;
        activity.note();
        activity.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::task::Wake;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A connection that ends when it is stopped.
    #[derive(Clone, Default)]
    struct Fake(Rc<Cell<bool>>);

    impl Future for Fake {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.0.get() { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    impl Stoppable for Fake {
        fn stop(self: Pin<&mut Self>) {
            self.0.set(true);
        }
    }

    /// Counts wakes.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Whether a connection was woken, and what it is then.
    fn look(
        wakes: &Arc<Wakes>,
        kept: Pin<&mut impl Future<Output = Option<()>>>,
    ) -> (bool, Poll<Option<()>>) {
        let woken = wakes.0.swap(0, Ordering::SeqCst) > 0;
        (woken, kept.poll(&mut Context::from_waker(&wakes.clone().into())))
    }

    fn pass(keeper: &mut Keeper, ticks: u64) {
        for _ in 0..ticks {
            keeper.tick();
        }
    }

    const UNTOUCHED: (bool, Poll<Option<()>>) = (false, Poll::Pending);
    const CLOSED: (bool, Poll<Option<()>>) = (true, Poll::Ready(None));

    #[test]
    fn a_connection_that_brings_no_request_is_closed() {
        let (mut keeper, wakes) = (Keeper::default(), Arc::default());
        let activity = keeper.admit();
        let mut kept = pin!(activity.keep(Fake::default()));
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        pass(&mut keeper, HEAD_TICKS);
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        pass(&mut keeper, 1);
        assert_eq!(look(&wakes, kept.as_mut()), CLOSED);
    }

    #[test]
    fn time_counts_from_the_end_of_a_request() {
        let (mut keeper, wakes) = (Keeper::default(), Arc::default());
        let activity = keeper.admit();
        let mut kept = pin!(activity.keep(Fake::default()));
        let (slow, quick) = (activity.begin(Version::HTTP_11), activity.begin(Version::HTTP_11));
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        drop(quick);
        pass(&mut keeper, 10 * HEAD_TICKS);
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        drop(slow);
        pass(&mut keeper, HEAD_TICKS);
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        pass(&mut keeper, 1);
        assert_eq!(look(&wakes, kept.as_mut()), CLOSED);
    }

    #[test]
    fn a_request_that_comes_in_the_last_moment_is_served() {
        let (mut keeper, wakes) = (Keeper::default(), Arc::default());
        let activity = keeper.admit();
        let mut kept = pin!(activity.keep(Fake::default()));
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        pass(&mut keeper, HEAD_TICKS + 1);
        let running = activity.begin(Version::HTTP_11);
        assert_eq!(look(&wakes, kept.as_mut()), (true, Poll::Pending));
        drop(running);
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
    }

    #[test]
    fn time_does_not_count_while_the_client_reads_a_response() {
        let (mut keeper, wakes) = (Keeper::default(), Arc::default());
        let activity = keeper.admit();
        let mut kept = pin!(activity.keep(Fake::default()));
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        let (mut client, server) = tokio::io::duplex(4);
        let mut server = Kept::new(server, activity.clone());
        drop(activity.begin(Version::HTTP_11));
        assert!(server.write(b"four").now_or_never().is_some());
        pass(&mut keeper, HEAD_TICKS);
        assert!(server.write(b"more").now_or_never().is_none());
        pass(&mut keeper, 10 * HEAD_TICKS);
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        assert!(client.read(&mut [0; 4]).now_or_never().is_some());
        assert!(server.write(b"more").now_or_never().is_some());
        pass(&mut keeper, HEAD_TICKS);
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        pass(&mut keeper, 1);
        assert_eq!(look(&wakes, kept.as_mut()), CLOSED);
    }

    #[test]
    fn http2_looks_after_itself() {
        let (mut keeper, wakes) = (Keeper::default(), Arc::default());
        let activity = keeper.admit();
        let mut kept = pin!(activity.keep(Fake::default()));
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
        drop(activity.begin(Version::HTTP_2));
        pass(&mut keeper, 10 * HEAD_TICKS);
        assert_eq!(look(&wakes, kept.as_mut()), UNTOUCHED);
    }

    #[test]
    fn all_are_stopped_also_those_that_were_never_polled() {
        let (mut keeper, wakes) = (Keeper::default(), Arc::default());
        let (polled, new) = (keeper.admit(), keeper.admit());
        let (mut polled, mut new) = (pin!(polled.keep(Fake::default())), pin!(new.keep(Fake::default())));
        assert_eq!(look(&wakes, polled.as_mut()), UNTOUCHED);
        keeper.stop();
        assert_eq!(look(&wakes, polled.as_mut()), (true, Poll::Ready(Some(()))));
        assert_eq!(look(&wakes, new.as_mut()), (false, Poll::Ready(Some(()))));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut keeper = Keeper::default();
        let (over, open) = (keeper.admit(), keeper.admit());
        drop(over);
        keeper.tick();
        assert_eq!(keeper.connections.len(), 1);
        drop(open);
    }
}
