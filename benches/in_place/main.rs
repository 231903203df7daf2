//! The crossing from sync to async against what a user would write by hand.
//!
//! ```text
//! cargo bench --bench in_place [-- --rounds 9 --milliseconds 200 --only ready,out]
//! ```
//!
//! A plain thread calls an async service in four ways: `Handle::block_on` (the baseline), a task that is spawned on the runtime and waited for, a thread
//! with a runtime of its own as in `reqwest::blocking`, and an `AsgiHandler`. The service is ready at once, yields once, or waits for a task of its own;
//! then a body of 256 MiB goes in and another one out. From a blocking reader only the runtime thread and `AsgiHandler` stream it; the others read it all
//! before. Rounds are interleaved; each figure is a median over the rounds with the lowest and the highest, and ratios are taken within a round.
//! Every measurement is a line in `target/report/records/in_place.jsonl`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Handle};
use tower_wsgi::Body;

mod bench;
mod bodies;
mod contenders;
mod runtime_thread;

use crate::bench::Bench;
use crate::bodies::{BODY, Chunks};
use crate::contenders::{Contenders, service};

/// Compares ways to call an async service from a plain thread.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each contender is measured on each workload.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The length of a measurement.
    #[arg(long, default_value_t = 200)]
    milliseconds: u64,
    /// Only workloads whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the records cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Arguments { rounds, milliseconds, only, .. } = arguments;
    println!("{cores} cores, {rounds} interleaved rounds of {milliseconds} ms each\n");
    let mut bench = Bench::new(rounds, Duration::from_millis(milliseconds), only)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("nanoseconds per call, head and body");
    calls(&mut bench, runtime.handle())?;
    println!("\nmilliseconds for 256 MiB in chunks of 64 KiB");
    long(&mut bench, runtime.handle())?;
    println!("\neach measurement is a line in {}", bench.path().display());
    Ok(())
}

fn calls(bench: &mut Bench, runtime: &Handle) -> io::Result<()> {
    let ready = Contenders::new(runtime, service(|_| async { hello() }))?;
    bench.calls("ready", &ready)?;
    {
        let _inside = runtime.enter();
        bench.calls("ready, inside the runtime's context", &ready)?;
    }
    let yields = service(|_| async {
        tokio::task::yield_now().await;
        hello()
    });
    bench.calls("yields once", &Contenders::new(runtime, yields)?)?;
    let waits = service(|_| async {
        tokio::spawn(async {}).await.expect("no panic");
        hello()
    });
    bench.calls("waits for a task", &Contenders::new(runtime, waits)?)
}

fn long(bench: &mut Bench, runtime: &Handle) -> io::Result<()> {
    let counts = service(|request: Request<Body>| async { Response::new(Body::from(count(request).await)) });
    let upload = Contenders::new(runtime, counts)?;
    bench.bodies("256 MiB in from an async body", &upload.ways(|| Body::new(Chunks(BODY))))?;
    bench.bodies("256 MiB in from a blocking reader", &upload.reading())?;
    let sends = service(|_| async { Response::new(Body::new(Chunks(BODY))) });
    bench.bodies("256 MiB out", &Contenders::new(runtime, sends)?.ways(Body::empty))
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
