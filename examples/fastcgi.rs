//! A `FastCGI` responder: async and sync code in one program, behind lighttpd, nginx or any web server that speaks the protocol.
//!
//! ```text
//! cargo run --example fastcgi
//! ```
//!
//! lighttpd, where the last line lets responses through as they come:
//!
//! ```text
//! server.modules += ("mod_fastcgi")
//! fastcgi.server = ("/app" => (("host" => "127.0.0.1", "port" => 9000, "check-local" => "disable")))
//! server.stream-response-body = 1
//! ```
//!
//! nginx:
//!
//! ```text
//! location /app {
//!     include fastcgi_params;
//!     fastcgi_split_path_info ^(/app)(.*)$;
//!     fastcgi_param PATH_INFO $fastcgi_path_info;
//!     fastcgi_buffering off;
//!     fastcgi_pass 127.0.0.1:9000;
//! }
//! ```
//!
//! Responses are streamed. Requests are not: the crate `tokio-fastcgi` hands one over when its body is here in full, in memory. The web server should limit it.
//!
//! Environment: `ADDR` (`127.0.0.1:9000`).

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::{Request, Response, StatusCode};
use axum::routing::{get, post};
use axum::{BoxError, Extension, Router};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Interval, interval};
use tokio_fastcgi::{RequestResult, Requests, Role};
use tower::ServiceExt;
use tower_wsgi::{Environ, Input, Output, Scope, Variables, WsgiLayer};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let app = Router::new()
        .route("/hello", get(|| async { "Hello from async!\n" }))
        .route("/where", get(location))
        .route("/length", post(|body: Bytes| async move { format!("{}\n", body.len()) }))
        .route("/ticks", get(ticks))
        .layer(WsgiLayer::new(legacy).at("/legacy"));

    let address = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:9000".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let app = app.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, app).await {
                eprintln!("a connection was cut: {error}");
            }
        });
    }
}

/// The synchronous half, from before there was any async.
fn legacy(mut request: Request<Input>) -> io::Result<Response<Output>> {
    let environ = Environ::of(&request);
    let output = match request.uri().path() {
        "/hello" => "Hello from sync!\n".into(),
        "/where" => format!("{}\n", String::from_utf8_lossy(&environ.script_name())).into(),
        "/length" => format!("{}\n", io::copy(request.body_mut(), &mut io::sink())?).into(),
        "/ticks" => {
            let ticks = Query::<Ticks>::try_from_uri(request.uri()).map_err(io::Error::other)?;
            let pause = Duration::from_millis(ticks.ms);
            Output::iter((0..ticks.n).map(move |n| {
                thread::sleep(if n == 0 { Duration::ZERO } else { pause });
                "tick\n"
            }))
        }
        "/fail-late" => Output::try_iter([Ok("the first of many rows\n"), Err("the database went away")]),
        _ => {
            let mut response = Response::new("no such page\n".into());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(output))
}

async fn location(Extension(scope): Extension<Scope>) -> String {
    format!("{}\n", scope.root_path())
}

#[derive(Deserialize)]
struct Ticks {
    n: u64,
    ms: u64,
}

/// A line now and then: `/ticks?n=10&ms=1000`.
async fn ticks(Query(Ticks { n, ms }): Query<Ticks>) -> Body {
    Body::new(Ticking { left: n, pause: interval(Duration::from_millis(ms.max(1))) })
}

struct Ticking {
    left: u64,
    pause: Interval,
}

impl http_body::Body for Ticking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.pause.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data("tick\n".into()))))
    }
}

/// Serves one connection.
async fn serve(mut stream: TcpStream, app: Router) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    // Not through a buffer: that crate does not flush the record that ends a request.
    let (reader, writer) = stream.split();
    let served = answer_all(Requests::new(reader, writer, u8::MAX, 1), app).await;
    if served.is_err() {
        // A reset: nginx would take the orderly end of the connection for that of the response. lighttpd does so with either, now and then; where it matters, a
        // `Content-Length` tells it better.
        stream.set_zero_linger()?;
    }
    served
}

/// Answers the requests of a connection, one after the other: no web server interleaves them.
async fn answer_all<R, W>(mut requests: Requests<R, W>, app: Router) -> Result<(), BoxError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    while let Some(request) = requests.next().await? {
        if request.role != Role::Responder {
            request.process(|_| async { RequestResult::UnknownRole }).await?;
            continue;
        }
        answer(&request, app.clone()).await?;
        request.process(|_| async { RequestResult::Complete(0) }).await?;
    }
    Ok(())
}

/// Answers one request, in the form of a CGI program.
async fn answer<W: AsyncWrite + Unpin>(
    request: &tokio_fastcgi::Request<W>,
    app: Router,
) -> Result<(), BoxError> {
    let response = match http_request(request) {
        Ok(request) => app.oneshot(request).await?,
        Err(error) => {
            let mut response = Response::new(format!("{error}\n").into());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    };
    let (head, mut body) = response.into_parts();
    let mut text = Vec::new();
    text.extend_from_slice(format!("Status: {}\r\n", head.status).as_bytes());
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != "status") {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");

    let mut stdout = request.get_stdout();
    stdout.write(&text).await?;
    stdout.flush().await?;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // An empty record would be the end.
        if !data.is_empty() {
            stdout.write(&data).await?;
            stdout.flush().await?;
        }
    }
    Ok(())
}

/// The request that the parameters describe.
fn http_request<W: AsyncWrite + Unpin>(
    request: &tokio_fastcgi::Request<W>,
) -> Result<Request<Body>, BoxError> {
    let parameters = request.params_iter().into_iter().flatten();
    // That crate has their names in lower case.
    let variables: Variables = parameters.map(|(name, value)| (name.to_ascii_uppercase(), value)).collect();
    let mut http = variables.into_request()?;
    let scope = Scope::from(&Environ::of(&http));
    http.extensions_mut().insert(scope);
    let mut body = Vec::new();
    request.get_stdin().read_to_end(&mut body)?;
    Ok(http.map(|()| body.into()))
}
