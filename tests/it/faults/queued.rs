//! A8: clients that leave while they wait for a worker. Their requests never run.

use std::sync::atomic::Ordering;

use http::{Request, Response};
use tokio::io::AsyncWriteExt as _;
use tower::Layer as _;
use tower_wsgi::{Input, WorkerPool, WsgiLayer};

use super::frames::{CANCEL, Client, data, go_away, head, reset};
use super::site::{App, Site};
use super::wire::{LEAVES, Leave, connect, leave, raw, rest};
use crate::support::{Gate, eventually};

const WAIT: &[u8] = b"GET /wait HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n";

/// A server whose only worker waits for the gate.
async fn busy() -> (Site, Gate, tokio::net::TcpStream) {
    let (pool, app, gate) = (WorkerPool::new(1), App::new(), Gate::new());
    let (inside, calls) = (gate.clone(), app.clone());
    let handler = move |request: Request<Input>| {
        if request.uri().path() == "/wait" {
            inside.pass();
            return Ok(Response::new("waited".into()));
        }
        calls.call(request)
    };
    let site = Site::serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler), pool, app).await;
    let mut waiting = connect(site.addr).await;
    waiting.write_all(WAIT).await.expect("to send");
    eventually("the worker waits", || site.pool.stats().busy == 1).await;
    (site, gate, waiting)
}

/// Nothing ran of what was queued, and nothing is left.
async fn none_ran(site: Site, gate: Gate, mut waiting: tokio::net::TcpStream, what: &str) {
    eventually(what, || site.pool.stats().queued == 0).await;
    eventually(what, || site.pool.stats().discards == 0).await;
    gate.open();
    assert!(rest(&mut waiting).await.ends_with(b"waited"), "{what}");
    drop(waiting);
    site.cleared(what).await;
    assert_eq!(site.app.started.load(Ordering::SeqCst), 0, "{what}");
    assert!(raw(site.addr, WAIT).await.ends_with(b"waited"), "{what}");
    site.settle(what).await;
}

#[tokio::test]
async fn a8_the_requests_of_clients_that_leave_while_they_are_queued_never_run() {
    for how in LEAVES {
        for request in [
            "GET /iter HTTP/1.1\r\nhost:h\r\n\r\n",
            "POST /echo HTTP/1.1\r\nhost:h\r\ncontent-length:5\r\n\r\nhello",
            "POST /relay HTTP/1.1\r\nhost:h\r\ntransfer-encoding:chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let what = format!("{how:?}, {request:?}");
            let (site, gate, waiting) = busy().await;
            let mut clients = Vec::new();
            for _ in 0..20 {
                let mut client = connect(site.addr).await;
                client.write_all(request.as_bytes()).await.expect("to send");
                clients.push(client);
            }
            eventually(&what, || site.pool.stats().queued == 20).await;
            let mut kept = Vec::new();
            for client in clients {
                kept.extend(leave(client, how).await.kept);
            }
            none_ran(site, gate, waiting, &what).await;
        }
    }
}

#[tokio::test]
async fn a8_the_requests_of_streams_that_are_reset_while_they_are_queued_never_run() {
    for has_body in [false, true] {
        for is_cut in [false, true] {
            let what = format!("a body: {has_body}, cut: {is_cut}");
            let (site, gate, waiting) = busy().await;
            let mut client = Client::new(site.addr, 65_535).await;
            let streams = (0..20).map(|n| 2 * n + 1);
            for stream in streams.clone() {
                client.send(head(stream, "/echo", has_body.then_some(None))).await;
                if has_body {
                    client.send(data(stream, b"he", false)).await;
                }
            }
            eventually(&what, || site.pool.stats().queued == 20).await;
            if is_cut {
                super::wire::reset(client.0);
            } else {
                for stream in streams {
                    client.send(reset(stream, CANCEL)).await;
                }
                client.send(go_away(0)).await;
            }
            none_ran(site, gate, waiting, &what).await;
        }
    }
}

/// hyper reads no more of a connection than somebody asks for, and so does not notice that it is gone while the rest of a body is not asked for.
#[tokio::test]
async fn a2_the_requests_of_clients_that_leave_amid_their_body_while_they_are_queued_fail_when_they_are_read()
{
    for how in [Leave::Reset, Leave::Close, Leave::Half] {
        let what = format!("{how:?}");
        let (site, gate, mut waiting) = busy().await;
        let mut kept = Vec::new();
        for queued in 1..=20 {
            let mut client = connect(site.addr).await;
            let request = b"POST /echo HTTP/1.1\r\nhost:h\r\ntransfer-encoding:chunked\r\n\r\n5\r\nhello\r\n";
            client.write_all(request).await.expect("to send");
            eventually(&what, || site.pool.stats().queued == queued).await;
            kept.extend(leave(client, how).await.kept);
        }
        gate.open();
        assert!(rest(&mut waiting).await.ends_with(b"waited"), "{what}");
        drop(waiting);
        site.settle(&what).await;
        let readings = site.app.readings.drain();
        assert!(
            readings.iter().all(|reading| reading.is_whole == (reading.query == "after")),
            "{readings:?}"
        );
    }
}
