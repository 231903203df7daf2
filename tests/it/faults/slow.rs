//! A1, A4, A10: peers of one byte at a time. Others are answered meanwhile, by as few threads as there are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower_wsgi::WsgiLayer;

use super::site::{SHAPES, Shape, Site};
use super::wire::{Replies, connect, raw, rest};
use crate::support::soon;

const BODY: &str = "hello, world";

/// Asserts that another request is answered now.
async fn others_are_answered(site: &Site, what: &str) {
    let request = b"POST /echo HTTP/1.1\r\nhost:h\r\nconnection:close\r\ncontent-length:5\r\n\r\nother";
    let replies = Replies::parse(&raw(site.addr, request).await);
    assert_eq!(replies.whole.len(), 1, "{what}: {replies:?}");
    assert_eq!((replies.whole[0].status, &*replies.whole[0].body), (200, &b"other"[..]), "{what}");
}

/// More senders than there are workers, all at the same byte. A declared length holds no thread.
#[tokio::test]
async fn a1_senders_of_one_byte_at_a_time_hold_no_thread() {
    for shape in SHAPES {
        for limit in [BODY.len(), 64 * 1024] {
            let site = Site::new(shape, |layer| layer.prefetch(limit)).await;
            let request = format!(
                "POST /echo?slow HTTP/1.1\r\nhost:h\r\nconnection:close\r\ncontent-length:12\r\n\r\n{BODY}"
            );
            let mut senders = Vec::new();
            for _ in 0..10 {
                senders.push(connect(site.addr).await);
            }
            for (sent, byte) in request.bytes().enumerate() {
                for sender in &mut senders {
                    sender.write_all(&[byte]).await.expect("to send");
                }
                let what = format!("{shape:?}, {sent} bytes were sent");
                others_are_answered(&site, &what).await;
                let started = site.app.started.load(Ordering::SeqCst);
                assert!(started == sent + 1 || sent + 1 == request.len(), "{what}: {started} requests ran");
            }
            for sender in &mut senders {
                let replies = Replies::parse(&rest(sender).await);
                assert_eq!((replies.statuses(), &*replies.whole[0].body), (vec![200], BODY.as_bytes()));
            }
            drop(senders);
            site.settle(&format!("{shape:?}")).await;
        }
    }
}

/// Whose end only they know get a thread at their first byte. There is one left.
#[tokio::test]
async fn a1_a_sender_in_chunks_of_one_byte_gets_every_byte_back_while_it_sends() {
    for shape in SHAPES {
        let site = Site::new(shape, |layer: WsgiLayer| layer).await;
        let mut client = connect(site.addr).await;
        let head =
            "POST /relay?slow HTTP/1.1\r\nhost:h\r\nconnection:close\r\ntransfer-encoding:chunked\r\n\r\n";
        let chunks: String = BODY.chars().map(|byte| format!("1;a=b\r\n{byte}\r\n")).collect();
        let mut got = Vec::new();
        let mut back = 0;
        for (n, byte) in format!("{head}{chunks}0\r\nx-sum:1\r\n\r\n").bytes().enumerate() {
            client.write_all(&[byte]).await.expect("to send");
            // Each eighth byte behind the head, from the last of "1;a=b\r\nh" on, is one of the body.
            if n < head.len() || back == BODY.len() || (n - head.len()) % 10 != 7 {
                continue;
            }
            back += 1;
            // It comes back before the next one goes out.
            while Replies::parse(&got).cut.is_none_or(|cut| cut.body.len() < back) {
                assert_ne!(soon(client.read_buf(&mut got)).await.expect("a response"), 0, "an end");
            }
            others_are_answered(&site, &format!("{shape:?}, {back} bytes")).await;
        }
        got.extend(rest(&mut client).await);
        let replies = Replies::parse(&got);
        assert_eq!((replies.statuses(), &*replies.whole[0].body), (vec![200], BODY.as_bytes()), "{shape:?}");
        drop(client);
        site.settle(&format!("{shape:?}")).await;
    }
}

/// More readers than there are workers, of responses without an end.
#[tokio::test]
async fn a4_readers_of_one_byte_at_a_time_hold_no_thread() {
    for (shape, paths) in [
        (Shape::Sync, &["/iter", "/reader", "/body"][..]),
        (Shape::Nested, &["/body"]),
        (Shape::Deep, &["/iter", "/reader", "/body"]),
    ] {
        for path in paths {
            let site = Site::new(shape, |layer| layer).await;
            let mut readers: Vec<(TcpStream, Vec<u8>)> = Vec::new();
            for _ in 0..10 {
                let mut client = connect(site.addr).await;
                let request = format!("GET {path} HTTP/1.1\r\nhost:h\r\n\r\n");
                client.write_all(request.as_bytes()).await.expect("to send");
                readers.push((client, Vec::new()));
            }
            for byte in 0..200 {
                for (client, got) in &mut readers {
                    got.push(soon(client.read_u8()).await.expect("a byte"));
                }
                if byte % 10 == 0 {
                    site.at_rest(&format!("{shape:?}, {path}, {byte} bytes")).await;
                    others_are_answered(&site, path).await;
                }
            }
            for (_, got) in &readers {
                let cut = Replies::parse(got).cut.expect("a part");
                assert!(cut.body.starts_with(b"abcabcabcabcxxxx"), "{shape:?}, {path}: {cut:?}");
            }
            drop(readers);
            site.settle(path).await;
        }
    }
}

/// Real time: a byte each millisecond or two in both directions, on more connections than there are workers.
#[tokio::test]
async fn a10_peers_that_are_slow_all_at_once_get_their_answers() {
    const LENGTH: Duration = Duration::from_millis(1);
    for shape in SHAPES {
        let site = Site::new(shape, |layer| layer).await;
        let slow = (0..20).map(|n| {
            let addr = site.addr;
            tokio::spawn(async move {
                let mut client = connect(addr).await;
                let request = format!(
                    "POST /echo?slow HTTP/1.1\r\nhost:h\r\nconnection:close\r\ncontent-length:12\r\n\r\n{BODY}"
                );
                for byte in request.bytes() {
                    tokio::time::sleep(LENGTH * (1 + n % 2)).await;
                    client.write_all(&[byte]).await.expect("to send");
                }
                let mut got = Vec::new();
                while let Ok(byte) = client.read_u8().await {
                    got.push(byte);
                    tokio::time::sleep(LENGTH).await;
                }
                Replies::parse(&got)
            })
        });
        let slow: Vec<_> = slow.collect();
        let mut answered = 0;
        while slow.iter().any(|one| !one.is_finished()) {
            others_are_answered(&site, "meanwhile").await;
            answered += 1;
            tokio::time::sleep(LENGTH).await;
        }
        assert!(answered > 1, "nobody was slow");
        for one in slow {
            let replies = soon(one).await.expect("no panic");
            assert_eq!((replies.statuses(), &*replies.whole[0].body), (vec![200], BODY.as_bytes()));
        }
        site.settle(&format!("{shape:?}")).await;
    }
}

/// Time is the test's: a sender that stalls at each byte of its body is told so, and no sooner.
#[tokio::test]
async fn a2_a_sender_that_stalls_at_any_byte_times_out() {
    const SHORT: Duration = Duration::from_millis(2);
    for shape in [Shape::Sync, Shape::Nested] {
        let site = Site::new(shape, |layer| layer.prefetch(0).read_timeout(SHORT)).await;
        for header in ["content-length:12\r\n\r\n", "transfer-encoding:chunked\r\n\r\nc\r\n"] {
            for sent in 0..BODY.len() {
                let request = format!("POST /echo?{sent} HTTP/1.1\r\nhost:h\r\n{header}{}", &BODY[..sent]);
                let replies = Replies::parse(&raw(site.addr, request.as_bytes()).await);
                assert_eq!(replies.statuses(), [408], "{shape:?}, {header:?}, {sent} bytes: {replies:?}");
            }
        }
        site.cleared(&format!("{shape:?}")).await;
        assert!(site.app.readings.drain().iter().all(|reading| !reading.is_whole));
    }
}
