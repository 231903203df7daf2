//! A11, A12: panics in what a `WsgiLayer` was given beside its application.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::Layer as _;
use tower_wsgi::{BoxError, Error, Input, Output, SyncHandler, WorkerPool, WsgiLayer};

use super::frames::{CANCEL, Client, End, Got, head, reset, window};
use super::panics::{Expected, PIECES, Pieces, Seen, check, cut_unless_first, place, quiet};
use super::site::{App, Site};
use super::wire::{Replies, connect};
use crate::support::soon;

#[tokio::test]
async fn a12_a_panic_at_any_call_of_what_on_error_makes_stays_inside() {
    const FAULTS: &[(&str, usize, Expected)] = &[
        ("on-error", 1, |_| Seen::Failed),
        ("iter", PIECES + 1, cut_unless_first),
        ("reader", PIECES + 1, cut_unless_first),
        ("writer", PIECES + 1, cut_unless_first),
        ("none", 1, |_| Seen::Whole),
    ];
    let (pool, app) = (WorkerPool::new(2), App::new());
    let census = app.census.clone();
    let on_error = move |error: &Error| {
        let path = std::error::Error::source(error).expect("the handler's").to_string();
        let uri = path.parse().expect("a path");
        let (fault, at) = place(&uri);
        let pieces = Pieces::new(census.hold());
        Response::new(match fault {
            "none" => Output::iter(pieces),
            "iter" => Output::iter(pieces.panics_at(at)),
            "reader" => Output::reader(pieces.panics_at(at)),
            "writer" => Output::writer(move |w| pieces.panics_at(at).try_for_each(|piece| w.send(piece))),
            _ => quiet(),
        })
    };
    let handler = |request: Request<Input>| match request.uri().path() {
        "/full" => Ok(Response::new("all of it")),
        path => Err(BoxError::from(path)),
    };
    let layer = WsgiLayer::adapter().pool(pool.clone()).on_error(on_error);
    let site = Site::serve(layer.layer(handler), pool, app).await;
    check(&site, FAULTS).await;
}

/// Where to panic, once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// In the caller's task.
    Capture,
    Before,
    After,
    /// Instead of it: not a panic, but as bad.
    Never,
    ServeBefore,
    ServeAfter,
}

#[derive(Clone, Default)]
struct Armed(Arc<Mutex<Option<At>>>);

impl Armed {
    fn set(&self, at: At) {
        *self.0.lock().expect("a lock") = Some(at);
    }

    fn is(&self, at: At) -> bool {
        self.0.lock().expect("a lock").take_if(|armed| *armed == at).is_some()
    }

    fn panic_if(&self, at: At) {
        if self.is(at) {
            quiet();
        }
    }
}

struct Served {
    app: App,
    armed: Armed,
}

impl SyncHandler for Served {
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        self.app.call(request)
    }

    fn serve(&self, calls: &mut dyn FnMut()) {
        self.armed.panic_if(At::ServeBefore);
        calls();
        self.armed.panic_if(At::ServeAfter);
    }
}

async fn site() -> (Site, Armed) {
    let (pool, app, armed) = (WorkerPool::new(1), App::new(), Armed::default());
    let hook = armed.clone();
    let layer = WsgiLayer::adapter().pool(pool.clone()).context(move || {
        hook.panic_if(At::Capture);
        let hook = hook.clone();
        move |run: &mut dyn FnMut()| {
            hook.panic_if(At::Before);
            if !hook.is(At::Never) {
                run();
            }
            hook.panic_if(At::After);
        }
    });
    let handler = Served { app: app.clone(), armed: armed.clone() };
    (Site::serve(layer.layer(handler), pool, app).await, armed)
}

#[tokio::test]
async fn a11_a_panic_in_a_hook_stays_inside() {
    let (site, armed) = site().await;
    for (at, expected) in [
        (At::Capture, None),
        (At::Before, Some(500)),
        (At::After, Some(200)),
        (At::Never, Some(500)),
        (At::ServeBefore, Some(200)),
        (At::ServeAfter, Some(200)),
    ] {
        for _ in 0..3 {
            let what = format!("{at:?}");
            armed.set(at);
            let request = b"GET /full HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n";
            let replies = Replies::parse(&super::wire::raw(site.addr, request).await);
            assert_eq!(replies.statuses(), expected.into_iter().collect::<Vec<_>>(), "{what}: {replies:?}");
            site.settle(&what).await;

            armed.set(at);
            let mut client = Client::new(site.addr, 65_535).await;
            client.send(head(1, "/full", None)).await;
            let got = client.whole(1).await;
            let end = if expected.is_some() { End::True } else { End::Reset };
            assert_eq!((got.status, got.end), (expected, Some(end)), "{what}");
            drop(client);
            site.settle(&what).await;
        }
    }
}

/// A body that goes on needs its way in and its context again.
#[tokio::test]
async fn a6_a_panic_in_a_hook_amid_a_body_is_seen() {
    let (site, armed) = site().await;
    for path in ["/iter", "/reader"] {
        for (at, is_seen) in [
            (At::Before, true),
            (At::After, false),
            (At::Never, true),
            (At::ServeBefore, false),
            (At::ServeAfter, false),
        ] {
            let what = format!("{path}, {at:?}");
            let mut client = Client::new(site.addr, 1000).await;
            client.send(head(1, path, None)).await;
            let mut got = Got::default();
            client.read(1, &mut got, |got| got.body.len() == 1000).await;
            site.at_rest(&what).await;
            armed.set(at);
            // Much more than there is on the way.
            client.send(window(1, 200_000)).await;
            client.send(window(0, 200_000)).await;
            client.read(1, &mut got, |got| got.body.len() == 201_000).await;
            if is_seen {
                assert_eq!(got.end, Some(End::Reset), "{what}");
            } else {
                assert_eq!((got.body.len(), got.end), (201_000, None), "{what}");
                client.send(reset(1, CANCEL)).await;
            }
            drop(client);
            site.settle(&what).await;

            let mut client = connect(site.addr).await;
            let request = format!("GET {path} HTTP/1.1\r\nhost:h\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("to send");
            let mut bytes = vec![0; 1000];
            soon(client.read_exact(&mut bytes)).await.expect("a response");
            site.at_rest(&what).await;
            armed.set(at);
            let read = soon((&mut client).take(500_000).read_to_end(&mut bytes)).await;
            assert!(Replies::parse(&bytes).whole.is_empty(), "{what}: an end");
            assert_eq!(read.is_err() || bytes.len() < 501_000, is_seen, "{what}");
            drop(client);
            site.settle(&what).await;
        }
    }
}
