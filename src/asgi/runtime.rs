//! The runtime that services run in.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::pool::is_worker;

/// One for the whole process, since it costs threads, and never dropped, since background tasks may outlive every handler.
static OWN: OnceLock<Runtime> = OnceLock::new();

/// The runtime to enter: the one that was set, else the one that the thread is in, else one of our own, which is started by the first who needs it. That may be long
/// after a fork: threads do not survive one.
///
/// Also tells whether whoever gets the response polls its body inside that runtime anyway: what comes from a worker does not leave the runtime that its request came from.
pub(super) fn find(set: Option<&Handle>) -> io::Result<(Handle, bool)> {
    if let Some(handle) = set {
        return Ok((handle.clone(), false));
    }
    match Handle::try_current() {
        Ok(handle) => Ok((handle, is_worker())),
        Err(_) => Ok((own()?.handle().clone(), false)),
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
    let runtime = Builder::new_multi_thread().enable_all().thread_name("tower-wsgi-runtime").build()?;
    Ok(OWN.get_or_init(|| runtime))
}
