//! A reverse proxy: an HTTP client as the service behind a sync host.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use http::header::{HOST, TE, TRAILER};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tower::{Layer as _, ServiceBuilder, service_fn};
use tower_wsgi::{AsgiLayer, Body, Error, Input, Output, SyncHandler, WorkerPool, WsgiLayer, sync_fn};

use super::{ask, host};
use crate::support::{Server, VERSIONS, blocking, idle, serve, soon, text, watched};

/// A handler that passes its requests on to the server at `upstream`, over HTTP/1 or HTTP/2.
fn proxy(upstream: SocketAddr, http2: bool) -> impl SyncHandler + Clone {
    let client: Client<HttpConnector, Body> =
        Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
    ServiceBuilder::new()
        .layer(AsgiLayer::adapter())
        .map_request(move |mut request: Request<Body>| {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = Uri::try_from(format!("http://{upstream}{path}")).expect("a URI");
            // What came over one version goes on over another.
            *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            request.headers_mut().remove(HOST);
            request
        })
        .service(client)
}

/// The server behind the proxy.
async fn upstream() -> Server {
    serve(WsgiLayer::adapter().workers(4).layer(|request: Request<Input>| {
        let path = request.uri().path().to_owned();
        let response = Response::builder().header("x-path", path.as_str());
        let mut body = request.into_body();
        match path.as_str() {
            "/echo" => response.body(Output::reader(body)),
            "/status" => response.status(418).body("short and stout".into()),
            "/cut" => response.body(Output::try_iter([Ok("half"), Err("no database")])),
            "/trailers" => {
                let trailers =
                    || HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"1\""))]);
                response.header(TRAILER, "etag").body(Output::iter(["hello"]).with_trailers(trailers))
            }
            _ => response.body(Output::writer(move |w| {
                // An answer for every line, as soon as it is here.
                let mut line = [0; 6];
                while body.read_exact(&mut line).is_ok() {
                    w.write_all(&line.map(|byte| byte.to_ascii_uppercase()))?;
                    w.flush()?;
                }
                Ok(())
            })),
        }
    }))
    .await
}

#[tokio::test]
async fn b7_a_reverse_proxy_passes_requests_and_responses_through() {
    let upstream = upstream().await;
    for http2 in [false, true] {
        let pool = WorkerPool::new(2);
        let server = host(&pool, proxy(upstream.addr, http2)).await;
        for version in VERSIONS {
            let body = vec![b'x'; 300_000];
            let request = server.request("POST", "/echo", Body::from(body.clone()));
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.headers()["x-path"], "/echo");
            let bytes = soon(response.into_body().collect()).await.expect("a whole body").to_bytes();
            assert!(bytes == body, "{version:?}");

            let response = server.ask(version, "GET", "/status").await;
            assert_eq!(response.status(), 418);
            assert_eq!(text(response).await, "short and stout");

            let mut request = server.request("GET", "/trailers", Body::empty());
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
            let response = soon(server.send(version, request)).await.expect("a response");
            let body = soon(response.into_body().collect()).await.expect("a whole body");
            assert_eq!(body.trailers().expect("trailers")["etag"], "\"1\"", "{version:?} {http2}");
            assert_eq!(body.to_bytes(), "hello");

            // A response that is cut off behind the proxy is cut off before it. hyper may get all of it at once, the failure
            // too, and then sends nothing of it.
            let request = server.request("GET", "/cut", Body::empty());
            if let Ok(response) = soon(server.send(version, request)).await {
                assert_eq!(response.status(), 200);
                soon(response.into_body().collect()).await.expect_err("a body that was cut off");
            }
            idle(&pool).await;
        }
    }
}

/// A body whose chunks come through a channel.
struct Channel(mpsc::Receiver<&'static str>);

impl http_body::Body for Channel {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(http_body::Frame::data(chunk.into()))))
    }
}

#[tokio::test]
async fn b3_a_reverse_proxy_answers_while_it_is_asked() {
    let upstream = upstream().await;
    for http2 in [false, true] {
        let pool = WorkerPool::new(1);
        let server = host(&pool, proxy(upstream.addr, http2)).await;
        for version in VERSIONS {
            let (sender, receiver) = mpsc::channel(1);
            let request = server.request("POST", "/dialogue", Channel(receiver));
            sender.send("first\n").await.expect("a listener");
            let mut body = soon(server.send(version, request)).await.expect("a response").into_body();
            for (sent, expected) in [("second", "FIRST\n"), ("thirds", "SECOND")] {
                let frame = soon(body.frame()).await.expect("a frame").expect("no error");
                assert_eq!(frame.into_data().expect("data"), expected, "{version:?} {http2}");
                sender.send(sent).await.expect("a listener");
                // Both bodies flow without a worker of the proxy's.
                idle(&pool).await;
            }
            drop(sender);
            let rest = soon(body.collect()).await.expect("a whole body").to_bytes();
            assert_eq!(rest, "THIRDS");
        }
    }
}

/// Nobody listens there.
fn closed_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn b6_an_upstream_that_is_down_is_the_clients_error_on_the_sync_side() {
    let gateway = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| match next.call(request) {
        Err(error) if error.is::<hyper_util::client::legacy::Error>() => {
            Ok(Response::builder().status(502).body(Output::from("bad gateway"))?)
        }
        other => other,
    });
    let pool = WorkerPool::new(1);
    let server = host(&pool, gateway.layer(proxy(closed_port(), false))).await;
    let response = server.get("/").await;
    assert_eq!(response.status(), 502);
    assert_eq!(text(response).await, "bad gateway");

    // Without it: a 500 that carries it.
    let service = ServiceBuilder::new()
        .map_response(|response: Response<Body>| {
            let error: &Error = response.extensions().get().expect("an error");
            let source = std::error::Error::source(error).expect("a source");
            assert!(source.is::<hyper_util::client::legacy::Error>(), "{source}");
            response
        })
        .layer(WsgiLayer::adapter().pool(pool))
        .service(proxy(closed_port(), false));
    let server = serve(service).await;
    assert_eq!(server.get("/").await.status(), 500);
}

#[tokio::test]
async fn b1_a_client_serves_plain_threads() {
    let upstream = upstream().await;
    let addr = upstream.addr;
    let threads = (0..4).map(|_| {
        blocking(move || {
            watched(move || {
                // Not the test's runtime: the thread is in none.
                assert!(tokio::runtime::Handle::try_current().is_err());
                let handler = proxy(addr, false);
                for n in 0..5 {
                    let sent = format!("hello {n}");
                    let request = Request::post("/echo").body(Input::from(sent.clone())).expect("a request");
                    assert_eq!(ask(&handler, request).expect("a response").body(), &sent);
                }
            });
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        soon(thread).await;
    }
}

#[tokio::test]
async fn b5_a_client_that_leaves_the_proxy_leaves_what_is_behind_it() {
    let (sender, mut receiver) = mpsc::channel::<()>(1);
    let upstream = serve(service_fn(move |_: Request<hyper::body::Incoming>| {
        let held = sender.clone();
        async move {
            let _held = held;
            std::future::pending::<Result<Response<Body>, Infallible>>().await
        }
    }))
    .await;
    let pool = WorkerPool::new(1);
    let server = host(&pool, proxy(upstream.addr, false)).await;
    let request = server.request("GET", "/", Body::empty());
    let asked = server.send(Version::HTTP_11, request);
    let waits = crate::support::eventually("the worker waits", || pool.stats().lending == 1);
    tokio::select! {
        _ = asked => panic!("a response of a server that never answers"),
        () = waits => {}
    }
    idle(&pool).await;
    // The server behind is done with the request: its future was dropped, and then, with the server, the last sender.
    drop(server);
    drop(upstream);
    assert_eq!(soon(receiver.recv()).await, None);
}

#[test]
fn b7_what_a_host_reads_is_what_the_client_got() {
    watched(|| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let upstream = runtime.block_on(upstream());
        let handler = proxy(upstream.addr, true);
        let request = Request::get("/trailers").body(Input::empty()).expect("a request");
        let response = handler.call(request).expect("a response");
        let mut body = response.into_body().into_reader();
        let mut read = String::new();
        body.read_to_string(&mut read).expect("a whole body");
        assert_eq!(read, "hello");
        assert_eq!(body.trailers().expect("trailers")["etag"], "\"1\"");
        // The reset may overtake the head.
        if let Ok(cut) = handler.call(Request::get("/cut").body(Input::empty()).expect("a request")) {
            cut.into_body().into_reader().read_to_string(&mut read).expect_err("a body that was cut off");
        }
    });
}
