//! What handlers do, the same for all servers.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::Settings;

/// The pattern of long bodies repeats after so many bytes: no power of two, so that pieces in the wrong order are noticed.
const PERIOD: usize = 251;

/// So many bytes of the pattern of long bodies, and one period more: every offset into them has its slice.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(length + PERIOD).collect()
}

/// The slice of the pattern for a piece of a body.
pub(crate) fn at(offset: usize) -> usize {
    offset % PERIOD
}

/// Work without a request's body.
#[derive(Clone, Copy)]
pub(crate) enum Task {
    Hello,
    Block,
    Compute,
}

impl Task {
    pub(crate) const ALL: [Task; 3] = [Task::Hello, Task::Block, Task::Compute];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Task::Hello => "/hello",
            Task::Block => "/block",
            Task::Compute => "/compute",
        }
    }

    /// For servers without a router.
    pub(super) fn of(path: &str) -> Option<Task> {
        Task::ALL.into_iter().find(|task| task.path() == path)
    }
}

/// The work of a server.
pub(crate) struct Work {
    pub(super) settings: Settings,
    pattern: Bytes,
}

impl Work {
    pub(crate) fn new(settings: Settings) -> Work {
        let pattern = pattern(settings.chunk).into();
        Work { settings, pattern }
    }

    pub(crate) fn run(&self, task: Task) -> Bytes {
        match task {
            Task::Hello => Bytes::from_static(b"Hello World!"),
            Task::Block => {
                std::thread::sleep(Duration::from_millis(1));
                Bytes::from_static(b"done")
            }
            Task::Compute => compute(self.settings.steps).to_string().into(),
        }
    }

    /// Parses JSON, and writes it again.
    pub(crate) fn echo(&self, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let value: Value = serde_json::from_slice(body)?;
        serde_json::to_vec(&value)
    }

    /// The length of a download.
    pub(super) fn length(&self) -> usize {
        self.settings.length()
    }

    /// A download as an iterator. Its pieces cost nothing to make.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let (pattern, chunk, length) = (self.pattern.clone(), self.settings.chunk, self.length());
        (0..length).step_by(chunk).map(move |offset| {
            let begin = at(offset);
            pattern.slice(begin..begin + chunk.min(length - offset))
        })
    }

    /// A download as a reader, which costs a copy.
    pub(super) fn reader(&self) -> impl Read + Send + use<> {
        Reader { pattern: self.pattern.clone(), offset: 0, length: self.length() }
    }

    /// What the reader reads, a new buffer for each piece.
    pub(super) fn copies(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let (mut reader, chunk) = (self.reader(), self.settings.chunk);
        std::iter::from_fn(move || {
            let mut piece = vec![0; chunk];
            let length = reader.read(&mut piece).expect("it cannot fail");
            piece.truncate(length);
            (length > 0).then(|| piece.into())
        })
    }

    /// A download as a function that writes.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut pieces = self.pieces();
        pieces.try_for_each(|piece| to.write_all(&piece))
    }
}

/// Arithmetic whose every step needs the one before.
pub(crate) fn compute(steps: u64) -> u64 {
    let step = |hash: u64, number: u64| (hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    (0..black_box(steps)).fold(0xcbf2_9ce4_8422_2325, step)
}

/// How much there is to read.
pub(super) fn length(mut reader: impl Read) -> io::Result<usize> {
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(length),
            read => length += read,
        }
    }
}

struct Reader {
    pattern: Bytes,
    offset: usize,
    length: usize,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begin = at(self.offset);
        let length = buffer.len().min(self.length - self.offset).min(self.pattern.len() - PERIOD);
        buffer[..length].copy_from_slice(&self.pattern[begin..begin + length]);
        self.offset += length;
        Ok(length)
    }
}
