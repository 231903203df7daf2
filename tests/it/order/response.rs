//! The way back: errors, trailers and bodies, as the layers outside see them.

use std::convert::Infallible;
use std::io::{Cursor, Read};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, TE, TRAILER};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tower::{Layer as _, Service as _, ServiceBuilder, service_fn};
use tower_wsgi::{
    AsgiLayer, Body, BoxError, Error, Input, Output, SyncFnLayer, SyncHandler, WsgiLayer, sync_fn,
};

use super::{Answered, Frames, Log, SyncMiddleware};
use crate::support::{Events, VERSIONS, serve, soon, text};

#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

/// What each layer saw of the status and the error.
fn errors(answers: Vec<Answered>) -> Vec<(&'static str, u16, Option<String>)> {
    answers.into_iter().map(|answer| (answer.layer, answer.status, answer.error)).collect()
}

#[tokio::test]
async fn c4_the_error_of_an_inner_crossing_passes_out_through_the_outer_ones() {
    let events = Events::new();
    let log = Log::default();
    let tell = events.teller();
    let service = ServiceBuilder::new()
        .map_response(move |response: Response<Body>| {
            let error: Option<&Error> = response.extensions().get();
            let source = error.and_then(std::error::Error::source);
            tell(source.and_then(|source| source.downcast_ref::<Broken>()).is_some());
            response
        })
        .layer(log.mark("a"))
        .layer(WsgiLayer::adapter().workers(1))
        .layer(log.mark("b").sync())
        .layer(AsgiLayer::adapter())
        .layer(log.mark("c"))
        .layer(WsgiLayer::adapter().workers(1))
        .layer(log.mark("d").sync())
        .service(|request: Request<Input>| match request.uri().path() {
            "/panic" => panic!("no luck"),
            _ => Err::<Response<()>, _>(Broken),
        });
    let server = serve(service).await;
    for version in VERSIONS {
        for (path, message) in [("/", "the handler failed"), ("/panic", "the application panicked: no luck")]
        {
            let response = server.ask(version, "GET", path).await;
            // Each layer on the way has added one to the status.
            assert_eq!(response.status(), 503);
            assert_eq!(text(response).await, "Internal Server Error\n");
            let message = Some(message.to_owned());
            // The middleware beside the handler, on its side, got an `Err` or was unwound: it never saw a response.
            let expected = [("c", 500, message.clone()), ("b", 501, message.clone()), ("a", 502, message)];
            assert_eq!(errors(log.answers()), expected);
            assert_eq!(events.drain(), [path == "/"]);
        }
    }
}

#[tokio::test]
async fn c4_an_error_of_an_async_service_is_an_err_on_the_sync_side_and_a_500_outside_it() {
    let events = Events::new();
    let log = Log::default();
    let tell = events.teller();
    let service = ServiceBuilder::new()
        .layer(log.mark("a"))
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            let result = next.call(request);
            let error = result.as_ref().err().map(|error| {
                let ours = error.downcast_ref::<Error>().map(|error| (error.is_handler(), error.is_panic()));
                (error.is::<Broken>(), ours)
            });
            tell(error);
            result
        }))
        .layer(AsgiLayer::adapter())
        .layer(log.mark("c"))
        .service(service_fn(|request: Request<Body>| async move {
            match request.uri().path() {
                "/panic" => panic!("no luck"),
                "/ok" => Ok(Response::new(Body::empty())),
                _ => Err(Broken),
            }
        }));
    let server = serve(service).await;
    for (path, told, answered) in [
        ("/", Some((true, None)), ("a", 500, Some("the handler failed".to_owned()))),
        (
            "/panic",
            Some((false, Some((false, true)))),
            ("a", 500, Some("the application panicked: no luck".to_owned())),
        ),
    ] {
        assert_eq!(server.get(path).await.status(), 501);
        assert_eq!(errors(log.answers()), [answered], "{path}");
        assert_eq!(events.drain(), [told], "{path}");
    }
    assert_eq!(server.get("/ok").await.status(), 202);
    assert_eq!(events.drain(), [None]);
}

#[tokio::test]
async fn c4_a_sync_middleware_can_answer_for_an_error_inside() {
    let log = Log::default();
    let service = ServiceBuilder::new()
        .layer(log.mark("a"))
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|request: Request<Input>, next: &dyn SyncHandler| match next.call(request) {
            Err(error) => Response::builder().status(502).body(Output::from(error.to_string())),
            Ok(response) => Ok(response),
        }))
        .layer(AsgiLayer::adapter())
        .service(service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(Broken) }));
    let server = serve(service).await;
    for version in VERSIONS {
        let response = server.ask(version, "GET", "/").await;
        assert_eq!(response.status(), 503);
        assert_eq!(text(response).await, "broken");
        assert_eq!(errors(log.answers()), [("a", 502, None)]);
    }
}

/// Sync and async middleware that put a body between brackets of their own.
fn wraps(name: &'static str) -> SyncFnLayer<impl SyncMiddleware + use<>> {
    sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        let body = Input::reader(bracketed(name, body));
        let (mut parts, body) = next.call(Request::from_parts(parts, body))?.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        Ok(Response::from_parts(parts, Output::reader(bracketed(name, body.into_reader()))))
    })
}

fn bracketed(name: &'static str, body: impl Read) -> impl Read {
    Cursor::new(format!("{name}(")).chain(body).chain(Cursor::new(")"))
}

/// The same on the async side.
fn wrap(name: &'static str, body: Body) -> Body {
    Body::new(Bracketed { before: Some(format!("{name}(").into()), body, after: Some(")".into()) })
}

struct Bracketed {
    before: Option<Bytes>,
    body: Body,
    after: Option<Bytes>,
}

impl http_body::Body for Bracketed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(before) = self.before.take() {
            return std::task::Poll::Ready(Some(Ok(Frame::data(before))));
        }
        std::pin::Pin::new(&mut self.body)
            .poll_frame(cx)
            .map(|frame| frame.or_else(|| self.after.take().map(|after| Ok(Frame::data(after)))))
    }
}

#[tokio::test]
async fn c4_wrappers_of_bodies_apply_in_order_in_both_directions() {
    let echo = |request: Request<Input>| Response::new(Output::reader(request.into_body()));
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(2).send_queue_size(1))
        .layer(wraps("a"))
        .layer(wraps("b"))
        .layer(AsgiLayer::adapter())
        .map_request(|mut request: Request<Body>| {
            request.headers_mut().remove(CONTENT_LENGTH);
            request.map(|body| wrap("c", body))
        })
        .map_response(|response: Response<Body>| response.map(|body| wrap("c", body)))
        .layer(WsgiLayer::adapter().workers(2).send_queue_size(1))
        .layer(wraps("d"))
        .service(echo);
    let server = serve(service).await;
    for version in VERSIONS {
        let request = server.request("POST", "/", Body::from("body"));
        let response = soon(server.send(version, request)).await.expect("a response");
        // The request's body was wrapped by the outermost layer first, the response's by the innermost.
        assert_eq!(text(response).await, "a(b(c(d(d(c(b(a(body))))))))", "{version:?}");
    }
}

fn checksum() -> HeaderMap {
    HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"5d41\""))])
}

/// A body's text and trailers, over each version, through a stack.
async fn trailed<S, B>(service: S, expected: (&str, Option<HeaderMap>))
where
    S: tower::Service<Request<hyper::body::Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let server = serve(service).await;
    for version in VERSIONS {
        let mut request = server.request("GET", "/", Body::empty());
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        let response = soon(server.send(version, request)).await.expect("a response");
        let body = soon(response.into_body().collect()).await.expect("a whole body");
        assert_eq!(body.trailers(), expected.1.as_ref(), "{version:?}");
        assert_eq!(body.to_bytes(), expected.0, "{version:?}");
    }
}

/// Names the trailers of a response, as HTTP/1 wants it.
fn named<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    response.headers_mut().insert(TRAILER, HeaderValue::from_static("etag"));
    response
}

#[tokio::test]
async fn c4_trailers_of_the_innermost_sync_handler_cross_every_boundary() {
    let passes = || sync_fn(|request: Request<Input>, next: &dyn SyncHandler| next.call(request));
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(passes())
        .layer(AsgiLayer::adapter())
        .layer(WsgiLayer::adapter().workers(1))
        .layer(passes())
        .service(|_: Request<Input>| named(Output::iter(["he", "llo"]).with_trailers(checksum)));
    trailed(service, ("hello", Some(checksum()))).await;
}

#[tokio::test]
async fn c4_trailers_of_an_async_service_cross_every_boundary() {
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|request: Request<Input>, next: &dyn SyncHandler| next.call(request)))
        .layer(AsgiLayer::adapter())
        .layer(WsgiLayer::adapter().workers(1))
        .layer(AsgiLayer::adapter())
        .service(service_fn(|_: Request<Body>| async {
            let frames = [Frame::data("he".into()), Frame::data("llo".into()), Frame::trailers(checksum())];
            Ok::<_, Infallible>(named(Frames::new(frames)))
        }));
    trailed(service, ("hello", Some(checksum()))).await;
}

#[tokio::test]
async fn c4_a_middleware_that_reads_a_body_has_its_trailers_and_has_to_pass_them_on() {
    let inner = || {
        AsgiLayer::adapter().layer(service_fn(|_: Request<Body>| async {
            let frames = [Frame::data("he".into()), Frame::data("llo".into()), Frame::trailers(checksum())];
            Ok::<_, Infallible>(named(Frames::new(frames)))
        }))
    };
    // A reader has no trailers.
    let forgets = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
        let response = next.call(request)?;
        Ok::<_, BoxError>(response.map(|body| Output::reader(body.into_reader())))
    });
    let service = WsgiLayer::adapter().workers(1).layer(forgets.layer(inner()));
    trailed(service, ("hello", None)).await;

    let keeps = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
        let (parts, body) = next.call(request)?.into_parts();
        let mut body = body.into_reader();
        let text = std::io::read_to_string(&mut body)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = Output::from(text.to_uppercase()).with_trailers(move || trailers);
        Ok::<_, BoxError>(Response::from_parts(parts, body))
    });
    let service = WsgiLayer::adapter().workers(1).layer(keeps.layer(inner()));
    trailed(service, ("HELLO", Some(checksum()))).await;

    // The body that was read is still one that can be passed on, trailers and all.
    let passes_on = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
        let response = next.call(request)?;
        Ok::<_, BoxError>(response.map(|body| Output::from(body.into_reader().into_body())))
    });
    let service = WsgiLayer::adapter().workers(1).layer(passes_on.layer(inner()));
    trailed(service, ("hello", Some(checksum()))).await;
}

#[tokio::test]
async fn c4_a_response_extension_comes_out_as_it_was_put_in() {
    // The same value comes out, not another of its kind.
    let shared = std::sync::Arc::new(());
    let given = shared.clone();
    let mut service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(AsgiLayer::adapter())
        .layer(WsgiLayer::adapter().workers(1))
        .service(move |_: Request<Input>| {
            let mut response = Response::new(());
            response.extensions_mut().insert(given.clone());
            response
        });
    let response = soon(service.call(Request::new(Body::empty()))).await.expect("a response");
    let found: &std::sync::Arc<()> = response.extensions().get().expect("the extension");
    assert!(std::sync::Arc::ptr_eq(found, &shared));
}
