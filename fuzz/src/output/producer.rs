//! What makes a body, in each of the ways that there are.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{Request, Response};
use tower_wsgi::{BoxError, Environ, Input, Output, Writer};

use crate::harness::{Ledger, Token, panic_on_purpose};
use crate::script::{End, Script, Size, Step, Text, failure, trailers};

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Full,
    Iterator,
    Reader,
    Writer,
    Async,
    Early,
}

/// What a producer does.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    Write(Size),
    /// Without a copy, where there is a difference.
    Send(Size),
    Flush,
    Pending,
    Later,
}

impl Act {
    pub(super) fn size(self) -> usize {
        match self {
            Self::Write(size) | Self::Send(size) => size.get(),
            Self::Flush | Self::Pending | Self::Later => 0,
        }
    }
}

pub(super) struct Producer {
    pub(super) kind: Kind,
    pub(super) text: Text,
    pub(super) acts: VecDeque<Act>,
    pub(super) end: End,
    pub(super) ledger: Ledger,
    /// How often it was asked for something.
    pub(super) runs: Arc<AtomicUsize>,
}

impl Producer {
    pub(super) fn output(self) -> Output {
        let has_trailers = self.end == End::Trailers;
        let output = match self.kind {
            Kind::Full => Output::from(self.full()),
            Kind::Iterator => {
                let mut chunks = self.chunks();
                Output::try_iter(std::iter::from_fn(move || chunks.next()))
            }
            Kind::Reader => Output::reader(self.chunks()),
            Kind::Writer | Kind::Early => return self.writer(),
            Kind::Async => return Output::body(self.script()),
        };
        if has_trailers { output.with_trailers(trailers) } else { output }
    }

    fn full(self) -> Bytes {
        struct Owner {
            bytes: Bytes,
            _token: Token,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        let total = self.acts.iter().map(|act| act.size()).sum();
        Bytes::from_owner(Owner { bytes: self.text.bytes(0, total), _token: self.ledger.token("bytes") })
    }

    fn script(self) -> Script {
        let step = |act: &Act| match act {
            Act::Write(size) | Act::Send(size) => Some(Step::Data(*size)),
            Act::Pending => Some(Step::Pending),
            Act::Later => Some(Step::Later),
            Act::Flush => None,
        };
        Script {
            steps: self.acts.iter().filter_map(step).collect(),
            end: Some(self.end),
            text: self.text,
            at: 0,
            hint: None,
            polls: self.runs,
            passed: Arc::default(),
            _token: self.ledger.token("async body"),
        }
    }

    fn chunks(self) -> Chunks {
        let _token = self.ledger.token("chunks");
        Chunks { producer: self, at: 0, _token }
    }

    fn writer(self) -> Output {
        let token = self.ledger.token("writing function");
        Output::writer(move |writer| {
            let _token = token;
            self.write(writer)
        })
    }

    fn write(&self, writer: &mut Writer<'_>) -> io::Result<()> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let mut at = 0;
        for act in &self.acts {
            let data = self.text.bytes(at, act.size());
            at += data.len();
            match act {
                Act::Write(_) => writer.write_all(&data)?,
                Act::Send(_) => writer.send(data)?,
                _ => writer.flush()?,
            }
        }
        match self.end {
            End::Clean => Ok(()),
            End::Trailers => {
                writer.set_trailers(trailers());
                Ok(())
            }
            End::Panic => panic_on_purpose(),
            end @ (End::Failure | End::Interrupted) => Err(io::Error::other(failure(end))),
        }
    }

    /// Sends while the handler runs.
    pub(super) fn begin(
        self,
        request: &Request<Input>,
        head: Response<()>,
    ) -> Result<Response<Output>, BoxError> {
        let _token = self.ledger.token("handler");
        let early = Environ::of(request).early().ok_or("a crossing can begin early")?;
        let mut response = early.begin(head)?;
        let mut at = 0;
        for act in &self.acts {
            self.runs.fetch_add(1, Ordering::Relaxed);
            let data = self.text.bytes(at, act.size());
            at += data.len();
            response.send(data)?;
        }
        match self.end {
            End::Clean | End::Trailers => Ok(response.finish()),
            End::Panic => panic_on_purpose(),
            end @ (End::Failure | End::Interrupted) => Err(failure(end)),
        }
    }
}

/// Chunk by chunk, as an iterator and as a reader.
struct Chunks {
    producer: Producer,
    at: usize,
    _token: Token,
}

impl Chunks {
    fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        let producer = &mut self.producer;
        producer.runs.fetch_add(1, Ordering::Relaxed);
        let Some(act) = producer.acts.pop_front() else {
            return match producer.end {
                End::Clean | End::Trailers => None,
                End::Panic => panic_on_purpose(),
                end @ (End::Failure | End::Interrupted) => Some(Err(failure(end))),
            };
        };
        if act == Act::Pending {
            return Some(Err(io::Error::from(io::ErrorKind::Interrupted).into()));
        }
        let data = producer.text.bytes(self.at, act.size());
        self.at += data.len();
        Some(Ok(data))
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.next() {
            None => Ok(0),
            Some(Ok(data)) => {
                buf[..data.len()].copy_from_slice(&data);
                Ok(data.len())
            }
            Some(Err(error)) => Err(match error.downcast::<io::Error>() {
                Ok(error) => *error,
                Err(error) => io::Error::other(error),
            }),
        }
    }
}
