//! B7: bodies pass through both crossings without a copy.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, BoxError, Input, Output, SyncHandler, WsgiLayer, WsgiService, sync_fn,
};

use super::{driven, frames, post, reader};
use crate::support::{soon, watched};

/// Where the bytes are in memory.
fn places(chunks: &[Bytes]) -> Vec<usize> {
    chunks.iter().map(|chunk| chunk.as_ptr().addr()).collect()
}

/// Chunks that nobody else has.
fn fresh() -> Vec<Bytes> {
    (0..3_u8).map(|n| Bytes::from(vec![n; 1000 + usize::from(n)])).collect()
}

/// A body of chunks.
fn body_of(chunks: &[Bytes]) -> Body {
    let all: Vec<_> = chunks.iter().map(|chunk| Ok(Frame::data(chunk.clone()))).collect();
    frames(all)
}

/// All chunks of a body, as they are.
async fn chunks_of<B>(mut body: B) -> Result<Vec<Bytes>, B::Error>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut chunks = Vec::new();
    while let Some(frame) = body.frame().await {
        chunks.extend(frame?.into_data());
    }
    Ok(chunks)
}

/// Where the bytes of a request were, in the extensions of its response.
#[derive(Clone)]
struct Seen(Vec<usize>);

/// Tells where the request's bytes are, and answers with them.
async fn inspect(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let chunks = chunks_of(request.into_body()).await?;
    let mut response = Response::new(body_of(&chunks));
    response.extensions_mut().insert(Seen(places(&chunks)));
    Ok(response)
}

/// A stack of both crossings, two times, with a middleware that looks at no body.
fn stack(layer: AsgiLayer, prefetch: usize) -> WsgiService<impl SyncHandler> {
    let wsgi = WsgiLayer::adapter().workers(2).prefetch(prefetch);
    let pass = sync_fn(|request, next: &dyn SyncHandler| next.call(request));
    let inner = wsgi.layer(layer.layer(service_fn(inspect)));
    wsgi.layer(pass.layer(layer.layer(inner)))
}

#[tokio::test]
async fn b7_a_request_and_its_response_are_the_same_memory_all_the_way() {
    let driven = driven();
    let layers = [AsgiLayer::adapter(), AsgiLayer::adapter().runtime(driven[0].handle.clone())];
    for layer in layers {
        for prefetch in [0, 1500, 64 * 1024] {
            for declared in [false, true] {
                let sent = fresh();
                let expected = places(&sent);
                let mut request = Request::post("/").body(body_of(&sent)).expect("a request");
                if declared {
                    let length = sent.iter().map(Bytes::len).sum::<usize>();
                    request.headers_mut().insert("content-length", HeaderValue::from(length));
                }
                let response = soon(stack(layer.clone(), prefetch).oneshot(request)).await;
                let response = response.expect("a response");
                let seen = response.extensions().get::<Seen>().expect("it was seen");
                assert_eq!(seen.0, expected, "{prefetch} {declared}");
                let back = soon(chunks_of(response.into_body())).await.expect("a whole body");
                assert_eq!(self::places(&back), expected, "{prefetch} {declared}");
                assert_eq!(back, sent);
            }
        }
    }
}

#[tokio::test]
async fn b7_a_full_body_is_the_same_memory_all_the_way() {
    let sent = Bytes::from(vec![7; 5000]);
    let place = sent.as_ptr().addr();
    for body in [Body::from(sent.clone()), Body::new(Full::new(sent.clone()))] {
        let request = Request::post("/").body(body).expect("a request");
        let service = stack(AsgiLayer::adapter(), 64 * 1024);
        let response = soon(service.oneshot(request)).await.expect("a response");
        assert_eq!(response.extensions().get::<Seen>().expect("it was seen").0, [place]);
        let back = soon(response.into_body().collect()).await.expect("a whole body");
        // One chunk is given out as it is.
        assert_eq!(back.to_bytes().as_ptr().addr(), place);
    }
}

#[tokio::test]
async fn b7_a_full_response_is_the_same_memory() {
    let made = Bytes::from(vec![7; 5000]);
    let place = made.as_ptr().addr();
    let given = made.clone();
    let service = service_fn(move |_: Request<Body>| {
        let body = Full::new(given.clone());
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let wsgi = WsgiService::new(AsgiHandler::new(service));
    let response = soon(wsgi.oneshot(Request::new(Body::empty()))).await.expect("a response");
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(5000));
    let back = soon(chunks_of(response.into_body())).await.expect("a whole body");
    assert_eq!(places(&back), [place]);
}

#[test]
fn b7_an_input_of_an_async_body_comes_back_as_it_was() {
    watched(|| {
        let driven = driven();
        let mut layers = vec![AsgiLayer::adapter()];
        layers.extend(driven.each_ref().map(|one| AsgiLayer::adapter().runtime(one.handle.clone())));
        for layer in layers {
            for declared in [None, Some(3003)] {
                let sent = fresh();
                let mut input = Input::new(body_of(&sent));
                if let Some(length) = declared {
                    input = input.with_length(length);
                }
                let response = layer.layer(service_fn(inspect)).call(post(input));
                let mut body = reader(response);
                let mut back = Vec::new();
                while let Some(chunk) = body.chunk().expect("a chunk") {
                    back.push(chunk);
                }
                assert_eq!(places(&back), places(&sent), "{declared:?}");
            }
        }
    });
}

#[test]
fn b7_an_input_of_bytes_comes_back_as_it_was() {
    watched(|| {
        let sent = Bytes::from(vec![7; 5000]);
        let mut body = reader(AsgiHandler::new(service_fn(inspect)).call(post(Input::from(sent.clone()))));
        assert_eq!(body.chunk().expect("a chunk").expect("a chunk").as_ptr(), sent.as_ptr());
    });
}

#[test]
fn b7_what_is_left_of_a_half_read_input_is_not_copied() {
    watched(|| {
        let sent = fresh();
        let mut input = Input::new(body_of(&sent));
        std::io::Read::read_exact(&mut input, &mut [0; 10]).expect("ten bytes");
        let response = AsgiHandler::new(service_fn(inspect)).call(post(input)).expect("a response");
        let mut expected = places(&sent);
        expected[0] += 10;
        assert_eq!(response.extensions().get::<Seen>().expect("it was seen").0, expected);
    });
}

#[test]
fn b7_an_output_of_an_async_body_is_the_body() {
    watched(|| {
        let sent = fresh();
        let mut body = Output::body(body_of(&sent)).into_reader();
        let mut back = Vec::new();
        while let Some(chunk) = body.chunk().expect("a chunk") {
            back.push(chunk);
        }
        assert_eq!(places(&back), places(&sent));
    });
}

#[tokio::test]
async fn b7_hints_and_trailers_pass_through() {
    let trailers = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("1"))]);
    let sent = [Ok(Frame::data(Bytes::from("hello"))), Ok(Frame::trailers(trailers.clone()))];
    let echo = service_fn(|request: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let service = WsgiService::new(AsgiHandler::new(WsgiService::new(AsgiHandler::new(echo))));
    let response = soon(service.clone().oneshot(Request::new(frames(sent)))).await.expect("a response");
    let back = soon(response.into_body().collect()).await.expect("a whole body");
    assert_eq!(back.trailers(), Some(&trailers));
    assert_eq!(back.to_bytes(), "hello");

    let response = soon(service.oneshot(Request::new(Body::from("hello")))).await.expect("a response");
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(5));
}

#[test]
fn b7_a_response_that_is_all_here_is_so_behind_a_service() {
    let service = service_fn(|request: Request<Body>| async move {
        drop(request);
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let response = AsgiHandler::new(service).call(Request::new(Input::empty())).expect("a response");
    assert!(response.into_body().into_reader().is_complete());
}
