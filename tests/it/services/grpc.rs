//! gRPC: tonic's services behind sync hosts, for tonic's own client and frame by frame.

use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Status;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::{HealthReporter, health_reporter};
use tower::Layer as _;
use tower_wsgi::{AsgiHandler, Body, Input, Output, SyncHandler, WorkerPool, WsgiService, sync_fn};

use super::host;
use crate::support::{Server, eventually, idle, soon, watched};

/// The health service as a sync handler, on which "up" is serving and "down" is not.
async fn health() -> (HealthReporter, impl SyncHandler + Clone) {
    let (reporter, service) = health_reporter();
    reporter.set_service_status("up", ServingStatus::Serving).await;
    reporter.set_service_status("down", ServingStatus::NotServing).await;
    (reporter, AsgiHandler::new(service))
}

fn client(server: &Server) -> HealthClient<Client<HttpConnector, tonic::body::Body>> {
    let origin = Uri::try_from(format!("http://{}", server.addr)).expect("a URI");
    HealthClient::with_origin(Client::builder(TokioExecutor::new()).http2_only(true).build_http(), origin)
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn checks() {
    let (_reporter, handler) = health().await;
    let server = host(&WorkerPool::new(2), handler).await;
    let mut client = client(&server);
    for (service, status) in [("up", Status::Serving), ("down", Status::NotServing), ("", Status::Serving)] {
        let response = soon(client.check(of(service))).await.expect("an answer").into_inner();
        assert_eq!(response.status(), status, "{service}");
    }
    // A response of trailers alone.
    let status = soon(client.check(of("unknown"))).await.expect_err("a status");
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a15_grpc_calls_through_a_sync_host() {
    checks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a15_grpc_calls_through_a_sync_host_on_many_threads() {
    checks().await;
}

#[tokio::test]
async fn a3_a_grpc_stream_through_a_sync_host() {
    let (reporter, handler) = health().await;
    let pool = WorkerPool::new(1);
    let server = host(&pool, handler).await;
    let mut client = client(&server);
    let mut stream = soon(client.watch(of("up"))).await.expect("an answer").into_inner();
    for (set, status) in [
        (ServingStatus::NotServing, Status::Serving),
        (ServingStatus::Serving, Status::NotServing),
        (ServingStatus::Unknown, Status::Serving),
    ] {
        let message = soon(stream.message()).await.expect("no error").expect("a message");
        assert_eq!(message.status(), status);
        // The stream holds no worker.
        idle(&pool).await;
        reporter.set_service_status("up", set).await;
    }
    let message = soon(stream.message()).await.expect("no error").expect("a message");
    assert_eq!(message.status(), Status::Unknown);
}

/// A message on the wire: a byte for "not compressed", its length, and the message.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// `HealthCheckRequest { service: "up" }`: field 1, of two bytes.
const UP: &[u8] = b"\x0a\x02up";

/// `HealthCheckResponse { status: Serving }`: field 1 is 1.
const SERVING: &[u8] = b"\x08\x01";

const CHECK: &str = "/grpc.health.v1.Health/Check";

#[tokio::test]
async fn a15_the_status_of_a_grpc_call_is_in_its_trailers() {
    let (_reporter, handler) = health().await;
    let server = host(&WorkerPool::new(1), handler).await;
    let mut request = server.request("POST", CHECK, Body::from(framed(UP)));
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let response = soon(server.send(Version::HTTP_2, request)).await.expect("a response");
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("grpc-status"));
    let body = soon(response.into_body().collect()).await.expect("a whole body");
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    assert_eq!(body.to_bytes(), framed(SERVING));
}

#[test]
fn b1_a_grpc_call_on_a_plain_thread() {
    watched(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (_reporter, handler) = runtime.block_on(health());
        // The request in pieces, as a host may read it.
        let (first, second) = (framed(UP), framed(UP));
        let pieces = [first[..3].to_vec(), second[3..].to_vec()];
        let body = std::io::Read::chain(
            std::io::Cursor::new(pieces[0].clone()),
            std::io::Cursor::new(pieces[1].clone()),
        );
        let request = Request::post(CHECK).header(CONTENT_TYPE, "application/grpc");
        let request = request.body(Input::reader(body)).expect("a request");
        let response = handler.call(request).expect("a response");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc");
        let mut body = response.into_body().into_reader();
        let mut message = Vec::new();
        std::io::Read::read_to_end(&mut body, &mut message).expect("a whole body");
        assert_eq!(message, framed(SERVING));
        assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
    });
}

#[tokio::test]
async fn c4_a_sync_middleware_guards_a_grpc_service() {
    let (_reporter, handler) = health().await;
    let guard = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
        if request.headers().get("authorization").is_some_and(|value| value == "Bearer x") {
            let mut response = next.call(request)?;
            response.headers_mut().insert("x-guard", HeaderValue::from_static("passed"));
            return Ok::<_, tower_wsgi::BoxError>(response);
        }
        let response = Response::builder().header(CONTENT_TYPE, "application/grpc");
        let status = || {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("16"),
            )])
        };
        Ok(response.body(Output::empty().with_trailers(status))?)
    });
    let server = host(&WorkerPool::new(1), guard.layer(handler)).await;
    let mut client = client(&server);
    let refused = soon(client.check(of("up"))).await.expect_err("a status");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut request = tonic::Request::new(of("up"));
    request.metadata_mut().insert("authorization", "Bearer x".parse().expect("a value"));
    let response = soon(client.check(request)).await.expect("an answer");
    assert_eq!(response.metadata().get("x-guard").expect("the header"), "passed");
}

#[tokio::test]
async fn b7_a_grpc_client_over_both_crossings_without_a_connection() {
    let (_reporter, handler) = health().await;
    let mut client = HealthClient::new(WsgiService::new(handler));
    let response = soon(client.check(of("down"))).await.expect("an answer").into_inner();
    assert_eq!(response.status(), Status::NotServing);
}

#[tokio::test]
async fn b5_a_grpc_stream_ends_with_its_client() {
    let (reporter, handler) = health().await;
    let dropped = std::sync::Arc::new(());
    let held = dropped.clone();
    let handler = sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        let held = held.clone();
        let response = next.call(request)?;
        Ok::<_, tower_wsgi::BoxError>(response.map(|body| {
            let body = body.into_reader().into_body().map_frame(move |frame| {
                let _held = &held;
                frame
            });
            Output::body(body)
        }))
    })
    .layer(handler);
    let server = host(&WorkerPool::new(1), handler).await;
    let mut client = client(&server);
    let mut stream = soon(client.watch(of("up"))).await.expect("an answer").into_inner();
    soon(stream.message()).await.expect("no error").expect("a message");
    assert_eq!(std::sync::Arc::strong_count(&dropped), 3);
    drop(stream);
    eventually("the stream is dropped", || std::sync::Arc::strong_count(&dropped) == 2).await;
    drop(reporter);
}
