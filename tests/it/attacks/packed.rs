//! Bodies that are small on the wire and large behind it.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tower::{Service, ServiceBuilder, ServiceExt as _};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_wsgi::{Body, BoxError, Input, Output, WorkerPool, WsgiLayer, WsgiService};

use crate::support::{Events, Gate, idle, soon};

/// What a chunk of a packed body has of packed bytes: some 160 KB of plain ones.
const CHUNK: usize = 1024;

/// A writer of single bits, the lowest first.
#[derive(Default)]
struct Bits(Vec<u8>, u32, u32);

impl Bits {
    fn put(&mut self, bits: u32, count: u32) {
        self.1 |= bits << self.2;
        self.2 += count;
        while self.2 >= 8 {
            self.0.push(self.1 as u8);
            self.1 >>= 8;
            self.2 -= 8;
        }
    }
}

/// `plain` zeros, or a few more, as gzip has them at its tightest: one block of repeats of 258 bytes in 13 bits each. Its checksum is right.
fn bomb(plain: usize) -> (Vec<u8>, usize) {
    let mut bits = Bits::default();
    bits.put(0b011, 3); // The last block, with the fixed code.
    bits.put(0b0000_1100, 8); // A zero.
    let repeats = plain.div_ceil(258);
    for _ in 0..repeats {
        bits.put(0b1010_0011, 8); // 258 bytes, ...
        bits.put(0, 5); // ... from one byte before.
    }
    bits.put(0, 7); // The end.
    bits.put(0, 7); // To the end of a byte.
    let plain = repeats * 258 + 1;
    let table: [u32; 256] = std::array::from_fn(|n| {
        (0..8).fold(n as u32, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let crc = (0..plain).fold(!0_u32, |crc, _| table[(crc & 255) as usize] ^ crc >> 8);
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = u32::try_from(plain).expect("a length").to_le_bytes();
    ([&head[..], &bits.0, &(!crc).to_le_bytes(), &length].concat(), plain)
}

/// A body that comes in chunks, and how many of them were asked for.
struct Chunks {
    bytes: Bytes,
    taken: Arc<AtomicUsize>,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        let at = self.bytes.len().min(CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(at)))))
    }
}

fn upload(packed: &[u8]) -> (Request<Chunks>, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let body = Chunks { bytes: Bytes::copy_from_slice(packed), taken: taken.clone() };
    let request = Request::post("/").header("content-encoding", "gzip").body(body).expect("a request");
    (request, taken)
}

/// Counts the body's bytes.
fn count(mut request: Request<Input>) -> std::io::Result<Response<String>> {
    let mut all = 0;
    while let Some(chunk) = request.body_mut().chunk()? {
        all += chunk.len();
    }
    Ok(Response::new(all.to_string()))
}

async fn status<S, B>(service: S, request: Request<Chunks>) -> (u16, String)
where
    S: Service<Request<Chunks>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let response = soon(service.oneshot(request)).await.expect("a response");
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a1_a_packed_body_is_unpacked_as_it_is_read() {
    let (packed, plain) = bomb(4 << 20);
    assert!(packed.len() * 100 < plain, "it is packed");
    let (read, gate) = (Events::new(), Gate::new());
    let (tell, inside) = (read.teller(), gate.clone());
    let handler = move |mut request: Request<Input>| -> std::io::Result<_> {
        request.body_mut().read_exact(&mut [0; 10])?;
        tell(());
        inside.pass();
        count(request)
    };
    let service = ServiceBuilder::new()
        .layer(RequestDecompressionLayer::new())
        .layer(WsgiLayer::adapter().workers(1))
        .service(handler);
    let (request, taken) = upload(&packed);
    let answer = tokio::spawn(status(service, request));
    read.next().await;
    // What is read ahead of the handler: 64 KiB before it has a worker, 256 KiB after, and what is left of a frame each.
    let ahead = taken.load(Ordering::SeqCst);
    assert!(ahead * 160_000 < 2 << 20, "{ahead} chunks of 160 KB were unpacked for ten bytes");
    gate.open();
    assert_eq!(soon(answer).await.expect("no panic"), (200, (plain - 10).to_string()));
    assert_eq!(taken.load(Ordering::SeqCst), packed.len().div_ceil(CHUNK));
}

#[tokio::test]
async fn a12_a_limit_inside_of_decompression_holds_for_plain_bytes_and_one_outside_for_packed_ones() {
    let (packed, plain) = bomb(4 << 20);
    let pool = WorkerPool::new(1);
    let inside = ServiceBuilder::new()
        .layer(RequestDecompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(1 << 20))
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .service(count);
    let (request, taken) = upload(&packed);
    assert_eq!(status(inside.clone(), request).await.0, 413);
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken < packed.len().div_ceil(CHUNK) / 2, "{taken} chunks were unpacked beyond the limit");
    let (small, plain_small) = bomb(100_000);
    assert_eq!(status(inside, upload(&small).0).await, (200, plain_small.to_string()));

    let outside = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(1 << 20))
        .layer(RequestDecompressionLayer::new())
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .service(count);
    // All that came is under the limit.
    assert_eq!(status(outside, upload(&packed).0).await, (200, plain.to_string()));
    let tight = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(CHUNK * 3))
        .layer(RequestDecompressionLayer::new())
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .service(count);
    assert_eq!(status(tight, upload(&packed).0).await.0, 413);
    idle(&pool).await;
}

#[tokio::test]
async fn a1_a_handlers_own_bound_stops_a_packed_body() {
    let (packed, _) = bomb(4 << 20);
    let handler = |request: Request<Input>| -> std::io::Result<Response<String>> {
        let mut text = Vec::new();
        let read = request.into_body().take(100_000).read_to_end(&mut text)?;
        Ok(Response::new(read.to_string()))
    };
    let service = ServiceBuilder::new()
        .layer(RequestDecompressionLayer::new())
        .layer(WsgiLayer::adapter().workers(1))
        .service(handler);
    let (request, taken) = upload(&packed);
    assert_eq!(status(service, request).await, (200, "100000".to_owned()));
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken * 160_000 < 2 << 20, "{taken} chunks of 160 KB were unpacked for 100 KB");
}

#[tokio::test]
async fn a2_a_packed_body_that_is_damaged_is_an_error_and_no_end() {
    let (packed, _) = bomb(100_000);
    let service = || {
        ServiceBuilder::new()
            .layer(RequestDecompressionLayer::new())
            .layer(WsgiLayer::adapter().workers(1))
            .service(count)
    };
    let cut = packed[..packed.len() / 2].to_vec();
    let mut wrong = packed.clone();
    let at = wrong.len() - 6;
    wrong[at] ^= 1;
    let none = b"this is not packed".to_vec();
    for (name, body) in [("cut", cut), ("a wrong checksum", wrong), ("not packed", none)] {
        assert_eq!(status(service(), upload(&body).0).await.0, 400, "{name}");
    }
}

#[tokio::test]
async fn a4_stalled_downloads_through_compression_hold_no_worker() {
    let (pool, made) = (WorkerPool::new(2), Arc::new(AtomicUsize::new(0)));
    let counter = made.clone();
    let service = ServiceBuilder::new()
        .layer(CompressionLayer::new())
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .service(move |request: Request<Input>| {
            let counter = counter.clone();
            Response::new(match request.uri().path() {
                // What does not pack well: it fills the client's window soon.
                "/endless" => Output::iter((0_u64..).map(move |n| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let noise = (0..512).map(|m| (n * 512 + m).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    noise.flat_map(u64::to_le_bytes).collect::<Vec<_>>()
                })),
                _ => "hello".into(),
            })
        });
    let get =
        |path| Request::get(path).header("accept-encoding", "gzip").body(Body::empty()).expect("a request");
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut body = soon(service.clone().oneshot(get("/endless"))).await.expect("a response").into_body();
        soon(body.frame()).await.expect("a frame").expect("no error");
        stalled.push(body);
    }
    idle(&pool).await;
    assert_eq!(soon(service.clone().oneshot(get("/"))).await.expect("a response").status(), 200);
    idle(&pool).await;
    // What one frame takes, the queue, and no more.
    let made = made.load(Ordering::SeqCst) / stalled.len();
    assert!(made < 50, "{made} chunks of 4 KiB for a client that takes nothing");
    drop(stalled);
    idle(&pool).await;
    // Nobody unpacks what the handler was sent without a layer that does.
    let plain = WsgiService::new(count);
    let (packed, _) = bomb(100_000);
    let response = soon(plain.oneshot(upload(&packed).0)).await.expect("a response");
    let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
    assert_eq!(body, packed.len().to_string());
}
