//! Long bodies.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tower_wsgi::{Body, BoxError};

pub(crate) const BODY: usize = 256 * 1024 * 1024;
pub(crate) const CHUNK: usize = 64 * 1024;

/// So many bytes, in fresh chunks, as from a socket.
pub(crate) struct Chunks(pub(crate) usize);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= CHUNK;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; CHUNK])))))
    }
}

/// A blocking reader of as many.
pub(crate) fn reader() -> impl Read + Send + 'static {
    io::repeat(b'x').take(BODY as u64)
}

/// What a user without a pump would do with it.
pub(crate) fn read_before() -> Body {
    let mut bytes = Vec::new();
    reader().read_to_end(&mut bytes).expect("bytes");
    Body::from(bytes)
}
