//! The streamed body that users write by hand: blocking code sends pieces into a channel, and the response is its other end.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;

use super::work::Work;

/// How many pieces may wait: as many as with us.
pub(super) const PIECES: usize = 10;

pub(super) type Pieces = ReceiverStream<io::Result<Bytes>>;

/// How a download is made.
#[derive(Clone, Copy)]
pub(super) enum Download {
    Iterator,
    Reader,
    Writer,
}

impl Download {
    pub(super) const ALL: [Download; 3] = [Download::Iterator, Download::Reader, Download::Writer];

    pub(super) fn path(self) -> &'static str {
        match self {
            Download::Iterator => "/iterator",
            Download::Reader => "/reader",
            Download::Writer => "/writer",
        }
    }
}

/// A body, and what has to run on a thread that may block.
pub(super) fn body(work: &'static Work, download: Download) -> (Pieces, impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let mut to = Body { sender };
    let run = move || {
        // It fails if nobody wants the body any more.
        drop(match download {
            Download::Iterator => work.pieces().try_for_each(|piece| to.send(Ok(piece))),
            Download::Reader => work.copies().try_for_each(|piece| to.send(Ok(piece))),
            Download::Writer => work.write(&mut to),
        });
    };
    (ReceiverStream::new(receiver), run)
}

struct Body {
    sender: Sender<io::Result<Bytes>>,
}

impl Body {
    fn send(&self, piece: io::Result<Bytes>) -> io::Result<()> {
        self.sender.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Ok(Bytes::copy_from_slice(bytes)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
