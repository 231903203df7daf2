//! What clients do: well-behaved ones, whose responses have to be right, and all kinds of others.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower_wsgi::BoxError;

use crate::client::{Connection, FalseEnd, Upload, short_or_long};
use crate::pattern::{LONGEST, piece};
use crate::sites::Question;

/// The longest body.
const LONG: usize = 400_000;

/// Where a site is, and what its host speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) prefix: &'static str,
    /// HTTP/2, requests in chunks, more than one request for each connection.
    pub(crate) speaks_all: bool,
    /// Downloads, each by another kind of body.
    pub(crate) downloads: &'static [&'static str],
}

/// All sites of a server.
pub(crate) fn sites(address: SocketAddr, host: SocketAddr) -> [Site; 5] {
    let site = |prefix, downloads| Site { address, prefix, speaks_all: true, downloads };
    [
        site("/sync", &["/download", "/download/reader", "/download/writer", "/download/panic"]),
        site("/nested", &["/download"]),
        site("/wsgi", &["/download"]),
        site("/asgi", &["/download"]),
        Site { address: host, prefix: "", speaks_all: false, downloads: &["/download"] },
    ]
}

/// A kind of visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Visit {
    /// Several requests, up and down, over one connection of either version.
    Regular,
    /// A body that is sent back as it comes.
    Echo,
    /// A download that fails at some place: an error before the first byte, or a cut connection.
    Failing,
    /// A handler that panics.
    Panicking,
    /// Several requests at once over HTTP/2, some of which are given up.
    Resetting,
    /// Leaves in the midst of its request, in one of several ways.
    LeavesEarly,
    /// Leaves in the midst of the response.
    LeavesLate,
    /// Sends less than it declared, and listens to what the server says.
    Short,
    /// Sends chunks that are none.
    BadChunk,
    /// Sends what is not HTTP.
    Garbage,
    /// Many at once, for a pool that has room for few.
    Burst,
}

/// All kinds; those that come first in the list come as often as the others.
pub(crate) const VISITS: [Visit; 11] = [
    Visit::Regular,
    Visit::Echo,
    Visit::Failing,
    Visit::Panicking,
    Visit::Resetting,
    Visit::LeavesEarly,
    Visit::LeavesLate,
    Visit::Short,
    Visit::BadChunk,
    Visit::Garbage,
    Visit::Burst,
];

impl Visit {
    /// Pays the visit.
    ///
    /// # Errors
    /// If the server did not do as it should.
    pub(crate) async fn pay(self, site: &Site) -> Result<(), BoxError> {
        match self {
            Visit::Regular => regular(site).await,
            Visit::Echo => echo(site).await,
            Visit::Failing => failing(site).await,
            Visit::Panicking => panicking(site).await,
            Visit::Resetting => resetting(site).await,
            Visit::LeavesEarly => leaves_early(site).await,
            Visit::LeavesLate => leaves_late(site).await,
            Visit::Short => short(site).await,
            Visit::BadChunk => bad_chunk(site).await,
            Visit::Garbage => garbage(site).await,
            Visit::Burst => burst(site).await,
        }
    }
}

fn upload(site: &Site) -> Upload {
    if site.speaks_all { Upload::random(LONG) } else { Upload::declared(short_or_long(LONG)) }
}

fn question() -> Question {
    let bytes = short_or_long(LONG);
    // HTTP/2's ends take a flood of small frames for an attack.
    Question { bytes, size: fastrand::usize(1 + bytes / 100..=LONGEST), fails: None }
}

fn download(site: &Site) -> String {
    let kinds = site.downloads;
    format!("{}{}", site.prefix, kinds[fastrand::usize(..kinds.len())])
}

fn pause() -> Duration {
    if fastrand::u8(..8) == 0 { Duration::from_millis(fastrand::u64(1..5)) } else { Duration::ZERO }
}

/// One good request.
pub(crate) async fn request(connection: &mut Connection, site: &Site) -> Result<(), BoxError> {
    if fastrand::bool() {
        connection.count(site.prefix, upload(site)).await
    } else {
        connection.download(&download(site), question(), pause()).await
    }
}

async fn regular(site: &Site) -> Result<(), BoxError> {
    let requests = if site.speaks_all { fastrand::usize(1..5) } else { 1 };
    let mut connection = Connection::open(site.address, site.speaks_all && fastrand::bool()).await?;
    for _ in 0..requests {
        request(&mut connection, site).await?;
    }
    Ok(())
}

async fn echo(site: &Site) -> Result<(), BoxError> {
    if !matches!(site.prefix, "/sync" | "/nested") {
        return regular(site).await;
    }
    let mut connection = Connection::open(site.address, fastrand::bool()).await?;
    let upload = upload(site);
    let expected = upload.bytes;
    let response = connection.send(&format!("{}/echo", site.prefix), Some(upload)).await?;
    let body = response.into_body().collect().await?.to_bytes();
    let mut count = crate::pattern::Count::default();
    count.add(&body)?;
    if count.length() != expected {
        Err(format!("{} bytes of {expected} came back", count.length()).into())
    } else {
        Ok(())
    }
}

async fn failing(site: &Site) -> Result<(), BoxError> {
    let mut connection = Connection::open(site.address, site.speaks_all && fastrand::bool()).await?;
    let question = question();
    let question = Question { fails: Some(fastrand::usize(0..=question.bytes)), ..question };
    match connection.download(&download(site), question, pause()).await {
        Err(error) if error.is::<FalseEnd>() => Err(error),
        Err(_) => Ok(()),
        Ok(()) => Err("a download that should have failed".into()),
    }
}

async fn panicking(site: &Site) -> Result<(), BoxError> {
    if site.prefix != "/sync" {
        return failing(site).await;
    }
    let mut connection = Connection::open(site.address, fastrand::bool()).await?;
    let status = connection.send("/sync/panic", None).await?.status();
    if status != StatusCode::INTERNAL_SERVER_ERROR {
        return Err(format!("{status} for a panic").into());
    }
    // The connection has not suffered.
    request(&mut connection, site).await
}

async fn resetting(site: &Site) -> Result<(), BoxError> {
    if !site.speaks_all {
        return leaves_early(site).await;
    }
    let Connection::Two(sender) = Connection::open(site.address, true).await? else {
        unreachable!("it is HTTP/2")
    };
    let mut visits = JoinSet::new();
    for _ in 0..8 {
        let (mut connection, site) = (Connection::Two(sender.clone()), *site);
        let gives_up = fastrand::bool();
        visits.spawn(async move {
            let request = request(&mut connection, &site);
            if gives_up {
                // Wherever it is by then.
                let _ = tokio::time::timeout(Duration::from_micros(fastrand::u64(..20_000)), request).await;
                Ok(())
            } else {
                request.await
            }
        });
    }
    while let Some(result) = visits.join_next().await {
        result??;
    }
    Ok(())
}

/// A request as it goes over the wire.
fn wire(site: &Site) -> Vec<u8> {
    let bytes = short_or_long(50_000);
    let head = |fields: &str| {
        format!("POST {}/count HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n", site.prefix).into_bytes()
    };
    let mut wire;
    match fastrand::u8(..3) {
        0 if site.speaks_all => {
            wire = head("Transfer-Encoding: chunked\r\n");
            wire.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
            wire.extend_from_slice(&piece(0, bytes));
            wire.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        1 => {
            let question = question();
            let target = format!("{}?{}", download(site), question.query());
            wire = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        }
        _ => {
            let expects = if fastrand::bool() { "Expect: 100-continue\r\n" } else { "" };
            wire = head(&format!("Content-Length: {bytes}\r\n{expects}"));
            wire.extend_from_slice(&piece(0, bytes));
        }
    }
    wire
}

async fn connect(site: &Site) -> Result<TcpStream, BoxError> {
    let stream = TcpStream::connect(site.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Leaves by a reset, by a close, or by saying that no more will come.
async fn leave(mut stream: TcpStream) -> Result<(), BoxError> {
    match fastrand::u8(..3) {
        0 => set_socket_linger(&stream, Some(Duration::ZERO))?,
        1 => {
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        _ => {}
    }
    Ok(())
}

async fn leaves_early(site: &Site) -> Result<(), BoxError> {
    let mut stream = connect(site).await?;
    let wire = wire(site);
    // The server may have closed before.
    let _ = stream.write_all(&wire[..fastrand::usize(..=wire.len())]).await;
    leave(stream).await
}

async fn leaves_late(site: &Site) -> Result<(), BoxError> {
    let mut stream = connect(site).await?;
    let target = format!("{}?{}", download(site), question().query());
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut some = vec![0; fastrand::usize(1..LONG)];
    let wanted = fastrand::usize(..some.len());
    let mut got = 0;
    // It may be shorter than that; then nothing more comes.
    while got < wanted
        && let Ok(Ok(length @ 1..)) =
            tokio::time::timeout(Duration::from_millis(20), stream.read(&mut some[got..])).await
    {
        got += length;
    }
    leave(stream).await
}

/// What the server says to a request that is broken: anything but success.
async fn refusal(mut stream: TcpStream) -> Result<(), BoxError> {
    let mut response = Vec::new();
    // A cut connection may end in a reset.
    let _ = stream.read_to_end(&mut response).await;
    if response.starts_with(b"HTTP/1.1 200") {
        return Err(FalseEnd::of(&response).into());
    }
    Ok(())
}

async fn short(site: &Site) -> Result<(), BoxError> {
    let mut stream = connect(site).await?;
    let bytes = 1 + short_or_long(50_000);
    let head = format!(
        "POST {}/count HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n",
        site.prefix
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&piece(0, fastrand::usize(..bytes))).await;
    let _ = stream.shutdown().await;
    refusal(stream).await
}

async fn bad_chunk(site: &Site) -> Result<(), BoxError> {
    const BAD: [&str; 7] = [
        "x\r\n",
        "-1\r\n",
        "ffffffffffffffffff\r\n",
        "5\r\nabcdeX",
        "5\nabcde\n",
        "\r\n",
        "0\r\nbad trailer\r\n\r\n",
    ];
    let mut stream = connect(site).await?;
    let head = format!(
        "POST {}/count HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        site.prefix
    );
    let good = fastrand::usize(..20_000);
    let _ = stream.write_all(head.as_bytes()).await;
    if good > 0 {
        let _ = stream.write_all(format!("{good:x}\r\n").as_bytes()).await;
        let _ = stream.write_all(&piece(0, good)).await;
        let _ = stream.write_all(b"\r\n").await;
    }
    let _ = stream.write_all(BAD[fastrand::usize(..BAD.len())].as_bytes()).await;
    let _ = stream.shutdown().await;
    refusal(stream).await
}

async fn garbage(site: &Site) -> Result<(), BoxError> {
    let mut stream = connect(site).await?;
    let bytes: Vec<u8> = (0..fastrand::usize(1..500)).map(|_| fastrand::u8(..)).collect();
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    refusal(stream).await
}

async fn burst(site: &Site) -> Result<(), BoxError> {
    if !site.speaks_all {
        return regular(site).await;
    }
    let mut visits = JoinSet::new();
    for _ in 0..20 {
        let address = site.address;
        visits.spawn(async move {
            let mut connection = Connection::open(address, false).await?;
            let response = connection.send("/bounded/busy", None).await?;
            let (status, retry) = (response.status(), response.headers().contains_key("retry-after"));
            response.into_body().collect().await?;
            Ok::<_, BoxError>((status, retry))
        });
    }
    while let Some(result) = visits.join_next().await {
        match result?? {
            (StatusCode::OK, false) | (StatusCode::SERVICE_UNAVAILABLE, true) => {}
            other => return Err(format!("{other:?} for one of many").into()),
        }
    }
    Ok(())
}
