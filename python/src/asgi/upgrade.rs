//! The handshake of a WebSocket, on the runtime's side: over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441).

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use tokio::runtime::Handle as Runtime;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower_wsgi::Body;

use super::exchange::{Answer, Exchange, Producer};
use super::future::{closed, plain, respond};
use super::handle::Handle;
use super::hub::Event;
use super::inbound::Inbound;
use super::link::Link;
use super::pump::{self, ABNORMAL};
use super::request::Incoming;
use super::socket::SocketEnd;

/// Whether the request wants a WebSocket, on a connection that can become one.
pub(super) fn is_asked_for<B>(request: &Request<B>) -> bool {
    let asked = match *request.method() {
        Method::GET => {
            let headers = request.headers();
            headers.contains_key(UPGRADE)
                && has_token(headers, UPGRADE, "websocket")
                && has_token(headers, CONNECTION, "upgrade")
        }
        Method::CONNECT => {
            request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
        }
        _ => false,
    };
    asked && request.extensions().get::<OnUpgrade>().is_some() && Runtime::try_current().is_ok()
}

fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// A handshake that the application decides about.
pub(super) struct Handshake {
    stage: Stage,
}

enum Stage {
    Refused(Option<Box<Response<Body>>>),
    Waiting(Box<Waiting>),
    Done,
}

struct Waiting {
    exchange: Arc<Exchange>,
    link: Arc<Link>,
    /// There is none; an exchange asks for it.
    inbound: Inbound,
    upgrade: OnUpgrade,
    /// The answer to the client's key; HTTP/2 has none.
    accept: Option<HeaderValue>,
    max_message_size: usize,
}

impl Handshake {
    pub(super) fn new<B>(handle: &Arc<Handle>, mut request: Request<B>) -> Self {
        let stage = match Self::start(handle, &mut request) {
            Ok(waiting) => Stage::Waiting(Box::new(waiting)),
            Err(response) => Stage::Refused(Some(response)),
        };
        Self { stage }
    }

    fn start<B>(handle: &Arc<Handle>, request: &mut Request<B>) -> Result<Waiting, Box<Response<Body>>> {
        let method = request.method().clone();
        let headers = request.headers();
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            let mut response = plain(&method, StatusCode::UPGRADE_REQUIRED);
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return Err(Box::new(response));
        }
        let bad = || Box::new(plain(&method, StatusCode::BAD_REQUEST));
        let accept = if method == Method::CONNECT {
            None
        } else {
            // Sixteen bytes in base64.
            let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24).ok_or_else(bad)?;
            let accept = derive_accept_key(key.as_bytes());
            Some(HeaderValue::from_str(&accept).map_err(|_| bad())?)
        };
        let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let offered = offered.flat_map(|value| value.split(',')).map(|protocol| protocol.trim().to_owned());
        let subprotocols = offered.filter(|protocol| !protocol.is_empty()).collect();
        let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(bad)?;
        let incoming = Incoming::of(request);
        let inbound = Inbound::new(Body::empty(), &HeaderMap::new());
        let exchange =
            Arc::new(Exchange::new(incoming, handle.hub.clone(), handle.send_queue_size, &inbound));
        let link = Arc::new(Link::new(handle.hub.clone(), handle.send_queue_size, exchange.key()));
        let end = SocketEnd { producer: Producer(exchange.clone()), link: link.clone(), subprotocols };
        let max_message_size = handle.max_message_size;
        match handle.hub.submit(Event::WebSocket(end)) {
            Ok(()) => Ok(Waiting { exchange, link, inbound, upgrade, accept, max_message_size }),
            Err(_) => Err(Box::new(closed(&method))),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        match &mut self.stage {
            Stage::Refused(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(*response))
            }
            Stage::Waiting(waiting) => {
                let answer = ready!(waiting.exchange.poll_answer(&mut waiting.inbound, cx));
                match std::mem::replace(&mut self.stage, Stage::Done) {
                    Stage::Waiting(waiting) => Poll::Ready(waiting.answer(answer)),
                    _ => Poll::Pending,
                }
            }
            Stage::Done => Poll::Pending,
        }
    }
}

impl Waiting {
    fn answer(self, answer: Answer) -> Response<Body> {
        let Self { exchange, link, inbound, upgrade, accept, max_message_size } = self;
        let Answer::Upgrade(mut head) = answer else {
            return respond(exchange, inbound, answer);
        };
        let headers = head.headers_mut();
        // What makes the upgrade is ours to say; what frames a body frames none here (RFC 9110, section 8.6), and is an error in HTTP/2.
        for name in [
            CONNECTION,
            UPGRADE,
            SEC_WEBSOCKET_ACCEPT,
            SEC_WEBSOCKET_EXTENSIONS,
            CONTENT_LENGTH,
            TRANSFER_ENCODING,
            TE,
            TRAILER,
        ] {
            headers.remove(name);
        }
        for name in ["keep-alive", "proxy-connection"] {
            headers.remove(name);
        }
        if let Some(accept) = accept {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        tokio::spawn(pump::run(upgrade, link, max_message_size));
        head.map(|()| Body::empty())
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if let Stage::Waiting(waiting) = &self.stage {
            waiting.exchange.close();
            waiting.link.lose(ABNORMAL, "");
        }
    }
}
