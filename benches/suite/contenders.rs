//! Who takes part in what.

use crate::serve::{self, Run};
use crate::workloads::Kind;

/// Whom all others are compared with.
pub(crate) const BASELINE: &str = "native";
pub(crate) const OURS: &str = "WsgiService";

/// A server.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
    pub(crate) workloads: &'static [Kind],
    pub(crate) http2: bool,
    /// What is wrong with it, so that its failures are told and are not this suite's.
    pub(crate) fault: Option<&'static str>,
}

impl Contender {
    const fn new(name: &'static str, run: Run, workloads: &'static [Kind]) -> Contender {
        Contender { name, run, workloads, http2: false, fault: None }
    }

    const fn with_http2(self) -> Contender {
        Contender { http2: true, ..self }
    }

    const fn with_fault(self, fault: &'static str) -> Contender {
        Contender { fault: Some(fault), ..self }
    }
}

use Kind::{Block, Compute, Echo, Hello, Iterator, Mixed, Reader, Upload, Writer};

/// What every one can do whose code may block.
const BLOCKING: &[Kind] = &[Hello, Echo, Block, Compute, Upload, Reader];
const ALL: &[Kind] = &[Hello, Echo, Block, Compute, Upload, Iterator, Reader, Writer, Mixed];

/// All servers. Why one is not in a workload stands in its module.
pub(crate) const CONTENDERS: &[Contender] = &[
    Contender::new(BASELINE, serve::NATIVE, &[Hello, Echo, Compute, Upload, Iterator, Reader, Writer, Mixed])
        .with_http2(),
    Contender::new("native, 1 thread", serve::NATIVE_1, &[Hello]),
    Contender::new(OURS, serve::OURS, ALL).with_http2(),
    Contender::new("WsgiService, 1 thread", serve::OURS_1, &[Hello]),
    Contender::new("spawn_blocking", serve::SPAWN_BLOCKING, ALL).with_http2(),
    Contender::new("block_in_place", serve::IN_PLACE, &[Hello, Echo, Block, Compute, Iterator, Reader]),
    Contender::new("SyncIoBridge", serve::BRIDGE, &[Echo, Upload, Reader, Writer]),
    Contender::new(
        "actix web::block",
        serve::ACTIX,
        &[Hello, Echo, Block, Compute, Upload, Iterator, Reader, Writer],
    ),
    // Version 0.4.0: what is ready between a read that would block and the note of that is lost.
    Contender::new("astra", serve::ASTRA, BLOCKING).with_fault("its reactor misses some events"),
    Contender::new("rouille", serve::ROUILLE, BLOCKING),
    Contender::new("tiny_http", serve::TINY_HTTP, BLOCKING),
];

/// The one with this name.
pub(crate) fn named(name: &str) -> Result<&'static Contender, String> {
    let contender = CONTENDERS.iter().find(|contender| contender.name == name);
    contender.ok_or_else(|| format!("no server has the name {name}"))
}
