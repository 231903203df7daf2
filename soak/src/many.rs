//! Thousands of connections at the same time, some of which stall.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_wsgi::BoxError;

use crate::child::Server;
use crate::client::{Connection, Upload};
use crate::pattern::{Count, LONGEST};
use crate::sites::Question;
use crate::visits::{self, Site, sites};

/// How many connect, or have a request on its way, at the same moment: no more than a listener's queue takes, and than wait for a worker without being refused.
const AT_ONCE: usize = 500;

/// What stalls in its middle: more than the server reads ahead or the kernel buffers.
const STALLED: usize = 8 * 1024 * 1024;

/// Opens so many connections, has a tenth stall in their uploads and a tenth in their downloads, and the rest send requests.
pub(crate) async fn run(connections: usize) -> Result<(), BoxError> {
    let server = Server::start()?;
    let start = server.holdings()?;
    let sites: Vec<Site> =
        sites(server.address, server.host).into_iter().filter(|site| site.speaks_all).collect();

    let begin = Instant::now();
    let mut open = Vec::with_capacity(connections);
    while open.len() < connections {
        let mut opening = JoinSet::new();
        for number in 0..AT_ONCE.min(connections - open.len()) {
            let site = sites[number % sites.len()];
            opening.spawn(async move {
                let mut connection = Connection::over(connect(site.address).await?, false).await?;
                hello(&mut connection, &site).await?;
                Ok::<_, BoxError>((connection, site))
            });
        }
        while let Some(opened) = opening.join_next().await {
            open.push(opened??);
        }
    }
    let now = server.holdings()?;
    println!(
        "{connections} connections, each with its first response: {:.1} s, {} files, {} threads, {:.1} KiB each",
        begin.elapsed().as_secs_f64(),
        now.files,
        now.threads,
        (now.resident.saturating_sub(start.resident)) as f64 / connections as f64
    );

    let mut uploads = JoinSet::new();
    let mut downloads: Vec<(Connection, Response<Incoming>)> = Vec::new();
    for _ in 0..connections / 10 {
        let (mut connection, site) = open.pop().ok_or("too few connections")?;
        let question = Question { bytes: STALLED, size: LONGEST, fails: None };
        let target = format!("{}/download?{}", site.prefix, question.query());
        let response = connection.send(&target, None).await?;
        downloads.push((connection, response));
    }
    for _ in 0..connections / 10 {
        let (mut connection, site) = open.pop().ok_or("too few connections")?;
        let pause = Duration::from_secs(3);
        uploads.spawn(async move {
            let upload = Upload::declared(50_000).pausing(pause);
            told("a stalled upload", &site, connection.count(site.prefix, upload)).await
        });
    }
    let begin = Instant::now();
    let mut asking = JoinSet::new();
    let others = open.len();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    for (mut connection, site) in open {
        let turns = turns.clone();
        asking.spawn(async move {
            let _turn = turns.acquire().await?;
            for _ in 0..2 {
                told("a request", &site, visits::request(&mut connection, &site)).await?;
                told("a greeting", &site, hello(&mut connection, &site)).await?;
            }
            Ok::<_, BoxError>(connection)
        });
    }
    let mut idle = Vec::new();
    while let Some(asked) = asking.join_next().await {
        idle.push(asked??);
    }
    println!(
        "{} requests of {others} connections beside {} stalled downloads and {} stalled uploads: {:.1} s",
        4 * others,
        downloads.len(),
        uploads.len(),
        begin.elapsed().as_secs_f64()
    );
    while let Some(uploaded) = uploads.join_next().await {
        uploaded??;
    }
    for (_connection, response) in downloads {
        if response.status() != StatusCode::OK {
            return Err(format!("{} for a download", response.status()).into());
        }
        let (mut count, mut body) = (Count::default(), response.into_body());
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                count.add(&bytes)?;
            }
        }
        if count.length() != STALLED {
            return Err(format!("{} bytes of a stalled download", count.length()).into());
        }
    }
    println!("what was stalled ended as it should");
    drop(idle);
    server.stop()?;
    Ok(())
}

/// Connects with room for little: a thousand downloads that stall would fill what memory the kernel has for all connections, which then drops what others send.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 * 1024)?;
    socket.connect(address).await
}

/// Says of a failure what failed, where, and after how long.
async fn told(
    what: &str,
    site: &Site,
    paid: impl Future<Output = Result<(), BoxError>>,
) -> Result<(), BoxError> {
    let begin = Instant::now();
    let paid = paid.await;
    paid.map_err(|error| format!("{what} to {}, after {:.1?}: {error}", site.prefix, begin.elapsed()).into())
}

async fn hello(connection: &mut Connection, site: &Site) -> Result<(), BoxError> {
    let response = connection.send(&format!("{}/hello", site.prefix), None).await?;
    let text = response.into_body().collect().await?.to_bytes();
    if text != "Hello World!" { Err(format!("{text:?} instead of a greeting").into()) } else { Ok(()) }
}
