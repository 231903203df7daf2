//! What clients are made of: connections, uploads in any shape, downloads that are looked at byte by byte.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tower_wsgi::BoxError;

use crate::pattern::{Count, piece};
use crate::sites::Question;

/// A body to send.
#[derive(Default)]
pub(crate) struct Upload {
    pub(crate) bytes: usize,
    /// Of each piece.
    size: usize,
    /// Whether the length is declared; else it goes in chunks.
    is_declared: bool,
    /// How long it waits in the middle.
    pause: Option<Duration>,
    sent: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// Of any shape, and about so long at the most.
    pub(crate) fn random(longest: usize) -> Self {
        let bytes = short_or_long(longest);
        Self {
            bytes,
            // HTTP/2's ends take a flood of small frames for an attack.
            size: fastrand::usize(1 + bytes / 100..=16_384),
            is_declared: fastrand::bool(),
            pause: fastrand::bool().then(|| Duration::from_millis(fastrand::u64(0..50))),
            ..Self::default()
        }
    }

    /// Of a length that is declared.
    pub(crate) fn declared(bytes: usize) -> Self {
        Self { bytes, size: 1000, is_declared: true, ..Self::default() }
    }

    /// Waits in its middle.
    pub(crate) fn pausing(self, pause: Duration) -> Self {
        Self { pause: Some(pause), ..self }
    }
}

/// Most bodies are short, some are as long as they may be.
pub(crate) fn short_or_long(longest: usize) -> usize {
    if fastrand::u8(..4) == 0 { fastrand::usize(0..=longest) } else { fastrand::usize(0..=longest.min(2000)) }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent >= self.bytes / 2
            && let Some(pause) = self.pause.take()
        {
            self.sleep = Some(Box::pin(tokio::time::sleep(pause)));
        }
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        let length = self.size.min(self.bytes - self.sent);
        let piece = piece(self.sent, length);
        self.sent += length;
        Poll::Ready((length > 0).then_some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_declared {
            SizeHint::with_exact((self.bytes - self.sent) as u64)
        } else {
            SizeHint::default()
        }
    }
}

/// A connection of either version.
pub(crate) enum Connection {
    One(http1::SendRequest<Upload>),
    Two(http2::SendRequest<Upload>),
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, is_http2: bool) -> Result<Self, BoxError> {
        Self::over(TcpStream::connect(address).await?, is_http2).await
    }

    pub(crate) async fn over(stream: TcpStream, is_http2: bool) -> Result<Self, BoxError> {
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Ok(Self::Two(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Ok(Self::One(sender))
        }
    }

    /// Sends a request: a GET, or a POST if there is something to send.
    pub(crate) async fn send(
        &mut self,
        target: &str,
        upload: Option<Upload>,
    ) -> Result<Response<Incoming>, BoxError> {
        let method = if upload.is_some() { "POST" } else { "GET" };
        let request = Request::builder().method(method).header("host", "localhost");
        let body = upload.unwrap_or_else(|| Upload::declared(0));
        Ok(match self {
            Self::One(sender) => {
                let request = request.uri(target).body(body)?;
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Two(sender) => {
                let request = request.uri(format!("http://localhost{target}")).body(body)?;
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// Uploads, and checks what the server says of it.
    pub(crate) async fn count(&mut self, prefix: &str, upload: Upload) -> Result<(), BoxError> {
        let expected = upload.bytes.to_string();
        let response = self.send(&format!("{prefix}/count"), Some(upload)).await?;
        if response.status() != StatusCode::OK {
            return Err(Refusal(response.status()).into());
        }
        let text = response.into_body().collect().await?.to_bytes();
        if text == expected { Ok(()) } else { Err(FalseEnd::of(&text).into()) }
    }

    /// Downloads, and checks what comes, which is slow where it pauses.
    ///
    /// # Errors
    /// Where the download fails, whether it should or not; a body that ends well although it should fail is a [`FalseEnd`].
    pub(crate) async fn download(
        &mut self,
        path: &str,
        question: Question,
        pause: Duration,
    ) -> Result<(), BoxError> {
        let target = format!("{path}?{}", question.query());
        let response = self.send(&target, None).await?;
        if response.status() != StatusCode::OK {
            return Err(Refusal(response.status()).into());
        }
        let (mut count, mut body) = (Count::default(), response.into_body());
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                count.add(&bytes).map_err(FalseEnd)?;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        if question.fails.is_some() || count.length() != question.bytes {
            return Err(FalseEnd(format!("{} bytes for {target}", count.length())).into());
        }
        Ok(())
    }
}

/// A response with another status than 200.
#[derive(Debug)]
pub(crate) struct Refusal(StatusCode);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Refusal {}

/// A response that looks whole and is not the right one.
#[derive(Debug)]
pub(crate) struct FalseEnd(String);

impl FalseEnd {
    pub(crate) fn of(response: &[u8]) -> Self {
        Self(String::from_utf8_lossy(&response[..response.len().min(200)]).into_owned())
    }
}

impl std::fmt::Display for FalseEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a wrong response that looks whole: {}", self.0)
    }
}

impl std::error::Error for FalseEnd {}
