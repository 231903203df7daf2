//! An axum router as a CGI program: a web server starts it for each request.
//!
//! ```text
//! cargo build --release --example cgi
//! install target/release/examples/cgi /usr/lib/cgi-bin/app
//! ```
//!
//! lighttpd, where the last two lines let bodies through as they come (an upload without a length is then refused, with 411):
//!
//! ```text
//! server.modules += ("mod_alias", "mod_cgi")
//! alias.url += ("/app" => "/usr/lib/cgi-bin/app")
//! cgi.assign += ("/app" => "")
//! server.stream-request-body = 1
//! server.stream-response-body = 1
//! ```
//!
//! nginx with fcgiwrap (`fcgiwrap -s unix:/run/fcgiwrap.socket`; with `-f` it takes what a program writes to its standard error before the response for a part of that).
//! The last three lines but one let bodies through:
//!
//! ```text
//! location /app {
//!     include fastcgi_params;
//!     fastcgi_split_path_info ^(/app)(.*)$;
//!     fastcgi_param PATH_INFO $fastcgi_path_info;
//!     fastcgi_param SCRIPT_FILENAME /usr/lib/cgi-bin/app;
//!     fastcgi_param NO_BUFFERING 1;
//!     fastcgi_buffering off;
//!     fastcgi_request_buffering off;
//!     fastcgi_pass unix:/run/fcgiwrap.socket;
//! }
//! ```
//!
//! To try it without a server: `REQUEST_METHOD=GET PATH_INFO=/hello target/release/examples/cgi`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use axum::{BoxError, Extension, Router};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Interval, interval};
use tower_wsgi::gateway::cgi;
use tower_wsgi::{AsgiHandler, BackgroundTasks, Scope, Variables};

fn main() -> ExitCode {
    let router = Router::new()
        .route("/hello", get(|| async { "Hello World!\n" }))
        .route("/environ", any(environ))
        .route("/environ/{*rest}", any(environ))
        .route("/sha256", post(sha256))
        .route("/echo", post(echo))
        .route("/redirect", get(redirect))
        .route("/cookies", get(cookies))
        .route("/ticks", get(ticks))
        .route("/download", get(download))
        .route("/note", post(note))
        .route("/fail", get(fail))
        .route("/fail-late", get(fail_late))
        .route("/panic", get(panic));
    cgi::run(AsgiHandler::new(router))
}

/// The request, as the server described it. With it comes all of the process's environment: not for the public.
async fn environ(request: Request) -> String {
    let scope = Scope::of(&request);
    let variables = Variables::of(&request);
    let mut lines = format!("root_path={}\nraw_path={}\n", scope.root_path(), scope.raw_path());
    for (name, value) in variables.iter() {
        lines += &format!("{name}={}\n", String::from_utf8_lossy(value));
    }
    lines
}

/// Length and digest of an upload, of which no more than a piece is in memory.
async fn sha256(mut body: Body) -> Result<String, StatusCode> {
    let (mut length, mut hash) = (0, Sha256::new());
    while let Some(frame) = body.frame().await {
        // The server went away in the middle, say.
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        if let Ok(data) = frame.into_data() {
            length += data.len();
            hash.update(&data);
        }
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{length} {digits}\n"))
}

/// The upload itself, on its way back while it comes in.
async fn echo(headers: HeaderMap, body: Body) -> impl IntoResponse {
    let plain = "application/octet-stream".parse().expect("a media type");
    ([(CONTENT_TYPE, headers.get(CONTENT_TYPE).cloned().unwrap_or(plain))], body)
}

/// To a path below the one that the server has this program at.
async fn redirect(Extension(scope): Extension<Scope>) -> Redirect {
    Redirect::to(&format!("{}/hello", scope.root_path()))
}

/// Shows the cookies that came, and sets two.
async fn cookies(headers: HeaderMap) -> impl IntoResponse {
    let came = headers.get(COOKIE).and_then(|value| value.to_str().ok()).unwrap_or("none");
    let set = AppendHeaders([(SET_COOKIE, "a=1; Path=/"), (SET_COOKIE, "b=2; Path=/")]);
    (set, format!("{came}\n"))
}

#[derive(Deserialize)]
struct Ticks {
    n: u64,
    ms: u64,
}

/// A line now and then: `/ticks?n=10&ms=1000`.
async fn ticks(Query(Ticks { n, ms }): Query<Ticks>) -> Response {
    let pause = interval(Duration::from_millis(ms.max(1)));
    plain(Chunks { pause: Some(pause), ..Chunks::new("tick\n".into(), n) })
}

#[derive(Deserialize)]
struct Download {
    mib: u64,
}

/// As much as is asked for: `/download?mib=100`.
async fn download(Query(Download { mib }): Query<Download>) -> Response {
    plain(Chunks::new(vec![b'x'; 64 * 1024].into(), 16 * mib))
}

/// Keeps a note after the response is sent, in the file that the server's configuration names as `NOTE_FILE`.
async fn note(
    Extension(scope): Extension<Scope>,
    background: BackgroundTasks,
    text: String,
) -> Result<&'static str, StatusCode> {
    let file = scope.environ().and_then(|environ| environ.get("NOTE_FILE"));
    let file = file.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let file = PathBuf::from(OsStr::from_bytes(file));
    // lighttpd sends this signal to a program whose response it has in full, by its length. From here on it ends nothing.
    let _ = signal(SignalKind::terminate());
    background.spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Err(error) = tokio::fs::write(&file, text).await {
            eprintln!("{}: {error}", file.display());
        }
    });
    Ok("noted\n")
}

/// Meets an error before it has a response.
async fn fail() -> Result<String, (StatusCode, String)> {
    let failed = |error| (StatusCode::INTERNAL_SERVER_ERROR, format!("no answer: {error}\n"));
    tokio::fs::read_to_string("/dev/null/answer").await.map_err(failed)
}

#[derive(Deserialize)]
struct FailLate {
    #[serde(default)]
    length: Option<u64>,
}

/// Fails in the middle. That it did is for the server to see by the length that was declared, if one was: `/fail-late?length=100`.
async fn fail_late(Query(FailLate { length }): Query<FailLate>) -> Response {
    let mut response = plain(Chunks { fails: true, ..Chunks::new("the first of many rows\n".into(), 1) });
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

async fn panic() {
    panic!("as you wish");
}

fn plain(body: Chunks) -> Response {
    ([(CONTENT_TYPE, "text/plain")], Body::new(body)).into_response()
}

/// A body of many chunks.
struct Chunks {
    chunk: Bytes,
    left: u64,
    /// Between two of them.
    pause: Option<Interval>,
    /// Whether it breaks off after the last.
    fails: bool,
}

impl Chunks {
    fn new(chunk: Bytes, left: u64) -> Self {
        Self { chunk, left, pause: None, fails: false }
    }
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            let failure = std::mem::take(&mut self.fails).then(|| Err("the database went away".into()));
            return Poll::Ready(failure);
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.poll_tick(cx));
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}
