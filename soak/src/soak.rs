//! All visits mixed, for as long as is asked for; after each round the server has to have what it had before the first.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tower_wsgi::BoxError;

use crate::child::{Holdings, Server};
use crate::client::Connection;
use crate::visits::{Site, VISITS, Visit, sites};

/// How long one visit may take. None waits for a time limit of the server's.
const VISIT: Duration = Duration::from_secs(60);

/// How long it may take until the server is quiet. Idle workers end after ten seconds.
const QUIET: Duration = Duration::from_secs(60);

/// How many more Python objects there may be than after the first visits: some are kept for later.
const OBJECTS: u64 = 200;

/// How much more memory may be resident than after the rounds of the first third, in KiB: allocators keep some.
const SLACK: u64 = 16 * 1024;

/// Runs so many rounds of a length, by so many clients at a time.
pub(crate) async fn run(rounds: u32, round: Duration, clients: usize, seed: u64) -> Result<(), BoxError> {
    let server = Server::start()?;
    let sites = sites(server.address, server.host);
    // What is made once and kept: runtimes, caches, an allocator's first pages.
    for (site, visit) in sites.iter().flat_map(|site| VISITS.map(|visit| (site, visit))) {
        pay(visit, site).await?;
    }
    let start = quiet(&server, None).await?;
    println!("start                  {start}");
    let mut visits = BTreeMap::new();
    let mut resident = vec![start.process.resident];
    for number in 1..=rounds {
        for (visit, paid) in crowd(sites, round, clients, seed.wrapping_add(u64::from(number))).await? {
            *visits.entry(visit).or_insert(0) += paid;
        }
        let now = quiet(&server, Some(&start)).await?;
        println!("round {number:3} {:9} visits {now}", visits.values().sum::<u64>());
        resident.push(now.process.resident);
    }
    for (visit, paid) in &visits {
        println!("{paid:9} {visit:?}");
    }
    let (early, late) = resident.split_at(resident.len().div_ceil(3));
    let (early, late) = (early.iter().max().copied(), late.iter().max().copied());
    if early.zip(late).is_some_and(|(early, late)| late > early + SLACK) {
        return Err(format!("memory goes on growing: {resident:?} KiB").into());
    }
    server.stop()?;
    Ok(())
}

async fn crowd(
    sites: [Site; 5],
    length: Duration,
    clients: usize,
    seed: u64,
) -> Result<BTreeMap<Visit, u64>, BoxError> {
    let end = Instant::now() + length;
    let mut crowd = JoinSet::new();
    for client in 0..clients {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(client as u64));
        crowd.spawn(async move {
            let mut visits = BTreeMap::new();
            while Instant::now() < end {
                let visit = VISITS[random.usize(..VISITS.len())];
                pay(visit, &sites[random.usize(..sites.len())]).await?;
                *visits.entry(visit).or_insert(0) += 1;
            }
            Ok::<_, BoxError>(visits)
        });
    }
    let mut visits = BTreeMap::new();
    while let Some(result) = crowd.join_next().await {
        for (visit, paid) in result?? {
            *visits.entry(visit).or_insert(0) += paid;
        }
    }
    Ok(visits)
}

async fn pay(visit: Visit, site: &Site) -> Result<(), BoxError> {
    match tokio::time::timeout(VISIT, visit.pay(site)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{visit:?} at {:?}: {error} ({error:?})", site.prefix).into()),
        Err(_) => Err(format!("{visit:?} at {:?} hangs", site.prefix).into()),
    }
}

/// What there is in the server.
#[derive(Debug)]
struct State {
    process: Holdings,
    /// Tasks of both runtimes, what the pools do, Python's objects.
    inside: BTreeMap<String, u64>,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Holdings { threads, files, resident } = self.process;
        write!(f, "{threads} threads, {files} files, {:.1} MiB, {:?}", resident as f64 / 1024.0, self.inside)
    }
}

/// Waits until nothing is left of the clients: no work, no worker, and no more than there was.
async fn quiet(server: &Server, start: Option<&State>) -> Result<State, BoxError> {
    let end = Instant::now() + QUIET;
    loop {
        let inside = inside(server).await?;
        let mut state = State { process: server.holdings()?, inside };
        // Python's objects are counted by workers, who end some time after.
        while server.workers()? > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
            state.process = server.holdings()?;
        }
        let is_no_more = start.is_none_or(|start| {
            state.process.threads <= start.process.threads
                && state.process.files <= start.process.files
                && start.inside.iter().all(|(key, least)| {
                    let slack = if key.ends_with("objects") { OBJECTS } else { 0 };
                    state.inside.get(key).is_some_and(|now| *now <= least + slack)
                })
        });
        if is_no_more && server.workers()? == 0 && state.inside.get("work") == Some(&0) {
            return Ok(state);
        }
        if Instant::now() > end {
            return Err(format!("it is not as it was:\n{state}\n{start:#?}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn inside(server: &Server) -> Result<BTreeMap<String, u64>, BoxError> {
    let mut inside = BTreeMap::new();
    for prefix in ["/wsgi", "/asgi", ""] {
        let mut connection = Connection::open(server.address, false).await?;
        let response = connection.send(&format!("{prefix}/state"), None).await?;
        let text = response.into_body().collect().await?.to_bytes();
        for field in std::str::from_utf8(&text)?.split(' ') {
            let (name, number) = field.split_once('=').ok_or("another answer than expected")?;
            inside.insert(
                format!("{prefix} {name}").trim_start_matches(['/', ' ']).to_owned(),
                number.parse()?,
            );
        }
    }
    Ok(inside)
}
