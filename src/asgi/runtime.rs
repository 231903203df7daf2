//! The runtime that services run in.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::guard;

/// One for the whole process, since it costs threads, and never dropped, since background tasks may outlive every handler.
static OWN: OnceLock<Runtime> = OnceLock::new();

/// The runtime to enter: the one that was set, else the one that the thread is in, else one of our own, which is started by the first who needs it. That may be long
/// after a fork: threads do not survive one.
pub(super) fn find(set: Option<&Handle>) -> io::Result<Handle> {
    if let Some(handle) = set {
        return Ok(handle.clone());
    }
    match Handle::try_current() {
        Ok(handle) => Ok(handle),
        Err(_) => Ok(own()?.handle().clone()),
    }
}

fn own() -> io::Result<&'static Runtime> {
    static START: Mutex<()> = Mutex::new(());

    if let Some(runtime) = OWN.get() {
        return Ok(runtime);
    }
    let _one_at_a_time = START.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = OWN.get() {
        return Ok(runtime);
    }
    // Some of what may be missing, threads most of all, tokio panics over.
    let built = guard(|| Builder::new_multi_thread().enable_all().thread_name("tower-wsgi-runtime").build());
    let runtime = built.map_err(io::Error::other)??;
    Ok(OWN.get_or_init(|| runtime))
}
