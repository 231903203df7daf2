//! A2, A4, A6, A8 over HTTP/2: connections that are cut at each byte, streams that are reset at each frame, windows that are shut.

use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt as _;

use super::alone::is_long;
use super::frames::{CANCEL, Client, End, Got, data, go_away, head, preface, reset, window};
use super::site::{SHAPES, Shape, Site};
use super::wire::{LEAVES, Replies, connect, leave, raw};
use crate::support::eventually;

const BODY: &[u8] = b"hello, world";

/// As much room as there is by default.
const ROOM: u32 = 65_535;

/// Asserts that nobody took a part of [`BODY`] for all of it, but where it was sent to its end.
fn judge(site: &Site, was_sent: impl Fn(&str) -> bool, what: &str) {
    for reading in site.app.readings.drain() {
        let is_whole = reading.query == "after" || reading.bytes == BODY && was_sent(&reading.query);
        assert!(is_whole || !reading.is_whole && BODY.starts_with(&reading.bytes), "{what}: {reading:?}");
    }
}

#[tokio::test]
async fn a2_a_connection_that_is_cut_at_any_byte_leaves_nothing_behind() {
    for shape in SHAPES {
        let site = Site::new(shape, |layer| layer.prefetch(0)).await;
        for path in ["/echo", "/relay"] {
            for length in [None, Some(BODY.len())] {
                let request = |sent: usize| {
                    let parts = [
                        preface(ROOM),
                        head(1, &format!("{path}?{sent:03}"), Some(length)),
                        data(1, &BODY[..5], false),
                        data(1, &BODY[5..], true),
                    ];
                    parts.concat()
                };
                let total = request(0).len();
                for how in LEAVES {
                    let what = format!("{shape:?}, {path}, {length:?}, {how:?}");
                    let mut kept = Vec::new();
                    for sent in 0..=total {
                        let mut client = connect(site.addr).await;
                        client.write_all(&request(sent)[..sent]).await.expect("to send");
                        kept.extend(leave(client, how).await.kept);
                    }
                    site.settle(&what).await;
                    judge(&site, |query| query == format!("{total:03}"), &what);
                }
            }
        }
    }
}

/// What a client does to a stream, or its connection, in the midst of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    /// It resets the stream, and uses the connection for another.
    Reset(u32),
    /// It resets the connection.
    Cut,
    /// It says that it takes no more streams, and goes.
    GoAwayAndCut,
}

const STOPS: [Stop; 5] = [Stop::Reset(0), Stop::Reset(2), Stop::Reset(CANCEL), Stop::Cut, Stop::GoAwayAndCut];

impl Stop {
    async fn apply(self, mut client: Client, what: &str) {
        match self {
            Self::Reset(reason) => {
                client.send(reset(1, reason)).await;
                client.send(head(3, "/full", None)).await;
                let got = client.whole(3).await;
                assert_eq!((got.status, &*got.body), (Some(200), &b"all of it"[..]), "{what}");
            }
            Self::Cut => super::wire::reset(client.0),
            Self::GoAwayAndCut => {
                client.send(go_away(CANCEL)).await;
                super::wire::reset(client.0);
            }
        }
    }
}

#[tokio::test]
async fn a2_a_stream_that_is_stopped_at_any_frame_of_a_body_is_an_error_to_who_reads_it() {
    for shape in SHAPES {
        let site = Site::new(shape, |layer| layer.prefetch(0)).await;
        for path in ["/echo", "/relay"] {
            for length in [None, Some(BODY.len())] {
                if !is_long() && (path == "/relay") == length.is_some() {
                    continue;
                }
                for stop in STOPS {
                    let what = format!("{shape:?}, {path}, {length:?}, {stop:?}");
                    for sent in 0..BODY.len() {
                        let what = format!("{what}, {sent} bytes");
                        let mut client = Client::new(site.addr, ROOM).await;
                        site.app.progress.store(0, Ordering::SeqCst);
                        let started = site.app.started.load(Ordering::SeqCst);
                        client.send(head(1, &format!("{path}?{sent:03}"), Some(length))).await;
                        for byte in BODY[..sent].chunks(1) {
                            client.send(data(1, byte, false)).await;
                        }
                        eventually(&what, || site.app.started.load(Ordering::SeqCst) > started).await;
                        eventually(&what, || site.app.progress.load(Ordering::SeqCst) == sent).await;
                        stop.apply(client, &what).await;
                    }
                    site.settle(&what).await;
                    for reading in site.app.readings.drain() {
                        // hyper takes a reset without an error for the end of the body. That it is none shows only where a length was declared.
                        let is_told = stop == Stop::Reset(0) && length.is_none();
                        let is_right = !reading.is_whole || is_told || reading.query == "after";
                        assert!(is_right, "{what}: {reading:?}");
                    }
                }
            }
        }
    }
}

/// A client that takes no more streams wants those that it began.
#[tokio::test]
async fn a2_a_client_that_says_goaway_amid_its_body_gets_its_answer() {
    for shape in SHAPES {
        let site = Site::new(shape, |layer| layer.prefetch(0)).await;
        for path in ["/echo", "/relay"] {
            for at in 0..=BODY.len() {
                let what = format!("{shape:?}, {path}, after {at} bytes");
                let mut client = Client::new(site.addr, ROOM).await;
                client.send(head(1, &format!("{path}?{at:03}"), Some(None))).await;
                client.send(data(1, &BODY[..at], false)).await;
                client.send(go_away(0)).await;
                client.send(data(1, &BODY[at..], true)).await;
                let mut got = Got::default();
                client.read(1, &mut got, |got| got.body.len() == BODY.len()).await;
                assert_eq!((got.status, &*got.body), (Some(200), BODY), "{what}: {got:?}");
            }
        }
        site.settle(&format!("{shape:?}")).await;
        judge(&site, |_| true, "sent in full");
    }
}

/// The downloads that need no thread while their client reads nothing, in each shape.
const AT_REST: [(Shape, &[&str]); 3] = [
    (Shape::Sync, &["/iter", "/reader", "/body"]),
    (Shape::Nested, &["/body"]),
    (Shape::Deep, &["/iter", "/reader", "/body"]),
];

#[tokio::test]
async fn a4_a_window_of_any_size_holds_no_thread_and_ends_with_its_stream() {
    let sizes = if is_long() { 0..200 } else { 0..8 };
    for (shape, paths) in AT_REST {
        let site = Site::new(shape, |layer| layer).await;
        for path in paths {
            for stop in STOPS {
                for room in sizes.clone() {
                    let what = format!("{shape:?}, {path}, {stop:?}, {room} bytes");
                    let mut client = Client::new(site.addr, room).await;
                    client.send(head(1, path, None)).await;
                    let mut got = Got::default();
                    let enough = room as usize;
                    client.read(1, &mut got, |got| got.status.is_some() && got.body.len() == enough).await;
                    assert_eq!((got.status, got.end), (Some(200), None), "{what}");
                    assert!(b"abcabcabcabcxxxxxxxx".starts_with(&got.body[..enough.min(20)]), "{what}");
                    // It waits for room. Nobody works for it, and others are served: on its connection and elsewhere.
                    site.at_rest(&what).await;
                    assert!(site.app.census.alive() > 0, "{what}: it is over");
                    client.send(head(3, "/full", None)).await;
                    let mut other = Got::default();
                    client.read(3, &mut other, |got| got.status.is_some()).await;
                    assert_eq!(other.status, Some(200), "{what}");
                    stop_alone(stop, client).await;
                }
                site.settle(&format!("{shape:?}, {path}, {stop:?}")).await;
            }
        }
    }
}

/// Like [`Stop::apply`], where no other answer could come: there is no room for one.
async fn stop_alone(stop: Stop, mut client: Client) {
    if let Stop::Reset(reason) = stop {
        client.send(reset(1, reason)).await;
        // The server goes when it has seen it.
        client.send(go_away(0)).await;
        let _ = client.0.shutdown().await;
    } else {
        stop.apply(client, "").await;
    }
}

#[tokio::test]
async fn a4_a_window_that_opens_byte_by_byte_gets_every_byte() {
    for (shape, paths) in AT_REST {
        let site = Site::new(shape, |layer| layer).await;
        for path in paths {
            let mut client = Client::new(site.addr, 0).await;
            client.send(head(1, path, None)).await;
            let mut got = Got::default();
            client.read(1, &mut got, |got| got.status.is_some()).await;
            for byte in 1..=100 {
                let what = format!("{shape:?}, {path}, {byte} bytes");
                site.at_rest(&what).await;
                client.send(window(1, 1)).await;
                client.read(1, &mut got, |got| got.body.len() >= byte).await;
                assert_eq!((got.body.len(), got.end), (byte, None), "{what}");
            }
            assert_eq!(&got.body[..14], b"abcabcabcabcxx");
            client.send(reset(1, CANCEL)).await;
            drop(client);
            site.settle(path).await;
        }
    }
}

/// As many as there are workers, each of which has its window shut, and its stream reset then: in the end all workers are free again.
#[tokio::test]
async fn a8_a_writer_that_waits_for_a_window_is_freed_by_the_reset() {
    for shape in [Shape::Sync, Shape::Deep] {
        let site = Site::new(shape, |layer| layer).await;
        for stop in STOPS {
            for room in [0, 1, 100] {
                let what = format!("{shape:?}, {stop:?}, {room} bytes");
                let mut client = Client::new(site.addr, room).await;
                client.send(head(1, "/writer", None)).await;
                let mut got = Got::default();
                let enough = room as usize;
                client.read(1, &mut got, |got| got.status.is_some() && got.body.len() == enough).await;
                assert!(site.app.census.alive() > 0, "{what}: it is over");
                stop_alone(stop, client).await;
                site.cleared(&what).await;
            }
        }
        site.settle(&format!("{shape:?}")).await;
    }
}

/// The connection's own window is shut too: by a client that reads, and tells nobody that it did.
#[tokio::test]
async fn a4_a_connection_whose_window_is_used_up_holds_no_thread() {
    for (shape, paths) in AT_REST {
        let site = Site::new(shape, |layer| layer).await;
        for path in paths {
            let mut client = Client::new(site.addr, 1 << 20).await;
            for stream in [1, 3, 5] {
                client.send(head(stream, path, None)).await;
            }
            let mut all = 0;
            for room in [ROOM as usize, 1000] {
                let until = all + room;
                while all < until {
                    all += client.data().await.len();
                }
                assert_eq!(all, until, "{shape:?}, {path}");
                site.at_rest(path).await;
                assert_eq!(Replies::parse(&raw(site.addr, FULL).await).statuses(), [200]);
                // Room for the connection alone lets them go on.
                client.send(window(0, 1000)).await;
            }
            drop(client);
            site.settle(path).await;
        }
    }
}

const FULL: &[u8] = b"GET /full HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n";

#[tokio::test]
async fn a6_a_half_closed_connection_is_no_end_of_a_body() {
    for shape in SHAPES {
        let site = Site::new(shape, |layer| layer.prefetch(0)).await;
        for sent in 0..BODY.len() {
            let mut client = Client::new(site.addr, ROOM).await;
            client.send(head(1, "/echo?part", Some(None))).await;
            client.send(data(1, &BODY[..sent], false)).await;
            client.0.shutdown().await.expect("a socket");
            let got = client.whole(1).await;
            assert_ne!((got.status, got.end), (Some(200), Some(End::True)), "{shape:?}, {sent} bytes");
        }
        site.settle(&format!("{shape:?}")).await;
        judge(&site, |_| false, "half closed");
    }
}
