//! What an input is to its reader: frames, and an end.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read};
use std::mem;

use bytes::{Buf, Bytes};
use http::HeaderMap;

use crate::script::{End, trailers};

/// Who sends the body. An excess over the declared length is an error of a client's, and cut off from a response.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Role {
    Request,
    Response,
}

enum Event {
    Data(Bytes),
    /// Fails once.
    Stuck,
}

/// How it stands with the end.
enum State {
    Open,
    Ended,
    Failed(ErrorKind),
}

/// It reads as the standard library's default methods do, but for the frames.
pub(super) struct Model {
    role: Role,
    events: VecDeque<Event>,
    current: Bytes,
    received: u64,
    length: Option<u64>,
    end: End,
    /// What a body that fails fails with.
    failure: ErrorKind,
    state: State,
    trailers: Option<HeaderMap>,
}

impl Model {
    pub(super) fn new(role: Role, length: Option<u64>, end: End) -> Self {
        Self {
            role,
            events: VecDeque::new(),
            current: Bytes::new(),
            received: 0,
            length,
            end,
            failure: ErrorKind::Other,
            state: State::Open,
            trailers: None,
        }
    }

    pub(super) fn data(&mut self, data: Bytes) {
        self.events.push_back(Event::Data(data));
    }

    pub(super) fn stuck(&mut self) {
        self.events.push_back(Event::Stuck);
    }

    /// Makes one frame of all.
    pub(super) fn join(&mut self) {
        let all: Vec<u8> = mem::take(&mut self.events)
            .into_iter()
            .flat_map(|event| match event {
                Event::Data(data) => data,
                Event::Stuck => Bytes::new(),
            })
            .collect();
        self.data(all.into());
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// How often a read to the end will stop before it.
    pub(super) fn stuck_left(&self) -> usize {
        let is_stuck = |event: &&Event| matches!(event, Event::Stuck);
        if matches!(self.state, State::Open) { self.events.iter().filter(is_stuck).count() } else { 0 }
    }

    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref().filter(|_| self.current.is_empty())
    }

    /// Whether only the end is left to be read, and brings trailers.
    pub(super) fn only_trailers_left(&self) -> bool {
        let is_empty = |event: &Event| matches!(event, Event::Data(data) if data.is_empty());
        matches!(self.state, State::Open)
            && self.current.is_empty()
            && self.events.iter().all(is_empty)
            && self.end == End::Trailers
            && self.length.is_none_or(|length| self.received >= length)
    }

    pub(super) fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let is_end = self.fill_buf()?.is_empty();
        Ok((!is_end).then(|| mem::take(&mut self.current)))
    }

    /// Another length is declared.
    pub(super) fn declare(&mut self, length: u64) {
        self.length = Some(length);
        if self.received > length {
            match self.role {
                Role::Request => self.state = State::Failed(ErrorKind::InvalidData),
                Role::Response => self.cut_off(self.received - length),
            }
        } else if matches!(self.state, State::Ended) && self.received < length {
            // Told by the next read, unless another length is declared before it.
            (self.state, self.end) = (State::Open, End::Clean);
        }
    }

    /// What was not read yet is a body of its own.
    pub(super) fn turn_round(&mut self) {
        let left = self.length.map(|length| length.saturating_sub(self.received));
        if !matches!(self.state, State::Open) {
            self.events.clear();
            // What ended is told at its place, and not by a length.
            self.length = None;
        }
        match self.state {
            State::Open => self.resolve(),
            State::Ended if self.trailers.is_some() => self.end = End::Trailers,
            State::Ended => self.end = End::Clean,
            State::Failed(kind) => (self.end, self.failure) = (End::Failure, kind),
        }
        self.length = self.length.and(left).map(|left| left + self.current.len() as u64);
        self.received = 0;
        self.state = State::Open;
        self.trailers = None;
        if !self.current.is_empty() {
            self.events.push_front(Event::Data(mem::take(&mut self.current)));
        }
    }

    /// Makes of what was declared so far what it comes to: it holds whatever is declared later.
    fn resolve(&mut self) {
        let Some(length) = self.length else { return };
        let mut left = length.saturating_sub(self.received);
        for at in 0..self.events.len() {
            let Event::Data(data) = &mut self.events[at] else { continue };
            let excess = (data.len() as u64).saturating_sub(left);
            if excess == 0 {
                left -= data.len() as u64;
                continue;
            }
            match self.role {
                Role::Request => {
                    self.events.truncate(at);
                    (self.end, self.failure) = (End::Failure, ErrorKind::InvalidData);
                }
                Role::Response => {
                    data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    self.events.truncate(at + 1);
                    self.end = End::Clean;
                }
            }
            return;
        }
        if left > 0 && matches!(self.end, End::Clean | End::Trailers) {
            (self.end, self.failure) = (End::Failure, ErrorKind::UnexpectedEof);
        }
    }

    /// Takes back what came last.
    fn cut_off(&mut self, excess: u64) {
        let excess = usize::try_from(excess).unwrap_or(usize::MAX).min(self.current.len());
        self.current.truncate(self.current.len() - excess);
        self.received -= excess as u64;
        self.events.clear();
        self.state = State::Ended;
    }

    fn accept(&mut self, data: Bytes) {
        self.received += data.len() as u64;
        let excess = self.length.map_or(0, |length| self.received.saturating_sub(length));
        if excess > 0 && self.role == Role::Request {
            self.state = State::Failed(ErrorKind::InvalidData);
            return;
        }
        self.current = data;
        if excess > 0 {
            self.cut_off(excess);
        }
    }

    fn finish(&mut self) {
        self.state = match self.end {
            End::Clean | End::Trailers if self.length.is_some_and(|length| self.received < length) => {
                State::Failed(ErrorKind::UnexpectedEof)
            }
            End::Clean => State::Ended,
            End::Trailers => {
                self.trailers = Some(trailers());
                State::Ended
            }
            End::Failure | End::Interrupted | End::Panic => State::Failed(self.failure),
        };
    }
}

impl Read for Model {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let here = self.fill_buf()?;
        let length = buf.len().min(here.len());
        buf[..length].copy_from_slice(&here[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Model {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match &self.state {
                State::Ended => break,
                State::Failed(kind) => return Err((*kind).into()),
                State::Open => match self.events.pop_front() {
                    Some(Event::Data(data)) => self.accept(data),
                    Some(Event::Stuck) => return Err(ErrorKind::Other.into()),
                    None => self.finish(),
                },
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}
