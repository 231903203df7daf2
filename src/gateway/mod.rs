//! Synchronous hosts: what is between a server that knows nothing of this crate and a [`SyncHandler`].
//!
//! A host makes a `Request<Input>` of what it has (most of all [`Input::reader`], and a [`Scope`](crate::Scope) with what it knows of the connection), gives it to [`respond`], and sends the
//! response that comes back: status, headers, and a body that is a [`Read`](std::io::Read). For hosts that speak CGI, [`cgi`] does all of it.
//!
//! ```
//! use std::io::Read;
//! use http::{Request, Response};
//! use tower_wsgi::{Input, gateway};
//!
//! let app = |_: Request<Input>| Response::new("Hello World!");
//!
//! let request = Request::get("/").body(Input::empty()).unwrap();
//! let mut response = gateway::respond(&app, request);
//! let mut text = String::new();
//! response.body_mut().read_to_string(&mut text).unwrap();
//! assert_eq!(response.headers()["content-length"], "12");
//! ```

pub mod cgi;

use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};

use crate::error::{Error, Kind, drop_quietly, guard};
use crate::handler::SyncHandler;
use crate::input::Input;
use crate::output::{Output, OutputKind};
use crate::response::{check_head, drop_hop_by_hop, error_response, fit_length, is_bodiless, report};

/// Has `handler` answer a request, and makes of that what can be sent as it is.
///
/// ```
/// use http::{Request, Response};
/// use tower_wsgi::{Error, Input, gateway};
///
/// let broken = |_: Request<Input>| Err::<Response<String>, _>("no such table");
/// let response = gateway::respond(&broken, Request::new(Input::empty()));
/// assert_eq!(response.status(), 500);
/// let error = response.extensions().get::<Error>().expect("the reason");
/// assert!(error.is_handler());
/// // The client is told no more than the status.
/// assert_eq!(std::io::read_to_string(response.into_body()).unwrap(), "Internal Server Error\n");
/// ```
///
/// - What fails before the body's first byte (the handler, a panic in it, the first chunk of an iterator, a head that cannot be sent) is told to `tracing`, which needs a subscriber to be seen, and becomes a plain 500 (or what
///   [`Error::status`] says), with the [`Error`] among the response's extensions.
/// - Hop-by-hop headers are dropped: the host sets its own. `Content-Length` is set where the length is known. A body that goes over its `Content-Length` is cut off; the
///   read that finds it too short fails.
/// - A response that has no body (to `HEAD`, or of status 204 or 304) has an empty one; its producer is dropped without being run.
///
/// # Errors
/// There are none. Reads of the body fail if the body does: the host should then cut the connection, so that the client sees it.
///
/// # What is left to the host
/// The framing. A response without `Content-Length` has to be sent in chunks, or to end with its connection; one to `HEAD`, or of status 204 or 304, has no body whatever its headers say. Each chunk that
/// was read should be sent before the next is asked for, which may take its time.
///
/// # Blocking
/// Waits for the response's head; with an iterator, a reader or a writing function as the body, for its first bytes too, since they decide about the head. See
/// [`Output::into_reader`] for the body.
///
/// # Cancellation
/// Dropping the response drops what makes its body, as [`Output::into_reader`] says.
pub fn respond<H: SyncHandler + ?Sized>(handler: &H, request: Request<Input>) -> Response<Input> {
    let method = request.method().clone();
    let answered = match guard(|| handler.call(request)) {
        Ok(Ok(response)) => prepare(&method, response),
        Ok(Err(error)) => Err(Error::handler(error)),
        Err(panic) => Err(panic),
    };
    answered.unwrap_or_else(|error| {
        report(&error);
        error_response(&method, &error).map(|body| Input::response(body, None))
    })
}

/// Makes a response fit to be sent.
fn prepare(method: &Method, response: Response<Output>) -> Result<Response<Input>, Error> {
    let (parts, output) = response.into_parts();
    let mut head = Response::from_parts(parts, ());
    match fit(method, &mut head, &output) {
        Ok(Fit::Send(declared)) => {
            // An async body has no moment up to which it could still make another head.
            let is_async = matches!(output.kind, OutputKind::Full(_) | OutputKind::Body(_));
            let mut body = output.into_reader();
            if let Some(length) = declared {
                body.declare(length);
            }
            if !is_async {
                body.await_first().map_err(Error::body)?;
            }
            Ok(head.map(|()| body))
        }
        Ok(Fit::Drop) => {
            drop_quietly(output);
            Ok(head.map(|()| Input::empty()))
        }
        Err(error) => {
            drop_quietly(output);
            Err(error)
        }
    }
}

/// What to do with a response's body.
enum Fit {
    /// Send it, of a declared length or not.
    Send(Option<u64>),
    /// There must be none.
    Drop,
}

fn fit(method: &Method, head: &mut Response<()>, output: &Output) -> Result<Fit, Error> {
    drop_hop_by_hop(head);
    let declared = check_head(head)?;
    let length = output.length();
    if is_bodiless(method, head.status()) {
        fit_length(method, head, output);
        // The end of an empty body may have to be waited for: background tasks hold it.
        let is_empty = matches!(output.kind, OutputKind::Body(_)) && length == Some(0);
        return Ok(if is_empty { Fit::Send(None) } else { Fit::Drop });
    }
    match (declared, length) {
        (None, Some(length)) if output.trailers.is_none() => {
            head.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        (Some(declared), Some(length)) if length < declared => {
            let message =
                format!("the response's body has {length} bytes, its Content-Length says {declared}");
            return Err(Error::new(Kind::Length, message));
        }
        _ => {}
    }
    Ok(Fit::Send(declared))
}
