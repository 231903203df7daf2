//! Real web servers as child processes, a client for them, and what holds behind each of them.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tower_wsgi::{Body, BoxError};

use crate::support::{PATIENCE, eventually, soon};

/// How long 100 MiB may take, on their way through three processes that are not optimised.
const LONG: Duration = Duration::from_secs(180);

/// How often a port that somebody else took meanwhile is given up for another.
const TRIES: usize = 5;

/// A process and all that it starts: ended with it, when dropped.
pub(crate) struct Group(Child);

impl Group {
    /// Starts a program whose output goes to `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log");
        command.stdout(log.try_clone().expect("a log"));
        Self::spawn(command.stderr(log))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).process_group(0).spawn().expect("a process"))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_some()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A CGI program would outlive its server. std knows of processes alone, a shell of groups.
        let kill = format!("kill -s KILL -- -{}", self.0.id());
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// A running web server. It stops when dropped.
pub(super) struct Web {
    addr: SocketAddr,
    // In the order of their drop: the directory is the last.
    _server: Group,
    _behind: Vec<Group>,
    dir: TempDir,
}

/// Where the programs are, if all are installed. A test that needs one that is not can only pass by, but not where everything is meant to be
/// tested.
pub(crate) fn installed<const N: usize>(programs: [&str; N]) -> Option<[PathBuf; N]> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are not on every user's path.
    let dirs = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from));
    let dirs: Vec<_> = dirs.collect();
    let paths = programs.map(|program| {
        let path = dirs.iter().map(|dir| dir.join(program)).find(|path| path.is_file());
        if path.is_none() {
            assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
            eprintln!("not tested: {program} is not installed");
        }
        path
    });
    paths.iter().all(Option::is_some).then(|| paths.map(|path| path.expect("looked at above")))
}

/// What a server's configuration is made of.
pub(super) struct Place<'a> {
    pub(super) dir: &'a Path,
    pub(super) port: u16,
    /// What `GET /token` has to answer: another server on that port would not know it.
    pub(super) token: &'a str,
}

impl Web {
    /// Starts a server, `behind` which there may be other processes. `server` writes its configuration and starts it in the foreground.
    pub(super) fn start(dir: TempDir, behind: Vec<Group>, server: impl Fn(&Place<'_>) -> Command) -> Self {
        let log = dir.path().join("output.log");
        let token = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
        for _ in 0..TRIES {
            let free = TcpListener::bind("127.0.0.1:0").expect("a port");
            let addr = free.local_addr().expect("an address");
            drop(free);
            let place = Place { dir: dir.path(), port: addr.port(), token: &token };
            let mut group = Group::start(&mut server(&place), &log);
            if answers(addr, &token, &mut group) {
                return Self { addr, _server: group, _behind: behind, dir };
            }
        }
        panic!("no server starts: {}", fs::read_to_string(&log).unwrap_or_default());
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A request to this server.
    pub(super) fn request<B>(&self, method: Method, path: &str, body: B) -> Request<B> {
        let request = Request::builder().method(method).uri(path).header("host", self.addr.to_string());
        request.body(body).expect("a request")
    }

    /// Sends one request on a connection of its own.
    pub(super) async fn send<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: http_body::Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let stream = tokio::net::TcpStream::connect(self.addr).await.expect("a connection");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut client, connection) = handshake.await.expect("a connection");
        tokio::spawn(connection);
        client.send_request(request).await.expect("a response")
    }

    pub(super) async fn ask(&self, method: Method, path: &str) -> Response<Incoming> {
        soon(self.send(self.request(method, path, Body::empty()))).await
    }

    pub(super) async fn get(&self, path: &str) -> Response<Incoming> {
        self.ask(Method::GET, path).await
    }

    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Response<Incoming> {
        // hyper would leave out a length of zero.
        let length = body.len().into();
        let mut request = self.request(Method::POST, path, Body::from(body));
        request.headers_mut().insert(CONTENT_LENGTH, length);
        soon(self.send(request)).await
    }
}

/// Waits until a server is there, and is the one that was started.
fn answers(addr: SocketAddr, token: &str, server: &mut Group) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !server.is_over() {
        if TcpStream::connect(addr).is_ok() {
            let answer = exchange(addr, b"GET /token HTTP/1.0\r\n\r\n");
            // A server that will fail since another has the port may need a moment for it.
            return String::from_utf8_lossy(&answer).contains(token);
        }
        // Nothing announces it.
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Sends a request, and reads all that comes back.
fn exchange(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut answer = Vec::new();
    stream.write_all(request).expect("to send");
    // A cut connection may end in a reset.
    let _ = stream.read_to_end(&mut answer);
    answer
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    let bytes = soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The body of a response, up to where it breaks off.
pub(super) async fn broken(response: Response<Incoming>) -> Vec<u8> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    loop {
        match soon(body.frame()).await.expect("a body that breaks off") {
            Ok(frame) => bytes.extend(frame.into_data().expect("data")),
            Err(_) => return bytes,
        }
    }
}

/// Zeros, of which only one piece is in memory.
struct Zeros {
    left: usize,
    declared: bool,
}

const PIECE: &[u8] = &[0; 64 * 1024];
const PIECES: usize = 1600;

impl http_body::Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        Poll::Ready(more.then(|| Ok(Frame::data(Bytes::from_static(PIECE)))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.declared { SizeHint::with_exact((self.left * PIECE.len()) as u64) } else { SizeHint::new() }
    }
}

/// 100 MiB go in, and are what they were.
pub(super) async fn upload(web: &Web, path: &str, declared: bool) {
    let request = web.request(Method::POST, path, Zeros { left: PIECES, declared });
    let answer = async { web.send(request).await.into_body().collect().await };
    let answer = tokio::time::timeout(LONG, answer).await.expect("to end in time");
    let digest = "20492a4d0d84f8beb1767f6616229f85d44c2827b64bdbfb260ee12fa1109e0e";
    let expected = format!("{} {digest}\n", PIECES * PIECE.len());
    assert_eq!(answer.expect("a whole body").to_bytes(), expected);
}

/// 100 MiB come out, and are what they should be.
pub(super) async fn download(web: &Web) {
    let response = web.get("/app/download?mib=100").await;
    assert_eq!(response.status(), 200);
    let (mut body, mut length) = (response.into_body(), 0);
    while let Some(frame) = soon(body.frame()).await {
        let data = frame.expect("a whole body").into_data().expect("data");
        assert!(data.iter().all(|byte| *byte == b'x'));
        length += data.len();
    }
    assert_eq!(length, 100 * 1024 * 1024);
}

/// Responses of every kind.
pub(super) async fn pages(web: &Web) {
    let hello = web.get("/app/hello").await;
    assert_eq!(hello.status(), 200);
    assert_eq!(hello.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(hello.headers()["content-length"], "13");
    assert_eq!(text(hello).await, "Hello World!\n");

    let head = web.ask(Method::HEAD, "/app/hello").await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], "13");
    assert_eq!(text(head).await, "");

    assert_eq!(web.get("/app/none").await.status(), 404);
    assert_eq!(web.ask(Method::DELETE, "/app/hello").await.status(), 405);

    let failed = web.get("/app/fail").await;
    assert_eq!(failed.status(), 500);
    assert_eq!(text(failed).await, "no answer: Not a directory (os error 20)\n");

    let panicked = web.get("/app/panic").await;
    assert_eq!(panicked.status(), 500);
    assert_eq!(text(panicked).await, "Internal Server Error\n");

    assert_eq!(text(web.post("/app/echo", b"and back".to_vec()).await).await, "and back");
    assert_eq!(text(web.post("/app/echo", Vec::new()).await).await, "");
}

pub(super) async fn redirects(web: &Web) {
    let response = web.get("/app/redirect").await;
    assert_eq!(response.status(), 303);
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!(location, "/app/hello");
    assert_eq!(text(web.get(&location).await).await, "Hello World!\n");
}

pub(super) async fn cookies(web: &Web) {
    let response = web.get("/app/cookies").await;
    let set: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(set, ["a=1; Path=/", "b=2; Path=/"]);
    assert_eq!(text(response).await, "none\n");
    let mut request = web.request(Method::GET, "/app/cookies", Body::empty());
    request.headers_mut().insert("cookie", "a=1; b=2".parse().expect("a value"));
    assert_eq!(text(soon(web.send(request)).await).await, "a=1; b=2\n");
}

/// The first line is here long before the second is made.
pub(super) async fn streamed(web: &Web, path: &str) {
    let minute = Duration::from_secs(60);
    assert!(minute > PATIENCE);
    let mut response = web.get(&format!("{path}?n=2&ms={}", minute.as_millis())).await;
    assert_eq!(response.status(), 200);
    let first = soon(response.body_mut().frame()).await.expect("a frame").expect("no error");
    assert_eq!(first.into_data().expect("data"), "tick\n");
    // And it is no trick of a server that sends one line and forgets the rest.
    assert_eq!(text(web.get(&format!("{path}?n=3&ms=1")).await).await, "tick\ntick\ntick\n");
}

/// What the program saw, line by line.
pub(super) async fn environ(web: &Web, path: &str) -> Vec<String> {
    let mut request = web.request(Method::GET, path, Body::empty());
    for (name, value) in [("x-custom", "yes"), ("proxy", "http://evil.example"), ("accept", "text/plain")] {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let response = soon(web.send(request)).await;
    assert_eq!(response.status(), 200);
    text(response).await.lines().map(str::to_owned).collect()
}

/// What every server says of a request in the same way.
pub(super) async fn described(web: &Web) {
    let lines = environ(web, "/app/environ/a%2Fb%20c%FF?x=1&y=a%20b").await;
    for line in [
        "root_path=/app",
        "raw_path=/app/environ/a%2Fb%20c%FF",
        "SCRIPT_NAME=/app",
        "PATH_INFO=/environ/a/b c\u{fffd}",
        "QUERY_STRING=x=1&y=a%20b",
        "REQUEST_METHOD=GET",
        "REQUEST_URI=/app/environ/a%2Fb%20c%FF?x=1&y=a%20b",
        "SERVER_PROTOCOL=HTTP/1.1",
        "REMOTE_ADDR=127.0.0.1",
        "HTTP_X_CUSTOM=yes",
        "HTTP_ACCEPT=text/plain",
        &format!("SERVER_PORT={}", web.addr.port()),
    ] {
        assert!(lines.iter().any(|own| own == line), "{line} is not in {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.contains("evil")), "{lines:#?}");
}

/// The task is done though the response was there before.
pub(super) async fn background(web: &Web) {
    assert_eq!(text(web.post("/app/note", b"hello".to_vec()).await).await, "noted\n");
    let file = web.dir().join("note");
    eventually("the note is written", || fs::read(&file).is_ok_and(|note| note == b"hello")).await;
}
