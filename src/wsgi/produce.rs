//! Bodies that come chunk by chunk from an iterator or a reader, and can be put aside between two of them.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body::Frame;

use super::call::{Answer, Call, Work};
use super::deliver::{answer, fail, fail_plainly, finish};
use super::meter::Meter;
use crate::body::Body;
use crate::error::{Error, drop_quietly, guard};
use crate::exchange::Room;
use crate::handler::SyncHandler;
use crate::pool::{Job, pause};
use crate::source::{Source, Trailers};

/// A body on its way, and what is known of it so far.
pub(crate) struct Producer {
    source: Source,
    trailers: Option<Trailers>,
    meter: Meter,
    /// Goes out with the first chunk.
    head: Option<Response<()>>,
    /// The error that this response stands for, if `on_error` made it.
    cause: Option<Error>,
}

impl Producer {
    pub(super) fn new(
        source: Source,
        trailers: Option<Trailers>,
        meter: Meter,
        head: Response<()>,
        cause: Option<Error>,
    ) -> Self {
        Self { source, trailers, meter, head: Some(head), cause }
    }
}

/// How a stretch of production ended.
enum Stretch {
    /// The source has no more.
    End(Result<(), Error>),
    /// Nobody listens any more.
    Closed,
    /// The queue is full.
    Full,
    /// Others wait for a worker.
    Wanted,
}

/// Produces until the body ends, the queue is full, nobody listens, or it is somebody else's turn.
pub(super) fn produce<H: SyncHandler>(call: &Arc<Call<H>>, mut producer: Box<Producer>) {
    loop {
        match stretch(call, &mut producer) {
            Stretch::End(end) => return complete(call, producer, end),
            Stretch::Closed => return drop_quietly(producer),
            Stretch::Full => match call.exchange.park(Work::Resume(producer)) {
                Ok(()) => return pause(),
                Err(Work::Resume(back)) => producer = back,
                Err(Work::Start(_) | Work::Fail(_)) => return,
            },
            Stretch::Wanted => match call.exchange.requeue(Work::Resume(producer)) {
                Ok(()) => {
                    return call.shared.settings.pool.resume(call.clone() as Arc<dyn Job>);
                }
                Err(work) => return drop_quietly(work),
            },
        }
    }
}

fn stretch<H: SyncHandler>(call: &Arc<Call<H>>, producer: &mut Producer) -> Stretch {
    let exchange = &call.exchange;
    // A resumed body finds room, but its consumer may have left since.
    match exchange.room() {
        Room::Free => {}
        Room::Full => return Stretch::Full,
        Room::Closed => return Stretch::Closed,
    }
    let mut produced = 0;
    loop {
        let chunk = match guard(|| producer.source.next()) {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(error))) => return Stretch::End(Err(Error::handler(error))),
            Ok(None) => return Stretch::End(Ok(())),
            Err(panic) => return Stretch::End(Err(panic)),
        };
        let chunk = producer.meter.admit(chunk);
        let room = if chunk.is_empty() {
            if producer.meter.is_exceeded() {
                return Stretch::End(Ok(()));
            }
            if exchange.is_closed() { Room::Closed } else { Room::Free }
        } else if let Some(head) = producer.head.take() {
            send_head(call, head, producer.meter.declared(), chunk)
        } else {
            exchange.push(Frame::data(chunk))
        };
        match room {
            Room::Closed => return Stretch::Closed,
            // Before it is put aside for want of room: nothing more is asked of it.
            _ if producer.meter.is_exceeded() => return Stretch::End(Ok(())),
            Room::Full => return Stretch::Full,
            Room::Free => {}
        }
        // A client that reads as fast as this produces must not keep the worker from everybody else.
        produced += 1;
        if produced >= call.shared.settings.send_queue_size && call.shared.settings.pool.is_wanted() {
            return Stretch::Wanted;
        }
    }
}

fn send_head<H: SyncHandler>(
    call: &Arc<Call<H>>,
    head: Response<()>,
    length: Option<u64>,
    first: Bytes,
) -> Room {
    let stream = Answer::Stream(head, length);
    match call.exchange.answer_with(stream, Frame::data(first)) {
        Ok(()) => call.exchange.room(),
        Err(_) => Room::Closed,
    }
}

/// Ends the body. The source is dropped first: when the client has the end, what the source held is free again.
fn complete<H: SyncHandler>(call: &Arc<Call<H>>, producer: Box<Producer>, end: Result<(), Error>) {
    let Producer { source, trailers, meter, head, cause } = *producer;
    drop_quietly(source);
    let end = end.and_then(|()| meter.finish());
    let end = end.and_then(|bytes| Ok((bytes, trailers.map(guard).transpose()?)));
    match (head, end) {
        (Some(_), Err(error)) => match cause {
            Some(first) => fail_plainly(call, &first, &error),
            None => fail(call, &error),
        },
        (Some(head), Ok((_, trailers))) => {
            let body = trailers.map_or_else(Body::empty, |trailers| Body::last(Ok(trailers)));
            answer(call, Answer::Response(head.map(|()| body)));
        }
        (None, Ok((bytes, trailers))) => {
            if let Some(trailers) = trailers {
                call.exchange.push(Frame::trailers(trailers));
            }
            finish(call, Ok(bytes));
        }
        (None, Err(error)) => finish(call, Err(error)),
    }
}
