//! The servers that are compared. Each runs in a process of its own, which [`run`] never returns from.

mod actix;
mod astra;
mod axum;
mod bridge;
mod channel;
mod in_place;
mod native;
mod ours;
mod rouille;
mod spawn_blocking;
mod tiny_http;
mod work;

use std::error::Error;
use std::net::TcpListener;

use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};
use tower_wsgi_benches::server;

pub(crate) use self::work::{Work, at, compute, pattern};

/// How many handlers run at once where a server takes a number.
pub(crate) const THREADS: usize = 10;

const BACKLOG: i32 = 4096;

/// What varies between servers of the same name.
#[derive(Args, Clone, PartialEq)]
pub(crate) struct Settings {
    #[arg(long, hide = true, default_value_t = THREADS)]
    pub(crate) workers: usize,
    #[arg(long, hide = true, default_value_t = 10)]
    pub(crate) send_queue_size: usize,
    #[arg(long, hide = true, default_value_t = 1000)]
    pub(crate) max_queued: usize,
    /// The length of a download's pieces.
    #[arg(long, hide = true, default_value_t = 64 * 1024)]
    pub(crate) chunk: usize,
    /// How many cores it has. 0: all.
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) cores: usize,
    /// The length of a computation.
    #[arg(long, hide = true, default_value_t = 1)]
    pub(crate) steps: u64,
    /// The length of an upload or a download.
    #[arg(long, default_value_t = 1024)]
    pub(crate) mebibytes: usize,
}

impl Settings {
    /// What the child is started with.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Settings { workers, send_queue_size, max_queued, chunk, cores, steps, mebibytes } = self;
        vec![
            format!("--workers={workers}"),
            format!("--send-queue-size={send_queue_size}"),
            format!("--max-queued={max_queued}"),
            format!("--chunk={chunk}"),
            format!("--cores={cores}"),
            format!("--steps={steps}"),
            format!("--mebibytes={mebibytes}"),
        ]
    }

    /// The length of an upload or a download in bytes.
    pub(crate) fn length(&self) -> usize {
        self.mebibytes * 1024 * 1024
    }
}

/// A server: it announces its address and serves until the process ends.
pub(crate) type Run = fn(&'static Work) -> Result<(), Box<dyn Error + Send + Sync>>;

pub(crate) const NATIVE: Run = native::run;
pub(crate) const NATIVE_1: Run = native::run_on_one_thread;
pub(crate) const OURS: Run = ours::run;
pub(crate) const OURS_1: Run = ours::run_on_one_thread;
pub(crate) const SPAWN_BLOCKING: Run = spawn_blocking::run;
pub(crate) const IN_PLACE: Run = in_place::run;
pub(crate) const BRIDGE: Run = bridge::run;
pub(crate) const ACTIX: Run = actix::run;
pub(crate) const ASTRA: Run = astra::run;
pub(crate) const ROUILLE: Run = rouille::run;
pub(crate) const TINY_HTTP: Run = tiny_http::run;

/// What the child process does.
pub(crate) fn run(run: Run, settings: &Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    server::end_with_parent();
    if settings.cores > 0 {
        let mut cores = CpuSet::new();
        (0..settings.cores).for_each(|core| cores.set(core));
        // Threads inherit it, and tokio and actix count only these cores.
        sched_setaffinity(None, &cores)?;
    }
    run(Box::leak(Box::new(Work::new(settings.clone()))))
}

/// A socket whose connections all have `TCP_NODELAY`: Linux hands it on to them. The client is told its address, since from here on
/// it takes connections.
fn announced() -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    // Longer than the default, which loses connections of which thousands come at once.
    rustix::net::listen(&listener, BACKLOG)?;
    server::announce(listener.local_addr()?)?;
    Ok(listener)
}
