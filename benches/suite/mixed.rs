//! What clients that do not read, or do not send, cost those that do: hello over a few connections, alone on the server and then
//! besides a thousand downloads and a hundred uploads that have stopped.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tower_wsgi_benches::load::{Exchange, post_head};

use crate::bench::{Bench, CPU, P50, P99, Sample, THROUGHPUT, Title, start};
use crate::short::{HTTP1, measure};
use crate::workloads::Kind;

const METRICS: [&str; 4] = [THROUGHPUT, P50, P99, CPU];
const CONNECTIONS: usize = 8;
const DOWNLOADS: usize = 1000;
const UPLOADS: usize = 100;
/// What such a client has room for, so that the server's side is what has to wait.
const ROOM: usize = 16 * 1024;
/// How much of an upload comes.
const SENT: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(5);
/// Each stalled download holds one of its threads, of which there are 512.
const STARVES: &str = "spawn_blocking";

const ALONE: &str = "mixed, alone";
const STALLED: &str = "mixed, with stalled clients";

/// Measures both, each as a workload.
pub(crate) fn run(bench: &mut Bench) {
    let names = bench.contenders(Kind::Mixed, HTTP1.version);
    let title = |workload| Title { suite: "crossing", workload, protocol: HTTP1.name, parameter: "" };
    bench.rounds(&[title(ALONE), title(STALLED)], &names, &METRICS, |bench, title, name, _| {
        let server = start(name, &bench.settings)?;
        let exchange = Kind::Hello.exchange(&bench.settings);
        // It varies nothing: both are drawn beside each other.
        let value = 0.0;
        if title.workload == ALONE {
            return measure(bench, HTTP1, &server, &exchange, CONNECTIONS, value);
        }
        let stalled = stall(server.address, bench.settings.length());
        let stalled = stalled.map_err(|error| format!("no stalled client: {error}"))?;
        if name == STARVES && starved(server.address, &exchange) {
            println!("{STALLED}: no answer within {} s from {name}", PATIENCE.as_secs());
            return Ok(vec![Sample { value, metric: THROUGHPUT, figure: 0.0 }]);
        }
        let samples = measure(bench, HTTP1, &server, &exchange, CONNECTIONS, value);
        // It ends before its clients, whose ends it would tell.
        drop(server);
        drop(stalled);
        samples
    });
}

/// Clients that hold their connections until they are dropped. Downloads alternate between iterators and readers.
fn stall(address: SocketAddr, length: usize) -> io::Result<Vec<TcpStream>> {
    let download = |index: usize| {
        let kind = if index.is_multiple_of(2) { Kind::Iterator } else { Kind::Reader };
        let mut stream = request(address, &Exchange::get(kind.path(), b"").request)?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        match head.ends_with(b" 200") {
            true => Ok(stream),
            false => Err(io::Error::other(String::from_utf8_lossy(&head).into_owned())),
        }
    };
    let upload = |_| {
        let body = vec![0; SENT];
        request(address, &[post_head(Kind::Upload.path(), length), body].concat())
    };
    (0..DOWNLOADS).map(download).chain((0..UPLOADS).map(upload)).collect()
}

fn request(address: SocketAddr, request: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, ROOM)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    Ok(stream)
}

/// Whether a request gets no answer at all.
fn starved(address: SocketAddr, exchange: &Exchange) -> bool {
    let answer = request(address, &exchange.request).and_then(|mut stream| stream.read(&mut [0; 1]));
    answer.is_err()
}
