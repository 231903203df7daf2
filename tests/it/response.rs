//! A3 to A7: what a handler returns, on its way to the client.

use std::io::Write as _;

use http::{Request, Response, Version};
use http_body_util::BodyExt;
use tower_wsgi::{Body, Input, Output, WsgiService};

use crate::support::{VERSIONS, serve, soon, text};

#[tokio::test]
async fn a5_a_failure_before_the_first_chunk_is_a_clean_500() {
    let fails = || [Ok(""), Err("no database")].into_iter();
    let server =
        serve(WsgiService::new(move |_: Request<Input>| Response::new(Output::try_iter(fails())))).await;
    for version in VERSIONS {
        let request = server.request("GET", "/", Body::empty());
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(response.status(), 500, "{version:?}");
        assert_eq!(text(response).await, "Internal Server Error\n");
    }
}

#[tokio::test]
async fn a6_a_failure_after_the_first_chunk_is_seen_by_the_client() {
    let chunks = || [Ok("half a page"), Err("no database")].into_iter();
    let server =
        serve(WsgiService::new(move |_: Request<Input>| Response::new(Output::try_iter(chunks())))).await;
    for version in VERSIONS {
        let request = server.request("GET", "/", Body::empty());
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(response.status(), 200, "{version:?}");
        soon(response.into_body().collect()).await.expect_err("a body that was cut off");
    }
}

#[tokio::test]
async fn a3_a_writer_gathers_and_flush_sends() {
    let server = serve(WsgiService::new(|_: Request<Input>| {
        Response::new(Output::writer(|w| {
            write!(w, "a")?;
            write!(w, "b")?;
            w.flush()?;
            write!(w, "c")
        }))
    }))
    .await;
    let request = server.request("GET", "/", Body::empty());
    let mut body = server.send(Version::HTTP_2, request).await.expect("a response").into_body();
    let mut frames = Vec::new();
    while let Some(frame) = soon(body.frame()).await {
        frames.extend(frame.expect("a frame").into_data().ok().filter(|data| !data.is_empty()));
    }
    assert_eq!(frames, ["ab", "c"]);
}
