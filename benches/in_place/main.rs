//! The crossing from sync to async against what a user would write by hand.
//!
//! ```text
//! cargo bench --bench in_place [-- --rounds 9 --milliseconds 200]
//! ```
//!
//! A plain thread calls an async service in three ways: `Handle::block_on` (the baseline), a task that is spawned on the runtime and waited for, and an
//! `AsgiHandler`. The service is ready at once, yields once, or waits for a task of its own; then a body of 256 MiB goes in and another one out. Rounds are
//! interleaved; each figure is a median over the rounds with the lowest and the highest, and ratios are taken within a round.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Handle};
use tower::{Layer, Service, ServiceExt};
use tower_wsgi::{AsgiHandler, AsgiLayer, Body, BoxError, Input, Output, SyncHandler};

use tower_wsgi_benches::{argument, table};

const CHUNK: usize = 64 * 1024;
const BODY: usize = 256 * 1024 * 1024;

fn main() {
    let rounds = argument("--rounds", 9);
    let time = Duration::from_millis(argument("--milliseconds", 200));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, {rounds} interleaved rounds of {} ms each\n", time.as_millis());
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let runtime = runtime.handle();

    println!("nanoseconds per call, head and body");
    calls("a service that is ready", rounds, time, runtime, service(|_| async { hello() }));
    {
        let _inside = runtime.enter();
        calls(
            "the same from inside the runtime's context",
            rounds,
            time,
            runtime,
            service(|_| async { hello() }),
        );
    }
    let yielding = service(|_| async {
        tokio::task::yield_now().await;
        hello()
    });
    calls("a service that yields", rounds, time, runtime, yielding);
    let waiting = service(|_| async {
        tokio::spawn(async {}).await.expect("no panic");
        hello()
    });
    calls("a service that waits for a task", rounds, time, runtime, waiting);

    println!("\nmilliseconds for 256 MiB in chunks of 64 KiB");
    let upload = service(|request: Request<Body>| async { Response::new(Body::from(count(request).await)) });
    let up = || Request::new(Body::new(Chunks(BODY)));
    bodies(
        "in, from an async body",
        rounds,
        &[
            ("block_on", &|| by_block_on(runtime, &upload, up())),
            ("spawn and wait", &|| by_spawn(runtime, &upload, up())),
            ("AsgiHandler", &|| by_handler(&handler(runtime, upload.clone()), up().map(Input::from))),
        ],
    );
    bodies(
        "in, from a blocking reader",
        rounds,
        &[
            ("block_on, read before", &|| by_block_on(runtime, &upload, Request::new(read_before()))),
            ("spawn, read before", &|| by_spawn(runtime, &upload, Request::new(read_before()))),
            ("AsgiHandler", &|| {
                let input = Input::reader(io::repeat(b'x').take(BODY as u64));
                by_handler(&handler(runtime, upload.clone()), Request::new(input));
            }),
        ],
    );
    let download = service(|_| async { Response::new(Body::new(Chunks(BODY))) });
    let down = || Request::new(Body::empty());
    bodies(
        "out",
        rounds,
        &[
            ("block_on", &|| by_block_on(runtime, &download, down())),
            ("spawn and wait", &|| by_spawn(runtime, &download, down())),
            ("AsgiHandler", &|| by_handler(&handler(runtime, download.clone()), down().map(Input::from))),
        ],
    );
}

trait Hello: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> {}

impl<S> Hello for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
{
}

fn service<F, R>(handler: F) -> impl Hello + Clone + Send + 'static
where
    F: Fn(Request<Body>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    tower::service_fn(move |request| {
        let response = handler(request);
        async move { Ok(response.await) }
    })
}

fn handler<S: Hello + Clone + Send + 'static>(runtime: &Handle, service: S) -> AsgiHandler<S> {
    AsgiLayer::adapter().runtime(runtime.clone()).layer(service)
}

fn hello() -> Response<Body> {
    Response::new(Body::from("Hello World!"))
}

async fn count(request: Request<Body>) -> String {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.expect("a frame").data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(length, BODY);
    length.to_string()
}

/// What a user would write for a host that needs the body's frames one by one.
fn by_block_on<S: Hello + Clone>(runtime: &Handle, service: &S, request: Request<Body>) {
    let Ok(response) = runtime.block_on(service.clone().oneshot(request));
    let mut body = response.into_body();
    while let Some(frame) = runtime.block_on(body.frame()) {
        frame.expect("a frame");
    }
}

/// The same with a task that is ahead of the host by up to ten frames.
fn by_spawn<S: Hello + Clone + Send + 'static>(runtime: &Handle, service: &S, request: Request<Body>) {
    let (head, got_head) = tokio::sync::oneshot::channel();
    let (sender, mut frames) = tokio::sync::mpsc::channel(10);
    let service = service.clone();
    runtime.spawn(async move {
        let Ok(response) = service.oneshot(request).await;
        let (parts, mut body) = response.into_parts();
        let _ = head.send(parts);
        while let Some(frame) = body.frame().await {
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    got_head.blocking_recv().expect("a head");
    while let Some(frame) = frames.blocking_recv() {
        frame.expect("a frame");
    }
}

fn by_handler(handler: &impl SyncHandler, request: Request<Input>) {
    let response = handler.call(request).expect("a response");
    let mut body = response.map(Output::into_reader).into_body();
    while body.chunk().expect("a chunk").is_some() {}
}

fn calls<S: Hello + Clone + Send + 'static>(
    title: &str,
    rounds: u64,
    time: Duration,
    runtime: &Handle,
    service: S,
) {
    let handler = handler(runtime, service.clone());
    let names = ["block_on", "spawn and wait", "AsgiHandler"];
    let mut columns = vec![Vec::new(); names.len()];
    for round in 0..=rounds {
        let costs = [
            cost(time, || by_block_on(runtime, &service, Request::new(Body::empty()))),
            cost(time, || by_spawn(runtime, &service, Request::new(Body::empty()))),
            cost(time, || by_handler(&handler, Request::new(Input::empty()))),
        ];
        if round > 0 {
            costs.into_iter().zip(&mut columns).for_each(|(value, column)| column.push(value));
        }
    }
    table(title, &names, &columns);
}

/// Nanoseconds per call.
fn cost(time: Duration, call: impl Fn()) -> f64 {
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < time {
        for _ in 0..100 {
            call();
        }
        count += 100;
    }
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

fn bodies(title: &str, rounds: u64, ways: &[(&str, &dyn Fn())]) {
    let mut columns = vec![Vec::new(); ways.len()];
    for round in 0..=rounds {
        for ((_, way), column) in ways.iter().zip(&mut columns) {
            let start = Instant::now();
            way();
            if round > 0 {
                column.push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    let names: Vec<_> = ways.iter().map(|(name, _)| *name).collect();
    table(title, &names, &columns);
}

/// So many bytes, in fresh chunks, as from a socket.
struct Chunks(usize);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= CHUNK;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; CHUNK])))))
    }
}

/// What a user without a pump would do with a blocking reader.
fn read_before() -> Body {
    let mut bytes = Vec::new();
    io::repeat(b'x').take(BODY as u64).read_to_end(&mut bytes).expect("bytes");
    Body::from(bytes)
}
