//! What the server serves: the same few pages by a synchronous handler, by an asynchronous service, and by Python (`apps/sites.py`).

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use axum::body::Body as AxumBody;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower_wsgi::{BackgroundTasks, Body, BoxError, Input, Output, Writer};

use crate::pattern::{Count, piece};

/// How a download has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) bytes: usize,
    /// Of each piece.
    pub(crate) size: usize,
    /// Where it fails, if it does.
    pub(crate) fails: Option<usize>,
}

impl Question {
    pub(crate) fn query(&self) -> String {
        let fails = self.fails.map_or(String::new(), |fails| format!("&fails={fails}"));
        format!("bytes={}&size={}{fails}", self.bytes, self.size)
    }

    fn of(query: Option<&str>) -> Result<Self, BoxError> {
        let field = |name: &str| {
            let fields = query.unwrap_or_default().split('&');
            fields
                .filter_map(|field| field.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let number = |name| field(name).map(str::parse).transpose();
        Ok(Self {
            bytes: number("bytes")?.ok_or("no bytes")?,
            size: number("size")?.ok_or("no size")?,
            fails: number("fails")?,
        })
    }

    /// The pieces, up to the failure.
    fn pieces(self) -> impl Iterator<Item = io::Result<Bytes>> + Send + 'static {
        let mut offset = 0;
        std::iter::from_fn(move || {
            if self.fails.is_some_and(|fails| offset >= fails.min(self.bytes)) {
                return Some(Err(io::Error::other("as it was asked for")));
            }
            let length = self.size.min(self.bytes - offset);
            let piece = piece(offset, length);
            offset += length;
            (length > 0).then_some(Ok(piece))
        })
    }
}

/// The synchronous site.
pub(crate) fn sync(request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let (head, mut input) = request.into_parts();
    let output = match head.uri.path() {
        "/hello" => Output::from("Hello World!"),
        "/count" => {
            let mut count = Count::default();
            loop {
                let bytes = input.fill_buf()?;
                if bytes.is_empty() {
                    break;
                }
                count.add(bytes)?;
                let length = bytes.len();
                input.consume(length);
            }
            Output::from(count.length().to_string())
        }
        "/download" => Output::try_iter(Question::of(head.uri.query())?.pieces()),
        "/download/reader" => Output::reader(Pieces::of(head.uri.query())?),
        "/download/writer" => {
            let mut pieces = Question::of(head.uri.query())?.pieces();
            Output::writer(move |writer: &mut Writer<'_>| {
                pieces.try_for_each(|piece| writer.write_all(&piece?))
            })
        }
        "/echo" => Output::body(input.into_body()),
        "/panic" => panic!("as it was asked for"),
        "/download/panic" => {
            let pieces = Question::of(head.uri.query())?.pieces();
            Output::iter(pieces.map(|piece| piece.expect("as it was asked for")))
        }
        "/busy" => {
            std::thread::sleep(Duration::from_millis(1));
            Output::from("Hello World!")
        }
        _ => return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Output::empty())?),
    };
    Ok(Response::new(output))
}

/// Pieces as a reader.
struct Pieces {
    pieces: Box<dyn Iterator<Item = io::Result<Bytes>> + Send>,
    rest: Bytes,
}

impl Pieces {
    fn of(query: Option<&str>) -> Result<Self, BoxError> {
        Ok(Self { pieces: Box::new(Question::of(query)?.pieces()), rest: Bytes::new() })
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.pieces.next().transpose()?.unwrap_or_default();
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

/// The asynchronous site.
pub(crate) async fn asynchronous(request: Request<Body>) -> Result<Response<AxumBody>, BoxError> {
    let tasks = request.extensions().get::<BackgroundTasks>().cloned();
    let (head, mut body) = request.into_parts();
    let body = match head.uri.path() {
        "/hello" => {
            if let Some(tasks) = tasks {
                tasks.spawn(tokio::time::sleep(Duration::from_millis(5)));
            }
            AxumBody::from("Hello World!")
        }
        "/count" => {
            let mut count = Count::default();
            while let Some(frame) = body.frame().await {
                if let Ok(bytes) = frame?.into_data() {
                    count.add(&bytes)?;
                }
            }
            AxumBody::from(count.length().to_string())
        }
        "/download" => AxumBody::from_stream(stream::iter(Question::of(head.uri.query())?.pieces())),
        "/echo" => AxumBody::new(body),
        _ => return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(AxumBody::empty())?),
    };
    Ok(Response::new(body))
}
