//! One long body over one connection: uploads that the handler counts, and downloads in pieces.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tower_wsgi_benches::load::{Exchange, once, post_head};
use tower_wsgi_benches::server::Server;

use crate::bench::{Bench, CPU, SPEED, SWITCHES, Sample, Title, start};
use crate::serve::{Settings, at, pattern};
use crate::workloads::Kind;

pub(crate) const METRICS: [&str; 3] = [SPEED, CPU, SWITCHES];

/// How much the client writes and compares at once.
const PIECE: usize = 256 * 1024;

/// Measures one workload.
pub(crate) fn run(bench: &mut Bench, kind: Kind) {
    let title = Title { suite: "crossing", workload: kind.name(), protocol: "HTTP/1.1", parameter: "" };
    let names = bench.contenders(kind, 1);
    bench.rounds(&[title], &names, &METRICS, |bench, _, name, _| measure(name, kind, &bench.settings, 0.0));
}

/// One body, and what the server used for it.
pub(crate) fn measure(
    name: &str,
    kind: Kind,
    settings: &Settings,
    value: f64,
) -> Result<Vec<Sample>, String> {
    let server = start(name, settings)?;
    let before = server.usage()?;
    let begin = Instant::now();
    transfer(&server, kind, settings)?;
    let seconds = begin.elapsed().as_secs_f64();
    let used = server.usage()?.since(&before);
    let sample = |metric, figure| Sample { value, metric, figure };
    Ok(vec![
        sample(SPEED, settings.mebibytes as f64 / seconds),
        sample(CPU, used.cpu as f64 / 1000.0),
        sample(SWITCHES, used.switches as f64),
    ])
}

fn transfer(server: &Server, kind: Kind, settings: &Settings) -> Result<(), String> {
    let length = settings.length();
    let pattern = pattern(PIECE);
    let piece = |offset: usize, length: usize| &pattern[at(offset)..at(offset) + length];
    let get = Exchange::get(kind.path(), b"").request;
    let mut answer = Vec::new();
    let received = match kind {
        Kind::Upload => {
            let write = |stream: &mut TcpStream| {
                stream.write_all(&post_head(kind.path(), length))?;
                let mut offsets = (0..length).step_by(PIECE);
                offsets.try_for_each(|offset| stream.write_all(piece(offset, PIECE.min(length - offset))))
            };
            let keep = |_, bytes: &[u8]| {
                answer.extend_from_slice(bytes);
                true
            };
            once(server.address, write, Duration::ZERO, keep)
        }
        _ => {
            let expected = |offset: usize, bytes: &[u8]| bytes == piece(offset, bytes.len());
            once(server.address, |stream| stream.write_all(&get), Duration::ZERO, expected)
        }
    };
    let received = received.map_err(|error| error.to_string())??;
    match kind {
        Kind::Upload if answer != length.to_string().as_bytes() => {
            Err(format!("{} instead of {length} bytes have come", String::from_utf8_lossy(&answer)))
        }
        Kind::Upload => Ok(()),
        _ if received != length => Err(format!("{received} instead of {length} bytes have come")),
        _ => Ok(()),
    }
}
