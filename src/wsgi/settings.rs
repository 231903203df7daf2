//! What can be set, and what it is where nothing is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Response;

use crate::error::Error;
use crate::output::Output;
use crate::pool::WorkerPool;

/// Runs something on a worker, inside whatever the context hook sets up.
pub(crate) type Around = Box<dyn FnMut(&mut dyn FnMut()) + Send>;

pub(super) type OnError = Arc<dyn Fn(&Error) -> Response<Output> + Send + Sync>;
pub(super) type Capture = Arc<dyn Fn() -> Around + Send + Sync>;

/// Documented with the setters of [`WsgiLayer`](super::WsgiLayer).
#[derive(Clone)]
pub(crate) struct Settings {
    pub(super) pool: WorkerPool,
    pub(super) max_queued: usize,
    pub(super) queue_timeout: Option<Duration>,
    pub(super) send_queue_size: usize,
    pub(super) prefetch: u64,
    pub(super) read_timeout: Option<Duration>,
    pub(super) on_error: Option<OnError>,
    pub(super) capture: Option<Capture>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pool: WorkerPool::default(),
            // With ten workers that take 10 ms, the last of them waits for a second: who waits for longer is better told to come again.
            max_queued: 1000,
            queue_timeout: None,
            // From 2 to 50 chunks of 64 KiB a download has the same speed, as far as can be measured: more only holds memory for clients that stall.
            send_queue_size: 10,
            // Most forms and JSON documents are here before a worker is.
            prefetch: 64 * 1024,
            read_timeout: None,
            on_error: None,
            capture: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("pool", &self.pool)
            .field("max_queued", &self.max_queued)
            .field("queue_timeout", &self.queue_timeout)
            .field("send_queue_size", &self.send_queue_size)
            .field("prefetch", &self.prefetch)
            .field("read_timeout", &self.read_timeout)
            .finish_non_exhaustive()
    }
}
