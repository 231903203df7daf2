//! What long uploads and downloads cost in memory: a server that bounds its queues stays where it was.
//!
//! The application waits a second before it reads an upload, and the client a second before it reads a download; in that
//! time a server without bounds takes in as much as there is.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use tower_wsgi_benches::load::{Exchange, once};

use crate::contenders::{Contender, Interface};
use crate::environment::Environment;
use crate::server::Server;
use crate::workloads::Workload;
use crate::{Arguments, named};

/// As in `streams.py`.
const PIECE: usize = 64 * 1024;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Prints a table, and gives what has failed.
pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> Vec<String> {
    println!(
        "\nresident memory in MiB while {} MiB go through in pieces of 64 KiB, all processes of a server together",
        arguments.mebibytes
    );
    let mut failures = Vec::new();
    for (name, interface, application) in
        [("WSGI", Interface::Wsgi, "streams:wsgi"), ("ASGI", Interface::Asgi, "streams:asgi")]
    {
        for direction in [Direction::Upload, Direction::Download] {
            let title = format!("{name} {}", direction.name());
            if !named(&title, &arguments.only) {
                continue;
            }
            println!("{title:<24} {:>8} {:>8} {:>8}", "idle", "peak", "more");
            let exchange = Exchange::get("/download/1", &[b'x'; PIECE]);
            let workload = Workload { name: "", interface, application, exchange };
            for contender in arguments.contenders(&workload) {
                match measure(arguments, environment, contender, &workload, &direction) {
                    Ok((idle, peak)) => {
                        let (idle, peak) = (idle as f64 / MEBIBYTE, peak as f64 / MEBIBYTE);
                        println!("  {:<22} {idle:>8.1} {peak:>8.1} {:>8.1}", contender.name, peak - idle);
                    }
                    Err(failure) => {
                        let failure = format!("{title}, {}: {failure}", contender.name);
                        eprintln!("FAILED {failure}");
                        failures.push(failure);
                    }
                }
            }
        }
    }
    failures
}

enum Direction {
    Upload,
    Download,
}

impl Direction {
    fn name(&self) -> &'static str {
        match self {
            Direction::Upload => "upload",
            Direction::Download => "download",
        }
    }
}

fn measure(
    arguments: &Arguments,
    environment: &Environment,
    contender: &Contender,
    workload: &Workload,
    direction: &Direction,
) -> Result<(u64, u64), String> {
    let server = Server::start(environment, contender, workload.application, &workload.exchange)?;
    let length = arguments.mebibytes * 1024 * 1024;
    let (idle, _) = server.memory();
    server.forget_peak();
    let result = match direction {
        Direction::Upload => upload(&server, length),
        Direction::Download => download(&server, length),
    };
    result.map_err(|error| server.told(&error))?;
    Ok((idle, server.memory().1))
}

fn upload(server: &Server, length: usize) -> Result<(), String> {
    let write = |stream: &mut TcpStream| -> io::Result<()> {
        let head = format!("POST /upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        (0..length / PIECE).try_for_each(|_| stream.write_all(&[b'x'; PIECE]))
    };
    let answer = length.to_string();
    let mut text = Vec::new();
    let keep = |_, piece: &[u8]| {
        text.extend_from_slice(piece);
        true
    };
    once(server.address, write, Duration::ZERO, keep).map_err(|error| error.to_string())??;
    match text == answer.as_bytes() {
        true => Ok(()),
        false => Err(format!("{} instead of {answer} bytes have come", String::from_utf8_lossy(&text))),
    }
}

fn download(server: &Server, length: usize) -> Result<(), String> {
    let request = Exchange::get(&format!("/download/{}", length / PIECE), b"").request;
    let write = |stream: &mut TcpStream| stream.write_all(&request);
    let expected = |_, piece: &[u8]| piece.iter().all(|byte| *byte == b'x');
    let got = once(server.address, write, Duration::from_secs(1), expected)
        .map_err(|error| error.to_string())??;
    match got == length {
        true => Ok(()),
        false => Err(format!("{got} instead of {length} bytes have come")),
    }
}
