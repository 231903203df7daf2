//! HTTP/1.1 and HTTP/2 on one port.

use std::convert::Infallible;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use super::server::{Gate, Server, WATCHDOG};

// Two threads: one of them waits at the gate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_with_prior_knowledge_is_served_and_ends_in_order() {
    timeout(WATCHDOG, async {
        let gate = Gate::new();
        let server = Server::start(&["app:wsgi"]);
        let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let (mut sender, connection) =
            http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = |path: &str| {
            Request::get(format!("http://{}{path}", server.address())).body(Empty::<Bytes>::new()).unwrap()
        };
        let response = sender.send_request(request("/a?b")).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let environ: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(environ["SERVER_PROTOCOL"], "HTTP/2.0");
        assert_eq!(environ["PATH_INFO"], "/a");

        // Many at once on the one connection, and one that is still running when the server is told to stop.
        let slow = sender.send_request(request(&format!("/hold?{}", gate.port())));
        let (slow, held) = (tokio::spawn(slow), gate.held());
        for _ in 0..20 {
            assert_eq!(sender.send_request(request("/")).await.unwrap().status(), 200);
        }
        server.signal(Signal::TERM);
        server.error_line("stopping");
        drop(held);
        let response = slow.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
        connection.await.unwrap().unwrap();
        assert_eq!(server.end(), 0);
        Ok::<(), Infallible>(())
    })
    .await
    .expect("in time")
    .unwrap();
}
