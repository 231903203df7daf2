//! HTTP/2 by hand: clients that send what no library would, at the moment that they like.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wire::connect;
use crate::support::soon;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The reason of a reset or a GOAWAY that says that nobody wants an answer any more.
pub(super) const CANCEL: u32 = 8;

/// The beginning of a connection, with how much each stream may send before it is told more.
pub(super) fn preface(window: u32) -> Vec<u8> {
    let mut settings = 4_u16.to_be_bytes().to_vec();
    settings.extend(window.to_be_bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &settings));
    bytes
}

/// A request's head. With no length its body goes on to the end of the stream; `None` has no body.
pub(super) fn head(stream: u32, path: &str, body: Option<Option<usize>>) -> Vec<u8> {
    // Indexed fields of the static table, and literals that are not to be indexed (RFC 7541, section 6.2.2).
    let mut block = vec![if body.is_some() { 0x83 } else { 0x82 }, 0x86, 0x04];
    literal(&mut block, path);
    block.push(0x01);
    literal(&mut block, "h");
    if let Some(length) = body.flatten() {
        block.extend([0x0f, 0x0d]);
        literal(&mut block, &length.to_string());
    }
    let end = if body.is_some() { 0 } else { END_STREAM };
    frame(HEADERS, END_HEADERS | end, stream, &block)
}

fn literal(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).expect("a short text"));
    block.extend(text.as_bytes());
}

pub(super) fn data(stream: u32, bytes: &[u8], is_last: bool) -> Vec<u8> {
    frame(DATA, u8::from(is_last) * END_STREAM, stream, bytes)
}

pub(super) fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

pub(super) fn go_away(reason: u32) -> Vec<u8> {
    let mut payload = 0_u32.to_be_bytes().to_vec();
    payload.extend(reason.to_be_bytes());
    frame(GOAWAY, 0, 0, &payload)
}

/// More room for a stream, or for all of the connection (0).
pub(super) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What a stream got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) status: Option<u16>,
    pub(super) body: Vec<u8>,
    pub(super) end: Option<End>,
}

/// How a stream, or its connection, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With its last byte.
    True,
    Reset,
    GoAway,
    Closed,
}

/// A connection.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    /// Connects, and gives each stream so much room.
    pub(super) async fn new(addr: SocketAddr, room: u32) -> Self {
        let mut client = Self(connect(addr).await);
        client.send(preface(room)).await;
        client
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.expect("to send");
    }

    /// Reads what comes for a stream until `is_enough`, or its end.
    pub(super) async fn read(&mut self, stream: u32, got: &mut Got, is_enough: impl Fn(&Got) -> bool) {
        while got.end.is_none() && !is_enough(got) {
            let Some((kind, flags, to, payload)) = self.frame().await else {
                got.end = Some(End::Closed);
                return;
            };
            match kind {
                GOAWAY => got.end = Some(End::GoAway),
                _ if to != stream => continue,
                RST_STREAM => got.end = Some(End::Reset),
                HEADERS if got.status.is_none() => got.status = Some(status(&payload)),
                DATA => got.body.extend(payload),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                got.end = Some(End::True);
            }
        }
    }

    /// Reads a stream to its end.
    pub(super) async fn whole(&mut self, stream: u32) -> Got {
        let mut got = Got::default();
        self.read(stream, &mut got, |_| false).await;
        got
    }

    /// The next frame with a body's bytes in it.
    pub(super) async fn data(&mut self) -> Vec<u8> {
        loop {
            match self.frame().await.expect("a frame") {
                (DATA, _, _, payload) => return payload,
                (RST_STREAM | GOAWAY, ..) => panic!("an end"),
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        soon(self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        soon(self.0.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }
}

/// The status that a block of headers begins with: an index into the static table, where there is one for it.
fn status(block: &[u8]) -> u16 {
    let block = match block {
        // A change of the table's size.
        [size, rest @ ..] if size & 0xe0 == 0x20 => rest,
        block => block,
    };
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8e, ..] => 500,
        _ => panic!("another status: {block:?}"),
    }
}
