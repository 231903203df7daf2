//! Where an application's failures are told: to `tracing` at the level `ERROR`, or on stderr where nobody listens to that. A traceback that nobody sees is a 500 that nobody can explain.

use std::fmt;
use std::io::{self, Write};

use tracing::dispatcher::{Dispatch, get_default};
use tracing::subscriber::NoSubscriber;

/// Tells of a failure that belongs to no request. A macro, so that the event's target is the module that tells it.
macro_rules! tell {
    ($($what:tt)+) => {
        tracing::error!($($what)+);
        $crate::log::unheard(format_args!($($what)+));
    };
}
pub(crate) use tell;

/// Writes to stderr what `tracing` is told, where it has no subscriber.
pub(crate) fn unheard(what: impl fmt::Display) {
    if get_default(Dispatch::is::<NoSubscriber>) {
        // In one piece: other threads write, too. Where stderr is closed there is nobody left to tell.
        let _ = io::stderr().write_all(format!("{}\n", printable(what.to_string()).trim_end()).as_bytes());
    }
}

/// Text without what a terminal would take for a command: a client may have had its part in the words.
pub(crate) fn printable(text: String) -> String {
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_command) {
        return text;
    }
    let show = |c: char| if is_command(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(show).collect()
}
