//! What a sync middleware changes in a request, as the async service inside sees it, and the sync one inside that.

use axum::Router;
use axum::extract::Request as AxumRequest;
use http::uri::Uri;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiLayer, Body, BoxError, Environ, Input, Scope, SyncHandler, Variables, WsgiLayer, sync_fn,
};

use super::Frames;
use crate::support::{Events, VERSIONS, serve, soon, text};

/// What an inner layer finds of what outer ones did.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    user: Option<String>,
    uri: String,
    root: String,
    raw_path: String,
    query: String,
    method: Method,
    header: Option<HeaderValue>,
    tenant: Option<Tenant>,
}

/// An extension of a middleware's own.
#[derive(Clone, Debug, PartialEq)]
struct Tenant(u32);

/// Finds it on the async side, in the scope.
fn find<B>(request: &Request<B>) -> Found {
    let scope = Scope::of(request);
    let environ = scope.environ().expect("an environ");
    Found {
        user: environ.get("REMOTE_USER").map(lossy),
        uri: request.uri().path().to_owned(),
        root: scope.root_path().into_owned(),
        raw_path: scope.raw_path().to_owned(),
        query: scope.query_string().to_owned(),
        method: scope.method().clone(),
        header: request.headers().get("x-a").cloned(),
        tenant: request.extensions().get().cloned(),
    }
}

/// Finds it on the sync side, in the environ and among the variables, which have to agree.
fn find_again(request: &Request<Input>) -> Found {
    let (environ, variables) = (Environ::of(request), Variables::of(request));
    let variable = |name| lossy(variables.get(name).unwrap_or_default());
    assert_eq!(environ.get("REMOTE_USER"), variables.get("REMOTE_USER"));
    assert_eq!(lossy(&environ.script_name()), variable("SCRIPT_NAME"));
    assert_eq!(lossy(&environ.path_info()), variable("PATH_INFO"));
    let target: Uri = variable("REQUEST_URI").parse().expect("a target");
    Found {
        user: environ.get("REMOTE_USER").map(lossy),
        uri: request.uri().path().to_owned(),
        root: variable("SCRIPT_NAME"),
        raw_path: target.path().to_owned(),
        query: variable("QUERY_STRING"),
        method: variable("REQUEST_METHOD").parse().expect("a method"),
        header: variables.get("HTTP_X_A").map(|value| HeaderValue::from_bytes(value).expect("a value")),
        tenant: request.extensions().get().cloned(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Changes a request on the sync side.
type Change = fn(&mut Request<Input>);

fn set_user(request: &mut Request<Input>) {
    let mut environ = Environ::of(request);
    environ.set("REMOTE_USER", "alice");
    request.extensions_mut().insert(environ);
}

fn rewrite(request: &mut Request<Input>) {
    *request.uri_mut() = Uri::from_static("/n%C3%A9w?r=2");
}

fn rewrite_query(request: &mut Request<Input>) {
    *request.uri_mut() = Uri::from_static("/app/x%20y?r=2");
}

fn shift(request: &mut Request<Input>) {
    assert!(Environ::shift(request, "/app"));
}

fn shift_and_rewrite(request: &mut Request<Input>) {
    shift(request);
    rewrite(request);
}

fn rewrite_and_shift(request: &mut Request<Input>) {
    *request.uri_mut() = Uri::from_static("/app/z");
    shift(request);
}

#[tokio::test]
async fn c4_what_a_sync_middleware_changes_is_seen_two_crossings_further() {
    let plain = Found {
        user: None,
        uri: "/app/x%20y".into(),
        root: String::new(),
        raw_path: "/app/x%20y".into(),
        query: "q=1".into(),
        method: Method::POST,
        header: Some(HeaderValue::from_static("client")),
        tenant: None,
    };
    let new =
        Found { uri: "/n%C3%A9w".into(), raw_path: "/n%C3%A9w".into(), query: "r=2".into(), ..plain.clone() };
    let cases: [(&str, Change, Found); 11] = [
        ("nothing", |_| (), plain.clone()),
        ("user", set_user, Found { user: Some("alice".into()), ..plain.clone() }),
        (
            "header",
            |request| {
                request.headers_mut().insert("x-a", HeaderValue::from_static("sync"));
            },
            Found { header: Some(HeaderValue::from_static("sync")), ..plain.clone() },
        ),
        (
            "no header",
            |request| {
                request.headers_mut().remove("x-a");
            },
            Found { header: None, ..plain.clone() },
        ),
        (
            "extension",
            |request| {
                request.extensions_mut().insert(Tenant(7));
            },
            Found { tenant: Some(Tenant(7)), ..plain.clone() },
        ),
        (
            "method",
            |request| *request.method_mut() = Method::PUT,
            Found { method: Method::PUT, ..plain.clone() },
        ),
        ("rewrite", rewrite, new.clone()),
        (
            // The old path ends with the new one; that makes no mount of what is missing.
            "rewrite to the end",
            |request| *request.uri_mut() = Uri::from_static("/x%20y?q=1"),
            Found { uri: "/x%20y".into(), raw_path: "/x%20y".into(), ..plain.clone() },
        ),
        ("query", rewrite_query, Found { query: "r=2".into(), ..plain.clone() }),
        ("shift", shift, Found { uri: "/x%20y".into(), root: "/app".into(), ..plain.clone() }),
        (
            // What is under the mount is another path now; the mount is where it was.
            "shift and rewrite",
            shift_and_rewrite,
            Found { root: "/app".into(), raw_path: "/app/n%C3%A9w".into(), ..new.clone() },
        ),
    ];
    for (name, change, expected) in cases {
        let events = Events::new();
        let (inside, again) = (events.teller(), events.teller());
        let service = ServiceBuilder::new()
            .layer(WsgiLayer::adapter().workers(1))
            .layer(sync_fn(move |mut request: Request<Input>, next: &dyn SyncHandler| {
                change(&mut request);
                next.call(request)
            }))
            .layer(AsgiLayer::adapter())
            .map_request(move |request: Request<Body>| {
                inside(find(&request));
                request
            })
            .layer(WsgiLayer::adapter().workers(1))
            .service(move |request: Request<Input>| {
                again(find_again(&request));
                Response::new(())
            });
        let server = serve(service).await;
        for version in VERSIONS {
            let mut request = server.request("POST", "/app/x%20y?q=1", Body::empty());
            request.headers_mut().insert("x-a", HeaderValue::from_static("client"));
            soon(server.send(version, request)).await.expect("a response");
            assert_eq!(events.drain(), [expected.clone(), expected.clone()], "{name} {version:?}");
        }
    }
}

#[tokio::test]
async fn c4_a_shift_after_a_rewrite_is_of_the_new_path() {
    let mut service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|mut request: Request<Input>, next: &dyn SyncHandler| {
            rewrite_and_shift(&mut request);
            next.call(request)
        }))
        .layer(AsgiLayer::adapter())
        .service(Router::new().fallback(|request: AxumRequest| async move {
            let found = find(&request);
            format!("{} {} {} {}", found.uri, found.root, found.raw_path, found.query)
        }));
    let request = Request::get("/old?q=1").body(Body::empty()).expect("a request");
    let response = soon(tower::Service::call(&mut service, request)).await.expect("a response");
    let body = soon(response.into_body().collect()).await.expect("a body").to_bytes();
    assert_eq!(body, "/z /app /app/z ");
}

/// Takes the first segment off a request's path.
fn cut<B>(request: &mut Request<B>) {
    *request.uri_mut() = Uri::from_static("/x");
}

#[tokio::test]
async fn c4_a_path_cut_at_its_front_is_a_mount_on_an_inner_async_side_and_a_rewrite_elsewhere() {
    let events = Events::new();
    let told = |name: &'static str, cut_outside: bool, cut_sync: bool, cut_inside: bool| {
        let tell = events.teller();
        let service = ServiceBuilder::new()
            .map_request(move |mut request: Request<Body>| {
                if cut_outside {
                    cut(&mut request);
                }
                request
            })
            .layer(WsgiLayer::adapter().workers(1))
            .layer(sync_fn(move |mut request: Request<Input>, next: &dyn SyncHandler| {
                if cut_sync {
                    cut(&mut request);
                }
                next.call(request)
            }))
            .layer(AsgiLayer::adapter())
            .map_request(move |mut request: Request<Body>| {
                if cut_inside {
                    cut(&mut request);
                }
                let scope = Scope::of(&request);
                tell((name, scope.root_path().into_owned(), scope.path().into_owned()));
                request
            })
            .layer(WsgiLayer::adapter().workers(1))
            .service(|request: Request<Input>| Response::new(find_again(&request).root));
        let request = Request::get("/app/x").body(Body::empty()).expect("a request");
        service.oneshot(request)
    };
    for (name, service, root, path) in [
        // Nobody described the request before: it is as it is.
        ("outside", told("outside", true, false, false), "", "/x"),
        // There, `Environ::shift` makes a mount.
        ("sync", told("sync", false, true, false), "", "/x"),
        // That is what routers do who nest.
        ("inside", told("inside", false, false, true), "/app", "/app/x"),
    ] {
        let response = soon(service).await.expect("a response");
        let script = soon(response.into_body().collect()).await.expect("a body").to_bytes();
        assert_eq!(script, root, "{name}");
        assert_eq!(events.drain(), [(name, root.to_owned(), path.to_owned())]);
    }
}

#[tokio::test]
async fn c4_what_an_outer_async_layer_changes_is_seen_on_the_sync_side_and_beyond_it() {
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Tenant(7));
            request.headers_mut().insert("x-a", HeaderValue::from_static("async"));
            *request.uri_mut() = Uri::from_static("/new?r=2");
            *request.method_mut() = Method::PUT;
            request
        })
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
            let found = find_again(&request);
            assert_eq!(found.tenant, Some(Tenant(7)));
            assert_eq!((found.raw_path.as_str(), found.query.as_str()), ("/new", "r=2"));
            next.call(request)
        }))
        .layer(AsgiLayer::adapter())
        .service(service_fn(|request: Request<Body>| async move {
            Ok::<_, BoxError>(Response::new(Body::from(format!("{:?}", find(&request)))))
        }));
    let server = serve(service).await;
    let expected = Found {
        user: None,
        uri: "/new".into(),
        root: String::new(),
        raw_path: "/new".into(),
        query: "r=2".into(),
        method: Method::PUT,
        header: Some(HeaderValue::from_static("async")),
        tenant: Some(Tenant(7)),
    };
    for version in VERSIONS {
        let response = server.ask(version, "GET", "/old").await;
        assert_eq!(text(response).await, format!("{expected:?}"), "{version:?}");
    }
}

#[tokio::test]
async fn c4_body_and_trailers_of_a_request_reach_the_innermost_layer() {
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|request: Request<Input>, next: &dyn SyncHandler| next.call(request)))
        .layer(AsgiLayer::adapter())
        .layer(WsgiLayer::adapter().workers(1))
        .service(|request: Request<Input>| {
            let mut body = request.into_body();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut body, &mut text)?;
            let etag = body.trailers().and_then(|trailers| trailers.get("etag")).cloned();
            Ok::<_, BoxError>(Response::new(format!("{text} {etag:?}")))
        });
    let server = serve(service).await;
    for version in VERSIONS {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"1\""))]);
        let frames = [Frame::data("he".into()), Frame::data("llo".into()), Frame::trailers(trailers)];
        let mut request = server.request("POST", "/", Frames::new(frames));
        if version == Version::HTTP_11 {
            request.headers_mut().insert("trailer", HeaderValue::from_static("etag"));
        }
        let response = soon(server.send(version, request)).await.expect("a response");
        assert_eq!(text(response).await, r#"hello Some("\"1\"")"#, "{version:?}");
    }
}
