//! An axum router, or any other [`SyncHandler`], behind `tiny_http`: a server that blocks and knows nothing of async.
//!
//! ```text
//! cargo run --example tiny_http_host
//! curl http://127.0.0.1:3000/
//! curl http://127.0.0.1:3000/sha256 -T Cargo.lock -X POST
//! curl -N http://127.0.0.1:3000/listen        # and, elsewhere:
//! curl http://127.0.0.1:3000/say -d 'hello'
//! ```
//!
//! The adapter is [`serve`] and what it calls: a request is made of `tiny_http`'s, [`gateway::respond`] has it answered, and the response is sent, all on one thread.
//!
//! A body that is whole, or that an HTTP/1.0 client gets, is sent by `tiny_http`. All others are sent from here, in chunks, as they come: `tiny_http` would gather 8 KiB first, and end the body as if it were
//! whole when its reader fails. It lets nobody cut a connection, so a body that breaks off is followed by what is no chunk; every client takes that for the error it is.
//!
//! # What `tiny_http` cannot do
//! - It tells nobody that a client left: a handler learns it when its response's body is asked for no more.
//! - The request's body is gone when the response begins, and a response waits for a read of it that is under way. Before a body is sent in chunks, what is left of the request's is read and
//!   thrown away.
//! - An upload in chunks that breaks off inside a chunk looks complete. One with a `Content-Length` fails, as it should.
//! - A client that resets its connection before it is accepted costs it the thread that accepts, or one that reads: a proxy in front keeps those away.
//! - It reserves memory for all the bytes that a client declares and does not send: one large lie ends the process. Where clients are not to be trusted, it needs a proxy in front
//!   that takes uploads in full.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::io::{self, Cursor, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, SET_COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tiny_http::{HTTPVersion, Header, Server};
use tokio::sync::mpsc;
use tower_wsgi::{AsgiHandler, BoxError, Input, Scope, SyncHandler, gateway};

fn main() -> Result<(), BoxError> {
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let server = Server::http(address)?;
    println!("listening on http://{}", server.server_addr());
    serve(&server, &AsgiHandler::new(router()), 10);
    Ok(())
}

/// Has `workers` threads answer the server's requests.
pub(crate) fn serve(server: &Server, handler: &impl SyncHandler, workers: usize) {
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                for request in server.incoming_requests() {
                    if let Err(error) = answer(server, handler, request) {
                        eprintln!("a response was not sent in full: {error}");
                    }
                }
            });
        }
    });
}

fn answer(server: &Server, handler: &impl SyncHandler, request: tiny_http::Request) -> io::Result<()> {
    let Ok(head) = head_of(&request, server.server_addr().to_ip()) else {
        return request.respond(tiny_http::Response::empty(400));
    };
    let length = request.body_length();
    let has_body = length.unwrap_or(0) > 0 || head.headers().contains_key(TRANSFER_ENCODING);
    let shared = Shared(Arc::new(Mutex::new(Some(request))));
    let body = match length {
        _ if !has_body => Input::empty(),
        Some(length) => Input::reader(shared.clone()).with_length(length as u64),
        None => Input::reader(shared.clone()),
    };
    let response = gateway::respond(handler, head.map(|()| body));
    let request = shared.lock().take().expect("a request that is taken only here");
    send(request, response)
}

/// What `tiny_http` knows of a request, in other words.
fn head_of(request: &tiny_http::Request, server: Option<SocketAddr>) -> Result<Request<()>, http::Error> {
    let mut head = Request::builder().method(request.method().as_str()).uri(request.url()).version(
        match *request.http_version() {
            HTTPVersion(1, 0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        },
    );
    for header in request.headers() {
        head = head.header(header.field.as_str().as_str(), header.value.as_str());
    }
    let mut head = head.body(())?;
    let mut scope = Scope::of(&head);
    if let Some(client) = request.remote_addr() {
        scope = scope.with_client(*client);
    }
    if let Some(server) = server {
        scope = scope.with_server(server.ip().to_string(), server.port());
    }
    head.extensions_mut().insert(scope);
    Ok(head)
}

/// The request, while its body may be read: until its response begins.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<tiny_http::Request>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<tiny_http::Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut *self.lock() {
            Some(request) => request.as_reader().read(buf),
            None => Err(io::Error::other("the request's body is gone: its response has begun")),
        }
    }
}

fn send(mut request: tiny_http::Request, response: Response<Input>) -> io::Result<()> {
    let (head, mut body) = response.into_parts();
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let is_bodiless = *request.method() == tiny_http::Method::Head
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let first = match length.map(|_| body.chunk()).transpose() {
        Ok(first) => first.flatten(),
        Err(error) => {
            request.respond(tiny_http::Response::empty(500))?;
            return Err(error);
        }
    };
    let is_whole = is_bodiless || length.is_some_and(|length| length == first.as_ref().map_or(0, Bytes::len));

    let headers = head.headers.iter();
    // tiny_http sends ASCII only.
    let headers =
        headers.filter_map(|(name, value)| Header::from_bytes(name.as_str(), value.as_bytes()).ok());
    let head =
        tiny_http::Response::new(head.status.as_u16().into(), headers.collect(), io::empty(), None, None)
            .with_chunked_threshold(usize::MAX);

    let first = Cursor::new(first.unwrap_or_default());
    if is_whole {
        request.respond(head.with_data(first, length))?;
        // Background tasks hold the end.
        return body.chunk().map(drop);
    }
    if *request.http_version() < HTTPVersion(1, 1) {
        return request.respond(head.with_data(first.chain(body), length));
    }
    // `into_writer` reads what is left of the request's body. A client that waits for a word before it sends that gets it now.
    let _ = request.as_reader();
    let mut writer = request.into_writer();
    let head = head.with_data(io::empty(), None);
    head.raw_print(&mut writer, HTTPVersion(1, 1), &[], true, None)?;
    send_chunks(&mut writer, first.into_inner(), &mut body)
}

fn send_chunks(writer: &mut impl Write, first: Bytes, body: &mut Input) -> io::Result<()> {
    let mut next = Ok(Some(first));
    loop {
        match next {
            Ok(Some(chunk)) if chunk.is_empty() => {}
            Ok(Some(chunk)) => {
                write!(writer, "{:x}\r\n", chunk.len())?;
                writer.write_all(&chunk)?;
                writer.write_all(b"\r\n")?;
            }
            Ok(None) => {
                writer.write_all(b"0\r\n\r\n")?;
                return writer.flush();
            }
            Err(error) => {
                writer.write_all(b"! the body broke off\r\n")?;
                writer.flush()?;
                return Err(error);
            }
        }
        // What has come is sent before the next chunk is waited for.
        writer.flush()?;
        next = body.chunk();
    }
}

/// An application to be served, asynchronous.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "Hello from async!\n" }))
        .route("/sha256", post(sha256))
        .route("/listen", get(listen))
        .route("/say", post(say))
        .with_state(Listeners::default())
        .route("/old", get(|| async { Redirect::permanent("/") }))
        .route("/cookies", get(cookies))
        .route("/broken", get(broken))
        .route("/panic", get(|| async { panic!("as you wish") as &str }))
}

/// The digest of an upload, of which no more than a piece is in memory.
async fn sha256(mut body: Body) -> Result<String, (StatusCode, String)> {
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
        hash.update(frame.into_data().unwrap_or_default());
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits + "\n")
}

async fn cookies(headers: HeaderMap) -> impl IntoResponse {
    let sent = headers.get(COOKIE).and_then(|cookies| cookies.to_str().ok()).unwrap_or("none");
    let set = [(SET_COOKIE, "flavour=oat"), (SET_COOKIE, "size=large; HttpOnly")];
    (AppendHeaders(set), format!("{sent}\n"))
}

type Piece = io::Result<Bytes>;

/// Those who listen to what others say.
type Listeners = Arc<Mutex<Vec<mpsc::Sender<Piece>>>>;

/// Streams what is said from now on.
async fn listen(State(listeners): State<Listeners>) -> Body {
    let (sender, pieces) = mpsc::channel(16);
    let _ = sender.try_send(Ok("you are listening\n".into()));
    listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    Body::new(Pieces(pieces))
}

/// Tells it to all who listen, and how many they are.
async fn say(State(listeners): State<Listeners>, said: String) -> String {
    let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|listener| listener.try_send(Ok(format!("{said}\n").into())).is_ok());
    format!("{} are listening\n", listeners.len())
}

/// A body that breaks off.
async fn broken() -> Body {
    let (sender, pieces) = mpsc::channel(2);
    let _ = sender.try_send(Ok("the first of many rows\n".into()));
    let _ = sender.try_send(Err(io::Error::other("the database went away")));
    Body::new(Pieces(pieces))
}

/// A body that comes in pieces.
struct Pieces(mpsc::Receiver<Piece>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map_ok(Frame::data)
    }
}
