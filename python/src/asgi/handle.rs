//! The service's hold on its event loop: what is shared by all clones of a `PyAsgi`, and the thread's start and end.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use tokio::sync::watch;

use super::hub::Hub;
use super::worker;
use crate::asgi::EventLoop;
use crate::error::{Error, Kind};
use crate::import::PyApp;
use crate::interpreter;

pub(super) struct Handle {
    pub(super) hub: Arc<Hub>,
    pub(super) name: Arc<str>,
    thread: Arc<Thread>,
    pub(super) send_queue_size: usize,
    pub(super) max_message_size: usize,
    /// Closes the hub with its last holder.
    life: Arc<Life>,
}

/// Ends the application when nobody can send it requests any more.
struct Life(Arc<Hub>);

struct Thread {
    handle: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Sender<bool>,
}

/// The loop's thread. CPython counts recursions, and its limits fit the stacks that it gives its own threads, a Unix system's usual 8 MiB: on the 2 MiB of a Rust thread a recursion without an end would end the
/// process, and not in a `RecursionError`. Memory is taken only as the stack grows. `RUST_MIN_STACK` has its usual effect.
fn thread() -> Builder {
    const STACK: usize = 8 * 1024 * 1024;

    let thread = Builder::new().name("tower-wsgi-asgi".to_owned());
    if std::env::var_os("RUST_MIN_STACK").is_some() { thread } else { thread.stack_size(STACK) }
}

impl Handle {
    /// Starts the thread, and waits for the application's startup.
    pub(super) fn start(app: PyApp, kind: EventLoop) -> Result<Self, Error> {
        let name: Arc<str> = app.name().into();
        if app.is_surely_wsgi() {
            let message =
                format!("{name} is a WSGI application, of two arguments: it cannot be called as an ASGI one");
            return Err(Error::new(Kind::Import, message));
        }
        let fail = |error: std::io::Error| {
            Error::new(Kind::Startup, format!("no event loop could be started for {name}: {error}"))
        };
        let hub = Arc::new(Hub::new().map_err(fail)?);
        let (report, startup) = mpsc::channel();
        let (theirs, what) = (hub.clone(), name.clone());
        let thread = thread().spawn(move || worker::run(app, kind, &what, theirs, report)).map_err(fail)?;
        // The caller may be attached, and the startup needs the interpreter.
        let started = interpreter::attached(|py| py.detach(move || startup.recv()));
        let started = started.unwrap_or_else(|_| {
            Err(Error::new(Kind::Startup, format!("the event loop of {name} ended before it started")))
        });
        if let Err(error) = started {
            let _ = interpreter::attached(|py| py.detach(move || thread.join()));
            return Err(error);
        }
        let thread = Thread { handle: Mutex::new(Some(thread)), ended: watch::Sender::new(false) };
        Ok(Self {
            life: Arc::new(Life(hub.clone())),
            hub,
            name,
            thread: Arc::new(thread),
            send_queue_size: 10,
            max_message_size: 16 * 1024 * 1024,
        })
    }

    /// The same loop, with settings of its own.
    pub(super) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut handle = Self {
            hub: self.hub.clone(),
            name: self.name.clone(),
            thread: self.thread.clone(),
            send_queue_size: self.send_queue_size,
            max_message_size: self.max_message_size,
            life: self.life.clone(),
        };
        change(&mut handle);
        handle
    }

    /// Ends the application; ready when its thread has ended.
    pub(super) async fn shutdown(&self) {
        self.hub.close();
        let thread = self.thread.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let ended = self.thread.ended.clone();
            // The join waits for the thread's last steps, for which it needs the interpreter: nothing for a runtime's thread to wait for.
            let reaper = move || {
                let _ = thread.join();
                ended.send_replace(true);
            };
            if let Err(error) = Builder::new().name("tower-wsgi-asgi".to_owned()).spawn(reaper) {
                tracing::error!(%error, "no thread to wait for the event loop's end");
                self.thread.ended.send_replace(true);
            }
        }
        // The sender is ours: it cannot be gone.
        let _ = self.thread.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.close();
    }
}
