use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_wsgi::Body;

use super::handle::Handle;

pub(super) struct Handshake {}

impl Handshake {
    pub(super) fn new(_handle: Arc<Handle>, _request: Request<Body>) -> Self {
        Self {}
    }
    pub(super) fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<Response<Body>> {
        Poll::Pending
    }
}

pub(super) fn is_asked_for(_request: &Request<Body>) -> bool {
    false
}
