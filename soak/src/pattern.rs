//! The bytes that all bodies have: each says by its place what it has to be.

use bytes::Bytes;

/// The longest piece that is taken at once.
pub(crate) const LONGEST: usize = 64 * 1024;

static BYTES: [u8; LONGEST + 251] = {
    let mut bytes = [0; LONGEST + 251];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % 251) as u8;
        at += 1;
    }
    bytes
};

/// The bytes from an offset on, of no more than [`LONGEST`].
pub(crate) fn piece(offset: usize, length: usize) -> Bytes {
    let start = offset % 251;
    Bytes::from_static(&BYTES[start..start + length])
}

/// How long a body is that comes in pieces.
#[derive(Default)]
pub(crate) struct Count {
    length: usize,
}

impl Count {
    /// Adds a piece of any length, unless it is not what has to follow.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        for part in bytes.chunks(LONGEST) {
            if part != piece(self.length, part.len()) {
                return Err(format!("other bytes than expected after {}", self.length));
            }
            self.length += part.len();
        }
        Ok(())
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }
}
