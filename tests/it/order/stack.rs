//! Whole stacks, from the one in the documentation to five sides deep: what each layer sees of the request, and of the response.

use axum::Router;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::DecompressionLayer;
use tower_http::trace::TraceLayer;
use tower_wsgi::{
    AsgiHandler, AsgiLayer, BoxError, Input, Output, SyncHandler, Variables, WorkerPool, WsgiLayer,
    WsgiService,
};

use super::{Log, Side, TARGET, check, request, response};
use crate::support::{Server, VERSIONS, serve, soon, watched};

/// Larger than what is too small to be compressed.
const TEXT: &str = "Hello World! Hello World! Hello World! Hello World! Hello World! Hello World!";

fn router() -> Router {
    Router::new().fallback(|| async { response(axum::body::Body::from(TEXT)) })
}

/// Sends a request through a stack of `layers`, and checks what each saw, and that the client got what all of them did.
async fn passes(server: &Server, log: &Log, layers: &[(&'static str, Side)], encoding: Option<&str>) {
    for version in VERSIONS {
        let mut sent = request(server.request("POST", TARGET, tower_wsgi::Body::from("in")), layers);
        sent.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let got = soon(server.send(version, sent)).await.expect("a response");
        assert_eq!(got.status(), 210 + layers.len() as u16);
        let found = got.headers().get(CONTENT_ENCODING).map(|value| value.to_str().expect("text"));
        assert_eq!(found, encoding);
        check(log, layers, &format!("{version:?}"));
        assert_eq!(unpack(got).await, TEXT);
    }
}

/// The whole body, decompressed.
async fn unpack(response: Response<Incoming>) -> String {
    let response = std::sync::Mutex::new(Some(response));
    let take = service_fn(move |_: Request<()>| {
        let response = response.lock().expect("a lock").take();
        std::future::ready(response.ok_or("asked twice"))
    });
    let response = DecompressionLayer::new().layer(take).oneshot(Request::new(())).await.expect("a response");
    let bytes = soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn as_drawn() {
    let log = Log::default();
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(log.mark("a"))
        .layer(WsgiLayer::adapter().workers(15))
        .layer(log.mark("b").sync())
        .layer(AsgiLayer::adapter())
        .layer(log.mark("c"))
        .layer(CompressionLayer::new())
        .layer(log.mark("d"))
        .service(router());
    let server = serve(service).await;
    let layers = [("a", Side::Outside), ("b", Side::Sync), ("c", Side::Inside), ("d", Side::Inside)];
    passes(&server, &log, &layers, Some("gzip")).await;
}

#[tokio::test]
async fn c4_the_stack_of_the_documentation() {
    as_drawn().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_the_stack_of_the_documentation_on_many_threads() {
    as_drawn().await;
}

async fn five_sides(pool: WorkerPool) {
    let log = Log::default();
    let service = ServiceBuilder::new()
        .layer(log.mark("a"))
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .layer(log.mark("b").sync())
        .layer(AsgiLayer::adapter())
        .layer(log.mark("c"))
        .layer(WsgiLayer::adapter().pool(pool))
        .layer(log.mark("d").sync())
        .layer(log.mark("e").sync())
        .layer(AsgiLayer::adapter())
        .layer(log.mark("f"))
        .service(router());
    let server = serve(service).await;
    let layers = [
        ("a", Side::Outside),
        ("b", Side::Sync),
        ("c", Side::Inside),
        ("d", Side::SyncAgain),
        ("e", Side::SyncAgain),
        ("f", Side::Inside),
    ];
    passes(&server, &log, &layers, None).await;
}

#[tokio::test]
async fn c4_five_sides_deep() {
    // One worker: the outer sync side lends its place to the inner one.
    five_sides(WorkerPool::new(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_five_sides_deep_on_many_threads() {
    five_sides(WorkerPool::new(2)).await;
}

/// Sends a request through a handler on a plain thread, and checks what each layer saw.
fn passes_plainly(handler: &impl SyncHandler, log: &Log, layers: &[(&'static str, Side)], body: &str) {
    for _ in 0..2 {
        let sent = Request::post(TARGET).body(Input::from("in")).expect("a request");
        let got = handler.call(request(sent, layers)).expect("a response");
        assert_eq!(got.status(), 210 + layers.len() as u16);
        assert_eq!(std::io::read_to_string(got.into_body().into_reader()).expect("a whole body"), body);
        check(log, layers, "on a plain thread");
    }
}

#[test]
fn c4_a_stack_that_starts_on_the_sync_side() {
    watched(|| {
        let log = Log::default();
        let handler = ServiceBuilder::new()
            .layer(log.mark("a").sync())
            .layer(AsgiLayer::adapter())
            .layer(log.mark("b"))
            .layer(WsgiLayer::adapter().workers(1))
            .layer(log.mark("c").sync())
            .layer(AsgiLayer::adapter())
            .layer(log.mark("d"))
            .service(router());
        let layers = [("a", Side::Plain), ("b", Side::InPlain), ("c", Side::SyncAgain), ("d", Side::Inside)];
        passes_plainly(&handler, &log, &layers, TEXT);
    });
}

#[test]
fn c4_a_stack_that_starts_and_ends_on_the_sync_side() {
    fn app(request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let variables = Variables::of(&request);
        let variable = |name| String::from_utf8_lossy(variables.get(name).unwrap_or(b"-")).into_owned();
        let names = ["REMOTE_USER", "PATH_INFO", "HTTP_X_A", "HTTP_X_B", "HTTP_X_C", "HTTP_X_DROP_A"];
        let told = names.map(variable).join(" ");
        let body = std::io::read_to_string(request.into_body())?;
        Ok(response(format!("{told} {body}").into()))
    }
    watched(|| {
        let log = Log::default();
        let inner = log.mark("c").sync().layer(app);
        let service = log.mark("b").layer(WsgiService::new(inner));
        let handler = log.mark("a").sync().layer(AsgiHandler::new(service));
        let layers = [("a", Side::Plain), ("b", Side::InPlain), ("c", Side::SyncAgain)];
        passes_plainly(&handler, &log, &layers, "ac /a b/c a b c - in");
    });
}
