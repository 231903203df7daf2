//! A1: how much of the body is read, when, and who waits for it meanwhile.

use std::io::{self, Read as _, Write as _};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_wsgi::{Adapter, Input, Output, WorkerPool, WsgiLayer, WsgiService};

use super::{Generated, echo, fed, poll_once, whole};
use crate::support::{Events, Gate, VERSIONS, blocking, serve, soon, text};

const FRAME: usize = 64 * 1024;
/// 256 MiB.
const FRAMES: usize = 4096;

#[tokio::test]
async fn a1_a_body_larger_than_memory_is_never_ahead_of_its_reader() {
    for declared in [false, true] {
        let mut body = Generated::new(FRAMES, FRAME);
        body.declared = declared;
        let (given, length) = (body.given.clone(), body.length());
        let service = WsgiService::new(move |mut request: Request<Input>| {
            let (mut read, mut ahead) = (0, 0);
            while let Some(chunk) = request.body_mut().chunk()? {
                read += chunk.len() as u64;
                ahead = ahead.max(given.load(Ordering::SeqCst) - read);
            }
            Ok::<_, io::Error>(Response::new(format!("{read} bytes, {ahead} ahead")))
        });
        let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
        assert_eq!(whole(response).await, format!("{length} bytes, 0 ahead"), "declared: {declared}");
    }
}

#[tokio::test]
async fn a1_a_handler_that_stops_reading_stops_its_client() {
    for version in VERSIONS {
        let (reading, gate) = (Events::new(), Gate::new());
        let (tell, closed) = (reading.teller(), gate.clone());
        let server = serve(WsgiService::new(move |mut request: Request<Input>| {
            let input = request.body_mut();
            input.read_exact(&mut [0])?;
            tell(());
            closed.pass();
            let rest = io::copy(input, &mut io::sink())?;
            Ok::<_, io::Error>(Response::new((1 + rest).to_string()))
        }))
        .await;
        let body = Generated::new(FRAMES, FRAME);
        let (given, length) = (body.given.clone(), body.length());
        let request = server.request("POST", "/", body);
        let (response, ()) = tokio::join!(soon(server.send(version, request)), async {
            reading.next().await;
            stalled(&given).await;
            // The kernel's buffers are a good part of it.
            let given = given.load(Ordering::SeqCst);
            assert!(given <= length / 4, "{version:?}: {given} bytes left the client");
            gate.open();
        });
        let response = response.expect("a response");
        assert_eq!(soon(text(response)).await, length.to_string(), "{version:?}");
    }
}

/// Waits until a client sends no more. Nothing announces that: it is taken from a pause. A pause that has another cause lets a test
/// look too early, which it survives.
async fn stalled(given: &AtomicU64) {
    let mut before = None;
    while before != Some(given.load(Ordering::SeqCst)) {
        before = Some(given.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a1_no_more_than_prefetch_is_read_before_the_handler_asks() {
    let given = |layer: WsgiLayer<Adapter>, declared: bool, expect: bool| async move {
        let mut body = Generated::new(2000, 100);
        body.declared = declared;
        let counter = body.given.clone();
        let service =
            layer.layer(move |_: Request<Input>| Response::new(counter.load(Ordering::SeqCst).to_string()));
        let mut request = Request::new(body);
        if expect {
            request.headers_mut().insert("expect", "100-Continue".parse().expect("a value"));
        }
        let response = soon(service.oneshot(request)).await.expect("a response");
        whole(response).await
    };
    for declared in [false, true] {
        // Frames are not split.
        for (prefetch, expected) in [(0, "0"), (1, "100"), (100, "100"), (101, "200"), (1_000_000, "200000")]
        {
            let layer = WsgiLayer::adapter().prefetch(prefetch);
            assert_eq!(given(layer, declared, false).await, expected, "{prefetch}, declared: {declared}");
        }
        assert_eq!(given(WsgiLayer::adapter(), declared, false).await, "65600", "declared: {declared}");
        assert_eq!(given(WsgiLayer::adapter(), declared, true).await, "0", "declared: {declared}");
    }
}

#[tokio::test]
async fn a1_a_slow_sender_of_a_declared_body_holds_no_worker() {
    for in_header in [false, true] {
        for (prefetch, before, after) in
            [(100, &["123", "456", "7890"][..], &[][..]), (6, &["123", "4567"], &["89", "0"])]
        {
            let pool = WorkerPool::new(1);
            let service = WsgiLayer::adapter().pool(pool.clone()).prefetch(prefetch).layer(echo);
            let (feed, mut body) = fed();
            body.length = (!in_header).then_some(10);
            let mut request = Request::new(body);
            if in_header {
                request.headers_mut().insert("content-length", 10.into());
            }
            let mut response = pin!(service.oneshot(request));
            for piece in before {
                assert!(poll_once(response.as_mut()).await.is_pending());
                let stats = pool.stats();
                assert_eq!((stats.threads, stats.busy, stats.queued), (0, 0, 0), "before {piece}");
                feed.data(*piece);
            }
            assert!(poll_once(response.as_mut()).await.is_pending());
            assert_eq!(pool.stats().threads, 1, "prefetch: {prefetch}");
            for piece in after {
                feed.data(*piece);
            }
            drop(feed);
            let response = soon(response).await.expect("a response");
            assert_eq!(whole(response).await, "1234567890");
        }
    }
}

#[tokio::test]
async fn a1_a_body_of_unknown_length_gets_a_worker_at_its_first_bytes() {
    let pool = WorkerPool::new(1);
    let started = Events::new();
    let tell = started.teller();
    let service = WsgiLayer::adapter().pool(pool.clone()).layer(move |request: Request<Input>| {
        tell(());
        echo(request)
    });
    let (feed, body) = fed();
    let mut response = pin!(service.oneshot(Request::new(body)));
    assert!(poll_once(response.as_mut()).await.is_pending());
    feed.data("");
    assert!(poll_once(response.as_mut()).await.is_pending());
    assert_eq!(pool.stats().threads, 0, "no byte is here yet");
    feed.data("1");
    assert!(poll_once(response.as_mut()).await.is_pending());
    started.next().await;
    feed.data("2");
    drop(feed);
    let response = soon(response).await.expect("a response");
    assert_eq!(whole(response).await, "12");
}

#[tokio::test]
async fn a1_a_client_that_waits_for_an_answer_to_its_first_chunk_gets_it() {
    let server = serve(WsgiService::new(|mut request: Request<Input>| {
        Response::new(Output::try_iter(std::iter::from_fn(move || request.body_mut().chunk().transpose())))
    }))
    .await;
    for version in VERSIONS {
        let (feed, body) = fed();
        feed.data("ping");
        let response = soon(server.send(version, server.request("POST", "/", body))).await;
        let mut body = response.expect("a response").into_body();
        let mut answer = async || {
            let frame = soon(body.frame()).await.expect("a frame").expect("no error");
            frame.into_data().expect("bytes")
        };
        assert_eq!(answer().await, "ping", "{version:?}");
        feed.data("pong");
        assert_eq!(answer().await, "pong", "{version:?}");
        drop(feed);
        assert_eq!(text(Response::new(body)).await, "", "{version:?}");
    }
}

const EXPECTING: &[u8] =
    b"POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a1_an_expectation_is_answered_when_the_handler_first_reads() {
    let (started, gate) = (Events::new(), Gate::new());
    let (tell, closed) = (started.teller(), gate.clone());
    let server = serve(WsgiService::new(move |request: Request<Input>| {
        tell(());
        closed.pass();
        echo(request)
    }))
    .await;
    let mut client = server.connect();
    client.write_all(EXPECTING).expect("to send");
    started.next().await;
    client.set_nonblocking(true).expect("a socket");
    let early = client.read(&mut [0; 64]).map_err(|error| error.kind());
    assert_eq!(early, Err(io::ErrorKind::WouldBlock), "an interim response that nobody asked for");
    client.set_nonblocking(false).expect("a socket");
    gate.open();
    let response = blocking(move || {
        let mut interim = [0; 25];
        client.read_exact(&mut interim).expect("an interim response");
        assert_eq!(interim, *b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"hello").expect("to send");
        let mut response = String::new();
        client.read_to_string(&mut response).expect("a response");
        response
    })
    .await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("hello"), "{response}");
}

#[tokio::test]
async fn a1_a_handler_that_does_not_read_answers_an_expectation_without_continue() {
    let server = serve(WsgiService::new(|_: Request<Input>| {
        let mut response = Response::new("no, thanks");
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        response
    }))
    .await;
    let response = soon(server.raw(EXPECTING)).await;
    let response = String::from_utf8(response).expect("text");
    assert!(response.starts_with("HTTP/1.1 403 ") && response.ends_with("no, thanks"), "{response}");
}
