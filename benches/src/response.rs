//! As much of a response's parser as a load generator needs: heads by `httparse`, bodies by length or in chunks.

use httparse::Status;

/// A response that is being read.
#[derive(Debug, Default)]
pub struct Response {
    state: State,
    /// Bytes of a head, or of a chunk's, that is not complete yet.
    kept: Vec<u8>,
    /// The length of the body so far.
    pub received: usize,
    /// Whether the server closes the connection after this response.
    pub closes: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// So much of the body is to come.
    Counted(usize),
    Size,
    /// So much of the chunk is to come.
    Chunk(usize),
    /// The end of the line after a chunk.
    ChunkEnd,
    Trailers,
    Done,
}

impl Response {
    /// Reads on, and shows each piece of the body with its offset. True at the end of the response.
    ///
    /// # Errors
    ///
    /// What is not a response, has another status than 200, goes on after its end, or has a piece that is not
    /// `expected`.
    pub fn read(
        &mut self,
        bytes: &[u8],
        mut expected: impl FnMut(usize, &[u8]) -> bool,
    ) -> Result<bool, String> {
        if self.kept.is_empty() {
            let used = self.parse(bytes, &mut expected)?;
            self.kept.extend_from_slice(&bytes[used..]);
        } else {
            let mut kept = std::mem::take(&mut self.kept);
            kept.extend_from_slice(bytes);
            let used = self.parse(&kept, &mut expected)?;
            kept.drain(..used);
            self.kept = kept;
        }
        let done = self.state == State::Done;
        if done && !self.kept.is_empty() {
            return Err(format!("{} bytes after the end of the response", self.kept.len()));
        }
        Ok(done)
    }

    /// How many bytes it has understood.
    fn parse(
        &mut self,
        bytes: &[u8],
        expected: &mut impl FnMut(usize, &[u8]) -> bool,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let (length, next) = match self.state {
                State::Head => match self.head(rest)? {
                    Some(head) => head,
                    None => return Ok(used),
                },
                State::Counted(0) => (0, State::Done),
                State::Chunk(0) => (0, State::ChunkEnd),
                State::Counted(left) | State::Chunk(left) => {
                    if rest.is_empty() {
                        return Ok(used);
                    }
                    let length = left.min(rest.len());
                    if !expected(self.received, &rest[..length]) {
                        return Err(format!("a wrong body after {} bytes", self.received));
                    }
                    self.received += length;
                    let left = left - length;
                    let counted = matches!(self.state, State::Counted(_));
                    (length, if counted { State::Counted(left) } else { State::Chunk(left) })
                }
                State::Size => match httparse::parse_chunk_size(rest) {
                    Ok(Status::Complete((length, 0))) => (length, State::Trailers),
                    Ok(Status::Complete((length, size))) => (length, State::Chunk(to_usize(size)?)),
                    Ok(Status::Partial) => return Ok(used),
                    Err(_) => return Err("a chunk without a size".to_owned()),
                },
                State::ChunkEnd if rest.len() < 2 => return Ok(used),
                State::ChunkEnd if rest.starts_with(b"\r\n") => (2, State::Size),
                State::ChunkEnd => return Err("a chunk that is longer than its size".to_owned()),
                State::Trailers => match rest.windows(2).position(|pair| pair == b"\r\n") {
                    Some(0) => (2, State::Done),
                    Some(length) => (length + 2, State::Trailers),
                    None => return Ok(used),
                },
                State::Done => return Ok(used),
            };
            used += length;
            self.state = next;
        }
    }

    /// The length of the head and what follows it.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<(usize, State)>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let Status::Complete(length) = head.parse(bytes).map_err(|error| format!("no response: {error}"))?
        else {
            return Ok(None);
        };
        if head.code != Some(200) {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]);
            return Err(format!("another status than 200:\n{text}"));
        }
        self.closes = head.version == Some(0);
        let mut next = None;
        for header in head.headers.iter() {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") {
                let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                next = Some(State::Counted(number.ok_or("a content-length that is no number")?));
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                next = Some(State::Size);
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.closes |= value.eq_ignore_ascii_case(b"close");
            }
        }
        let next = next.ok_or("a response without a content-length and not in chunks")?;
        Ok(Some((length, next)))
    }
}

fn to_usize(size: u64) -> Result<usize, String> {
    usize::try_from(size).map_err(|error| error.to_string())
}
