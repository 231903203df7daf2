//! The access log: a line per request on stdout, in the combined format, with the seconds that the request took at its end.
//!
//! ```text
//! 127.0.0.1 - - [21/Nov/2026:17:04:05 +0000] "GET /a?b=c HTTP/1.1" 200 12 "-" "curl/8.5.0" 0.000312
//! ```
//!
//! A request's thread only notes what is in the line; a thread of the log's own writes it. Both the time and the number of bytes are those at the end of the response's body.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};

/// Lines that wait to be written. Where stdout is not read, requests are served all the same, and lines are lost.
const WAITING: usize = 10_000;

/// Lines are written together up to this size.
const GATHERED: usize = 64 * 1024;

/// How long the end of the program waits for a stdout that is not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// nginx's status for a client that left before there was one.
const CLIENT_LEFT: u16 = 499;

/// Takes the log's lines. Clones write to the same log.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lines: SyncSender<Line>,
    lost: AtomicU64,
}

#[derive(Debug)]
enum Line {
    Request(Box<Entry>),
    /// Answered when all before it are written.
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Entry {
    client: Option<SocketAddr>,
    method: Method,
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    status: u16,
    bytes: u64,
    start: Instant,
    end: SystemTime,
    took: Duration,
}

/// A request under way. Its line is written when it is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    log: AccessLog,
    entry: Option<Box<Entry>>,
}

impl AccessLog {
    pub(crate) fn start() -> io::Result<Self> {
        let (lines, received) = sync_channel(WAITING);
        let log = Self { shared: Arc::new(Shared { lines, lost: AtomicU64::new(0) }) };
        thread::Builder::new().name("access log".to_owned()).spawn(move || write(&received))?;
        Ok(log)
    }

    /// Notes a request that just came.
    pub(crate) fn record<B>(&self, client: Option<SocketAddr>, request: &Request<B>) -> Record {
        let header = |name| request.headers().get(name).cloned();
        let entry = Entry {
            client,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            referer: header(REFERER),
            user_agent: header(USER_AGENT),
            status: CLIENT_LEFT,
            bytes: 0,
            start: Instant::now(),
            end: UNIX_EPOCH,
            took: Duration::ZERO,
        };
        Record { log: self.clone(), entry: Some(Box::new(entry)) }
    }

    /// Waits until what was noted is written.
    pub(crate) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.shared.lines.try_send(Line::Flush(done)).is_ok() {
            let _ = written.recv_timeout(PATIENCE);
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} lines of the access log were lost: stdout was not read fast enough");
        }
    }
}

impl Record {
    pub(crate) fn status(&mut self, status: StatusCode) {
        if let Some(entry) = &mut self.entry {
            entry.status = status.as_u16();
        }
    }

    pub(crate) fn count(&mut self, bytes: usize) {
        if let Some(entry) = &mut self.entry {
            entry.bytes += bytes as u64;
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.took = entry.start.elapsed();
        entry.end = SystemTime::now();
        if let Err(TrySendError::Full(_)) = self.log.shared.lines.try_send(Line::Request(entry)) {
            self.log.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes lines until nobody has any more.
fn write(lines: &Receiver<Line>) {
    let mut text = String::new();
    let mut stdout = io::stdout();
    while let Ok(first) = lines.recv() {
        let mut flush = None;
        let mut next = Some(first);
        while let Some(line) = next {
            match line {
                Line::Request(entry) => entry.append_to(&mut text),
                Line::Flush(done) => flush = Some(done),
            }
            next = if text.len() < GATHERED { lines.try_recv().ok() } else { None };
        }
        // A stdout that was closed takes the lines with it, and not the server.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        text.clear();
        if let Some(done) = flush {
            let _ = done.try_send(());
        }
    }
}

impl Entry {
    fn append_to(&self, text: &mut String) {
        let written = match self.client {
            Some(client) => write!(text, "{} - - [", client.ip()),
            // Through a Unix socket.
            None => write!(text, "- - - ["),
        };
        time(self.end, text);
        text.push_str("] \"");
        escape(self.method.as_str().as_bytes(), text);
        text.push(' ');
        match self.uri.path_and_query() {
            Some(target) => escape(target.as_str().as_bytes(), text),
            // What `CONNECT` asks for.
            None => escape(self.uri.to_string().as_bytes(), text),
        }
        let (version, status, bytes) = (self.version, self.status, self.bytes);
        let written = written.and(write!(text, " {version:?}\" {status} {bytes} \""));
        escape(self.referer.as_ref().map_or(b"-", HeaderValue::as_bytes), text);
        text.push_str("\" \"");
        escape(self.user_agent.as_ref().map_or(b"-", HeaderValue::as_bytes), text);
        let written = written.and(writeln!(text, "\" {:.6}", self.took.as_secs_f64()));
        debug_assert!(written.is_ok(), "a string takes everything");
    }
}

/// Appends what a client sent so that it stays on its line and between its quotes.
fn escape(bytes: &[u8], text: &mut String) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | ..=0x1f | 0x7f.. => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                text.push_str("\\x");
                text.push(DIGITS[usize::from(byte >> 4)].into());
                text.push(DIGITS[usize::from(byte & 15)].into());
            }
            plain => text.push(plain.into()),
        }
    }
}

/// Appends `21/Nov/2026:17:04:05 +0000`: UTC, since the local time cannot be asked for safely beside Python's threads.
fn time(time: SystemTime, text: &mut String) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let is_leap = |year: u64| year.is_multiple_of(if year.is_multiple_of(100) { 400 } else { 4 });
    let length = |year| if is_leap(year) { 366 } else { 365 };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, month) = (days + 1, MONTHS[month]);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let written = write!(text, "{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000");
    debug_assert!(written.is_ok(), "a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (951_868_800, "01/Mar/2000:00:00:00 +0000"),
            (1_735_689_599, "31/Dec/2024:23:59:59 +0000"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000"),
        ] {
            let mut text = String::new();
            time(UNIX_EPOCH + Duration::from_secs(seconds), &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn nothing_leaves_its_quotes_or_its_line() {
        let mut text = String::new();
        escape(b"a\"b\\c\r\n\x1b[2J\x7f\xff~", &mut text);
        assert_eq!(text, r"a\x22b\x5cc\x0d\x0a\x1b[2J\x7f\xff~");
    }
}
