//! What the servers are asked for, and what they must answer.

use std::time::Instant;

use serde_json::{Value, json};
use tower_wsgi_benches::load::Exchange;

use crate::serve::{Settings, compute};

/// What a server has to be able to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello,
    Echo,
    Block,
    Compute,
    Upload,
    Iterator,
    Reader,
    Writer,
    Mixed,
}

impl Kind {
    /// Those of many requests, with HTTP/1.1.
    pub(crate) const SHORT: [Kind; 4] = [Kind::Hello, Kind::Echo, Kind::Block, Kind::Compute];
    /// Those of one long body.
    pub(crate) const LONG: [Kind; 4] = [Kind::Upload, Kind::Iterator, Kind::Reader, Kind::Writer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Hello => "hello",
            Kind::Echo => "echo",
            Kind::Block => "blocks 1 ms",
            Kind::Compute => "computes 100 µs",
            Kind::Upload => "upload",
            Kind::Iterator => "download, iterator",
            Kind::Reader => "download, reader",
            Kind::Writer => "download, writer",
            Kind::Mixed => "mixed",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Hello | Kind::Mixed => "/hello",
            Kind::Echo => "/echo",
            Kind::Block => "/block",
            Kind::Compute => "/compute",
            Kind::Upload => "/upload",
            Kind::Iterator => "/iterator",
            Kind::Reader => "/reader",
            Kind::Writer => "/writer",
        }
    }

    /// The request of a short workload, and its answer.
    pub(crate) fn exchange(self, settings: &Settings) -> Exchange {
        match self {
            Kind::Echo => {
                let json = json();
                Exchange::post(self.path(), &json, &json)
            }
            Kind::Block => Exchange::get(self.path(), b"done"),
            Kind::Compute => Exchange::get(self.path(), compute(settings.steps).to_string().as_bytes()),
            _ => Exchange::get(Kind::Hello.path(), b"Hello World!"),
        }
    }
}

/// 64 KiB of JSON, which is the same after it was parsed and written again.
fn json() -> Vec<u8> {
    const LENGTH: usize = 64 * 1024;
    let text = "Pack my box with five dozen liquor jugs. ".repeat(10);
    let row = |id: usize| {
        json!({
            "id": id,
            "name": format!("row number {id}"),
            "price": id as f64 + 0.25,
            "tags": ["synchronous", "asynchronous", null],
            "text": text,
            "valid": id.is_multiple_of(3),
        })
    };
    let written = |rows: &[Value], padding: &str| {
        let value = json!({ "padding": padding, "rows": rows });
        value.to_string().into_bytes()
    };
    let mut rows = Vec::new();
    while written(&rows, "").len() < LENGTH - 1024 {
        rows.push(row(rows.len()));
    }
    let missing = LENGTH - written(&rows, "").len();
    written(&rows, &"x".repeat(missing))
}

/// How many steps of a computation take 100 µs on this machine.
pub(crate) fn calibrate() -> u64 {
    const STEPS: u64 = 1_000_000;
    let time = || {
        let start = Instant::now();
        std::hint::black_box(compute(STEPS));
        start.elapsed().as_nanos()
    };
    // The least disturbed time.
    let nanoseconds = (0..20).map(|_| time()).min().unwrap_or(1).max(1);
    let steps = u128::from(STEPS) * 100_000 / nanoseconds;
    u64::try_from(steps).unwrap_or(STEPS).max(1)
}
