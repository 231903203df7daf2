//! A2 and A8: how a body ends for its reader. `Ok(0)` is the true end, and all else an error that stays.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_http::limit::RequestBodyLimitLayer;
use tower_wsgi::{Adapter, BoxError, Environ, Error, Input, Output, WsgiLayer, WsgiService};

use super::{echo, fed, poll_once, whole};
use crate::support::{Events, PATIENCE, Scripted, Server, VERSIONS, eventually, serve, soon};

/// What a read gave: how many bytes, or which error.
type Got = Result<usize, io::ErrorKind>;

/// A handler that reads until the end or an error, and then again in every way there is.
fn tell_reads(tell: impl Fn(Got)) -> impl Fn(Request<Input>) -> Response<Output> {
    move |mut request| {
        let tell = |read: io::Result<usize>| tell(read.map_err(|error| error.kind()));
        let input = request.body_mut();
        let mut buf = [0; 64];
        loop {
            let read = input.read(&mut buf);
            let over = !matches!(read, Ok(1..));
            tell(read);
            if over {
                break;
            }
        }
        tell(input.read(&mut buf));
        tell(input.fill_buf().map(<[u8]>::len));
        tell(input.chunk().map(|chunk| chunk.map_or(0, |chunk| chunk.len())));
        tell(input.read_line(&mut String::new()));
        Response::new(Output::empty())
    }
}

/// Waits until so many bytes were read.
async fn read(reads: &Events<Got>, mut bytes: usize) {
    while bytes > 0 {
        bytes -= reads.next().await.expect("bytes");
    }
}

/// How the body ended, each time it was asked.
async fn ends(reads: &Events<Got>) -> Vec<Got> {
    let mut ends = vec![loop {
        let read = reads.next().await;
        if !matches!(read, Ok(1..)) {
            break read;
        }
    }];
    for _ in 0..4 {
        ends.push(reads.next().await);
    }
    ends
}

#[track_caller]
fn assert_failed(ends: &[Got], what: &str) {
    assert!(ends.iter().all(Result::is_err), "{what}: {ends:?}");
}

#[tokio::test]
async fn a2_nothing_read_is_the_true_end() {
    let reads = Events::new();
    let server = serve(WsgiService::new(tell_reads(reads.teller()))).await;
    for version in VERSIONS {
        for body in ["hello", ""] {
            let (feed, fed) = fed();
            feed.data(body);
            drop(feed);
            let response = soon(server.send(version, server.request("POST", "/", fed))).await;
            assert_eq!(response.expect("a response").status(), 200);
            read(&reads, body.len()).await;
            assert_eq!(ends(&reads).await, [Ok(0); 5], "{version:?}");
        }
    }
}

#[tokio::test]
async fn a2_a_truncated_upload_is_an_error() {
    let reads = Events::new();
    // The handler is there before the client goes; otherwise there may be none at all.
    let server = serve(WsgiLayer::adapter().prefetch(0).layer(tell_reads(reads.teller()))).await;
    for rest in [
        "content-length: 100\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello",
        "transfer-encoding: chunked\r\n\r\n8\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5d41\r\n",
    ] {
        for half in [false, true] {
            let mut client = server.connect();
            write!(client, "POST / HTTP/1.1\r\nhost: h\r\n{rest}").expect("to send");
            read(&reads, 5).await;
            if half {
                client.shutdown(Shutdown::Write).expect("a socket");
            } else {
                drop(client);
            }
            assert_failed(&ends(&reads).await, rest);
        }
    }
}

/// Starts an upload over HTTP/2, by hand.
async fn upload(
    server: &Server,
    length: Option<u64>,
) -> (h2::SendStream<Bytes>, h2::client::ResponseFuture, JoinHandle<()>) {
    let stream = TcpStream::connect(server.addr).await.expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("a connection");
    let connection = tokio::spawn(async move { drop(connection.await) });
    let mut request = server.request("POST", "/", ());
    if let Some(length) = length {
        request.headers_mut().insert("content-length", length.into());
    }
    let mut client = client.ready().await.expect("a connection");
    let (response, body) = client.send_request(request, false).expect("to send");
    (body, response, connection)
}

#[tokio::test]
async fn a2_a_truncated_upload_over_http2_is_an_error() {
    type Cut = fn(&mut h2::SendStream<Bytes>, &JoinHandle<()>);
    let cuts: [(&str, Cut); 2] = [
        ("reset", |body, _| body.send_reset(h2::Reason::CANCEL)),
        ("connection gone", |_, connection| connection.abort()),
    ];
    let reads = Events::new();
    let server = serve(WsgiLayer::adapter().prefetch(0).layer(tell_reads(reads.teller()))).await;
    for (what, cut) in cuts {
        for length in [None, Some(100)] {
            let (mut body, _response, connection) = soon(upload(&server, length)).await;
            body.send_data("hello".into(), false).expect("to send");
            read(&reads, 5).await;
            cut(&mut body, &connection);
            assert_failed(&ends(&reads).await, what);
        }
    }
}

#[tokio::test]
async fn a2_an_upload_over_http2_of_another_length_than_declared_is_an_error() {
    let reads = Events::new();
    let server = serve(WsgiLayer::adapter().prefetch(0).layer(tell_reads(reads.teller()))).await;
    for length in [7, 11] {
        let (mut body, _response, _connection) = soon(upload(&server, Some(length))).await;
        body.send_data("hello".into(), false).expect("to send");
        read(&reads, 5).await;
        body.send_data("world".into(), true).expect("to send");
        assert_failed(&ends(&reads).await, &format!("{length} bytes declared"));
    }
}

#[tokio::test]
async fn a2_what_came_before_the_cut_is_read_before_the_error() {
    let reads = Events::new();
    let service = WsgiService::new(tell_reads(reads.teller()));
    let (feed, body) = fed();
    feed.data("hello");
    feed.fail("connection reset");
    soon(service.oneshot(Request::new(body))).await.expect("a response");
    read(&reads, 5).await;
    assert_eq!(ends(&reads).await, [Err(io::ErrorKind::Other); 5]);
}

#[tokio::test]
async fn a2_a_body_of_another_length_than_declared_is_an_error() {
    let short = io::ErrorKind::UnexpectedEof;
    let long = io::ErrorKind::InvalidData;
    for (frames, readable, expected) in [
        (&["hello"][..], 5, Err(short)),
        (&[], 0, Err(short)),
        (&["hello", "worl", "d"], 10, Ok(0)),
        (&["hello", "worl", "d!"], 9, Err(long)),
        (&["hello", "world", "!"], 10, Err(long)),
        (&["hello, world"], 0, Err(long)),
    ] {
        for prefetch in [0, 7, 64 * 1024] {
            let reads = Events::new();
            let service = WsgiLayer::adapter().prefetch(prefetch).layer(tell_reads(reads.teller()));
            let (feed, body) = fed();
            frames.iter().for_each(|frame| feed.data(*frame));
            drop(feed);
            let request = Request::builder().header("content-length", "10").body(body).expect("a request");
            soon(service.oneshot(request)).await.expect("a response");
            read(&reads, readable).await;
            assert_eq!(ends(&reads).await, [expected; 5], "{frames:?}, prefetch: {prefetch}");
        }
    }
}

#[tokio::test]
async fn a2_a_body_of_another_length_is_a_bad_request_if_the_handler_passes_the_error_on() {
    for frames in [&["hello"][..], &["hello", "world!"]] {
        let (feed, body) = fed();
        frames.iter().for_each(|frame| feed.data(*frame));
        drop(feed);
        let request = Request::builder().header("content-length", "10").body(body).expect("a request");
        let response = soon(WsgiService::new(echo).oneshot(request)).await.expect("a response");
        assert_eq!(response.status(), 400, "{frames:?}");
    }
}

#[tokio::test]
async fn a2_a_body_that_fell_short_has_no_trailers() {
    let service = WsgiService::new(|mut request: Request<Input>| {
        let input = request.body_mut();
        let read = input.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        Response::new(format!("{read:?}, {:?}", input.trailers()))
    });
    let (feed, body) = fed();
    feed.data("hello");
    feed.trailers();
    let request = Request::builder().header("content-length", "10").body(body).expect("a request");
    let response = soon(service.oneshot(request)).await.expect("a response");
    assert_eq!(whole(response).await, "Err(UnexpectedEof), None");
}

const SHORT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a2_a_read_times_out_and_can_be_tried_again() {
    let timeouts = Events::new();
    let tell = timeouts.teller();
    let layer = WsgiLayer::adapter().prefetch(0).read_timeout(SHORT);
    let service = layer.layer(move |mut request: Request<Input>| {
        let mut bytes = Vec::new();
        while let Err(error) = request.body_mut().read_to_end(&mut bytes) {
            let ours =
                error.get_ref().and_then(|error| error.downcast_ref()).is_some_and(Error::is_timed_out);
            tell((error.kind(), ours, bytes.len()));
            if error.kind() != io::ErrorKind::TimedOut {
                return Err(error);
            }
        }
        Ok(Response::new(bytes))
    });
    let (feed, body) = fed();
    let mut response = pin!(soon(service.oneshot(Request::new(body))));
    for piece in ["hello, ", "world"] {
        assert!(poll_once(response.as_mut()).await.is_pending());
        timeouts.drain();
        let (kind, ours, _) = timeouts.next().await;
        assert_eq!((kind, ours), (io::ErrorKind::TimedOut, true));
        feed.data(piece);
    }
    drop(feed);
    assert_eq!(whole(response.await.expect("a response")).await, "hello, world");
}

#[tokio::test]
async fn a2_a_client_that_stalls_gets_408_if_the_handler_passes_the_error_on() {
    let server = serve(WsgiLayer::adapter().prefetch(0).read_timeout(SHORT).layer(echo)).await;
    for version in VERSIONS {
        let (feed, body) = fed();
        feed.data("hello");
        let response = soon(server.send(version, server.request("POST", "/", body))).await;
        assert_eq!(response.expect("a response").status(), 408, "{version:?}");
    }
}

#[tokio::test]
async fn a2_the_longest_timeout_is_none() {
    let service = WsgiLayer::adapter().prefetch(0).read_timeout(Duration::MAX).layer(echo);
    let (feed, body) = fed();
    let mut response = pin!(service.oneshot(Request::new(body)));
    assert!(poll_once(response.as_mut()).await.is_pending());
    eventually("the handler reads", || feed.asked() > 0).await;
    feed.data("hello");
    drop(feed);
    assert_eq!(whole(soon(response).await.expect("a response")).await, "hello");
}

/// A frame without a byte every few milliseconds, for longer than any test waits.
struct Hollow(Interval, Instant);

impl http_body::Body for Hollow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let now = ready!(self.0.poll_tick(cx));
        Poll::Ready((now < self.1).then(|| Ok(Frame::data(Bytes::new()))))
    }
}

#[tokio::test]
async fn a2_frames_without_a_byte_do_not_extend_the_timeout() {
    let service = WsgiLayer::adapter().prefetch(0).read_timeout(SHORT).layer(echo);
    let mut ticks = interval(SHORT / 4);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let request = Request::new(Hollow(ticks, Instant::now() + PATIENCE / 2));
    assert_eq!(soon(service.oneshot(request)).await.expect("a response").status(), 408);
}

/// An error with another in it.
#[derive(Debug)]
struct Outer(io::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("outer")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn a2_an_error_keeps_its_kind_unless_readers_would_go_on() {
    use io::ErrorKind::{ConnectionReset, Interrupted, Other, PermissionDenied, TimedOut, WouldBlock};
    for (kind, expected) in [
        (ConnectionReset, ConnectionReset),
        (PermissionDenied, PermissionDenied),
        (TimedOut, TimedOut),
        (Interrupted, Other),
        (WouldBlock, Other),
    ] {
        for nested in [false, true] {
            let reads = Events::new();
            let service = WsgiService::new(tell_reads(reads.teller()));
            let (feed, body) = fed();
            feed.data("hello");
            let error = io::Error::from(kind);
            if nested {
                feed.fail(Outer(error));
            } else {
                feed.fail(error);
            }
            soon(service.oneshot(Request::new(body))).await.expect("a response");
            assert_eq!(ends(&reads).await, [Err(expected); 5], "{kind:?}, nested: {nested}");
        }
    }
}

#[tokio::test]
async fn a2_the_body_s_own_error_is_in_the_reader_s() {
    let (feed, body) = fed();
    feed.fail(Outer(io::ErrorKind::ConnectionReset.into()));
    let mut input = Input::new(body);
    for _ in 0..2 {
        let error = input.read(&mut [0]).expect_err("the body's error");
        let source = error
            .get_ref()
            .and_then(std::error::Error::source)
            .and_then(<dyn std::error::Error>::downcast_ref);
        let _: &Outer = source.unwrap_or_else(|| panic!("{error:?}"));
    }
}

#[tokio::test]
async fn a2_a_body_over_a_limit_is_413() {
    for layer in [WsgiLayer::adapter(), WsgiLayer::adapter().prefetch(0)] {
        let service = ServiceBuilder::new().layer(RequestBodyLimitLayer::new(10)).layer(layer).service(echo);
        let server = serve(service).await;
        for version in VERSIONS {
            for (pieces, status) in [(&["12345", "67890"][..], 200), (&["12345", "678901"], 413)] {
                let (feed, body) = fed();
                pieces.iter().for_each(|piece| feed.data(*piece));
                drop(feed);
                let response = soon(server.send(version, server.request("POST", "/", body))).await;
                assert_eq!(response.expect("a response").status(), status, "{version:?} {pieces:?}");
            }
        }
    }
}

/// A layer whose handlers get the body as it comes.
fn unbuffered() -> WsgiLayer<Adapter> {
    WsgiLayer::adapter().prefetch(0)
}

#[tokio::test]
async fn a8_a_blocked_reader_wakes_when_the_response_future_is_dropped() {
    let reads = Events::new();
    let tell = reads.teller();
    let service = unbuffered().layer(move |mut request: Request<Input>| {
        let environ = Environ::of(&request);
        let input = request.body_mut();
        let kinds = [(); 2].map(|()| {
            let error = input.read(&mut [0]).expect_err("an error");
            let ours = error.get_ref().and_then(|error| error.downcast_ref());
            (error.kind(), ours.is_some_and(Error::is_disconnected))
        });
        tell((kinds, environ.is_disconnected()));
        Response::new(Output::empty())
    });
    // The drop meets the read before, while and after it falls asleep.
    for _ in 0..100 {
        let (feed, body) = fed();
        let mut response = Box::pin(service.clone().oneshot(Request::new(body)));
        assert!(poll_once(response.as_mut()).await.is_pending());
        eventually("the handler reads", || feed.asked() > 0).await;
        drop(response);
        let gone = (io::ErrorKind::ConnectionAborted, true);
        assert_eq!(reads.next().await, ([gone; 2], true));
    }
}

#[tokio::test]
async fn a8_a_blocked_reader_wakes_when_the_response_body_is_dropped() {
    let reads = Events::new();
    let tell = reads.teller();
    let service = unbuffered().layer(move |mut request: Request<Input>| {
        let tell = tell.clone();
        Response::new(Output::writer(move |w| {
            w.write_all(b"ready")?;
            w.flush()?;
            let read = request.body_mut().read(&mut [0]).map_err(|error| error.kind());
            tell((read, Environ::of(&request).is_disconnected()));
            Ok(())
        }))
    });
    for _ in 0..100 {
        let (feed, body) = fed();
        let response = soon(service.clone().oneshot(Request::new(body))).await;
        eventually("the handler reads", || feed.asked() > 0).await;
        drop(response);
        assert_eq!(reads.next().await, (Err(io::ErrorKind::ConnectionAborted), true));
    }
}

/// A body that ends when its connection goes, without an error; some servers' do.
struct Severed {
    asked: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

impl http_body::Body for Severed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let gone = self.gone.load(Ordering::SeqCst);
        self.asked.fetch_add(1, Ordering::SeqCst);
        // No wake: the reader is to hear of the drop of the response first.
        if gone { Poll::Ready(None) } else { Poll::Pending }
    }
}

#[tokio::test]
async fn a8_a_body_that_ends_with_its_response_is_no_true_end() {
    let reads = Events::new();
    let service = unbuffered().layer(tell_reads(reads.teller()));
    let (asked, gone) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let body = Severed { asked: asked.clone(), gone: gone.clone() };
    let mut response = Box::pin(service.oneshot(Request::new(body)));
    assert!(poll_once(response.as_mut()).await.is_pending());
    eventually("the handler reads", || asked.load(Ordering::SeqCst) > 0).await;
    gone.store(true, Ordering::SeqCst);
    drop(response);
    assert_eq!(ends(&reads).await, [Err(io::ErrorKind::ConnectionAborted); 5]);
}

#[tokio::test]
async fn a8_a_handler_sees_that_its_client_left() {
    let events = Events::new();
    let tell = events.teller();
    let server = serve(WsgiService::new(move |mut request: Request<Input>| {
        let input = request.body_mut();
        let read = input.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        tell((read, false));
        let environ = Environ::of(&request);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !environ.is_disconnected() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let again = request.body_mut().read(&mut [0]).map_err(|error| error.kind());
        tell((again, environ.is_disconnected()));
        Response::new(Output::empty())
    }))
    .await;
    let gone = (Err(io::ErrorKind::ConnectionAborted), true);

    let mut client = server.connect();
    client.write_all(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello").expect("to send");
    assert_eq!(events.next().await, (Ok(5), false));
    drop(client);
    assert_eq!(events.next().await, gone);

    for close in [false, true] {
        let (mut body, response, connection) = soon(upload(&server, None)).await;
        body.send_data("hello".into(), true).expect("to send");
        assert_eq!(events.next().await, (Ok(5), false));
        if close {
            connection.abort();
        } else {
            body.send_reset(h2::Reason::CANCEL);
        }
        assert_eq!(events.next().await, gone, "the whole connection: {close}");
        drop(response);
    }
}

#[test]
fn a2_a_length_that_is_declared_late_changes_no_end() {
    let failing = || Scripted::new([Ok(Frame::data(Bytes::from("hello"))), Err("cut".into())]);
    for declared in [5, 6, 1 << 40] {
        let mut input = Input::new(failing());
        assert_eq!(io::copy(&mut input, &mut io::sink()).expect_err("an error").to_string(), "cut");
        let mut input = input.with_length(declared);
        assert_eq!(input.chunk().expect_err("the same error").to_string(), "cut", "{declared}");
    }

    let trailers = super::trailers();
    let whole = || [Ok(Frame::data(Bytes::from("hello"))), Ok(Frame::trailers(trailers.clone()))];
    let read = || {
        let mut input = Input::new(Scripted::new(whole()));
        assert_eq!(io::copy(&mut input, &mut io::sink()).expect("a body"), 5);
        input.with_length(5)
    };
    let mut input = read();
    assert_eq!(input.chunk().expect("the end"), None);
    assert_eq!(input.trailers(), Some(&trailers));
    // And for async code that takes over what is left.
    let mut body = read().into_body();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let last = http_body::Body::poll_frame(Pin::new(&mut body), &mut cx);
    assert!(matches!(last, Poll::Ready(Some(Ok(frame))) if frame.trailers_ref() == Some(&trailers)));
}

#[test]
fn a2_a_request_that_ends_early_says_how_early() {
    let mut input = Input::new(Scripted::of(["hello"])).with_length(6);
    let error = io::copy(&mut input, &mut io::sink()).expect_err("too short");
    assert_eq!(error.to_string(), "the request's body ended early: 5 of 6 bytes came");
}

#[test]
fn a7_a_length_that_is_declared_late_cuts_what_was_not_read_yet() {
    let read_ahead = || {
        let mut body = Output::iter(["hello", "world"]).into_reader();
        assert_eq!(body.fill_buf().expect("a body"), b"hello");
        body
    };
    for (length, rest) in [(0, ""), (3, "hel"), (5, "hello")] {
        let text = io::read_to_string(read_ahead().with_length(length)).expect("a body");
        assert_eq!(text, rest, "{length}");
    }
    // What was read before cannot be taken back.
    let mut body = read_ahead();
    body.consume(4);
    assert_eq!(io::read_to_string(body.with_length(2)).expect("a body"), "");
}
