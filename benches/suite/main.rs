//! The crossing from async to sync against what a user would write by hand.
//!
//! ```text
//! cargo bench --bench suite [-- --rounds 7 --milliseconds 1000]
//! ```
//!
//! Three servers answer the same `Hello World!`: a native async handler (the baseline), `spawn_blocking` by hand, and a
//! `WsgiService`. All of them run in this process, one at a time under load, in interleaved rounds; each figure is a
//! median over the rounds with the lowest and the highest, and ratios are taken within a round.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt};
use tower_wsgi::{Body, Input, WsgiService};

use tower_wsgi_benches::{argument, table};

const HELLO: &str = "Hello World!";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn main() {
    let rounds = argument("--rounds", 7);
    let time = Duration::from_millis(argument("--milliseconds", 1000));
    let connections = [1, 8, 32, 256];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, {rounds} interleaved rounds of {} ms each\n", time.as_millis());

    let names = ["native async", "spawn_blocking", "WsgiService"];
    let server = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let addresses = routers().map(|router| serve(&server, router));

    println!("loopback HTTP/1.1, requests per second");
    for connections in connections {
        let mut throughput = vec![Vec::new(); names.len()];
        let mut latency = vec![Vec::new(); names.len()];
        for round in 0..=rounds {
            for (index, address) in addresses.iter().enumerate() {
                let load = load(*address, connections, time);
                if round > 0 {
                    throughput[index].push(load.throughput);
                    latency[index].push(load.latency);
                }
            }
        }
        table(&format!("{connections} connections"), &names, &throughput);
        if connections == 1 {
            table("  median latency, microseconds", &names, &latency);
        }
    }

    println!("\nin process, nanoseconds per request");
    let inside = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut cost = vec![Vec::new(); names.len()];
    for round in 0..=rounds {
        let costs = [
            in_process(&inside, service(native), time),
            in_process(&inside, service(by_hand), time),
            in_process(&inside, WsgiService::new(hello), time),
        ];
        if round > 0 {
            costs.into_iter().zip(&mut cost).for_each(|(value, column)| column.push(value));
        }
    }
    table("one after the other", &names, &cost);
}

/// The work that all servers do.
fn hello(_: Request<Input>) -> Response<&'static str> {
    Response::new(HELLO)
}

async fn native(_: Request<Body>) -> Response<Body> {
    Response::new(Body::from(HELLO))
}

/// What a user would write.
async fn by_hand(_: Request<Body>) -> Response<Body> {
    let text = tokio::task::spawn_blocking(|| HELLO).await.expect("no panic");
    Response::new(Body::from(text))
}

fn routers() -> [Router; 3] {
    [
        Router::new().route("/", get(|| async { Response::new(axum::body::Body::from(HELLO)) })),
        Router::new().route(
            "/",
            get(|| async {
                let text = tokio::task::spawn_blocking(|| HELLO).await.expect("no panic");
                Response::new(axum::body::Body::from(text))
            }),
        ),
        Router::new().route_service("/", WsgiService::new(hello)),
    ]
}

fn service<F, R>(
    handler: F,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone
where
    F: Fn(Request<Body>) -> R + Clone + Send,
    R: Future<Output = Response<Body>> + Send,
{
    tower::service_fn(move |request| {
        let response = handler(request);
        async move { Ok(response.await) }
    })
}

fn serve(runtime: &Runtime, router: Router) -> SocketAddr {
    // tokio's backlog is long enough for all clients at once.
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async move {
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            stream.set_nodelay(true).expect("a socket");
        });
        axum::serve(listener, router).await.expect("a server");
    });
    address
}

struct Load {
    throughput: f64,
    /// The median in microseconds.
    latency: f64,
}

/// Loads a server from one thread with so many connections, each with one request at a time.
fn load(address: SocketAddr, connections: usize, time: Duration) -> Load {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            streams.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let start = Instant::now();
        let clients = streams.into_iter().map(|stream| tokio::spawn(client(stream, start + time)));
        let clients: Vec<_> = clients.collect();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(client.await.expect("a client"));
        }
        let elapsed = start.elapsed().as_secs_f64();
        let throughput = latencies.len() as f64 / elapsed;
        latencies.sort_unstable();
        let latency = latencies[latencies.len() / 2] as f64 / 1000.0;
        Load { throughput, latency }
    })
}

/// The latency of each request in nanoseconds.
async fn client(mut stream: TcpStream, end: Instant) -> Vec<u64> {
    stream.set_nodelay(true).expect("a socket");
    let mut latencies = Vec::new();
    let mut buffer = [0; 1024];
    let mut length = 0;
    loop {
        let start = Instant::now();
        if start >= end {
            return latencies;
        }
        stream.write_all(REQUEST).await.expect("a request");
        let mut got = 0;
        while length == 0 || got < length {
            let n = stream.read(&mut buffer[got..]).await.expect("a response");
            assert!(n > 0, "the server closed the connection");
            got += n;
            // All responses of a server have the same length: look for the end of the first one only.
            if length == 0 && buffer[..got].ends_with(HELLO.as_bytes()) {
                length = got;
            }
        }
        latencies.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Calls a service again and again from a task of a runtime.
fn in_process<S>(runtime: &Runtime, service: S, time: Duration) -> f64
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let task = runtime.spawn(async move {
        let start = Instant::now();
        let mut count = 0_u64;
        while start.elapsed() < time {
            for _ in 0..100 {
                let Ok(response) = service.clone().oneshot(Request::new(Body::empty())).await;
                assert!(response.status().is_success());
            }
            count += 100;
        }
        start.elapsed().as_nanos() as f64 / count as f64
    });
    runtime.block_on(task).expect("no panic")
}
