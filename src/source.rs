//! Producers that block: what an iterator, a reader or a writing function is while nobody has it run yet, and as a body that async code can poll.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::iter;
use std::mem;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::Span;

use crate::error::{BoxError, Error, Kind, drop_quietly, guard};
use crate::sync::thread;
use crate::writer::{Sink, Writer};

/// How much a reader is asked for at once. A chunk is a frame on its way to the client.
const READ: usize = 64 * 1024;

/// Below this much room a reader's buffer is replaced.
const READ_LEAST: usize = 8 * 1024;

/// How many frames a thread is ahead of who polls for them. More would only take memory: the thread is woken as soon as one was taken.
const AHEAD: usize = 2;

/// What can be asked for one chunk after the other, by any thread.
pub(crate) enum Source {
    Iter(Box<dyn Iterator<Item = Result<Bytes, BoxError>> + Send>),
    Read(Box<dyn Read + Send>, BytesMut),
}

/// The closure behind [`Output::writer`](crate::Output::writer).
pub(crate) type Write = Box<dyn FnOnce(&mut Writer<'_>) -> io::Result<()> + Send>;

/// Makes the trailers, when the body is complete.
pub(crate) type Trailers = Box<dyn FnOnce() -> HeaderMap + Send>;

/// A body whose producer blocks.
///
/// On the sync side it is run in place, chunk by chunk, where it can be. To async code that polls it, it is a body like any other: a thread of its own runs it then,
/// since nothing is known of how long that blocks. The number of such threads is bounded by the host's: each belongs to one request.
pub(crate) struct Blocking(State);

/// A producer that blocks.
pub(crate) enum Producer {
    Source(Source),
    Write(Write),
}

enum State {
    Here(Producer, Option<Trailers>),
    /// On a thread, which sends the end as well: one that vanishes is no end.
    Away(mpsc::Receiver<Option<Result<Frame<Bytes>, BoxError>>>),
    Over,
}

impl Source {
    pub(crate) fn iter<I, T, E>(chunks: I) -> Self
    where
        I: IntoIterator<Item = Result<T, E>, IntoIter: Send + 'static>,
        T: Into<Bytes>,
        E: Into<BoxError>,
    {
        let chunks = chunks.into_iter().map(|chunk| chunk.map(Into::into).map_err(Into::into));
        Self::Iter(Box::new(chunks))
    }

    pub(crate) fn read(reader: impl Read + Send + 'static) -> Self {
        Self::Read(Box::new(reader), BytesMut::new())
    }

    /// The same with `chunks` in front, which were read ahead of it.
    pub(crate) fn behind(mut self, chunks: VecDeque<Bytes>) -> Self {
        let rest = iter::from_fn(move || self.next());
        Self::Iter(Box::new(chunks.into_iter().map(Ok).chain(rest)))
    }

    /// The next chunk, which may be empty; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        match self {
            Self::Iter(chunks) => chunks.next(),
            Self::Read(reader, buffer) => {
                if buffer.len() < READ_LEAST {
                    *buffer = BytesMut::zeroed(READ);
                }
                loop {
                    return match reader.read(buffer) {
                        Ok(0) => None,
                        Ok(n) => Some(Ok(buffer.split_to(n).freeze())),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => Some(Err(error.into())),
                    };
                }
            }
        }
    }
}

impl Blocking {
    pub(crate) fn new(producer: Producer, trailers: Option<Trailers>) -> Self {
        Self(State::Here(producer, trailers))
    }

    /// The producer and what makes its trailers, unless a thread has it already.
    pub(crate) fn into_parts(self) -> Result<(Producer, Option<Trailers>), Self> {
        match self.0 {
            State::Here(producer, trailers) => Ok((producer, trailers)),
            other => Err(Self(other)),
        }
    }

    /// Whether [`next`](Self::next) gives the frames. A writing function goes on by itself once it runs: it needs a thread.
    pub(crate) fn is_in_place(&self) -> bool {
        matches!(self.0, State::Here(Producer::Source(_), _))
    }

    /// The next frame, made by the calling thread. A panic is the producer's failure.
    pub(crate) fn next(&mut self) -> Option<Result<Frame<Bytes>, BoxError>> {
        let State::Here(Producer::Source(source), trailers) = &mut self.0 else {
            return None;
        };
        let next = guard(|| match source.next() {
            Some(chunk) => Some(chunk.map(Frame::data)),
            None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers()))),
        });
        if matches!(&next, Ok(Some(Ok(frame))) if frame.is_data()) {
            return next.ok().flatten();
        }
        // Whoever has the end may rely on what the source held being free again.
        drop_quietly(mem::replace(&mut self.0, State::Over));
        next.unwrap_or_else(|panic| Some(Err(panic.into())))
    }

    /// The next frame, made by a thread that the first poll starts.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if matches!(self.0, State::Here(..)) {
            if let Err(error) = self.start() {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        let State::Away(frames) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let message = ready!(frames.poll_recv(cx)).unwrap_or_else(|| {
            let message = "the body's producer vanished before its end";
            Some(Err(Error::new(Kind::Handler, message).into()))
        });
        if !matches!(message, Some(Ok(_))) {
            self.0 = State::Over;
        }
        Poll::Ready(message)
    }

    /// Has a thread go on with it, inside the runtime and the span of who asked for it.
    fn start(&mut self) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let producer = Self(mem::replace(&mut self.0, State::Over));
        let (runtime, span) = (Handle::try_current().ok(), Span::current());
        thread("tower-wsgi-producer").spawn(move || {
            let _runtime = runtime.as_ref().map(Handle::enter);
            span.in_scope(|| producer.run(&sender));
        })?;
        self.0 = State::Away(receiver);
        Ok(())
    }

    /// Produces to the end, or until nobody listens.
    fn run(mut self, sender: &mpsc::Sender<Option<Result<Frame<Bytes>, BoxError>>>) {
        let State::Here(Producer::Write(write), trailers) = self.0 else {
            while let Some(frame) = self.next() {
                if sender.blocking_send(Some(frame)).is_err() {
                    return;
                }
            }
            let _ = sender.blocking_send(None);
            return;
        };
        let mut sink = ChannelSink(sender);
        let last = guard(|| {
            let mut writer = Writer::new(&mut sink);
            write(&mut writer)?;
            let (rest, own_trailers) = writer.into_rest();
            if !rest.is_empty() {
                sink.send(rest)?;
            }
            Ok(own_trailers.or_else(|| trailers.map(|trailers| trailers())).map(Frame::trailers))
        });
        let last = match last {
            Ok(Ok(trailers)) => trailers.map(Ok),
            Ok(Err(error)) => Some(Err::<_, BoxError>(io::Error::into(error))),
            Err(panic) => Some(Err(panic.into())),
        };
        let failed = matches!(last, Some(Err(_)));
        if last.is_some() && sender.blocking_send(last).is_err() || failed {
            return;
        }
        let _ = sender.blocking_send(None);
    }
}

struct ChannelSink<'a>(&'a mpsc::Sender<Option<Result<Frame<Bytes>, BoxError>>>);

impl Sink for ChannelSink<'_> {
    fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        self.0.blocking_send(Some(Ok(Frame::data(chunk)))).map_err(|_| broken_pipe())
    }

    fn check(&self) -> io::Result<()> {
        if self.0.is_closed() { Err(broken_pipe()) } else { Ok(()) }
    }
}

/// What a writer gets when nobody listens any more.
pub(crate) fn broken_pipe() -> io::Error {
    let error = Error::new(Kind::Disconnected, "the response is wanted no more");
    error.into_io(io::ErrorKind::BrokenPipe)
}
