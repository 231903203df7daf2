//! How the interpreter behaves in a program that is not its own: threads, signals, locks, and what is left behind.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use pyo3::prelude::*;
use tower::{Layer, ServiceExt};
use tower_wsgi::{Body, Input, Output, SyncHandler, WorkerPool, WsgiLayer};

use super::support::{
    Module, PATIENCE, Site, alone, blocking, eventually, is_alone, read, resident, run, serve, site,
    site_with, soon, watched,
};

/// GETs a path some times at once, each on a connection of its own.
fn many(site: &Site, path: &'static str, times: usize) -> tokio::task::JoinSet<super::support::Answer> {
    let mut asking = tokio::task::JoinSet::new();
    let addr = site.addr;
    for _ in 0..times {
        asking.spawn(async move {
            let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get(path).header("host", "a").body(Full::<Bytes>::default()).unwrap();
            read(client.send_request(request).await.unwrap()).await
        });
    }
    asking
}

#[test]
fn a10_applications_that_wait_have_all_workers() {
    run(async {
        let site = site(
            r"
            import threading
            barrier = threading.Barrier(10)
            def app(environ, start_response):
                barrier.wait(60)
                start_response('200 OK', [])
                if environ['PATH_INFO'] == '/body':
                    def body():
                        barrier.wait(60)
                        yield b'met'
                    return body()
                return [b'met']
            ",
        )
        .await;
        for path in ["/", "/body", "/", "/body"] {
            let mut asking = many(&site, path, 10);
            while let Some(answer) = soon(asking.join_next()).await {
                assert_eq!(answer.unwrap().text(), "met");
            }
        }
    });
}

#[test]
fn a10_applications_that_wait_after_many_short_requests_have_all_workers() {
    run(async {
        let site = site_with(
            r"
            import threading
            barrier = threading.Barrier(10)
            def app(environ, start_response):
                start_response('200 OK', [])
                if environ['PATH_INFO'] == '/wait': barrier.wait(60)
                return [b'done']
            ",
            10,
            |layer| layer.max_queued(1000),
        )
        .await;
        for _ in 0..3 {
            let mut short = many(&site, "/", 200);
            let mut asking = many(&site, "/wait", 10);
            while let Some(answer) = soon(asking.join_next()).await {
                assert_eq!(answer.unwrap().text(), "done");
            }
            while let Some(answer) = soon(short.join_next()).await {
                assert_eq!(answer.unwrap().text(), "done");
            }
        }
    });
}

#[test]
fn a4_blocking_c_code_without_the_lock_holds_up_nobody() {
    run(async {
        let site = site(
            r"
            import os, socket
            reading, writing = os.pipe()
            began = []
            def app(environ, start_response):
                start_response('200 OK', [])
                if environ['PATH_INFO'] == '/block':
                    began.append(1)
                    return [os.read(reading, 3)]
                return [b'free']
            ",
        )
        .await;
        let mut blocked = many(&site, "/block", 9);
        site.becomes("len(began) == 9").await;
        for _ in 0..100 {
            assert_eq!(site.get("/").await.text(), "free");
        }
        site.module.show("os.write(writing, b'abc' * 9)");
        while let Some(answer) = soon(blocked.join_next()).await {
            assert_eq!(answer.unwrap().text(), "abc");
        }
    });
}

#[test]
fn a10_one_request_that_computes_does_not_starve_another() {
    run(async {
        let site = site(
            r"
            stop, began = [], []
            def app(environ, start_response):
                start_response('200 OK', [])
                if environ['PATH_INFO'] == '/compute':
                    began.append(1)
                    while not stop: pass
                return [b'done']
            ",
        )
        .await;
        let mut computing = many(&site, "/compute", 2);
        site.becomes("len(began) == 2").await;
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(site.get("/").await.text(), "done");
        }
        let took = start.elapsed();
        site.module.show("stop.append(1)");
        while let Some(answer) = soon(computing.join_next()).await {
            assert_eq!(answer.unwrap().text(), "done");
        }
        // The lock changes hands every 5 ms: two computing threads, and a busy machine.
        assert!(took < Duration::from_secs(8), "20 requests took {took:?}");
    });
}

#[test]
fn a9_no_runtime_thread_ever_waits_for_the_interpreter() {
    const NAME: &str = "wsgi::manners::a9_no_runtime_thread_ever_waits_for_the_interpreter";
    // It holds the interpreter, which other tests need.
    if !is_alone(NAME) {
        alone(NAME, |_| {});
        return;
    }
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                if environ['PATH_INFO'] == '/generator':
                    return (b'x' * 100_000 for _ in range(1000))
                return [b'x' * 5_000_000]
            ",
        )
        .await;
        let mut responses = Vec::new();
        for path in ["/", "/generator"] {
            for version in super::support::VERSIONS {
                let request = site.request("GET", path, Full::<Bytes>::default());
                let mut response = site.send(version, request).await.unwrap();
                soon(response.frame()).await.unwrap().unwrap();
                responses.push(response);
            }
        }
        let (held, holding) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            Python::attach(|_| {
                held.send(()).unwrap();
                released.recv_timeout(PATIENCE).expect("the runtime goes on");
            });
        });
        blocking(move || holding.recv_timeout(PATIENCE).unwrap()).await;
        // Bodies made of Python's memory are sent, and dropped; a request is taken in; one is given up.
        let mut rest = responses.split_off(2);
        for response in &mut responses {
            for _ in 0..3 {
                if let Ok(Some(frame)) =
                    tokio::time::timeout(Duration::from_millis(100), response.frame()).await
                {
                    frame.unwrap();
                }
            }
        }
        drop(responses);
        rest.pop();
        let request = site.request("GET", "/", Full::<Bytes>::default());
        let given_up =
            tokio::time::timeout(Duration::from_millis(50), site.server.send(Version::HTTP_11, request));
        // Without a lock on the interpreter, there is nothing to wait for.
        assert_eq!(given_up.await.is_err(), !cfg!(Py_GIL_DISABLED), "somebody else runs Python");
        // All of the runtime's threads are free: as many tasks as there are threads, that all have to run at once.
        let barrier = Arc::new(std::sync::Barrier::new(2));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let barrier = barrier.clone();
            tasks.spawn(async move { barrier.wait() });
        }
        while let Some(done) = soon(tasks.join_next()).await {
            done.unwrap();
        }
        release.send(()).unwrap();
        blocking(move || holder.join().unwrap()).await;
        drop(rest);
        assert_eq!(site.get("/").await.body.unwrap().len(), 5_000_000);
    });
}

#[test]
fn a9_python_objects_are_dropped_on_workers_or_by_python() {
    run(async {
        let site = site(
            r"
            import threading
            ended = []
            class Probe:
                def __del__(self): ended.append(threading.current_thread().name)
            def app(environ, start_response):
                start_response('200 OK', [])
                def body():
                    probe = Probe()
                    while True: yield b'x' * 1000
                return body()
            ",
        )
        .await;
        for version in super::support::VERSIONS {
            let request = site.request("GET", "/", Full::<Bytes>::default());
            let mut response = site.send(version, request).await.unwrap();
            soon(response.frame()).await.unwrap().unwrap();
        }
        site.becomes("len(ended) == 2").await;
    });
}

#[test]
fn interpreter_leaves_signals_to_the_host() {
    const NAME: &str = "wsgi::manners::interpreter_leaves_signals_to_the_host";
    if !is_alone(NAME) {
        alone(NAME, |_| {});
        return;
    }
    watched(|| {
        let disposition = |signal| {
            let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: it only reads the current action, into a place that is big enough.
            #[expect(unsafe_code, reason = "the standard library cannot ask for a signal's action")]
            unsafe {
                assert_eq!(libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()), 0);
                action.assume_init().sa_sigaction
            }
        };
        let signals =
            [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE, libc::SIGUSR1, libc::SIGCHLD];
        let before = signals.map(disposition);
        let module = Module::new(
            r"
            import signal
            def app(environ, start_response):
                start_response('200 OK', [])
                return []
            ",
        );
        let _app = module.app();
        assert_eq!(signals.map(disposition), before);
        assert_ne!(
            module.show("signal.getsignal(signal.SIGINT)"),
            module.show("signal.default_int_handler"),
            "Python would turn Ctrl+C into a KeyboardInterrupt"
        );
    });
}

/// A request for an application that is called without a server.
fn plain(path: &str) -> Request<Input> {
    Request::get(path).body(Input::empty()).unwrap()
}

#[test]
fn b1_it_works_on_threads_that_python_made_and_on_those_that_are_attached() {
    watched(|| {
        let module = Module::new(
            r"
            import threading, sys
            names = []
            def app(environ, start_response):
                names.append(threading.current_thread().name)
                start_response('200 OK', [])
                return (chunk for chunk in [b'hel', b'lo'])
            def run_in_thread(call):
                thread = threading.Thread(target=call, name='of-python')
                thread.start()
                thread.join(60)
                return thread.is_alive()
            ",
        );
        let app = Arc::new(module.app());
        let answers = Arc::new(std::sync::Mutex::new(Vec::new()));
        Python::attach(|py| {
            let (app, answers) = (app.clone(), answers.clone());
            let call = move |_: &Bound<'_, pyo3::types::PyTuple>,
                             _: Option<&Bound<'_, pyo3::types::PyDict>>| {
                for _ in 0..3 {
                    let mut response = tower_wsgi::gateway::respond(&app, plain("/"));
                    let mut text = String::new();
                    response.body_mut().read_to_string(&mut text).unwrap();
                    answers.lock().unwrap().push(text);
                }
            };
            let call = pyo3::types::PyCFunction::new_closure(py, None, None, call).unwrap();
            let run = py.eval(c"__import__('sys').modules", None, None).unwrap();
            let _ = run;
            let thread = py.import("threading").unwrap().getattr("Thread").unwrap();
            let kwargs = pyo3::types::PyDict::new(py);
            kwargs.set_item("target", call).unwrap();
            kwargs.set_item("name", "of-python").unwrap();
            let thread = thread.call((), Some(&kwargs)).unwrap();
            thread.call_method0("start").unwrap();
            thread.call_method1("join", (60,)).unwrap();
        });
        assert_eq!(*answers.lock().unwrap(), ["hello"; 3]);
        assert_eq!(module.show("set(names)"), "{'of-python'}");
        // On a thread that is attached already.
        let text = Python::attach(|_| {
            let mut response = tower_wsgi::gateway::respond(&app, plain("/"));
            let mut text = String::new();
            response.body_mut().read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(text, "hello");
    });
}

#[test]
fn a9_threads_of_a_pool_that_ends_leave_nothing_in_the_interpreter() {
    run(async {
        let module = Module::new(
            r"
            import threading, sys
            def app(environ, start_response):
                start_response('200 OK', [])
                return [b'x']
            ",
        );
        let handler = Arc::new(module.app());
        for _ in 0..20 {
            let pool = WorkerPool::new(3);
            let service = WsgiLayer::adapter().pool(pool).layer(handler.clone());
            let asked = (0..3).map(|_| service.clone().oneshot(Request::new(Body::empty())));
            for asked in asked {
                assert_eq!(soon(asked).await.unwrap().status(), StatusCode::OK);
            }
        }
        // Threads that were Rust's own have no state left there once they have ended.
        eventually("few threads are left", || {
            std::fs::read_dir("/proc/self/task")
                .unwrap()
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
                .filter(|name| name.starts_with("tower-wsgi"))
                .count()
                < 60
        })
        .await;
        assert_eq!(module.show("[t.name for t in threading.enumerate() if 'tower' in t.name]"), "[]");
    });
}

/// Which request is dropped when: reproducible, and different for each.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
fn a8_requests_dropped_at_any_moment_leave_nothing_behind() {
    const NAME: &str = "wsgi::manners::a8_requests_dropped_at_any_moment_leave_nothing_behind";
    if !is_alone(NAME) {
        alone(NAME, |_| {});
        return;
    }
    run(async {
        let site = site_with(
            r"
            import gc, threading, collections
            open_bodies = [0]
            lock = threading.Lock()
            class Tracked:
                def __init__(self):
                    with lock: open_bodies[0] += 1
                def close(self):
                    with lock: open_bodies[0] -= 1
                def __iter__(self):
                    for _ in range(50): yield b'x' * 40_000
            def app(environ, start_response):
                kind = environ['PATH_INFO']
                data = environ['wsgi.input'].read()
                environ['cycle'] = environ
                if kind == '/write':
                    write = start_response('200 OK', [])
                    for _ in range(20): write(b'y' * 10_000)
                    return [data]
                start_response('200 OK', [])
                if kind == '/raise': raise ValueError('quietly')
                if kind == '/big': return [b'z' * 300_000]
                if kind == '/small': return [data]
                return Tracked()
            def count():
                gc.collect()
                kinds = collections.Counter(type(o).__module__ for o in gc.get_objects())
                return len(gc.get_objects()), kinds['tower_wsgi']
            ",
            4,
            |layer| layer.max_queued(10_000),
        )
        .await;
        let counts = |site: &Site| -> (usize, usize) {
            let shown = site.module.show("'%d %d' % count()");
            let (objects, ours) = shown.split_once(' ').unwrap();
            (objects.parse().unwrap(), ours.parse().unwrap())
        };
        let mut dice = Dice(0x5eed_cafe_f00d_d1ce);
        let mut base = None;
        for round in 0..5 {
            for _ in 0..8 {
                let mut asking = Vec::new();
                for _ in 0..50 {
                    let path = ["/tracked", "/write", "/raise", "/big", "/small"][dice.roll(5) as usize];
                    let micros = dice.roll(4000);
                    let body = vec![b'b'; [0, 10, 100_000][dice.roll(3) as usize]];
                    let version = super::support::VERSIONS[dice.roll(2) as usize];
                    let request = site.request("POST", path, Full::<Bytes>::from(body));
                    let addr = site.addr;
                    asking.push(async move {
                        let asked = async {
                            let io = hyper_util::rt::TokioIo::new(
                                tokio::net::TcpStream::connect(addr).await.ok()?,
                            );
                            if version == Version::HTTP_2 {
                                let executor = hyper_util::rt::TokioExecutor::new();
                                let (mut client, connection) =
                                    hyper::client::conn::http2::handshake(executor, io).await.ok()?;
                                let _abort = Abort(tokio::spawn(connection.map_ended()));
                                client.send_request(request).await.ok()?.into_body().collect().await.ok()
                            } else {
                                let (mut client, connection) =
                                    hyper::client::conn::http1::handshake(io).await.ok()?;
                                let _abort = Abort(tokio::spawn(connection.map_ended()));
                                client.send_request(request).await.ok()?.into_body().collect().await.ok()
                            }
                        };
                        let _ = tokio::time::timeout(Duration::from_micros(micros), asked).await;
                    });
                }
                let asking: Vec<_> = asking.into_iter().map(tokio::spawn).collect();
                for asked in asking {
                    soon(asked).await.unwrap();
                }
            }
            site.idle().await;
            site.becomes("open_bodies == [0]").await;
            if round == 0 {
                base = Some((counts(&site), resident()));
            }
        }
        let ((objects, ours), memory) = base.unwrap();
        site.idle().await;
        eventually("no object of this crate is left", || counts(&site).1 <= ours).await;
        let (now, _) = counts(&site);
        assert!(now < objects + 200, "{objects} objects before, {now} now");
        let grown = resident().saturating_sub(memory);
        assert!(grown < 40 << 10, "{grown} KiB more than before");
        assert!(site.pool.stats().threads <= 4);
        assert_eq!(site.module.show("open_bodies"), "[0]");
        assert_eq!(site.post("/small", "alive").await.text(), "alive");
    });
}

/// Ends a connection's task when its request is given up.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait MapEnded: Future + Sized {
    async fn map_ended(self) {
        let _ = self.await;
    }
}

impl<F: Future> MapEnded for F {}

#[test]
fn a3_large_chunks_are_freed_as_they_are_sent() {
    const NAME: &str = "wsgi::manners::a3_large_chunks_are_freed_as_they_are_sent";
    if !is_alone(NAME) {
        alone(NAME, |_| {});
        return;
    }
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                return (bytes(200_000) for _ in range(2_000))
            ",
        )
        .await;
        let request = site.request("GET", "/", Full::<Bytes>::default());
        let mut response = site.send(Version::HTTP_11, request).await.unwrap();
        let before = resident();
        let (mut total, mut most) = (0, 0);
        while let Some(frame) = soon(response.frame()).await {
            total += frame.unwrap().into_data().unwrap().len();
            most = most.max(resident());
        }
        assert_eq!(total, 400_000_000);
        assert!(most < before + (48 << 10), "{before} KiB before, {most} KiB in between");
    });
}

#[test]
fn a10_a_rust_handler_on_the_same_pool_is_not_held_up_by_the_interpreter() {
    const NAME: &str = "wsgi::manners::a10_a_rust_handler_on_the_same_pool_is_not_held_up_by_the_interpreter";
    // It holds the interpreter.
    if !is_alone(NAME) {
        alone(NAME, |_| {});
        return;
    }
    run(async {
        let module = Module::new(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                return [b'python']
            ",
        );
        let pool = WorkerPool::new(4);
        let python = WsgiLayer::adapter().pool(pool.clone()).layer(module.app());
        let served = Arc::new(AtomicUsize::new(0));
        let counted = served.clone();
        let rust = WsgiLayer::adapter().pool(pool.clone()).layer(move |_: Request<Input>| {
            counted.fetch_add(1, Ordering::Relaxed);
            http::Response::new(Output::from("rust"))
        });
        let (held, holding) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            Python::attach(|_| {
                held.send(()).unwrap();
                released.recv_timeout(PATIENCE).expect("the Rust handler goes on");
            });
        });
        blocking(move || holding.recv_timeout(PATIENCE).unwrap()).await;
        let waiting: Vec<_> =
            (0..3).map(|_| tokio::spawn(python.clone().oneshot(Request::new(Body::empty())))).collect();
        eventually("Python's requests wait", || pool.stats().threads > 0).await;
        for _ in 0..50 {
            let response = soon(rust.clone().oneshot(Request::new(Body::empty()))).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(served.load(Ordering::Relaxed), 50);
        release.send(()).unwrap();
        blocking(move || holder.join().unwrap()).await;
        for waiting in waiting {
            let response = soon(waiting).await.unwrap().unwrap();
            assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "python");
        }
    });
}

#[test]
fn a13_an_application_called_directly_needs_no_runtime() {
    watched(|| {
        let module = Module::new(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                return [environ['wsgi.input'].read().upper()]
            ",
        );
        let app = module.app();
        let request = Request::post("/").body(Input::from("text")).unwrap();
        let mut text = String::new();
        app.call(request).unwrap().into_body().into_reader().read_to_string(&mut text).unwrap();
        assert_eq!(text, "TEXT");
    });
}

#[test]
fn a8_a_client_that_leaves_while_it_waits_in_the_queue_is_never_seen() {
    run(async {
        let site = site_with(
            r"
            import threading
            gate, paths = threading.Event(), []
            def app(environ, start_response):
                paths.append(environ['PATH_INFO'])
                if environ['PATH_INFO'] == '/hold': gate.wait(60)
                start_response('200 OK', [])
                return []
            ",
            1,
            |layer| layer,
        )
        .await;
        let mut holding = many(&site, "/hold", 1);
        site.becomes("paths").await;
        let mut stream = site.connect();
        let left = blocking(move || {
            stream.write_all(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            stream
        })
        .await;
        eventually("it waits", || site.pool.stats().queued == 1).await;
        drop(left);
        eventually("it is withdrawn", || site.pool.stats().queued == 0).await;
        site.module.show("gate.set()");
        soon(holding.join_next()).await.unwrap().unwrap();
        assert_eq!(site.get("/last").await.status, StatusCode::OK);
        assert_eq!(site.module.show("paths"), "['/hold', '/last']");
    });
}

#[test]
fn a11_the_interpreter_outlives_what_it_serves() {
    run(async {
        for _ in 0..5 {
            let module = Module::new(
                r"
                import threading
                local = threading.local()
                def app(environ, start_response):
                    local.count = getattr(local, 'count', 0) + 1
                    start_response('200 OK', [])
                    return [b'x']
                ",
            );
            let server = serve(WsgiLayer::adapter().workers(2).layer(module.app())).await;
            assert_eq!(server.get("/").await.text(), "x");
        }
    });
}

#[test]
fn a13_thread_locals_of_a_worker_last_as_long_as_the_worker() {
    run(async {
        let site = site_with(
            r"
            import threading
            local = threading.local()
            def app(environ, start_response):
                local.count = getattr(local, 'count', 0) + 1
                start_response('200 OK', [])
                return [b'%d' % local.count]
            ",
            1,
            |layer| layer,
        )
        .await;
        for n in 1..=5 {
            assert_eq!(site.get("/").await.text(), n.to_string());
        }
    });
}
