//! How throughput follows the settings and the machine: workers, chunks ahead of the client, the length of chunks, connections, cores.

use rustix::process::{Resource, getrlimit};

use crate::bench::{Bench, Sample, Title, start};
use crate::contenders::{BASELINE, OURS};
use crate::long;
use crate::serve::Settings;
use crate::short::{self, HTTP1, measure};
use crate::workloads::Kind;

const WORKERS: [usize; 8] = [1, 2, 4, 8, 10, 16, 32, 64];
/// As many as there are workers at most.
const FOR_WORKERS: usize = 64;
const SEND_QUEUES: [usize; 6] = [1, 2, 5, 10, 20, 50];
const CHUNKS: [usize; 6] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20];
/// Small chunks take long.
const MEBIBYTES: usize = 256;
const CONNECTIONS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const FOR_CORES: usize = 32;
/// What a process has open besides its connections, at most.
const OTHER_FILES: usize = 100;

/// Measures all that were asked for.
pub(crate) fn run(bench: &mut Bench) {
    for kind in [Kind::Hello, Kind::Block] {
        workers(bench, kind);
    }
    let mebibytes = bench.settings.mebibytes.min(MEBIBYTES);
    let settings = Settings { mebibytes, ..bench.settings.clone() };
    let queue = |size| Settings { send_queue_size: size, ..settings.clone() };
    downloads(bench, "send_queue_size", SEND_QUEUES.map(|size| (size, queue(size))));
    let chunk = |length| Settings { chunk: length, ..settings.clone() };
    downloads(bench, "chunk", CHUNKS.map(|length| (length, chunk(length))));
    connections(bench);
    cores(bench);
}

fn title(kind: Kind, parameter: &'static str) -> Title {
    Title { suite: "scale", workload: kind.name(), protocol: HTTP1.name, parameter }
}

/// A load of so many connections on a server of its own.
fn load(
    bench: &Bench,
    name: &str,
    kind: Kind,
    settings: &Settings,
    connections: usize,
    value: usize,
) -> Result<Vec<Sample>, String> {
    let server = start(name, settings)?;
    measure(bench, HTTP1, &server, &kind.exchange(settings), connections, value as f64)
}

fn workers(bench: &mut Bench, kind: Kind) {
    if !bench.wants_of_scale("workers", kind) {
        return;
    }
    bench.rounds(&[title(kind, "workers")], &[OURS], &short::METRICS, |bench, _, name, _| {
        every(WORKERS, |workers| {
            let settings = Settings { workers, ..bench.settings.clone() };
            load(bench, name, kind, &settings, FOR_WORKERS, workers)
        })
    });
}

fn downloads<const N: usize>(bench: &mut Bench, parameter: &'static str, points: [(usize, Settings); N]) {
    let kind = Kind::Iterator;
    if !bench.wants_of_scale(parameter, kind) {
        return;
    }
    bench.rounds(&[title(kind, parameter)], &[OURS], &long::METRICS, |_, _, name, _| {
        every(&points, |(value, settings)| long::measure(name, kind, settings, *value as f64))
    });
}

fn connections(bench: &mut Bench) {
    let kind = Kind::Hello;
    if !bench.wants_of_scale("connections", kind) {
        return;
    }
    let limit = getrlimit(Resource::Nofile)
        .maximum
        .map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX));
    let (possible, not): (Vec<usize>, Vec<usize>) =
        CONNECTIONS.iter().partition(|connections| **connections + OTHER_FILES <= limit);
    for connections in not {
        bench.fail(format!("{connections} connections: only {limit} files may be open (ulimit -Hn)"));
    }
    let names = [BASELINE, OURS];
    bench.rounds(&[title(kind, "connections")], &names, &short::METRICS, |bench, _, name, _| {
        every(&possible, |connections| {
            // Each may have a request that waits; by default the thousand-and-first gets 503.
            let max_queued = bench.settings.max_queued.max(*connections);
            let settings = Settings { max_queued, ..bench.settings.clone() };
            load(bench, name, kind, &settings, *connections, *connections)
        })
    });
}

fn cores(bench: &mut Bench) {
    let kind = Kind::Hello;
    if !bench.wants_of_scale("cores", kind) {
        return;
    }
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    let names = [BASELINE, OURS];
    bench.rounds(&[title(kind, "cores")], &names, &short::METRICS, |bench, _, name, _| {
        // The load generator keeps all cores: on two of them it shares what the server has.
        every([1, 2].into_iter().filter(|cores| *cores <= there), |cores| {
            let settings = Settings { cores, ..bench.settings.clone() };
            load(bench, name, kind, &settings, FOR_CORES, cores)
        })
    });
}

/// The samples of all points, up to the first error.
fn every<T>(
    points: impl IntoIterator<Item = T>,
    measure: impl FnMut(T) -> Result<Vec<Sample>, String>,
) -> Result<Vec<Sample>, String> {
    let samples: Vec<Vec<Sample>> = points.into_iter().map(measure).collect::<Result<_, _>>()?;
    Ok(samples.into_iter().flatten().collect())
}
