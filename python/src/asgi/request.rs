//! What of a request the event loop needs, prepared where it costs the loop nothing.

use std::fmt;

use http::header::{COOKIE, EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use tower_wsgi::{Scope, Variables};
use tracing::Span;

use crate::log::unheard;

/// A request without its body.
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) scope: Scope,
    /// Percent-decoded.
    pub(super) path: String,
    /// The synchronous host's view, if the request came through one.
    pub(super) variables: Option<Variables>,
    /// The caller's, for what the log has to say of the request.
    pub(super) span: Span,
}

impl Incoming {
    /// Takes a request apart; its extensions are left in it.
    pub(super) fn of<B>(request: &mut Request<B>) -> Self {
        let scope = Scope::of(request);
        let variables = scope.environ().is_some().then(|| Variables::of(request));
        let path = scope.path().into_owned();
        let method = request.method().clone();
        let mut headers = std::mem::take(request.headers_mut());
        tell_authority(request, &mut headers);
        if request.version() == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        Self { method, headers, scope, path, variables, span: Span::current() }
    }

    /// Tells that the application failed at this request.
    pub(super) fn failed(&self, what: fmt::Arguments<'_>) {
        let Self { method, scope, span, .. } = self;
        let (path, _span) = (scope.raw_path(), span.enter());
        tracing::error!(%method, path, "{what}");
        unheard(format_args!("{method} {path} failed\n{what}"));
    }

    /// Whether the client waits to be asked for the body.
    pub(super) fn expects_continue(&self) -> bool {
        let expect = self.headers.get(EXPECT);
        expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }
}

/// The authority of the request's target wins over a `Host` header: it is the pseudo-header of HTTP/2, and in HTTP/1 it comes with a target in absolute form
/// (RFC 9112, section 3.2.2).
fn tell_authority<B>(request: &Request<B>, headers: &mut HeaderMap) {
    let Some(authority) = request.uri().authority() else {
        return;
    };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
}

/// HTTP/2 may split the cookies among several headers, and whoever hands them on has to join them (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
