//! The way from runtime threads to the event loop's thread: a queue, and a pipe that is written to only while the loop may sleep.
//!
//! Everything that concerns the loop goes through here (new requests, chunks of bodies, room in send queues, clients that left), so that one wake brings all of it.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::exchange::Producer;
use super::socket::SocketEnd;

/// What the loop is told.
pub(super) enum Event {
    /// A request has come.
    Http(Producer),
    /// A WebSocket's handshake has come.
    WebSocket(SocketEnd),
    /// Those who wait on the exchange of this key have to look again.
    Wake(usize),
    /// Nothing new comes after this.
    Close,
}

pub(super) struct Hub {
    queue: Mutex<Queue>,
    /// Whether the next event has to write to the pipe.
    asleep: AtomicBool,
    reader: PipeReader,
    writer: PipeWriter,
}

struct Queue {
    events: VecDeque<Event>,
    closed: bool,
}

impl Hub {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let queue = Mutex::new(Queue { events: VecDeque::new(), closed: false });
        Ok(Self { queue, asleep: AtomicBool::new(true), reader, writer })
    }

    /// What the loop watches.
    pub(super) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Hands a new request to the loop; gives it back if none are taken any more.
    pub(super) fn submit(&self, event: Event) -> Result<(), Event> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(event);
        }
        queue.events.push_back(event);
        drop(queue);
        self.wake();
        Ok(())
    }

    /// Tells the loop to look at an exchange again.
    pub(super) fn notify(&self, key: usize) {
        self.lock().events.push_back(Event::Wake(key));
        self.wake();
    }

    /// Takes no more requests.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.closed = true;
        queue.events.push_back(Event::Close);
        drop(queue);
        self.wake();
    }

    /// Whether there is something to [`take`](Self::take).
    pub(super) fn has_events(&self) -> bool {
        !self.lock().events.is_empty()
    }

    /// Empties the pipe. Called by the loop's thread only, when the pipe is readable: it does not block.
    pub(super) fn clear(&self) {
        // One byte for one sleep: that is all there can be.
        if let Err(error) = (&self.reader).read(&mut [0; 8]) {
            tracing::error!(%error, "the event loop's pipe cannot be read");
        }
    }

    /// Exchanges the events that have come for the empty `batch`.
    pub(super) fn take(&self, batch: &mut VecDeque<Event>) {
        std::mem::swap(&mut self.lock().events, batch);
    }

    /// Notes that the loop may sleep from here on. False if there are events again: then it is to look after them first.
    pub(super) fn sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        // Either this sees what was queued meanwhile, or whoever queued it sees the flag.
        if self.has_events() && self.asleep.swap(false, Ordering::SeqCst) {
            return false;
        }
        true
    }

    fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.nudge();
        }
    }

    /// Makes the pipe readable. For whoever has just taken `asleep` back.
    pub(super) fn nudge(&self) {
        // A pipe holds far more than the one byte that can be in it.
        if let Err(error) = (&self.writer).write(&[0]) {
            tracing::error!(%error, "the event loop cannot be woken");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
