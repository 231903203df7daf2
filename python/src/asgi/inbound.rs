//! The request's body on its way to the application, kept to its declared length.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use tower_wsgi::Body;

/// A request's body, and what was read of it.
pub(super) struct Inbound {
    body: Option<Body>,
    declared: Option<u64>,
    received: u64,
    read: VecDeque<Pull>,
}

/// A piece of a body.
pub(super) enum Pull {
    Chunk(Bytes),
    End,
    /// The client vanished, or sent another length than it declared.
    Broken,
}

impl Inbound {
    pub(super) fn new(body: Body, headers: &HeaderMap) -> Self {
        let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let mut inbound = Self { body: Some(body), declared, received: 0, read: VecDeque::new() };
        if inbound.body.as_ref().is_some_and(Body::is_end_stream) {
            inbound.end();
            // What the exchange starts with.
            if inbound.declared.is_none_or(|declared| declared == 0) {
                inbound.read.clear();
            }
        }
        inbound
    }

    /// Whether there is nothing more, and nothing was read that has not been pulled.
    pub(super) fn is_ended(&self) -> bool {
        self.body.is_none() && self.read.is_empty()
    }

    /// Whether all of the body was read.
    pub(super) fn is_read(&self) -> bool {
        self.body.is_none()
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Reads a piece, or the end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(());
            };
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // ASGI has no word for a request's trailers.
                    let Ok(chunk) = frame.into_data() else { continue };
                    let at_end = body.is_end_stream();
                    if chunk.is_empty() && !at_end {
                        continue;
                    }
                    self.received += chunk.len() as u64;
                    if self.declared.is_some_and(|declared| self.received > declared) {
                        self.body = None;
                        self.read.push_back(Pull::Broken);
                        return Poll::Ready(());
                    }
                    if !chunk.is_empty() {
                        self.read.push_back(Pull::Chunk(chunk));
                    }
                    if at_end {
                        self.end();
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "the request's body failed");
                    self.body = None;
                    self.read.push_back(Pull::Broken);
                }
                None => self.end(),
            }
            return Poll::Ready(());
        }
    }

    fn end(&mut self) {
        self.body = None;
        let short = self.declared.is_some_and(|declared| self.received < declared);
        self.read.push_back(if short { Pull::Broken } else { Pull::End });
    }

    /// The next of what was read.
    pub(super) fn pull(&mut self) -> Option<Pull> {
        self.read.pop_front()
    }
}
