//! Clients that send slowly, or take slowly, and what they can hold: the promise, and the limit of it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tower::{Layer as _, ServiceBuilder};
use tower_http::timeout::TimeoutLayer;
use tower_wsgi::{Input, Output, WorkerPool, WsgiLayer};

use crate::support::{Events, PATIENCE, Server, blocking, eventually, idle, serve, soon, text};

/// Longer than a test may take: a clock that the test moves brings it about.
const HOUR: Duration = Duration::from_secs(3600);

/// Clients of each attack. Each is a connection with a task on either side.
const MANY: usize = 200;

/// Reads the whole body.
fn read(mut request: Request<Input>) -> io::Result<Response<String>> {
    let mut text = String::new();
    request.body_mut().read_to_string(&mut text)?;
    Ok(Response::new(format!("read {}", text.len())))
}

/// Connections that have sent this, and send no more.
async fn stalled(server: &Server, bytes: &'static [u8], count: usize) -> Vec<TcpStream> {
    let address = server.addr;
    // Not on the thread that has to accept them.
    let connecting = blocking(move || {
        let connect = || {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            stream.write_all(bytes).expect("to send");
            stream
        };
        (0..count).map(|_| connect()).collect()
    });
    soon(connecting).await
}

/// What a connection is answered, up to its end.
async fn answer(mut stream: TcpStream) -> String {
    soon(blocking(move || {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }))
    .await
}

#[tokio::test]
async fn a1_hundreds_of_stalled_uploads_of_declared_length_hold_no_worker() {
    let (pool, calls) = (WorkerPool::new(1), Events::new());
    let tell = calls.teller();
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).layer(move |request: Request<Input>| {
        tell(request.uri().path().to_owned());
        read(request)
    }))
    .await;
    let head =
        b"POST /stalled HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nfirst bytes";
    let mut streams = stalled(&server, head, MANY).await;
    // Some of them behind a head that is not whole, and some behind an expectation that nobody has met: the handler has that one's worker, and asks.
    streams.extend(stalled(&server, b"POST /stalled HTTP/1.1\r\nHost: a\r\nContent-Le", MANY).await);
    for _ in 0..3 {
        assert_eq!(text(soon(server.get("/")).await).await, "read 0");
    }
    let stats = idle(&pool).await;
    assert_eq!((stats.queued, stats.busy), (0, 0));
    assert_eq!(calls.drain(), ["/"; 3], "a stalled one was run");
    // Each of them is still a request to be answered.
    let mut last = streams.swap_remove(0);
    last.write_all(&[b'x'; 989]).expect("to send");
    assert!(answer(last).await.ends_with("read 1000"));
}

#[tokio::test]
async fn a1_stalled_uploads_of_unknown_length_hold_a_worker_each_up_to_read_timeout() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n";
    // Without a bound they hold all of them, and others wait; over `max_queued` these are told at once.
    let pool = WorkerPool::new(2);
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).max_queued(0).layer(read)).await;
    let streams = stalled(&server, head, 2).await;
    eventually("they hold the workers", || pool.stats().busy == 2).await;
    let refused = soon(server.get("/")).await;
    assert_eq!(
        (refused.status(), refused.headers()["retry-after"].as_bytes()),
        (StatusCode::SERVICE_UNAVAILABLE, &b"1"[..])
    );
    // They go with their clients.
    drop(streams);
    idle(&pool).await;
    assert_eq!(soon(server.get("/")).await.status(), 200);

    // With it, as many as like to come are each gone after that time.
    let pool = WorkerPool::new(2);
    let timeout = Duration::from_millis(20);
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).read_timeout(timeout).layer(read)).await;
    let streams = stalled(&server, head, 20).await;
    assert_eq!(text(soon(server.get("/")).await).await, "read 0");
    for stream in streams {
        assert!(answer(stream).await.starts_with("HTTP/1.1 408 "));
    }
    idle(&pool).await;
}

/// Sends a byte each time that the handler has read one, so often; returns the connection.
async fn drip(server: &Server, read: &Events<()>, times: usize) -> TcpStream {
    let mut stream = server.connect();
    let head = b"POST /drip HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head).expect("to send");
    for _ in 0..times {
        stream.write_all(b"1\r\nx\r\n").expect("to send");
        read.next().await;
    }
    stream
}

#[tokio::test]
async fn a2_a_sender_who_drips_is_bounded_by_a_timeout_outside_and_not_by_read_timeout() {
    let events = Events::new();
    let tell = events.teller();
    let handler = move |mut request: Request<Input>| -> io::Result<Response<&str>> {
        // Each byte starts the time for the next one anew.
        while request.body_mut().chunk()?.is_some() {
            tell(());
        }
        Ok(Response::new("done"))
    };
    let pool = WorkerPool::new(1);
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, HOUR))
        .layer(WsgiLayer::adapter().pool(pool.clone()).read_timeout(Duration::from_secs(10)))
        .service(handler);
    let server = serve(service).await;
    let stream = drip(&server, &events, 20).await;
    assert_eq!(pool.stats().busy, 1, "it holds its worker");
    tokio::time::pause();
    tokio::time::advance(2 * HOUR).await;
    tokio::time::resume();
    assert!(answer(stream).await.starts_with("HTTP/1.1 408 "));
    // The read that waited has failed: the worker is free.
    idle(&pool).await;
    assert_eq!(soon(server.get("/")).await.status(), 200);
}

/// Endless bodies of the kind that the path says.
#[expect(clippy::needless_pass_by_value, reason = "a handler owns its request")]
fn endless(request: Request<Input>) -> Response<Output> {
    let chunk = || bytes::Bytes::from_static(&[b'x'; 4096]);
    Response::new(match request.uri().path() {
        "/iterator" => Output::iter(std::iter::repeat(chunk())),
        "/reader" => Output::reader(io::repeat(b'x')),
        "/writer" => Output::writer(move |w| {
            loop {
                w.send(chunk())?;
            }
        }),
        _ => "hello".into(),
    })
}

#[tokio::test]
async fn a4_hundreds_of_stalled_downloads_hold_no_worker_unless_a_function_writes_them() {
    let pool = WorkerPool::new(2);
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).max_queued(1000).layer(endless)).await;
    let half = MANY / 2;
    let mut streams = stalled(&server, b"GET /iterator HTTP/1.1\r\nHost: a\r\n\r\n", half).await;
    streams.extend(stalled(&server, b"GET /reader HTTP/1.1\r\nHost: a\r\n\r\n", half).await);
    let begun = blocking(move || {
        for stream in &mut streams {
            stream.read_exact(&mut [0; 12]).expect("a head");
        }
        streams
    });
    let streams = soon(begun).await;
    idle(&pool).await;
    assert_eq!(text(soon(server.get("/")).await).await, "hello");

    // The limit: whoever writes waits where it is. No setting ends that, but the client's leaving does.
    let writers = stalled(&server, b"GET /writer HTTP/1.1\r\nHost: a\r\n\r\n", 2).await;
    eventually("the writers hold the workers", || pool.stats().busy == 2).await;
    let waiting = server.get("/");
    let waiting = async {
        tokio::pin!(waiting);
        assert!(futures_pending(waiting.as_mut(), &pool).await, "there was a worker for it");
        drop(writers);
        soon(waiting).await
    };
    assert_eq!(text(waiting.await).await, "hello");
    drop(streams);
    idle(&pool).await;
}

/// Polls a request until it waits for a worker; false if it was answered.
async fn futures_pending<F: Future>(mut request: std::pin::Pin<&mut F>, pool: &WorkerPool) -> bool {
    let waits = eventually("it waits", || pool.stats().queued == 1);
    tokio::select! {
        biased;
        _ = &mut request => false,
        () = waits => true,
    }
}

#[tokio::test]
async fn a8_clients_that_leave_at_once_leave_no_worker_behind() {
    let pool = WorkerPool::new(2);
    let server = serve(WsgiLayer::adapter().pool(pool.clone()).layer(|request: Request<Input>| {
        match request.method().as_str() {
            "POST" => read(request).map(|response| response.map(Output::from)),
            _ => Ok(endless(request)),
        }
    }))
    .await;
    for _ in 0..3 {
        for bytes in [
            &b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhello"[..],
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
            b"GET /iterator HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /reader HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /writer HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost",
            b"",
        ] {
            drop(stalled(&server, bytes, 10).await);
        }
    }
    // Nothing of theirs is left, and nothing of what others want is lost.
    assert_eq!(text(soon(server.get("/")).await).await, "hello");
    eventually("all was dropped", || {
        let stats = pool.stats();
        stats.busy + stats.queued + stats.resumed + stats.discards == 0
    })
    .await;
}
