//! SIGTERM and SIGINT: the first one asks for an orderly end, the next one does not ask.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Both signals, in the order of their arrival.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Must be called in a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one; returns the exit code of a program that it ends.
    pub(crate) async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        128 + u8::try_from(kind.as_raw_value()).unwrap_or_default()
    }
}

/// Asks for the end of the server, from any thread.
#[derive(Clone)]
pub(crate) struct Stop {
    asked: watch::Sender<bool>,
    serving: Arc<AtomicBool>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self { asked: watch::Sender::new(false), serving: Arc::new(AtomicBool::new(false)) }
    }

    /// Has a thread of its own wait for signals, which works while the main thread is in Python: in a long import, or in an exit handler that never ends.
    pub(crate) fn on_signals(&self) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let mut signals = {
            let _entered = runtime.enter();
            Signals::new()?
        };
        let stop = self.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                let code = signals.next().await;
                stop.ask(code);
                process::exit(signals.next().await.into());
            });
        })?;
        Ok(())
    }

    /// Asks for an orderly end. While the server still starts there is nothing to put in order: the process ends, with `code`.
    pub(crate) fn ask(&self, code: u8) {
        if !self.serving.load(Ordering::SeqCst) {
            process::exit(code.into());
        }
        self.asked.send_replace(true);
    }

    /// From here on there is something to put in order.
    pub(crate) fn serving(&self) {
        self.serving.store(true, Ordering::SeqCst);
    }

    /// Waits until the end is asked for.
    pub(crate) async fn asked(&self) {
        // The sender is in `self`.
        let _ = self.asked.subscribe().wait_for(|asked| *asked).await;
    }
}
