//! The ways to read an [`Input`], and A15: the trailers after it.

use std::io::{self, BufRead as _, Read as _};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_wsgi::{Body, Input, Output, WsgiLayer, WsgiService};

use super::{echo, fed, trailers, whole};
use crate::support::{Events, VERSIONS, serve, soon, text};

/// An input of these frames.
fn input(frames: &[&'static str]) -> Input {
    let (feed, body) = fed();
    frames.iter().for_each(|frame| feed.data(*frame));
    Input::new(body)
}

/// What is left.
fn rest(input: &mut Input) -> String {
    let mut rest = String::new();
    input.read_to_string(&mut rest).expect("the rest");
    rest
}

#[test]
fn a1_the_rest_comes_after_a_partial_read() {
    let mut input = input(&["hello", " ", "world"]);
    let mut buf = [0; 2];
    input.read_exact(&mut buf).expect("two bytes");
    assert_eq!(&buf, b"he");
    assert_eq!(rest(&mut input), "llo world");
    assert_eq!(rest(&mut input), "");
}

#[test]
fn a1_a_small_read_gets_a_part_of_a_frame() {
    let mut input = input(&["hello", "world"]);
    let mut buf = [0; 3];
    let mut read = || input.read(&mut buf).map(|n| buf[..n].to_vec()).expect("bytes");
    assert_eq!([read(), read(), read(), read(), read()], [&b"hel"[..], b"lo", b"wor", b"ld", b""]);
}

#[test]
fn a2_a_read_into_nothing_says_nothing_about_the_end() {
    let mut input = input(&["hello"]);
    assert_eq!(input.read(&mut []).expect("nothing"), 0);
    assert_eq!(rest(&mut input), "hello");
}

#[test]
fn a1_a_limited_first_line_is_cut_at_the_limit() {
    let mut input = input(&["hello", " world\n"]);
    let mut line = String::new();
    assert_eq!(input.by_ref().take(5).read_line(&mut line).expect("a line"), 5);
    assert_eq!(line, "hello");
    line.clear();
    input.read_line(&mut line).expect("a line");
    assert_eq!(line, " world\n");
}

#[test]
fn a2_reads_to_the_end_add_to_what_is_there_and_keep_what_came_before_an_error() {
    let failing = |frames: &[&'static str]| {
        let (feed, body) = fed();
        frames.iter().for_each(|frame| feed.data(*frame));
        feed.fail("the body failed");
        Input::new(body)
    };
    let mut bytes = b"before ".to_vec();
    assert_eq!(input(&["hello", " world"]).read_to_end(&mut bytes).expect("the end"), 11);
    failing(&[", and", " more"]).read_to_end(&mut bytes).expect_err("a failure");
    assert_eq!(bytes, b"before hello world, and more");

    let mut text = String::from("before ");
    assert_eq!(input(&["h\u{e9}llo"]).read_to_string(&mut text).expect("the end"), 6);
    failing(&[" world"]).read_to_string(&mut text).expect_err("a failure");
    let latin1 = Input::new(Full::new(Bytes::from_static(b"caf\xe9")));
    let invalid = { latin1 }.read_to_string(&mut text).expect_err("no text");
    assert_eq!(invalid.kind(), io::ErrorKind::InvalidData);
    assert_eq!(text, "before h\u{e9}llo world");
}

#[test]
fn a1_a_length_that_is_only_declared_gets_no_memory() {
    let mut bytes = Vec::new();
    input(&["hello"]).with_length(1 << 40).read_to_end(&mut bytes).expect_err("it ends early");
    assert_eq!(bytes, b"hello");
    assert!(bytes.capacity() < 1024, "{}", bytes.capacity());
}

#[test]
fn a1_lines_do_not_depend_on_frames() {
    for (frames, expected) in [
        (&["l1\nl2\n", "l3\n"][..], &["l1", "l2", "l3"][..]),
        (&["l1", "\nl", "", "2", "\n", "l3\n"], &["l1", "l2", "l3"]),
        (&["a\n", "b"], &["a", "b"]),
        (&["\n\n"], &["", ""]),
        (&["", ""], &[]),
        (&[], &[]),
    ] {
        let lines: Vec<_> = input(frames).lines().map(|line| line.expect("a line")).collect();
        assert_eq!(lines, expected, "{frames:?}");
    }
}

#[test]
fn a1_the_last_line_may_have_no_newline() {
    let mut input = input(&["a\n", "b"]);
    let mut line = || {
        let mut line = String::new();
        let length = input.read_line(&mut line).expect("a line");
        assert_eq!(length, line.len());
        line
    };
    assert_eq!([line(), line(), line()], ["a\n", "b", ""]);
}

#[test]
fn a1_an_empty_body_ends_at_once() {
    for mut input in [Input::empty(), Input::default(), Input::from(""), input(&[]), input(&["", ""])] {
        assert_eq!(input.read(&mut [0; 8]).expect("the end"), 0);
        assert_eq!(input.fill_buf().expect("the end"), b"");
        assert_eq!(input.chunk().expect("the end"), None);
        assert_eq!(rest(&mut input), "");
        assert_eq!(input.bytes().count(), 0);
    }
}

#[test]
fn a1_chunks_are_never_empty() {
    let mut input = input(&["", "hello", "", "world", ""]);
    let chunks: Vec<_> = std::iter::from_fn(|| input.chunk().expect("no error")).collect();
    assert_eq!(chunks, ["hello", "world"]);
}

#[tokio::test]
async fn b7_a_chunk_is_the_very_bytes_that_came() {
    // Read ahead or not, and all at once or in frames.
    for prefetch in [0, 3, 64 * 1024] {
        for frames in [1, 2] {
            let bytes = Bytes::from("hello".repeat(100));
            let at = bytes.as_ptr() as usize;
            let service =
                WsgiLayer::adapter().prefetch(prefetch).layer(move |mut request: Request<Input>| {
                    let input = request.body_mut();
                    let mut offset = 0;
                    while let Some(chunk) = input.chunk()? {
                        assert_eq!(chunk.as_ptr() as usize, at + offset, "another place than at {offset}");
                        offset += chunk.len();
                        // What a read leaves of a frame is not copied either.
                        offset += input.read(&mut [0; 7])?;
                    }
                    Ok::<_, io::Error>(Response::new(offset.to_string()))
                });
            let (feed, body) = fed();
            let size = bytes.len() / frames;
            (0..frames).for_each(|n| feed.data(bytes.slice(n * size..(n + 1) * size)));
            drop(feed);
            let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
            assert_eq!(whole(response).await, "500", "prefetch: {prefetch}, frames: {frames}");
        }
    }
}

#[tokio::test]
async fn b7_into_body_gives_the_very_bytes_that_were_not_read() {
    let places = |mut body: Body| async move {
        let mut places = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.expect("a frame").into_data().expect("bytes");
            places.push((data.as_ptr() as usize, data.len()));
        }
        places
    };
    for prefetch in [0, 3, 64 * 1024] {
        for (read, expected) in [
            (0, &[(0, 5), (5, 5)][..]),
            (2, &[(2, 3), (5, 5)]),
            (5, &[(5, 5)]),
            (7, &[(7, 3)]),
            (10, &[]),
            (100, &[]),
        ] {
            let bytes = Bytes::from("helloworld".to_owned());
            let events = Events::new();
            let tell = events.teller();
            let service =
                WsgiLayer::adapter().prefetch(prefetch).layer(move |mut request: Request<Input>| {
                    let mut part = Vec::new();
                    request.body_mut().take(read).read_to_end(&mut part)?;
                    tell((part, request.into_body().into_body()));
                    Ok::<_, io::Error>(Response::new(()))
                });
            let (feed, body) = fed();
            feed.data(bytes.slice(..5));
            feed.data(bytes.slice(5..));
            drop(feed);
            soon(service.oneshot(Request::new(body))).await.expect("a response");
            let (part, body) = events.next().await;
            assert_eq!(part, &bytes[..10.min(read as usize)]);
            let expected: Vec<_> =
                expected.iter().map(|(offset, len)| (bytes.as_ptr() as usize + offset, *len)).collect();
            assert_eq!(places(body).await, expected, "prefetch: {prefetch}, read: {read}");
        }
    }
}

#[tokio::test]
async fn b7_into_body_tells_the_length_that_is_left() {
    let mut input = Input::new(Full::new(Bytes::from("helloworld")));
    input.read_exact(&mut [0; 3]).expect("three bytes");
    let body = input.into_body();
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(7));
    assert_eq!(body.collect().await.expect("the rest").to_bytes(), "loworld");
}

#[tokio::test]
async fn b7_into_body_keeps_the_error() {
    for read in [false, true] {
        let (feed, body) = fed();
        feed.data("hello");
        feed.fail(io::Error::from(io::ErrorKind::ConnectionReset));
        let mut input = Input::new(body);
        if read {
            input.read_to_end(&mut Vec::new()).expect_err("the body's error");
        }
        // And there and back.
        let mut input = Input::from(input.into_body());
        let error = input.read_to_end(&mut Vec::new()).expect_err("the body's error");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "read: {read}");
    }
}

#[tokio::test]
async fn a1_a_chunked_upload_without_a_length_arrives_whole() {
    let server = serve(WsgiService::new(echo)).await;
    let pieces: Vec<_> = (0..1000).map(|n| format!("{n}\n")).collect();
    let mut raw =
        String::from("POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    pieces.iter().for_each(|piece| raw += &format!("{:x}\r\n{piece}\r\n", piece.len()));
    let response = soon(server.raw(raw + "0\r\n\r\n")).await;
    let response = String::from_utf8(response).expect("text");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with(&format!("\r\n\r\n{}", pieces.concat())), "{response}");

    for version in VERSIONS {
        let (feed, body) = fed();
        pieces.iter().for_each(|piece| feed.data(piece.clone()));
        drop(feed);
        let response = soon(server.send(version, server.request("POST", "/", body))).await;
        assert_eq!(soon(text(response.expect("a response"))).await, pieces.concat(), "{version:?}");
    }
}

/// Tells what it knew of the trailers before the body's end, the body, and the trailers.
fn trailing(mut request: Request<Input>) -> io::Result<Response<String>> {
    let input = request.body_mut();
    let mut before = vec![input.trailers().cloned()];
    let mut first = [0; 2];
    input.read_exact(&mut first)?;
    before.push(input.trailers().cloned());
    let rest = rest(input);
    let sum = input.trailers().map(|trailers| &trailers["x-sum"]);
    Ok(Response::new(format!("{before:?} {}{rest} {sum:?}", String::from_utf8_lossy(&first))))
}

#[tokio::test]
async fn a15_trailers_of_a_request_are_there_after_its_end() {
    let server = serve(WsgiService::new(trailing)).await;
    let raw = "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
               trailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 5d41\r\n\r\n";
    let response = soon(server.raw(raw)).await;
    let response = String::from_utf8(response).expect("text");
    assert!(response.ends_with("\r\n\r\n[None, None] hello Some(\"5d41\")"), "{response}");

    let (feed, body) = fed();
    feed.data("hello");
    feed.trailers();
    let response = soon(server.send(Version::HTTP_2, server.request("POST", "/", body))).await;
    assert_eq!(text(response.expect("a response")).await, "[None, None] hello Some(\"5d41\")");
}

#[tokio::test]
async fn a15_a_request_without_trailers_has_none() {
    let server = serve(WsgiService::new(trailing)).await;
    for version in VERSIONS {
        let request = server.request("POST", "/", Full::new(Bytes::from("hello")));
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(text(response).await, "[None, None] hello None", "{version:?}");
    }
}

#[tokio::test]
async fn a15_trailers_that_were_read_ahead_wait_for_the_end() {
    for prefetch in [0, 64 * 1024] {
        let (feed, body) = fed();
        feed.data("he");
        feed.data("llo");
        feed.trailers();
        drop(feed);
        let service = WsgiLayer::adapter().prefetch(prefetch).layer(trailing);
        let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
        assert_eq!(whole(response).await, "[None, None] hello Some(\"5d41\")", "prefetch: {prefetch}");
    }
}

#[tokio::test]
async fn a15_trailers_survive_into_body() {
    for prefetch in [0, 64 * 1024] {
        for read in [0, 2, 5, 100] {
            let service =
                WsgiLayer::adapter().prefetch(prefetch).layer(move |mut request: Request<Input>| {
                    request.body_mut().take(read).read_to_end(&mut Vec::new())?;
                    Ok::<_, io::Error>(Response::new(Output::from(request.into_body().into_body())))
                });
            let (feed, body) = fed();
            feed.data("hello");
            feed.trailers();
            drop(feed);
            let response = soon(service.oneshot(Request::new(body))).await.expect("a response");
            let body = response.into_body().collect().await.expect("a whole body");
            assert_eq!(body.trailers(), Some(&trailers()), "prefetch: {prefetch}, read: {read}");
            assert_eq!(body.to_bytes(), &b"hello"[5.min(read as usize)..]);
        }
    }
}
