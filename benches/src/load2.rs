//! The load generator for HTTP/2 with prior knowledge: the `h2` crate on one thread.
//!
//! It costs more per request than the one for HTTP/1.1, so figures compare within a protocol only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Method, Request, StatusCode};
use tokio::net::TcpStream;

use crate::load::{Exchange, Load, PATIENCE, prepare};

/// No body of ours is longer, so the flow control lets each pass in one go.
const WINDOW: u32 = 1 << 20;

/// Loads a server with so many connections, each with one request at a time. Only what ends within the time after the warm-up counts.
///
/// # Errors
///
/// Each failure of a connection and each wrong answer.
pub fn load(
    address: SocketAddr,
    exchange: &Exchange,
    connections: usize,
    warm_up: Duration,
    time: Duration,
) -> Result<Load, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let plan = Arc::new(Plan::new(exchange, warm_up, time));
    runtime.block_on(async {
        let clients = (0..connections).map(|_| tokio::spawn(client(address, plan.clone())));
        let clients: Vec<_> = clients.collect();
        let mut latencies = Vec::new();
        let mut requests = 0;
        for client in clients {
            let late = plan.end + PATIENCE;
            let done = tokio::time::timeout_at(late.into(), client).await;
            let done = done.map_err(|_| format!("no response within {} s", PATIENCE.as_secs()))?;
            let (some, count) = done.map_err(|error| error.to_string())??;
            latencies.extend(some);
            requests += count;
        }
        Load::of(latencies, time, requests)
    })
}

struct Plan {
    uri: String,
    body: Bytes,
    answer: Vec<u8>,
    begin: Instant,
    end: Instant,
}

impl Plan {
    fn new(exchange: &Exchange, warm_up: Duration, time: Duration) -> Plan {
        let begin = Instant::now() + warm_up;
        Plan {
            uri: format!("http://localhost{}", exchange.path),
            body: Bytes::copy_from_slice(exchange.body()),
            answer: exchange.answer.clone(),
            begin,
            end: begin + time,
        }
    }
}

/// How long each request within the time took, and how many there were at all.
async fn client(address: SocketAddr, plan: Arc<Plan>) -> Result<(Vec<u64>, usize), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    prepare(&stream).map_err(|error| error.to_string())?;
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (mut sender, connection) = builder.handshake(stream).await.map_err(told)?;
    // What goes wrong there goes wrong here, too.
    tokio::spawn(async move { drop(connection.await) });
    let mut latencies = Vec::new();
    let mut requests = 0;
    loop {
        let start = Instant::now();
        sender = request(sender, &plan).await?;
        requests += 1;
        let now = Instant::now();
        if now > plan.end {
            return Ok((latencies, requests));
        }
        if now > plan.begin {
            latencies.push(u64::try_from((now - start).as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// One request, and its answer compared.
async fn request(sender: SendRequest<Bytes>, plan: &Plan) -> Result<SendRequest<Bytes>, String> {
    let mut sender = sender.ready().await.map_err(told)?;
    let method = if plan.body.is_empty() { Method::GET } else { Method::POST };
    let request = Request::builder().method(method).uri(&plan.uri).body(());
    let request = request.map_err(|error| error.to_string())?;
    let (response, mut upload) = sender.send_request(request, plan.body.is_empty()).map_err(told)?;
    if !plan.body.is_empty() {
        upload.send_data(plan.body.clone(), true).map_err(told)?;
    }
    let response = response.await.map_err(told)?;
    if response.status() != StatusCode::OK {
        return Err(format!("another status than 200: {}", response.status()));
    }
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(told)?;
        if plan.answer.get(received..received + piece.len()) != Some(&*piece) {
            return Err(format!("a wrong body after {received} bytes"));
        }
        received += piece.len();
        body.flow_control().release_capacity(piece.len()).map_err(told)?;
    }
    match received == plan.answer.len() {
        true => Ok(sender),
        false => Err(format!("a body of only {received} bytes")),
    }
}

fn told(error: h2::Error) -> String {
    format!("the connection failed: {error}")
}
