//! A synchronous host of the plainest kind: a thread for each connection, a request for each connection. What it does not know of HTTP it refuses.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response};
use tower_wsgi::{BoxError, Input, SyncHandler, gateway};

/// The longest head.
const HEAD: usize = 8 * 1024;

/// How long a client may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// Serves for ever, on threads of its own.
pub(crate) fn start(handler: impl SyncHandler) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let handler = Arc::new(handler);
    thread::Builder::new().name("host".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = handler.clone();
            let started = thread::Builder::new().name("host-client".to_owned()).spawn(move || {
                // What became of the connection is the client's to see.
                drop(answer(&*handler, &stream));
            });
            if let Err(error) = started {
                eprintln!("a connection was dropped: {error}");
            }
        }
    })?;
    Ok(address)
}

fn answer(handler: &impl SyncHandler, stream: &TcpStream) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut response = match read_head(&mut reader)? {
        Some(request) if request.headers().contains_key(TRANSFER_ENCODING) => refusal(411)?,
        Some(request) => {
            let length = match request.headers().get(CONTENT_LENGTH) {
                Some(length) => length.to_str()?.parse()?,
                None => 0,
            };
            let body = Input::reader(reader.take(length)).with_length(length);
            gateway::respond(handler, request.map(|()| body))
        }
        None => refusal(400)?,
    };
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", response.status());
    for (name, value) in response.headers() {
        head += &format!("{name}: {}\r\n", value.to_str()?);
    }
    let is_chunked = !response.headers().contains_key(CONTENT_LENGTH);
    head += if is_chunked { "Transfer-Encoding: chunked\r\n\r\n" } else { "\r\n" };
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    while let Some(chunk) = response.body_mut().chunk()? {
        if is_chunked {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
        }
        stream.write_all(&chunk)?;
        if is_chunked {
            stream.write_all(b"\r\n")?;
        }
    }
    if is_chunked {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

fn refusal(status: u16) -> Result<Response<Input>, http::Error> {
    Response::builder().status(status).header(CONTENT_LENGTH, 0).body(Input::empty())
}

/// The request's head, unless it is none.
fn read_head(reader: &mut impl Read) -> io::Result<Option<Request<()>>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if bytes.len() == HEAD || reader.read(&mut byte)? == 0 {
            return Ok(None);
        }
        bytes.push(byte[0]);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(&bytes).is_ok_and(|status| status.is_complete()) {
        return Ok(None);
    }
    let mut builder =
        Request::builder().method(parsed.method.unwrap_or_default()).uri(parsed.path.unwrap_or_default());
    for header in parsed.headers.iter() {
        builder = builder.header(header.name, header.value);
    }
    Ok(builder.body(()).ok())
}
