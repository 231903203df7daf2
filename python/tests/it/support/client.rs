//! A client that shows what is on the wire, and the cookies of a browser.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// A client of one server, with a connection that it keeps and cookies of its own.
pub(crate) struct Browser {
    addr: SocketAddr,
    /// Put before each path that is asked for.
    prefix: String,
    connection: Option<Connection>,
    cookies: Vec<Cookie>,
}

struct Cookie {
    name: String,
    value: String,
    path: String,
}

/// How a body goes out.
pub(crate) enum Payload<'a> {
    None,
    Sized(&'a [u8]),
    /// Without a length, in chunks of this many bytes.
    Chunked(&'a [u8], usize),
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let start = &self.body[..self.body.len().min(1000)];
        write!(f, "\n{}", String::from_utf8_lossy(start))
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut same = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body of a success, which must be JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.status, 200, "{self:?}");
        let kind = self.header("content-type").expect("a content type");
        assert!(kind.starts_with("application/json"), "{kind}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

impl Browser {
    pub(crate) fn new(addr: SocketAddr, prefix: &str) -> Self {
        Browser { addr, prefix: prefix.to_owned(), connection: None, cookies: Vec::new() }
    }

    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.send("GET", path, &[], &Payload::None)
    }

    pub(crate) fn post(&mut self, path: &str, kind: &str, body: &[u8]) -> Reply {
        self.send("POST", path, &[("Content-Type", kind)], &Payload::Sized(body))
    }

    /// Asks for where an answer points to: a URL of this server, or a path on it.
    pub(crate) fn follow(&mut self, location: &str) -> Reply {
        let path = self.path_of(location).to_owned();
        self.send_as_is("GET", &path, &[], &Payload::None)
    }

    /// The path of a URL of this server.
    pub(crate) fn path_of<'a>(&self, location: &'a str) -> &'a str {
        match location.strip_prefix(&format!("http://{}", self.addr)) {
            Some(path) => path,
            None if location.starts_with('/') => location,
            None => panic!("{location} is not on {}", self.addr),
        }
    }

    /// Sends a request below the prefix.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
    ) -> Reply {
        let path = format!("{}{path}", self.prefix);
        self.send_as_is(method, &path, headers, payload)
    }

    /// The same for a path that has its prefix, or none.
    pub(crate) fn send_as_is(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
    ) -> Reply {
        let mut headers: Vec<_> = headers.to_vec();
        let cookies = self.cookies_for(path);
        if !cookies.is_empty() {
            headers.push(("Cookie", &cookies));
        }
        let kept = self.connection.take();
        let may_repeat = kept.is_some() && method == "GET";
        let mut connection = kept.unwrap_or_else(|| Connection::open(self.addr));
        let mut reply = connection.ask(method, path, &headers, payload);
        if reply.is_err() && may_repeat {
            // A server may close what is idle at any time, also just now.
            connection = Connection::open(self.addr);
            reply = connection.ask(method, path, &headers, payload);
        }
        let reply = reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let close = reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !close {
            self.connection = Some(connection);
        }
        for (name, value) in &reply.headers {
            if name.eq_ignore_ascii_case("set-cookie") {
                self.keep(path, value);
            }
        }
        reply
    }

    fn cookies_for(&self, path: &str) -> String {
        let path = path.split('?').next().unwrap_or_default();
        let below = |cookie: &&Cookie| {
            let rest = path.strip_prefix(&cookie.path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie.path.ends_with('/'))
        };
        let pairs = self.cookies.iter().filter(below);
        pairs.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect::<Vec<_>>().join("; ")
    }

    /// Keeps a cookie as RFC 6265, section 5.3 has it, as far as its path goes.
    fn keep(&mut self, asked: &str, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie");
        let attributes: Vec<_> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        let attribute = |name: &str| {
            let mut same = attributes.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
            same.next().map(|(_, value)| *value)
        };
        let asked = asked.split('?').next().unwrap_or_default();
        let directory = match asked.rfind('/') {
            None | Some(0) => "/",
            Some(end) => &asked[..end],
        };
        let path = attribute("path").filter(|path| path.starts_with('/')).unwrap_or(directory).to_owned();
        self.cookies.retain(|cookie| cookie.name != name || cookie.path != path);
        if attribute("max-age") != Some("0") {
            self.cookies.push(Cookie { name: name.to_owned(), value: value.to_owned(), path });
        }
    }
}

/// A connection, for what a browser hides.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Connection(BufReader::new(stream))
    }

    fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
    ) -> io::Result<Reply> {
        // A server may refuse a body before it has read all of it; then its answer says more than the error here.
        let sent = self.send(method, path, headers, payload);
        let reply = self.head().and_then(|head| self.rest(method, head));
        reply.map_err(|error| sent.err().unwrap_or(error))
    }

    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
    ) -> io::Result<()> {
        let stream = self.0.get_mut();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", stream.peer_addr()?);
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("a string");
        }
        match payload {
            Payload::None => stream.write_all(format!("{head}\r\n").as_bytes()),
            Payload::Sized(body) => {
                stream.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
                stream.write_all(body)
            }
            Payload::Chunked(body, size) => {
                stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
                for chunk in body.chunks(*size) {
                    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                    stream.write_all(chunk)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")
            }
        }
    }

    /// Reads the rest of a response.
    pub(crate) fn rest(&mut self, method: &str, mut reply: Reply) -> io::Result<Reply> {
        if method == "HEAD" || matches!(reply.status, 100..200 | 204 | 304) {
            return Ok(reply);
        }
        if let Some(length) = reply.header("content-length") {
            reply.body.resize(length.parse().expect("a length"), 0);
            self.0.read_exact(&mut reply.body)?;
        } else if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                reply.body.extend(chunk);
            }
        } else {
            self.0.read_to_end(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// Reads a response's head.
    pub(crate) fn head(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("a status line like {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Reply { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Reads a chunk; `None` after the last.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(&line, 16);
        let length = length.map_err(|_| io::Error::other(format!("{line:?} where a chunk should be")))?;
        let mut chunk = vec![0; length];
        self.0.read_exact(&mut chunk)?;
        assert_eq!(self.line()?, "", "the end of a chunk");
        Ok((length > 0).then_some(chunk))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
