//! A10, B6: threads that cannot be started, descriptors that run out, disks that are full. Each in a process of its own, and each until there is enough again.
#![cfg(target_os = "linux")]

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, BoxError, Error, Input, Output, SyncHandler, WorkerPool, WsgiLayer,
};

use super::alone::{alone, descriptors};
use super::site::{App, Shape, Site};
use super::wire::{Replies, connect, raw, rest};
use crate::support::{Gate, eventually, soon};

/// Enough for a process with all its threads, and little enough to be used up.
const ADDRESSES: &str = "ulimit -v 4194304;";

/// Takes address space until there is less left than the stack of a thread needs, and more than all else does.
fn no_room_for_threads() -> Vec<Vec<u8>> {
    let mut ballast = Vec::new();
    let mut size = 1 << 30;
    while size >= 1 << 20 {
        let mut block = Vec::new();
        if block.try_reserve_exact(size).is_ok() {
            ballast.push(block);
        } else {
            size /= 2;
        }
    }
    ballast.pop();
    std::thread::Builder::new().spawn(|| ()).expect_err("no room for a thread");
    ballast
}

const FULL: &[u8] = b"GET /full HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn a10_without_threads_requests_are_refused_until_there_are_some() {
    if !alone("faults::resources::a10_without_threads_requests_are_refused_until_there_are_some", ADDRESSES) {
        return;
    }
    runtime().block_on(async {
        let site = Site::new(Shape::Sync, |layer| layer.prefetch(0)).await;
        let upload = b"POST /echo HTTP/1.1\r\nhost:h\r\nconnection:close\r\ncontent-length:2\r\n\r\nhi";
        let ballast = no_room_for_threads();
        for round in 0..3 {
            for request in [FULL, upload, b"GET /iter HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n"] {
                let replies = Replies::parse(&raw(site.addr, request).await);
                assert_eq!(replies.statuses(), [503], "round {round}");
                assert!(replies.whole[0].head.contains("retry-after: 1"), "{replies:?}");
            }
            site.cleared("refused").await;
            assert_eq!(site.pool.stats().threads, 0);
        }
        drop(ballast);
        assert_eq!(Replies::parse(&raw(site.addr, FULL).await).statuses(), [200]);
        site.settle("with threads").await;
    });
}

/// What panics when it is dropped, as part of a request that nobody will run.
#[derive(Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            super::panics::quiet();
        }
    }
}

#[test]
fn a10_what_is_refused_for_want_of_threads_may_panic_when_it_is_dropped() {
    let name = "faults::resources::a10_what_is_refused_for_want_of_threads_may_panic_when_it_is_dropped";
    if !alone(name, ADDRESSES) {
        return;
    }
    runtime().block_on(async {
        let service = WsgiLayer::adapter().layer(|_: Request<Input>| Response::new("again"));
        let ballast = no_room_for_threads();
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Bomb);
        let response = soon(service.clone().oneshot(request)).await.expect("a response");
        assert_eq!(response.status(), 503);
        drop(ballast);
        let response = soon(service.oneshot(Request::new(Body::empty()))).await;
        assert_eq!(response.expect("a response").status(), 200);
    });
}

#[test]
fn a10_without_more_threads_those_that_are_there_do_the_work() {
    if !alone("faults::resources::a10_without_more_threads_those_that_are_there_do_the_work", ADDRESSES) {
        return;
    }
    runtime().block_on(async {
        let (pool, app, gate) = (WorkerPool::new(4), App::new(), Gate::new());
        let (inside, calls) = (gate.clone(), app.clone());
        let handler = move |request: Request<Input>| {
            if request.uri().path() == "/wait" {
                inside.pass();
                return Ok(Response::new("waited".into()));
            }
            calls.call(request)
        };
        let site =
            Site::serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler), pool.clone(), app).await;
        let mut first = connect(site.addr).await;
        first.write_all(b"GET /wait HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n").await.expect("to send");
        eventually("the first one runs", || pool.stats().busy == 1).await;
        let ballast = no_room_for_threads();
        let mut others = Vec::new();
        for request in [FULL, b"GET /iter HTTP/1.1\r\nhost:h\r\n\r\n", FULL] {
            let mut other = connect(site.addr).await;
            other.write_all(request).await.expect("to send");
            others.push(other);
        }
        eventually("they wait", || pool.stats().queued == 3).await;
        // One leaves: what it left is dropped without a thread for that.
        drop(others.remove(1));
        eventually("one has left", || pool.stats().queued == 2).await;
        assert_eq!(pool.stats().threads, 1);
        gate.open();
        others.push(first);
        for client in &mut others {
            assert_eq!(Replies::parse(&rest(client).await).statuses(), [200]);
        }
        drop((others, ballast));
        site.settle("with threads").await;
    });
}

#[test]
fn b6_without_threads_a_service_s_runtime_is_an_error_until_there_are_some() {
    let name = "faults::resources::b6_without_threads_a_service_s_runtime_is_an_error_until_there_are_some";
    if !alone(name, ADDRESSES) {
        return;
    }
    let handler = AsgiHandler::new(service_fn(|_: Request<Body>| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    }));
    let get = || Request::get("/").body(Input::empty()).expect("a request");
    let ballast = no_room_for_threads();
    for _ in 0..3 {
        let error = handler.call(get()).expect_err("no runtime");
        assert!(error.downcast_ref::<Error>().is_some_and(Error::is_overloaded), "{error:?}");
        assert_eq!(tower_wsgi::gateway::respond(&handler, get()).status(), 503);
    }
    drop(ballast);
    let response = handler.call(get()).expect("a response");
    assert_eq!(io::read_to_string(response.into_body().into_reader()).expect("a body"), "hello");
}

#[test]
fn b6_without_threads_a_body_that_needs_one_is_an_error() {
    if !alone("faults::resources::b6_without_threads_a_body_that_needs_one_is_an_error", ADDRESSES) {
        return;
    }
    let runtime = runtime();
    let app = App::new();
    let census = app.census.clone();
    // A blocking reader that async code polls, and a writing function that sync code reads.
    let service = service_fn(|request: Request<Body>| async {
        let body = request.into_body().collect().await?;
        Ok::<_, BoxError>(Response::new(Body::from(body.to_bytes())))
    });
    let handler = AsgiLayer::adapter().runtime(runtime.handle().clone()).layer(service);
    let post = || Request::post("/").body(Input::reader(&b"hello"[..])).expect("a request");
    let writer = || {
        let held = census.hold_anywhere();
        Output::writer(move |w| {
            let _held = &held;
            w.write_all(b"hello")
        })
    };
    let ballast = no_room_for_threads();
    for _ in 0..3 {
        handler.call(post()).expect_err("no thread");
        writer().into_reader().read_to_end(&mut Vec::new()).expect_err("no thread");
        assert_eq!(census.alive(), 0);
    }
    drop(ballast);
    let response = handler.call(post()).expect("a response");
    assert_eq!(io::read_to_string(response.into_body().into_reader()).expect("a body"), "hello");
    assert_eq!(io::read_to_string(writer().into_reader()).expect("a body"), "hello");
}

#[test]
fn a12_without_descriptors_handlers_fail_and_the_server_goes_on() {
    if !alone(
        "faults::resources::a12_without_descriptors_handlers_fail_and_the_server_goes_on",
        "ulimit -n 64;",
    ) {
        return;
    }
    runtime().block_on(async {
        let (pool, app) = (WorkerPool::new(2), App::new());
        let calls = app.clone();
        let handler = move |request: Request<Input>| match request.uri().path() {
            "/file" => Ok(Response::new(Output::reader(File::open("/proc/version")?))),
            _ => calls.call(request),
        };
        let site = Site::serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler), pool, app).await;
        let file = b"GET /file HTTP/1.1\r\nhost:h\r\n\r\n";
        let full = b"GET /full HTTP/1.1\r\nhost:h\r\n\r\n";
        for _ in 0..3 {
            // They are connected before there are no descriptors left, and are heard when the server has some again.
            let mut client = connect(site.addr).await;
            client.write_all(full).await.expect("to send");
            let mut got = Vec::new();
            while Replies::parse(&got).whole.is_empty() {
                assert_ne!(soon(client.read_buf(&mut got)).await.expect("a response"), 0);
            }
            let before = descriptors();
            let mut taken = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                taken.push(file);
            }
            for (request, statuses) in [(&file[..], &[200, 500][..]), (full, &[200, 500, 200])] {
                client.write_all(request).await.expect("to send");
                while Replies::parse(&got).whole.len() < statuses.len() {
                    assert_ne!(soon(client.read_buf(&mut got)).await.expect("a response"), 0);
                }
                assert_eq!(Replies::parse(&got).statuses(), statuses);
            }
            drop(taken);
            client.write_all(file).await.expect("to send");
            while Replies::parse(&got).whole.len() < 4 {
                assert_ne!(soon(client.read_buf(&mut got)).await.expect("a response"), 0);
            }
            assert!(Replies::parse(&got).whole[3].body.starts_with(b"Linux"));
            assert_eq!(descriptors(), before);
            drop(client);
            site.settle("with descriptors").await;
        }
    });
}

#[test]
fn b6_without_descriptors_a_service_s_runtime_is_an_error_until_there_are_some() {
    let name =
        "faults::resources::b6_without_descriptors_a_service_s_runtime_is_an_error_until_there_are_some";
    if !alone(name, "ulimit -n 64;") {
        return;
    }
    let handler = AsgiHandler::new(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    }));
    let get = || Request::get("/").body(Input::empty()).expect("a request");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // None, one, two and more are left: a runtime needs several. Two are the process's for ever, once there were so many.
    let mut kept = 0;
    loop {
        let before = descriptors_left();
        match handler.call(get()) {
            Ok(_) => break,
            Err(error) => {
                assert!(error.downcast_ref::<Error>().is_some_and(Error::is_overloaded), "{error:?}");
                kept += before - descriptors_left();
                assert!(kept <= 2, "starts that failed keep {kept}");
            }
        }
        assert!(taken.pop().is_some(), "never enough");
    }
    let response = handler.call(get()).expect("a response");
    assert_eq!(io::read_to_string(response.into_body().into_reader()).expect("a body"), "hello");
}

/// How many files can be opened yet.
fn descriptors_left() -> usize {
    let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    files.len()
}

/// Disks that are full, and files that cannot be read.
#[tokio::test]
async fn a12_a_full_disk_is_the_handlers_error_and_seen_by_the_client() {
    let (pool, app) = (WorkerPool::new(1), App::new());
    let calls = app.clone();
    let handler = move |request: Request<Input>| match request.uri().path() {
        "/save" => {
            let mut file = File::options().write(true).open("/dev/full")?;
            io::copy(&mut request.into_body(), &mut file)?;
            Ok(Response::new("saved".into()))
        }
        "/dir" => Ok(Response::new(Output::reader(File::open("/")?))),
        "/dir-later" => Ok(Response::new(Output::reader(io::Read::chain(&b"begun"[..], File::open("/")?)))),
        "/log-later" => {
            let full = File::options().write(true).open("/dev/full")?;
            Ok(Response::new(Output::writer(move |w| {
                w.send("begun")?;
                (&full).write_all(b"a line")
            })))
        }
        _ => calls.call(request),
    };
    let site = Site::serve(WsgiLayer::adapter().pool(pool.clone()).layer(handler), pool, app).await;
    for (request, statuses, cut) in [
        (
            "POST /save HTTP/1.1\r\nhost:h\r\nconnection:close\r\ncontent-length:5\r\n\r\nhello",
            &[500][..],
            None,
        ),
        ("GET /dir HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n", &[500], None),
        ("GET /dir-later HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n", &[], Some(&b"begun"[..])),
        ("GET /log-later HTTP/1.1\r\nhost:h\r\nconnection:close\r\n\r\n", &[], Some(b"begun")),
    ] {
        let replies = Replies::parse(&raw(site.addr, request.as_bytes()).await);
        assert_eq!(replies.statuses(), statuses, "{request}");
        assert_eq!(replies.cut.as_ref().map(|cut| &*cut.body), cut, "{request}");
        site.settle(request).await;
    }
}
