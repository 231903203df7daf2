//! The Common Gateway Interface ([RFC 3875](https://www.rfc-editor.org/rfc/rfc3875)): one process per request, started by a web server.
//!
//! The whole of a CGI program, with an axum router in it:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use axum::{Router, routing::get};
//! use tower_wsgi::{AsgiHandler, gateway::cgi};
//!
//! fn main() -> ExitCode {
//!     let router = Router::new().route("/hello", get(|| async { "Hello World!" }));
//!     cgi::run(AsgiHandler::new(router))
//! }
//! ```
//!
//! [`serve`] is the same for anything that speaks CGI over other streams: an SCGI server, a test.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::process::ExitCode;

use http::header::{CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};

use super::respond;
use crate::asgi::Lingering;
use crate::error::{Error, Kind};
use crate::handler::SyncHandler;
use crate::input::Input;
use crate::response::{declared_length, is_bodiless, plain_response, report};
use crate::variables::Variables;

const STATUS: HeaderName = HeaderName::from_static("status");

/// Answers the request that this process was started for: meta-variables from its environment, the request's body from its standard input, the response to its standard
/// output.
///
/// ```no_run
/// use std::process::ExitCode;
/// use http::{Request, Response};
/// use tower_wsgi::{Environ, Input, gateway::cgi};
///
/// fn main() -> ExitCode {
///     cgi::run(|request: Request<Input>| {
///         let environ = Environ::of(&request);
///         Response::new(format!("this is {}", String::from_utf8_lossy(&environ.script_name())))
///     })
/// }
/// ```
///
/// Errors go to standard error, where CGI hosts look for them, one line each, beside what `tracing` is told; the exit code is then a failure.
///
/// Not inside `#[tokio::main]`: there the calling thread polls a task, and is not to be blocked. What has to be set up asynchronously goes before it, on a runtime that the router is given then:
///
/// ```no_run
/// use std::process::ExitCode;
/// use axum::Router;
/// use tower_layer::Layer;
/// use tower_wsgi::{AsgiLayer, gateway::cgi};
/// # async fn connect() -> std::io::Result<()> { Ok(()) }
///
/// fn main() -> ExitCode {
///     let runtime = tokio::runtime::Runtime::new().expect("a runtime");
///     let database = runtime.block_on(connect()).expect("a database");
///     let router = Router::new().with_state(database);
///     cgi::run(AsgiLayer::adapter().runtime(runtime.handle().clone()).layer(router))
/// }
/// ```
///
/// A body that breaks off behind its head looks complete to the client unless it had a `Content-Length`: CGI has no way to say so but the exit code.
///
/// # What is the host's to see to
/// Headers come as variables, in which `X_A` and `X-A` are one: a host has to leave out those with an underscore (nginx and Apache do). A `Proxy` header is not believed, but `HTTP_PROXY` stays in the process's
/// environment, where HTTP clients of the program may look: the host has to drop the header (CVE-2016-5385). There is no limit here on the size of head or body, nor on how slowly it comes. An application can set headers that a host obeys:
/// `X-Sendfile`, `X-Accel-Redirect`, and `Location` with a path, which some redirect to inside. What a client says does not belong in them. The program's arguments, which hosts may make of a query without `=` (CVE-2012-1823), are not looked at.
///
/// # Blocking
/// Returns when the response is sent and its [`BackgroundTasks`](crate::BackgroundTasks) are done. Some hosts end the program as soon as they have a whole response: lighttpd sends `SIGTERM`. A
/// program with background tasks has to bear that.
pub fn run<H: SyncHandler>(handler: H) -> ExitCode {
    let variables: Variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_encoded_bytes())))
        .collect();
    if variables.get("REQUEST_METHOD").is_none() {
        eprintln!("this is a CGI program, to be started by a web server: REQUEST_METHOD is not set");
        return ExitCode::FAILURE;
    }
    match serve(&handler, variables, io::stdin(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A client that left is no failure of this program's.
            if !error.is_disconnected() {
                eprintln!("{}", Chain(&error));
            }
            ExitCode::FAILURE
        }
    }
}

/// Answers one request: `variables` are its meta-variables, `input` is read for its body, and the response is written to `output`, as a *document response* with a `Status:` header
/// ([section 6](https://www.rfc-editor.org/rfc/rfc3875#section-6)).
///
/// `CONTENT_LENGTH` bytes are read at most, and fewer are an error to who reads the body. Without it there is no body, unless `HTTP_TRANSFER_ENCODING` says that
/// one came in chunks: then it ends with `input`.
///
/// Each chunk of the response is flushed. The protocol has no way to say that a body broke off: a host can see it only if a `Content-Length` was declared, or by the exit code.
///
/// ```
/// use std::io::empty;
/// use http::{Request, Response};
/// use tower_wsgi::{Input, Variables, gateway::cgi};
///
/// let app = |request: Request<Input>| Response::new(format!("Hello {}!", request.uri().path()));
/// let variables = Variables::from_iter([("REQUEST_METHOD", "GET"), ("PATH_INFO", "/World")]);
///
/// let mut output = Vec::new();
/// cgi::serve(&app, variables, empty(), &mut output)?;
/// assert!(output.starts_with(b"Status: 200 OK\r\n"));
/// assert!(output.ends_with(b"\r\n\r\nHello /World!"));
/// # Ok::<(), tower_wsgi::Error>(())
/// ```
///
/// # Errors
/// What went wrong, also where the client got a response that says so: the handler's or its body's error, variables that are no request ([`Error::is_request`]), an `output` that takes no
/// more ([`Error::is_disconnected`]).
///
/// # Blocking
/// Until the response is sent, and its [`BackgroundTasks`](crate::BackgroundTasks) are done, or their time is over. The calling thread runs the handler, reads `input` for it, and writes.
///
/// # Cancellation
/// It cannot be given up. When `output` takes no more, the body is dropped; the tasks are waited for all the same.
pub fn serve<H, R, W>(handler: &H, variables: Variables, input: R, output: W) -> Result<(), Error>
where
    H: SyncHandler + ?Sized,
    R: Read + Send + 'static,
    W: Write,
{
    let head = variables.get("REQUEST_METHOD") == Some(b"HEAD");
    let method = if head { Method::HEAD } else { Method::GET };
    let mut request = match request(variables, input) {
        Ok(request) => request,
        Err(error) => {
            let response = plain_response(&method, StatusCode::BAD_REQUEST, &error);
            send(&method, response.map(Input::from), output)?;
            return Err(error);
        }
    };
    let lingering = Lingering::default();
    request.extensions_mut().insert(lingering.clone());
    let mut response = respond(handler, request);
    let failed = response.extensions_mut().remove::<Error>();
    let sent = send(&method, response, output);
    // Whatever became of the response: the program ends after this.
    lingering.wait();
    sent.and(failed.map_or(Ok(()), Err))
}

/// The request that a CGI host describes.
fn request<R: Read + Send + 'static>(variables: Variables, input: R) -> Result<Request<Input>, Error> {
    let request = variables.into_request()?;
    let declared = declared_length(request.headers()).map_err(|error| {
        Error::with_source(Kind::Request, "the variable CONTENT_LENGTH is not valid", error)
    })?;
    let body = match declared {
        Some(0) => Input::empty(),
        Some(length) => Input::reader(input.take(length)).with_length(length),
        None if is_chunked(request.headers()) => Input::reader(input),
        None => Input::empty(),
    };
    Ok(request.map(|()| body))
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let encoding = headers.get(TRANSFER_ENCODING).and_then(|value| value.to_str().ok());
    encoding.is_some_and(|encoding| encoding.to_ascii_lowercase().contains("chunked"))
}

/// Writes the response. The head goes out with the first chunk that is here at once.
fn send(method: &Method, response: Response<Input>, mut output: impl Write) -> Result<(), Error> {
    let gone = |error| Error::with_source(Kind::Disconnected, "the response could not be written", error);
    let (head, mut body) = response.into_parts();
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut text = format!("Status: {} {reason}\r\n", head.status.as_u16()).into_bytes();
    // A header of that name would be the status to a host.
    let headers = head.headers.iter().filter(|(name, _)| *name != STATUS);
    for (name, value) in headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let has_body = !is_bodiless(method, head.status) && !body.is_over();
    if has_body && !head.headers.contains_key(CONTENT_TYPE) {
        // A document has to have one (section 6.3.1).
        text.extend_from_slice(b"content-type: application/octet-stream\r\n");
    }
    text.extend_from_slice(b"\r\n");
    if !body.is_ready() {
        output.write_all(&text).and_then(|()| output.flush()).map_err(gone)?;
        text.clear();
    }
    loop {
        let chunk = match body.chunk() {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => {
                // What came before it is the client's to see.
                output.write_all(&text).and_then(|()| output.flush()).map_err(gone)?;
                let error = Error::body(error);
                report(&error);
                return Err(error);
            }
        };
        if text.is_empty() {
            output.write_all(&chunk).map_err(gone)?;
        } else {
            text.extend_from_slice(&chunk);
            output.write_all(&text).map_err(gone)?;
            text.clear();
        }
        output.flush().map_err(gone)?;
    }
    output.write_all(&text).and_then(|()| output.flush()).map_err(gone)
}

/// An error and its causes, in one line: control characters are escaped. A client may have had a part in the text, and could make lines of its own in the host's log.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        write_line(f, &last)?;
        let mut next = std::error::Error::source(self.0);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors only pass on what the one inside them says.
            if text != last {
                f.write_str(": ")?;
                write_line(f, &text)?;
            }
            (last, next) = (text, cause.source());
        }
        Ok(())
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        c if c.is_control() => write!(f, "{}", c.escape_default()),
        c => f.write_char(c),
    })
}
