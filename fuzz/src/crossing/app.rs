//! The application: it reads, answers and fails by its script.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::sync::Arc;

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{Request, Response};
use tower_wsgi::{BoxError, Early, Environ, Input, Output, Writer};

use super::Case;
use super::shared::{Outcome, Shared};
use crate::harness::{Ledger, Token, panic_on_purpose};
use crate::script::{End, Size, Text, failure};

/// What a handler does before it answers.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Step {
    Read(Size),
    Chunk,
    ToEnd,
    /// Lets go of the request's body.
    DropInput,
}

/// What a handler answers with.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
    Full,
    Iterator,
    Reader,
    Writer,
    Early,
    /// The rest of the request's body, as it is.
    PassedOn,
    Nothing,
}

/// What a body does when it is produced.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Act {
    Write(Size),
    /// Writes what it reads of the request.
    Echo(Size),
    Flush,
}

/// Answers the request.
pub(super) fn answer(
    case: &Case,
    ledger: &Ledger,
    shared: &Arc<Shared>,
    request: Request<Input>,
) -> Result<Response<Output>, BoxError> {
    shared.start();
    let (head, input) = request.into_parts();
    let mut app = App {
        shared: shared.clone(),
        input: Some(input),
        acts: case.acts.clone().into(),
        end: case.end,
        written: 0,
        lingers: case.lingers(),
        _token: ledger.token("application"),
    };
    for step in &case.steps {
        app.step(*step)?;
    }
    let output = match case.answer {
        Answer::Nothing => {
            app.end()?;
            Output::empty()
        }
        Answer::Full => Output::from(app.all()?),
        Answer::Iterator => Output::try_iter(std::iter::from_fn(move || app.next())),
        Answer::Reader => Output::reader(app),
        Answer::Writer => Output::writer(move |writer| app.write(writer)),
        Answer::Early => {
            let early = head.extensions.get().and_then(Environ::early).ok_or("a crossing can begin early")?;
            return app.begin(early);
        }
        Answer::PassedOn => {
            let input = app.input.take();
            app.shared.come_to(if input.is_some() { Outcome::Passed } else { Outcome::Completed });
            Output::body(input.unwrap_or_default().into_body())
        }
    };
    Ok(Response::new(output))
}

struct App {
    shared: Arc<Shared>,
    input: Option<Input>,
    acts: VecDeque<Act>,
    end: End,
    written: usize,
    lingers: bool,
    _token: Token,
}

impl App {
    fn step(&mut self, step: Step) -> io::Result<()> {
        if self.lingers {
            self.shared.linger();
        }
        match step {
            Step::Read(size) => self.read(size.get().max(1)).map(drop),
            Step::Chunk => self.read_by(|input| input.chunk().map(Option::unwrap_or_default)).map(drop),
            Step::ToEnd => {
                while !self.read(64)?.is_empty() {}
                Ok(())
            }
            Step::DropInput => {
                self.input = None;
                Ok(())
            }
        }
    }

    fn read(&mut self, most: usize) -> io::Result<Bytes> {
        self.read_by(|input| {
            let mut bytes = vec![0; most];
            let length = input.read(&mut bytes)?;
            bytes.truncate(length);
            Ok(bytes.into())
        })
    }

    fn read_by(&mut self, read: impl FnOnce(&mut Input) -> io::Result<Bytes>) -> io::Result<Bytes> {
        let Some(input) = &mut self.input else {
            return Ok(Bytes::new());
        };
        let after = self.shared.is_gone();
        let result = read(input);
        self.shared.read(&result.as_deref(), input.trailers().is_some(), after);
        result.inspect_err(|_| self.shared.come_to(Outcome::Failed))
    }

    /// What the next act writes; `None` when all is done. Its end is as in the script.
    fn act(&mut self) -> Option<Result<Bytes, BoxError>> {
        if self.lingers {
            self.shared.linger();
        }
        let Some(act) = self.acts.pop_front() else {
            return self.end().err().map(Err);
        };
        match act {
            Act::Write(size) => {
                let data = Text::Lines.bytes(self.written, size.get());
                self.written += data.len();
                Some(Ok(data))
            }
            Act::Echo(size) => Some(self.read(size.get().max(1)).map_err(Into::into)),
            Act::Flush => Some(Ok(Bytes::new())),
        }
    }

    /// Ends as in the script.
    fn end(&self) -> Result<(), BoxError> {
        match self.end {
            End::Clean | End::Trailers => {
                self.shared.come_to(Outcome::Completed);
                Ok(())
            }
            End::Panic => {
                self.shared.come_to(Outcome::Failed);
                panic_on_purpose()
            }
            end @ (End::Failure | End::Interrupted) => {
                self.shared.come_to(Outcome::Failed);
                Err(failure(end))
            }
        }
    }

    /// What an iterator gives.
    fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        self.shared.ask();
        let next = self.act()?;
        Some(next.inspect(|chunk| self.shared.sent(chunk)))
    }

    fn all(&mut self) -> Result<Vec<u8>, BoxError> {
        let mut all = Vec::new();
        while let Some(data) = self.act() {
            all.extend(data?);
        }
        self.shared.sent(&all);
        Ok(all)
    }

    fn write(mut self, writer: &mut Writer<'_>) -> io::Result<()> {
        while let Some(data) = self.act() {
            let data = data.map_err(io::Error::other)?;
            let after = self.shared.is_gone();
            let result = if data.is_empty() { writer.flush() } else { writer.write_all(&data) };
            let result = self.shared.wrote(&data, after, result);
            result.inspect_err(|_| self.shared.come_to(Outcome::Failed))?;
        }
        Ok(())
    }

    fn begin(mut self, early: Early) -> Result<Response<Output>, BoxError> {
        let mut response = early.begin(Response::new(()))?;
        while let Some(data) = self.act() {
            let data = data?;
            let after = self.shared.is_gone();
            let result = response.send(data.clone());
            let result = self.shared.wrote(&data, after, result);
            result.inspect_err(|_| self.shared.come_to(Outcome::Failed))?;
        }
        Ok(response.finish())
    }
}

impl Read for App {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.shared.ask();
        // No bytes would be the end.
        loop {
            let Some(data) = self.act() else { return Ok(0) };
            // What goes over is never sent.
            let data = data.map_err(|error| match error.downcast::<io::Error>() {
                Ok(error) if error.kind() != io::ErrorKind::Interrupted => *error,
                _ => io::Error::other("failed on purpose"),
            })?;
            let data = data.slice(..data.len().min(buf.len()));
            if !data.is_empty() {
                buf[..data.len()].copy_from_slice(&data);
                self.shared.sent(&data);
                return Ok(data.len());
            }
        }
    }
}
