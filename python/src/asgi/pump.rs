//! The task of a WebSocket's connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::link::Link;

/// How long the client may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// RFC 6455, section 7.4.1: there was no close frame.
pub(super) const ABNORMAL: u16 = 1006;
/// RFC 6455, section 7.4.1: a close frame without a code.
pub(super) const NO_CODE: u16 = 1005;

/// Carries messages between a connection and its link until either end is closed.
pub(super) async fn run(upgrade: OnUpgrade, link: Arc<Link>, max_message_size: usize) {
    let pump = Pump { link };
    match upgrade.await {
        Ok(upgraded) => {
            let config = WebSocketConfig::default()
                .max_message_size(Some(max_message_size))
                .max_frame_size(Some(max_message_size));
            let io = TokioIo::new(upgraded);
            let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
            pump.carry(&mut socket).await;
        }
        Err(error) => tracing::debug!(%error, "the connection was not upgraded"),
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

struct Pump {
    link: Arc<Link>,
}

/// What the connection's end came from.
enum Stop {
    /// The application has sent its close frame.
    Closed,
    /// There is no connection any more.
    Lost,
    /// The client did what it must not.
    Fault(CloseFrame),
}

impl Pump {
    async fn carry(self, socket: &mut Socket) {
        let stop = std::future::poll_fn(|cx| self.poll(socket, cx)).await;
        let close = match stop {
            Stop::Lost => {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.get_mut().shutdown()).await;
                return;
            }
            Stop::Closed => None,
            Stop::Fault(frame) => {
                self.link.lose(frame.code.into(), &frame.reason);
                Some(frame)
            }
        };
        // The client answers with a close frame of its own. What it has sent before that is for nobody.
        let parting = async {
            if close.is_some() {
                let _ = socket.close(close).await;
            }
            std::future::poll_fn(|cx| {
                while let Poll::Ready(message) = Pin::new(&mut *socket).poll_next(cx) {
                    match message {
                        Some(Ok(Message::Close(frame))) => self.closed(frame.as_ref()),
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return Poll::Ready(()),
                    }
                }
                Poll::Pending
            })
            .await;
            // What is below may have an end of its own to tell: TLS, HTTP/2.
            let _ = socket.get_mut().shutdown().await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, parting).await;
    }

    fn poll(&self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Stop> {
        if let Poll::Ready(stop) = self.poll_out(socket, cx) {
            return Poll::Ready(stop);
        }
        while self.link.has_appetite(cx) {
            let Poll::Ready(message) = Pin::new(&mut *socket).poll_next(cx) else {
                break;
            };
            match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => self.link.deliver(message),
                Some(Ok(Message::Close(frame))) => self.closed(frame.as_ref()),
                // Pings are answered by the protocol's implementation.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(fault(error)),
                None => return Poll::Ready(Stop::Lost),
            }
        }
        // Answers to pings and to a close frame.
        match Pin::new(socket).poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Stop::Lost),
            _ => Poll::Pending,
        }
    }

    /// Sends what the application has sent, as far as the connection takes it.
    fn poll_out(&self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Stop> {
        let mut socket = Pin::new(socket);
        loop {
            match socket.as_mut().poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Stop::Lost),
                Poll::Pending => return Poll::Pending,
            }
            let Some(message) = self.link.next(cx) else {
                return Poll::Pending;
            };
            let closes = message.is_close();
            if socket.as_mut().start_send(message).is_err() {
                return Poll::Ready(Stop::Lost);
            }
            if closes {
                let _ = socket.as_mut().poll_flush(cx);
                return Poll::Ready(Stop::Closed);
            }
        }
    }

    fn closed(&self, frame: Option<&CloseFrame>) {
        match frame {
            Some(frame) => self.link.lose(frame.code.into(), &frame.reason),
            None => self.link.lose(NO_CODE, ""),
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.link.lose(ABNORMAL, "");
    }
}

/// What to tell a client that broke the protocol.
fn fault(error: Error) -> Stop {
    let (code, reason) = match error {
        Error::Capacity(_) => (CloseCode::Size, "the message is too big"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return Stop::Lost,
        Error::Protocol(_) => (CloseCode::Protocol, "a violation of the protocol"),
        Error::Utf8(_) => (CloseCode::Invalid, "the text is not UTF-8"),
        _ => return Stop::Lost,
    };
    Stop::Fault(CloseFrame { code, reason: reason.into() })
}
