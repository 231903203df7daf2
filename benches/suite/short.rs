//! Many short requests over connections that are kept alive.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tower_wsgi_benches::load::{self, Exchange, Load};
use tower_wsgi_benches::load2;
use tower_wsgi_benches::server::Server;

use crate::bench::{Bench, CPU, P50, P99, SWITCHES, SYSTEM_CALLS, Sample, THROUGHPUT, Title, start};
use crate::serve::THREADS;
use crate::system_calls::Counter;
use crate::workloads::Kind;

pub(crate) const METRICS: [&str; 6] = [THROUGHPUT, P50, P99, CPU, SWITCHES, SYSTEM_CALLS];

/// Ten threads that sleep as the handler does and do nothing else: what the machine's timers allow ten workers.
const IDEAL: &str = "ideal";

/// What requests are sent with.
#[derive(Clone, Copy)]
pub(crate) struct Protocol {
    pub(crate) name: &'static str,
    pub(crate) version: u8,
    load: fn(SocketAddr, &Exchange, usize, Duration, Duration) -> Result<Load, String>,
}

pub(crate) const HTTP1: Protocol = Protocol { name: "HTTP/1.1", version: 1, load: load::load };
pub(crate) const HTTP2: Protocol = Protocol { name: "HTTP/2", version: 2, load: load2::load };

/// Measures one workload.
pub(crate) fn run(bench: &mut Bench, kind: Kind, protocol: Protocol) {
    let mut names = bench.contenders(kind, protocol.version);
    if kind == Kind::Block && !names.is_empty() {
        names.push(IDEAL);
    }
    let title =
        Title { suite: "crossing", workload: kind.name(), protocol: protocol.name, parameter: "connections" };
    let exchange = kind.exchange(&bench.settings);
    bench.rounds(&[title], &names, &METRICS, |bench, _, name, round| {
        let connections = &bench.arguments.connections;
        if name == IDEAL {
            return Ok(connections.iter().map(|connections| ideal(*connections, bench.time())).collect());
        }
        let server = start(name, &bench.settings)?;
        let mut all = Vec::new();
        for connections in connections.iter().copied() {
            let value = connections as f64;
            all.extend(measure(bench, protocol, &server, &exchange, connections, value)?);
            if round == 0 {
                all.extend(system_calls(bench, protocol, &server, &exchange, connections)?);
            }
        }
        Ok(all)
    });
}

/// A load, and what the server has used for it.
pub(crate) fn measure(
    bench: &Bench,
    protocol: Protocol,
    server: &Server,
    exchange: &Exchange,
    connections: usize,
    value: f64,
) -> Result<Vec<Sample>, String> {
    let before = server.usage()?;
    let load = (protocol.load)(server.address, exchange, connections, bench.warm_up(), bench.time());
    let load = load.map_err(|error| format!("{error}, with {connections} connections"))?;
    let used = server.usage()?.since(&before);
    let sample = |metric, figure| Sample { value, metric, figure };
    Ok(vec![
        sample(THROUGHPUT, load.throughput),
        sample(P50, load.median),
        sample(P99, load.p99),
        sample(SWITCHES, used.switches as f64 / load.requests as f64),
        sample(CPU, used.cpu as f64 / 1000.0 / load.requests as f64),
    ])
}

/// Counted in a load of its own, since the counting costs time.
fn system_calls(
    bench: &Bench,
    protocol: Protocol,
    server: &Server,
    exchange: &Exchange,
    connections: usize,
) -> Result<Option<Sample>, String> {
    let Some(counter) = Counter::start(server.id()) else {
        return Ok(None);
    };
    let load = (protocol.load)(server.address, exchange, connections, Duration::ZERO, bench.warm_up())?;
    let sample = |calls: u64| {
        let figure = calls as f64 / load.requests as f64;
        Sample { value: connections as f64, metric: SYSTEM_CALLS, figure }
    };
    Ok(counter.end().map(sample))
}

fn ideal(connections: usize, time: Duration) -> Sample {
    let end = Instant::now() + time;
    let sleeper = move || {
        let mut count = 0_u64;
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
            count += 1;
        }
        count
    };
    let threads: Vec<_> = (0..connections.min(THREADS)).map(|_| thread::spawn(sleeper)).collect();
    let count: u64 = threads.into_iter().map(|thread| thread.join().expect("it only sleeps")).sum();
    Sample { value: connections as f64, metric: THROUGHPUT, figure: count as f64 / time.as_secs_f64() }
}
