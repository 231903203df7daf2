//! The load generator: one thread with an event loop and nothing around it, since it shares the cores with the server.
//!
//! Per request it writes once and reads once (after one wait for all connections that are ready), and it compares each
//! answer with the one that is expected.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt;

use crate::response::Response;

/// No response takes so long unless the server hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A request and the body of its answer, whose status is 200.
#[derive(Debug)]
pub struct Exchange {
    /// Where the request goes.
    pub path: String,
    /// The request as HTTP/1.1 sends it.
    pub request: Vec<u8>,
    /// The end of it that is its body.
    body: usize,
    /// The whole body of the answer.
    pub answer: Vec<u8>,
}

impl Exchange {
    /// A request without a body.
    #[must_use]
    pub fn get(path: &str, answer: &[u8]) -> Exchange {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        Exchange { path: path.to_owned(), request: request.into_bytes(), body: 0, answer: answer.to_vec() }
    }

    /// A request with a body.
    #[must_use]
    pub fn post(path: &str, body: &[u8], answer: &[u8]) -> Exchange {
        let request = [&post_head(path, body.len()), body].concat();
        Exchange { path: path.to_owned(), request, body: body.len(), answer: answer.to_vec() }
    }

    /// A request whose body of so many bytes comes back.
    #[must_use]
    pub fn echo(path: &str, length: usize) -> Exchange {
        // No power of two, so that pieces in the wrong order are noticed.
        let body: Vec<u8> = (0_u8..251).cycle().take(length).collect();
        Exchange::post(path, &body, &body)
    }

    /// The request's body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.request[self.request.len() - self.body..]
    }
}

/// The head of a request whose body has so many bytes.
#[must_use]
pub fn post_head(path: &str, length: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests per second.
    pub throughput: f64,
    /// Microseconds.
    pub median: f64,
    /// Microseconds.
    pub p99: f64,
    /// All requests, those of the warm-up too: what the server's own counters grow with.
    pub requests: usize,
}

impl Load {
    /// Sums up how long each request within the time took, in nanoseconds.
    ///
    /// # Errors
    ///
    /// If there was none.
    pub(crate) fn of(mut latencies: Vec<u64>, time: Duration, requests: usize) -> Result<Load, String> {
        latencies.sort_unstable();
        let Some(last) = latencies.len().checked_sub(1) else {
            return Err("no response within the time that is measured".to_owned());
        };
        let at = |percent: usize| latencies[last * percent / 100] as f64 / 1000.0;
        let throughput = latencies.len() as f64 / time.as_secs_f64();
        Ok(Load { throughput, median: at(50), p99: at(99), requests })
    }
}

/// Loads a server with so many connections, each with one request at a time. Only what ends within the time after the warm-up counts.
///
/// # Errors
///
/// Each failure of a connection and each wrong answer.
pub fn load(
    address: SocketAddr,
    exchange: &Exchange,
    connections: usize,
    warm_up: Duration,
    time: Duration,
) -> Result<Load, String> {
    let mut poll = Poll::new().map_err(told)?;
    let mut events = Events::with_capacity(connections);
    let mut buffer = vec![0; 256 * 1024];
    let mut clients = Vec::with_capacity(connections);
    for index in 0..connections {
        clients.push(Some(Client::new(address, &poll, Token(index)).map_err(told)?));
    }
    let begin = Instant::now() + warm_up;
    let end = begin + time;
    let mut latencies = Vec::new();
    let mut requests = 0;
    let mut active = connections;
    for client in clients.iter_mut().flatten() {
        // Not the time in which all others connected.
        client.started = Instant::now();
        client.start(exchange).map_err(told)?;
    }
    while active > 0 {
        poll.poll(&mut events, Some(PATIENCE)).map_err(told)?;
        if events.is_empty() {
            return Err(format!("no response within {} s", PATIENCE.as_secs()));
        }
        for event in &events {
            let Token(index) = event.token();
            let slot = &mut clients[index];
            let Some(client) = slot else {
                continue;
            };
            if !client.advance(exchange, &mut buffer)? {
                continue;
            }
            requests += 1;
            let now = Instant::now();
            if now > begin && now <= end {
                latencies.push(u64::try_from((now - client.started).as_nanos()).unwrap_or(u64::MAX));
            }
            if now > end {
                // A server that closes connections may wait for this end of each, one after the other.
                *slot = None;
                active -= 1;
                continue;
            }
            if client.response.closes {
                *client = Client::new(address, &poll, Token(index)).map_err(told)?;
            }
            client.start(exchange).map_err(told)?;
        }
    }
    Load::of(latencies, time, requests)
}

fn told(error: io::Error) -> String {
    if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) {
        return format!("nothing went through the connection for {} s", PATIENCE.as_secs());
    }
    format!("the connection failed: {error}")
}

/// Nothing waits for more to send, and the end is a reset: thousands of ports that linger would make each new connection search
/// for a free one.
pub(crate) fn prepare(stream: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&stream, true)?;
    Ok(sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?)
}

/// A connection, with the request that it is at.
struct Client {
    stream: mio::net::TcpStream,
    started: Instant,
    written: usize,
    response: Response,
}

impl Client {
    fn new(address: SocketAddr, poll: &Poll, token: Token) -> io::Result<Client> {
        let started = Instant::now();
        // On loopback this waits for nothing but room in the backlog.
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        prepare(&stream)?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Client { stream, started, written: 0, response: Response::default() })
    }

    fn start(&mut self, exchange: &Exchange) -> io::Result<()> {
        // A new connection's time counts as the request's.
        if self.written > 0 {
            self.started = Instant::now();
        }
        self.written = 0;
        self.response = Response::default();
        self.write(exchange)
    }

    fn write(&mut self, exchange: &Exchange) -> io::Result<()> {
        while self.written < exchange.request.len() {
            match self.stream.write(&exchange.request[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Does what the connection is ready for. True at the end of the response.
    fn advance(&mut self, exchange: &Exchange, buffer: &mut [u8]) -> Result<bool, String> {
        self.write(exchange).map_err(told)?;
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Err("the server closed the connection before its response".to_owned()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(told(error)),
            };
            let answer = &exchange.answer;
            let expected =
                |offset: usize, piece: &[u8]| answer.get(offset..offset + piece.len()) == Some(piece);
            if self.response.read(&buffer[..length], expected)? {
                // Nothing can follow, so there is no second read that finds nothing.
                return match self.response.received == answer.len() {
                    true => Ok(true),
                    false => Err(format!("a body of only {} bytes", self.response.received)),
                };
            }
        }
    }
}

/// One request from a blocking socket, with a pause before the response is read, and the length of the answer's body.
///
/// # Errors
///
/// The inner error is for good; the outer one says that the connection could not be made.
pub fn once(
    address: SocketAddr,
    write: impl FnOnce(&mut TcpStream) -> io::Result<()>,
    pause: Duration,
    mut expected: impl FnMut(usize, &[u8]) -> bool,
) -> io::Result<Result<usize, String>> {
    let mut stream = TcpStream::connect(address)?;
    let exchange = || {
        stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(told)?;
        write(&mut stream).map_err(told)?;
        std::thread::sleep(pause);
        let mut response = Response::default();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length = stream.read(&mut buffer).map_err(told)?;
            if length == 0 {
                return Err("the server closed the connection before the end of its response".to_owned());
            }
            if response.read(&buffer[..length], &mut expected)? {
                return Ok(response.received);
            }
        }
    };
    Ok(exchange())
}
