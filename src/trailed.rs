//! Trailers behind an async body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::body::Body;
use crate::error::{BoxError, guard};
use crate::source::Trailers;

/// An async body with trailers behind it.
pub(crate) struct Trailed {
    body: Body,
    trailers: Option<Trailers>,
}

impl Trailed {
    pub(crate) fn new(body: Body, trailers: Trailers) -> Self {
        Self { body, trailers: Some(trailers) }
    }
}

impl http_body::Body for Trailed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut own = HeaderMap::new();
        if self.trailers.is_some() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_trailers() {
                    Ok(trailers) => own = trailers,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => {
                    self.trailers = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {}
            }
        }
        let Some(trailers) = self.trailers.take() else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match guard(trailers) {
            Ok(trailers) => {
                own.extend(trailers);
                Ok(Frame::trailers(own))
            }
            Err(panic) => Err(panic.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.trailers.is_none()
    }

    /// Never exact: hyper would declare the length, and a body of declared length has no trailers over HTTP/1.
    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.body.size_hint().lower());
        hint
    }
}
