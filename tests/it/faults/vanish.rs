//! A2, A6, A8, A9: clients that leave at each byte of a request that they send, and of a response that they read.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::alone::is_long;
use super::site::{SHAPES, Shape, Site};
use super::wire::{LEAVES, Leave, Replies, connect, leave, raw};
use crate::support::{eventually, soon};

const BODY: &[u8] = b"hello, world";

/// How a body is framed.
#[derive(Clone, Copy, Debug)]
enum Form {
    Length,
    Chunked,
    Expect,
}

const FORMS: [Form; 3] = [Form::Length, Form::Chunked, Form::Expect];

impl Form {
    /// The head and the body of a request.
    fn request(self, path: &str, query: usize) -> (String, &'static str) {
        let (header, body) = match self {
            Self::Length => ("content-length:12", "hello, world"),
            Self::Chunked => {
                ("transfer-encoding:chunked", "5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nx-sum:1\r\n\r\n")
            }
            Self::Expect => ("content-length:12\r\nexpect:100-continue", "hello, world"),
        };
        (format!("POST {path}?{query:03} HTTP/1.1\r\nhost:h\r\n{header}\r\n\r\n"), body)
    }

    /// How many bytes of [`BODY`] are in the first ones of the framed body.
    fn decoded(self, sent: usize) -> usize {
        match self {
            Self::Length | Self::Expect => sent,
            // The chunks' data is at 3 to 8, and at 17 to 24.
            Self::Chunked => sent.clamp(3, 8) - 3 + (sent.clamp(17, 24) - 17),
        }
    }
}

/// Clients that leave after each number of bytes of a request: at once, or when the application has read all that came.
async fn uploads(shape: Shape, leaves: &[Leave], at_once: bool) {
    let leaves = if is_long() { &LEAVES } else { leaves };
    let site = Site::new(shape, |layer| if at_once { layer } else { layer.prefetch(0) }).await;
    for form in FORMS {
        for path in ["/echo", "/relay"] {
            for &how in leaves {
                let what = format!("{shape:?}, {form:?}, {path}, {how:?}");
                let (head, body) = form.request(path, 0);
                let total = head.len() + body.len();
                let mut kept = Vec::new();
                for sent in 0..=total {
                    let what = format!("{what}, {sent} of {total} bytes");
                    let (head, body) = form.request(path, sent);
                    let mut client = connect(site.addr).await;
                    site.app.progress.store(0, Ordering::SeqCst);
                    client.write_all(&(head.clone() + body).as_bytes()[..sent]).await.expect("to send");
                    if !at_once && sent >= head.len() {
                        let decoded = form.decoded(sent - head.len());
                        eventually(&what, || site.app.progress.load(Ordering::SeqCst) == decoded).await;
                    }
                    let left = leave(client, how).await;
                    kept.extend(left.kept);
                    judge(&Replies::parse(&left.read), sent == total, shape, &what);
                }
                // Those that keep their socket get no thread, task or value for it.
                site.settle(&what).await;
                let mut failed = 0;
                for reading in site.app.readings.drain() {
                    if reading.query == "after" {
                        continue;
                    }
                    let is_all = reading.query == format!("{total:03}");
                    assert!(BODY.starts_with(&reading.bytes), "{what}: {reading:?}");
                    assert!(!reading.is_whole || is_all && reading.bytes == BODY, "{what}: {reading:?}");
                    failed += usize::from(!reading.is_whole);
                }
                assert!(at_once || failed > 0, "{what}: nobody was in the midst of a body");
            }
        }
    }
}

/// What a client may get that sent all of a request, or only a part.
fn judge(replies: &Replies, is_all: bool, shape: Shape, what: &str) {
    assert!(replies.whole.len() <= 1, "{what}: {replies:?}");
    for reply in &replies.whole {
        let is_right = match reply.status {
            200 => is_all && reply.body == BODY,
            // A body that passed through untouched fails with its server's own error, which says nothing of whose fault it is.
            500 => !is_all && matches!(shape, Shape::Nested),
            status => !is_all && (400..500).contains(&status),
        };
        assert!(is_right, "{what}: {replies:?}");
    }
    if let Some(cut) = &replies.cut {
        assert!(BODY.starts_with(&cut.body), "{what}: {replies:?}");
    }
}

#[tokio::test]
async fn a2_clients_that_leave_at_any_byte_of_a_request_leave_nothing_behind() {
    uploads(Shape::Sync, &LEAVES, true).await;
}

#[tokio::test]
async fn a2_clients_that_leave_at_any_byte_of_a_body_are_an_error_to_who_reads_it() {
    uploads(Shape::Sync, &LEAVES, false).await;
}

#[tokio::test]
async fn a2_clients_that_leave_at_any_byte_leave_nothing_behind_nested_handlers() {
    uploads(Shape::Nested, &LEAVES, true).await;
    uploads(Shape::Nested, &[Leave::Reset, Leave::HalfThenRead], false).await;
}

#[tokio::test]
async fn a2_clients_that_leave_at_any_byte_leave_nothing_behind_handlers_on_one_pool() {
    uploads(Shape::Deep, &[Leave::Reset, Leave::HalfThenRead], false).await;
}

/// The head of a download, and some pieces: up to the first large one.
const LOOKED_AT: usize = 160;

/// Clients that leave after each number of bytes of a download without an end: at once, or when it has come to rest.
async fn downloads(shape: Shape, path: &str, leaves: &[Leave], at_once: bool) {
    let site = Site::new(shape, |layer| layer).await;
    let leaves = if is_long() { &LEAVES } else { leaves };
    for how in leaves {
        let what = format!("{shape:?}, {path}, {how:?}");
        let mut kept = Vec::new();
        for taken in 0..LOOKED_AT {
            let what = format!("{what}, {taken} bytes");
            let mut client = connect(site.addr).await;
            let started = site.app.started.load(Ordering::SeqCst);
            let request = format!("GET {path} HTTP/1.1\r\nhost:h\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("to send");
            let mut bytes = vec![0; taken];
            soon(client.read_exact(&mut bytes)).await.expect("a response");
            if !at_once {
                eventually(&what, || site.app.started.load(Ordering::SeqCst) > started).await;
                site.at_rest(&what).await;
            }
            match how {
                Leave::Reset | Leave::Close => drop(leave(client, *how).await),
                // A writer keeps its thread for as long as its client stays.
                Leave::Half if path != "/writer" => kept.extend(leave(client, *how).await.kept),
                Leave::Half | Leave::HalfThenRead => {
                    let _ = client.shutdown().await;
                    // What has no end cannot be read to it.
                    let _ = soon((&mut client).take(20_000).read_to_end(&mut bytes)).await;
                    let replies = Replies::parse(&bytes);
                    assert!(replies.whole.is_empty(), "{what}: an end");
                    // The server may be gone before it began.
                    let status = replies.cut.map_or(0, |cut| cut.status);
                    assert!(matches!(status, 0 | 200), "{what}: {status}");
                }
            }
        }
        if !kept.is_empty() {
            // They hold no thread, and others are served.
            site.at_rest(&what).await;
            let answer = raw(site.addr, b"GET /full HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n").await;
            assert_eq!(Replies::parse(&answer).statuses(), [200], "{what}");
        }
        drop(kept);
        site.settle(&what).await;
    }
}

#[tokio::test]
async fn a8_clients_that_leave_at_any_byte_of_a_response_leave_nothing_behind() {
    for path in ["/iter", "/reader", "/writer", "/body"] {
        downloads(Shape::Sync, path, &LEAVES, true).await;
    }
}

#[tokio::test]
async fn a8_clients_that_leave_at_any_byte_while_a_body_is_put_aside_leave_nothing_behind() {
    downloads(Shape::Sync, "/iter", &[Leave::Reset, Leave::Half], false).await;
    for path in ["/reader", "/body"] {
        downloads(Shape::Sync, path, &[Leave::Reset], false).await;
    }
}

#[tokio::test]
async fn a8_clients_that_leave_at_any_byte_leave_nothing_behind_nested_responses() {
    downloads(Shape::Nested, "/body", &LEAVES, true).await;
    downloads(Shape::Nested, "/body", &[Leave::Reset, Leave::HalfThenRead], false).await;
}

#[tokio::test]
async fn a8_clients_that_leave_at_any_byte_leave_nothing_behind_responses_on_one_pool() {
    for path in ["/iter", "/reader"] {
        downloads(Shape::Deep, path, &[Leave::Reset], false).await;
    }
    downloads(Shape::Deep, "/writer", &[Leave::Close], true).await;
}

/// A response that is all here when its client leaves.
#[tokio::test]
async fn a8_clients_that_leave_at_any_byte_of_a_small_response_leave_nothing_behind() {
    for shape in SHAPES {
        let site = Site::new(shape, |layer| layer).await;
        let request = b"GET /full HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n";
        let total = raw(site.addr, request).await.len();
        for how in LEAVES {
            let mut kept = Vec::new();
            for taken in 0..=total {
                let mut client = connect(site.addr).await;
                client.write_all(request).await.expect("to send");
                let mut bytes = vec![0; taken];
                soon(client.read_exact(&mut bytes)).await.expect("a response");
                let left = leave(client, how).await;
                bytes.extend(left.read);
                kept.extend(left.kept);
                if how == Leave::HalfThenRead && taken > 0 {
                    assert_eq!(Replies::parse(&bytes).whole[0].body, b"all of it");
                }
            }
            site.settle(&format!("{shape:?}, {how:?}")).await;
        }
    }
}
