//! Clients that send and read bytes as they are, and leave as they like.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::soon;

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// With a reset.
    Reset,
    /// It closes its socket, which is a reset too where something is left to be read.
    Close,
    /// It sends no more, reads no more, and keeps its socket.
    Half,
    /// It sends no more, and reads on.
    HalfThenRead,
}

pub(super) const LEAVES: [Leave; 4] = [Leave::Reset, Leave::Close, Leave::Half, Leave::HalfThenRead];

/// Connects, with little room for what comes in.
pub(super) async fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    let stream = soon(socket.connect(addr)).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Leaves. What is kept of the client stays open until it is dropped; `read` is what it still got.
pub(super) async fn leave(mut client: TcpStream, how: Leave) -> Left {
    match how {
        Leave::Reset => {
            reset(client);
            Left::default()
        }
        Leave::Close => Left::default(),
        Leave::Half => {
            let _ = client.shutdown().await;
            Left { kept: Some(client), read: Vec::new() }
        }
        Leave::HalfThenRead => {
            let _ = client.shutdown().await;
            Left { kept: None, read: rest(&mut client).await }
        }
    }
}

/// See [`leave`].
#[derive(Default)]
pub(super) struct Left {
    pub(super) kept: Option<TcpStream>,
    pub(super) read: Vec<u8>,
}

/// Closes a connection with a reset.
pub(super) fn reset(client: TcpStream) {
    // The one duration for which the socket does not block when it is closed.
    #[allow(deprecated, reason = "what replaces it is not in the oldest tokio that will do")]
    client.set_linger(Some(Duration::ZERO)).expect("a socket");
}

/// All that comes until the server closes. A connection that is cut may end in a reset.
pub(super) async fn rest(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = soon(client.read_to_end(&mut bytes)).await;
    bytes
}

/// Sends bytes as they are on a connection of their own, and returns all that comes back until the server closes.
pub(super) async fn raw(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut client = connect(addr).await;
    // A server may refuse, and close, before it has all.
    let _ = soon(client.write_all(request)).await;
    rest(&mut client).await
}

/// A response as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// What came on a connection: whole replies, and what of another came before it was cut off.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pub(super) whole: Vec<Reply>,
    pub(super) cut: Option<Reply>,
}

impl Replies {
    /// Reads what a connection gave until it was closed. Interim responses are left out.
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut replies = Self::default();
        while !bytes.is_empty() {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                let head = String::from_utf8_lossy(bytes).into_owned();
                assert!(
                    head.starts_with("HTTP/1.1 ") || "HTTP/1.1 ".starts_with(&head),
                    "no response: {head:?}"
                );
                replies.cut = Some(Reply { status: 0, head, body: Vec::new() });
                break;
            };
            let head = std::str::from_utf8(&bytes[..end]).expect("a head of text").to_owned();
            let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok());
            let status = status.unwrap_or_else(|| panic!("no response: {head:?}"));
            bytes = &bytes[end + 4..];
            if status == 100 {
                continue;
            }
            let (body, is_whole) = body(&head, &mut bytes);
            let reply = Reply { status, head, body };
            if is_whole {
                replies.whole.push(reply);
            } else {
                replies.cut = Some(reply);
                break;
            }
        }
        replies
    }

    pub(super) fn statuses(&self) -> Vec<u16> {
        self.whole.iter().map(|reply| reply.status).collect()
    }
}

/// Takes the body that follows `head`, and tells whether it is whole.
fn body(head: &str, bytes: &mut &[u8]) -> (Vec<u8>, bool) {
    let header = |name: &str| {
        head.split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find_map(|(other, value)| other.eq_ignore_ascii_case(name).then(|| value.to_owned()))
    };
    if let Some(length) = header("content-length") {
        let length: usize = length.parse().expect("a length");
        let here = length.min(bytes.len());
        let body = bytes[..here].to_vec();
        *bytes = &bytes[here..];
        return (body, here == length);
    }
    if header("transfer-encoding").as_deref() != Some("chunked") {
        let body = bytes.to_vec();
        *bytes = &[];
        return (body, true);
    }
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&bytes[..end]).expect("a size of text");
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        let data = &bytes[end + 2..];
        body.extend_from_slice(&data[..size.min(data.len())]);
        let Some(after) = data.get(size..).and_then(|rest| rest.strip_prefix(b"\r\n")) else {
            return (body, false);
        };
        *bytes = after;
        if size == 0 {
            return (body, true);
        }
    }
}
