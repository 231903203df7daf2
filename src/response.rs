//! What has to hold for a response that an application made, whoever sends it: its headers, its length, and what stands in for an error.

use std::fmt::Display;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

use crate::body::Body;
use crate::error::{Error, Kind};
use crate::output::{Output, OutputKind};

/// The plain response for an error: it says no more than its status.
pub(crate) fn error_response(method: &Method, error: &Error) -> Response<Body> {
    plain_response(method, error.status(), error)
}

/// A response that says no more than its status, which stands for `error`.
pub(crate) fn plain_response(method: &Method, status: StatusCode, error: &Error) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or_default();
    let text = format!("{reason}\n");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONTENT_LENGTH, text.len().into());
    // Over HTTP/2 hyper would send the body of a response to HEAD.
    if method != Method::HEAD {
        *response.body_mut() = text.into();
    }
    response.extensions_mut().insert(error.clone());
    response
}

/// Reports what went wrong to the log. What fails because of the client is no fault of the server's.
pub(crate) fn report(error: &Error) {
    match std::error::Error::source(error) {
        Some(source) if error.status().is_client_error() => {
            tracing::debug!(source = source as &dyn std::error::Error, "the request's body failed");
        }
        Some(source) => {
            tracing::error!(%error, source = source as &dyn std::error::Error, "handler failed");
        }
        None => tracing::error!(%error, "handler failed"),
    }
}

/// Drops what is the connection's and not the application's: headers (RFC 9110, section 7.6.1) and the version. The server sets its own.
pub(crate) fn drop_hop_by_hop(head: &mut Response<()>) {
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

    // hyper ends a body of an HTTP/1.0 response with its connection, cut off or not, and panics at versions that it does not speak.
    *head.version_mut() = Version::default();
    // An upgrade, and the demand for one, are made of `Connection`, what it names, and `Upgrade`.
    let upgrades = matches!(head.status(), StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    let headers = head.headers_mut();
    if headers.is_empty() {
        return;
    }
    if !upgrades && headers.contains_key(CONNECTION) {
        let lists = headers.get_all(CONNECTION).iter().map(HeaderValue::as_bytes);
        // One name that is none does not save the others.
        let named = lists.flat_map(|list| list.split(|byte| *byte == b','));
        let named: Vec<_> = named.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if !upgrades {
        headers.remove(UPGRADE);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

/// The length that a response's head declares.
///
/// # Errors
/// If it is not the head of a response that can be sent.
pub(crate) fn check_head(head: &Response<()>) -> Result<Option<u64>, Error> {
    if head.status().is_informational() && head.status() != StatusCode::SWITCHING_PROTOCOLS {
        let message = format!("{} is not the status of a final response", head.status());
        return Err(Error::new(Kind::Response, message));
    }
    declared_length(head.headers())
}

/// The length that headers declare.
pub(crate) fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let invalid = |what: &dyn Display| {
        let message = format!("the Content-Length is not one number: {what}");
        Error::new(Kind::Response, message)
    };
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid(&"it is set more than once"));
    }
    let text = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match text.and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => Err(invalid(&format_args!("{value:?}"))),
    }
}

/// Whether a response has no body (RFC 9110, section 6.4.1).
pub(crate) fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// Gives the head of a response that has no body the length it should declare: none, or what GET would send, where that is known
/// (RFC 9110, section 9.3.2).
pub(crate) fn fit_length(method: &Method, head: &mut Response<()>, output: &Output) {
    let status = head.status();
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        head.headers_mut().remove(CONTENT_LENGTH);
    } else if method == Method::HEAD
        && status != StatusCode::NOT_MODIFIED
        && !head.headers().contains_key(CONTENT_LENGTH)
    {
        match output.length() {
            // axum empties bodies for HEAD: that tells nothing of GET's.
            Some(0) if matches!(output.kind, OutputKind::Body(_)) => {}
            Some(length) => drop(head.headers_mut().insert(CONTENT_LENGTH, length.into())),
            None => {}
        }
    }
}
