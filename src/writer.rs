//! The writer that a push-style body writes to.

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

/// How much is gathered before it is sent: what fits into a few TCP segments.
const GATHER: usize = 16 * 1024;

/// Where a writer's chunks go.
pub(crate) trait Sink {
    /// Takes a chunk, which is not empty; blocks while there is no room.
    fn send(&mut self, chunk: Bytes) -> io::Result<()>;

    /// An error if nobody listens any more.
    fn check(&self) -> io::Result<()>;
}

/// Writes a response's body piece by piece: what [`Output::writer`](crate::Output::writer) hands to its function.
///
/// Writes are gathered up to 16 KiB; [`flush`](io::Write::flush) sends what there is, and the end of the function does. The response's head goes
/// out with the first bytes that are sent.
///
/// ```
/// use std::io::{Read, Write};
/// use http::{HeaderMap, HeaderName, HeaderValue};
/// use tower_wsgi::{Output, Writer};
///
/// fn table(writer: &mut Writer<'_>) -> std::io::Result<()> {
///     writeln!(writer, "id,name")?; // gathered
///     writer.send("1,Ann\n2,Bob\n")?; // not copied, and sent behind it
///     let rows = (HeaderName::from_static("rows"), HeaderValue::from(2));
///     writer.set_trailers(HeaderMap::from_iter([rows]));
///     Ok(())
/// }
///
/// let (mut reader, mut text) = (Output::writer(table).into_reader(), String::new());
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "id,name\n1,Ann\n2,Bob\n");
/// assert_eq!(reader.trailers().expect("the end was read")["rows"], "2");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Blocking
/// Blocks the calling thread while `send_queue_size` chunks wait for the client; woken when half of them are gone, or
/// the client is. Where the body is not a [`WsgiService`](crate::WsgiService)'s, its thread is at most two chunks ahead of who reads it.
///
/// # Errors
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe) as soon as the response is wanted no more; [`InvalidInput`](io::ErrorKind::InvalidInput) for what
/// goes over the response's `Content-Length`.
pub struct Writer<'a> {
    sink: &'a mut dyn Sink,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(sink: &'a mut dyn Sink) -> Self {
        Self { sink, buffer: BytesMut::new(), trailers: None }
    }

    /// Sends a chunk without copying it, after what was written before.
    ///
    /// # Errors
    /// See [`Writer`].
    ///
    /// # Blocking
    /// While there is no room for a chunk: see [`Writer`].
    pub fn send(&mut self, chunk: impl Into<Bytes>) -> io::Result<()> {
        let chunk = chunk.into();
        self.send_gathered()?;
        if chunk.is_empty() {
            return self.sink.check();
        }
        self.sink.send(chunk)
    }

    /// Sets the trailers that follow the body; see [`Output::with_trailers`](crate::Output::with_trailers) for when they are sent.
    pub fn set_trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    /// What was not sent yet.
    pub(crate) fn into_rest(self) -> (Bytes, Option<HeaderMap>) {
        (self.buffer.freeze(), self.trailers)
    }

    fn send_gathered(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.sink.send(self.buffer.split().freeze())
    }
}

impl io::Write for Writer<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.sink.check()?;
        if self.buffer.len() + data.len() > GATHER {
            self.send_gathered()?;
        }
        if data.len() >= GATHER {
            self.sink.send(Bytes::copy_from_slice(data))?;
        } else {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve(GATHER.min(data.len().max(1024)));
            }
            self.buffer.extend_from_slice(data);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.check()?;
        self.send_gathered()
    }
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("gathered", &self.buffer.len()).finish_non_exhaustive()
    }
}
