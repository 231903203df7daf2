//! An axum router, or any other [`SyncHandler`], behind `rouille`: a blocking framework that lends its request to a function and takes the response back.
//!
//! ```text
//! cargo run --example rouille_host
//! curl http://127.0.0.1:3000/
//! curl http://127.0.0.1:3000/sha256 -T Cargo.lock -X POST
//! curl http://127.0.0.1:3000/rows/100000 | wc
//! ```
//!
//! What is lent cannot be put into an [`Input`], which owns what it reads from. So the handler runs on a thread of its own, and asks the one that has the request for each piece of the body.
//!
//! The way back is not streamed. Whatever happens to a body, rouille ends it as if it were whole, so the adapter keeps it in a file until it is: a body that breaks off is a 500 then. This is
//! no host for bodies without end.
//!
//! rouille stands on `tiny_http`; what the example `tiny_http_host` says of uploads goes for it too.
//!
//! Environment: `ADDR` (`127.0.0.1:3000`).

use std::io::{self, Read, Seek};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, SET_COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use rouille::ResponseBody;
use sha2::{Digest, Sha256};
use tower_wsgi::{AsgiHandler, BoxError, Input, Scope, SyncHandler, gateway};

/// How much of a response is kept in memory; the rest goes to a file.
const IN_MEMORY: usize = 256 * 1024;

fn main() -> Result<(), BoxError> {
    let handler = AsgiHandler::new(router());
    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let server = rouille::Server::new(address, move |request| answer(&handler, request))?;
    println!("listening on http://{}", server.server_addr());
    server.pool_size(10).run();
    Ok(())
}

/// What the handler's thread tells the one that has the request.
enum Event {
    /// The next bytes of the body are wanted, so many at most.
    Read(usize),
    Answered(io::Result<rouille::Response>),
}

fn answer(handler: &impl SyncHandler, request: &rouille::Request) -> rouille::Response {
    let (Ok(head), Some(mut body)) = (head_of(request), request.data()) else {
        return rouille::Response::empty_400();
    };
    let (events, asked) = mpsc::channel();
    let (pieces, lent) = mpsc::channel();
    let lent = Lent { events: events.clone(), pieces: lent };
    let answered = thread::scope(|scope| {
        scope.spawn(move || {
            let response = gateway::respond(handler, with_body(head, lent));
            let _ = events.send(Event::Answered(gather(response)));
        });
        for event in &asked {
            match event {
                Event::Read(most) => {
                    let mut piece = vec![0; most];
                    let read = body.read(&mut piece).inspect(|length| piece.truncate(*length));
                    let _ = pieces.send(read.map(|_| piece));
                }
                Event::Answered(response) => return response,
            }
        }
        Err(io::Error::other("the handler's thread is gone"))
    });
    answered.unwrap_or_else(|error| {
        eprintln!("a response was not sent: {error}");
        rouille::Response::text("Internal Server Error\n").with_status_code(500)
    })
}

/// The body of a request that another thread has. Once the response is there, it reads no more.
struct Lent {
    events: mpsc::Sender<Event>,
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
}

impl Read for Lent {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let gone = || io::Error::other("the request's body is gone: its response is there");
        self.events.send(Event::Read(buf.len())).map_err(|_| gone())?;
        let piece = self.pieces.recv().map_err(|_| gone())??;
        buf[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// What rouille knows of a request, in other words.
fn head_of(request: &rouille::Request) -> Result<Request<()>, http::Error> {
    let mut head = Request::builder().method(request.method()).uri(request.raw_url());
    for (name, value) in request.headers() {
        head = head.header(name, value);
    }
    let mut head = head.body(())?;
    let scope = Scope::of(&head).with_client(*request.remote_addr());
    head.extensions_mut().insert(scope);
    Ok(head)
}

fn with_body(head: Request<()>, body: Lent) -> Request<Input> {
    let is_chunked = head.headers().contains_key(TRANSFER_ENCODING);
    let body = match content_length(head.headers()) {
        _ if is_chunked => Input::reader(body),
        None | Some(0) => Input::empty(),
        Some(length) => Input::reader(body).with_length(length as u64),
    };
    head.map(|()| body)
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Makes rouille's response, once all of the body is here.
fn gather(response: Response<Input>) -> io::Result<rouille::Response> {
    let (head, mut body) = response.into_parts();
    let mut file = tempfile::spooled_tempfile(IN_MEMORY);
    let gathered = io::copy(&mut body, &mut file)?;
    file.rewind()?;
    // A response to HEAD has a length and no body.
    let length =
        content_length(&head.headers).or(usize::try_from(gathered).ok().filter(|length| *length > 0));
    let headers = head.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned().into(), value.to_str().ok()?.to_owned().into()))
    });
    Ok(rouille::Response {
        status_code: head.status.as_u16(),
        headers: headers.collect(),
        data: match length {
            Some(length) => ResponseBody::from_reader_and_size(file, length),
            None => ResponseBody::from_reader(file),
        },
        upgrade: None,
    })
}

/// An application to be served, asynchronous.
fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "Hello from async!\n" }))
        .route("/sha256", post(sha256))
        .route("/rows/{count}", get(rows))
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

/// A body that is made as it is read, in rows of 1 KiB.
async fn rows(Path(count): Path<u64>) -> Body {
    Body::new(Pieces((1..=count).map(|n| Ok(format!("{n:>1023}\n")))))
}

/// A body that breaks off.
async fn broken() -> Body {
    let rows = ["the first of many rows\n".to_owned()].map(Ok).into_iter();
    Body::new(Pieces(rows.chain([Err(io::Error::other("the database went away"))])))
}

/// A body of an iterator's items.
struct Pieces<I>(I);

impl<I: Iterator<Item = io::Result<String>> + Unpin> http_body::Body for Pieces<I> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece?.into()))))
    }
}
