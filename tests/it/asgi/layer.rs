//! `AsgiLayer` in front of a handler and as an adapter, `sync_fn`, and what the types promise to the compiler.

use std::convert::Infallible;
use std::fmt::Debug;
use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;

use axum::extract::Request as AxumRequest;
use axum::middleware::{Next as AxumNext, from_fn};
use axum::routing::get as on_get;
use axum::{Router, response};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tower::{Layer as _, ServiceBuilder, service_fn};
use tower_http::compression::CompressionLayer;
use tower_wsgi::{
    Adapter, Asgi, AsgiHandler, AsgiLayer, BackgroundTasks, Body, BoxError, Environ, Input, Output, Scope,
    SyncFn, SyncFnLayer, SyncHandler, WsgiService, sync_fn,
};

use super::{Answer, Broken, answer, get, read};
use crate::support::watched;

/// Tells what reached the async side.
async fn describe(request: Request<Body>) -> Answer {
    let scope = Scope::of(&request);
    let text = format!("async [{}]{} of {}", scope.root_path(), request.uri(), scope.path());
    Ok(Response::new(Body::from(text)))
}

/// Tells what reached the sync side.
fn legacy(request: Request<Input>) -> io::Result<Response<String>> {
    let environ = Environ::of(&request);
    let mount = String::from_utf8_lossy(&environ.script_name()).into_owned();
    let (parts, body) = request.into_parts();
    Ok(Response::new(format!("sync [{mount}]{} {}", parts.uri, io::read_to_string(body)?)))
}

/// What a handler answers to a GET.
fn ask(handler: &impl SyncHandler, uri: &str) -> String {
    let request = Request::get(uri).body(Input::empty()).expect("a request");
    read(handler.call(request).expect("a response")).expect("a whole body")
}

#[test]
fn c2_a_mount_splits_at_the_borders_of_segments() {
    watched(|| {
        for prefix in ["/api", "/api/"] {
            let app = AsgiLayer::new(service_fn(describe)).at(prefix).layer(legacy);
            assert_eq!(ask(&app, "/api/users?id=1"), "async [/api]/users?id=1 of /api/users");
            assert_eq!(ask(&app, "/api/"), "async [/api]/ of /api/");
            assert_eq!(ask(&app, "/api"), "async [/api]/ of /api");
            assert_eq!(ask(&app, "/api?id=1"), "async [/api]/?id=1 of /api");
            assert_eq!(ask(&app, "/api//users"), "async [/api]//users of /api//users");
            assert_eq!(ask(&app, "/apiary"), "sync []/apiary ");
            assert_eq!(ask(&app, "/API/users"), "sync []/API/users ");
            assert_eq!(ask(&app, "/"), "sync []/ ");
            assert_eq!(ask(&app, "/v1/api/users"), "sync []/v1/api/users ");
        }
    });
}

#[test]
fn c2_without_a_mount_every_request_goes_to_the_service() {
    watched(|| {
        let never = |_: Request<Input>| -> Response<String> { unreachable!("it is never called") };
        for app in [AsgiLayer::new(service_fn(describe)), AsgiLayer::new(service_fn(describe)).at("/")] {
            let app = app.layer(never);
            assert_eq!(ask(&app, "/"), "async []/ of /");
            assert_eq!(ask(&app, "/api/users?id=1"), "async []/api/users?id=1 of /api/users");
        }
    });
}

#[test]
fn c2_a_request_outside_the_mount_is_untouched() {
    #[derive(Clone, Debug, PartialEq)]
    struct Mark(u8);

    fn inspect(request: Request<Input>) -> Response<String> {
        let (parts, body) = request.into_parts();
        assert_eq!(parts.method, "PUT");
        assert_eq!(parts.uri, "http://here/apiary?id=1");
        assert_eq!(parts.version, http::Version::HTTP_10);
        assert_eq!(
            parts.headers,
            HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("here"))])
        );
        assert_eq!(parts.extensions.get(), Some(&Mark(7)));
        assert_eq!(parts.extensions.len(), 1);
        Response::new(io::read_to_string(body).expect("a body"))
    }

    watched(|| {
        let app = AsgiLayer::new(service_fn(describe)).at("/api").layer(inspect);
        let request = Request::put("http://here/apiary?id=1")
            .version(http::Version::HTTP_10)
            .header("host", "here")
            .extension(Mark(7))
            .body(Input::from("as it was"))
            .expect("a request");
        assert_eq!(read(app.call(request).expect("a response")).expect("a body"), "as it was");
    });
}

#[test]
fn c2_an_error_of_the_inner_handler_is_passed_on() {
    watched(|| {
        let fails = |_: Request<Input>| Err::<Response<Output>, _>(Broken("inner"));
        let app = AsgiLayer::new(service_fn(describe)).at("/api").layer(fails);
        let error = app.call(get()).expect_err("an error");
        assert_eq!(*error.downcast::<Broken>().expect("the handler's own"), Broken("inner"));
    });
}

#[test]
fn c2_layers_stand_one_behind_the_other() {
    watched(|| {
        let app = ServiceBuilder::new()
            .layer(AsgiLayer::new(service_fn(describe)).at("/a"))
            .layer(AsgiLayer::new(service_fn(describe)).at("/a/b"))
            .layer(AsgiLayer::new(service_fn(describe)).at("/b"))
            .service(legacy);
        assert_eq!(ask(&app, "/a/b/c"), "async [/a]/b/c of /a/b/c");
        assert_eq!(ask(&app, "/b/c"), "async [/b]/c of /b/c");
        assert_eq!(ask(&app, "/c"), "sync []/c ");
    });
}

#[test]
fn c2_mounts_add_up() {
    watched(|| {
        let inner = AsgiLayer::new(service_fn(describe)).at("/v1").layer(legacy);
        let app = AsgiLayer::new(WsgiService::new(inner)).at("/api").layer(legacy);
        assert_eq!(ask(&app, "/api/v1/users?id=1"), "async [/api/v1]/users?id=1 of /api/v1/users");
        assert_eq!(ask(&app, "/api/v1"), "async [/api/v1]/ of /api/v1");
        assert_eq!(ask(&app, "/api/v10/users"), "sync [/api]/v10/users ");
        assert_eq!(ask(&app, "/v1/users"), "sync []/v1/users ");
        // A router on the sync side takes its part off first.
        let app = Arc::new(AsgiLayer::new(service_fn(describe)).at("/api").layer(legacy));
        let shifted = move |mut request: Request<Input>| {
            assert!(Environ::shift(&mut request, "/shop"));
            app.call(request)
        };
        assert_eq!(ask(&shifted, "/shop/api/users"), "async [/shop/api]/users of /shop/api/users");
        assert_eq!(ask(&shifted, "/shop/cart"), "sync [/shop]/cart ");
    });
}

#[test]
fn c2_a_mount_compares_the_path_as_it_is_sent() {
    watched(|| {
        let app = AsgiLayer::new(service_fn(describe)).at("/caf%C3%A9").layer(legacy);
        assert_eq!(ask(&app, "/caf%C3%A9/a%2Fb"), "async [/café]/a%2Fb of /café/a/b");
        let app = AsgiLayer::new(service_fn(describe)).at("/a").layer(legacy);
        assert_eq!(ask(&app, "/a%2Fb"), "sync []/a%2Fb ");
    });
}

#[test]
fn c2_a_prefix_that_is_none_is_refused_at_once() {
    for prefix in ["api", "", "/a b", "/a?b", "/a#b"] {
        let made = catch_unwind(|| AsgiLayer::new(service_fn(describe)).at(prefix));
        assert!(made.is_err(), "{prefix:?}");
    }
}

#[test]
fn c4_an_environ_is_in_the_scope_and_extensions_cross() {
    watched(|| {
        let inspect = service_fn(|request: Request<Body>| async move {
            let scope = Scope::of(&request);
            let environ = scope.environ().expect("an environ");
            assert_eq!(environ.get("REMOTE_USER"), Some(&b"alice"[..]));
            assert_eq!(request.extensions().get::<u8>(), Some(&7));
            assert!(request.extensions().get::<BackgroundTasks>().is_some());
            // The other side's view is in there, and nowhere else.
            assert!(request.extensions().get::<Environ>().is_none());
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(8_u16);
            response.headers_mut().insert("x-inner", HeaderValue::from_static("yes"));
            *response.status_mut() = StatusCode::ACCEPTED;
            Ok::<_, Infallible>(response)
        });
        let login = sync_fn(|mut request: Request<Input>, next: &dyn SyncHandler| {
            let mut environ = Environ::of(&request);
            environ.set("REMOTE_USER", "alice");
            request.extensions_mut().insert(environ);
            request.extensions_mut().insert(7_u8);
            next.call(request)
        });
        let response = login.layer(AsgiHandler::new(inspect)).call(get()).expect("a response");
        assert_eq!(response.extensions().get::<u16>(), Some(&8));
        assert_eq!(response.headers()["x-inner"], "yes");
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    });
}

#[test]
fn sync_fn_may_call_its_inside_never_once_and_twice() {
    fn twice(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
        let again = Request::get(request.uri().clone()).body(Input::empty())?;
        let first = read(next.call(request)?)?;
        let second = read(next.call(again)?)?;
        Ok(Response::new(format!("{first}, {second}").into()))
    }

    watched(|| {
        let never = sync_fn(|_: Request<Input>, _: &dyn SyncHandler| Response::new("mine"));
        assert_eq!(ask(&never.layer(legacy), "/"), "mine");
        let once = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| next.call(request));
        assert_eq!(ask(&once.layer(legacy), "/x"), "sync []/x ");
        assert_eq!(ask(&sync_fn(twice).layer(legacy), "/x"), "sync []/x , sync []/x ");
        assert_eq!(
            ask(&sync_fn(twice).layer(AsgiHandler::new(service_fn(describe))), "/x"),
            "async []/x of /x, async []/x of /x"
        );
    });
}

#[test]
fn sync_fns_stack_from_the_outside_in() {
    fn wrap(
        with: &'static str,
        request: Request<Input>,
        next: &dyn SyncHandler,
    ) -> Result<Response<String>, BoxError> {
        let inner = read(next.call(request)?)?;
        Ok(Response::new(format!("{with}({inner})")))
    }

    watched(|| {
        let a = sync_fn(|request, next: &dyn SyncHandler| wrap("a", request, next));
        let b = sync_fn(|request, next: &dyn SyncHandler| wrap("b", request, next));
        let handler = ServiceBuilder::new()
            .layer(a.clone())
            .layer(b.clone())
            .layer(AsgiLayer::adapter())
            .service(service_fn(describe));
        assert_eq!(ask(&handler, "/x"), "a(b(async []/x of /x))");
        // And in front of a mount.
        let handler = ServiceBuilder::new()
            .layer(a)
            .layer(AsgiLayer::new(service_fn(describe)).at("/x"))
            .layer(b)
            .service(legacy);
        assert_eq!(ask(&handler, "/x"), "a(async [/x]/ of /x)");
        assert_eq!(ask(&handler, "/y"), "a(b(sync []/y ))");
    });
}

async fn authenticate(request: AxumRequest, next: AxumNext) -> response::Response {
    if !request.headers().contains_key("x-user") {
        return Response::builder().status(401).body(axum::body::Body::empty()).expect("a response");
    }
    next.run(request).await
}

#[test]
fn services_that_take_another_body_can_be_named() {
    watched(|| {
        let echo = |body: String| async move { body };
        let router = Router::<()>::new().route("/", on_get(|| async { "inside" }).post(echo));
        let handler = ServiceBuilder::new()
            .layer(AsgiLayer::adapter().request_body::<axum::body::Body>())
            .layer(from_fn(authenticate))
            .service(router.clone());
        assert_eq!(handler.call(get()).expect("a response").status(), StatusCode::UNAUTHORIZED);
        let request = Request::post("/").header("x-user", "alice").body(Input::from("hello"));
        let response = handler.call(request.expect("a request")).expect("a response");
        assert_eq!(read(response).expect("a body"), "hello");

        // In front of a handler as well, with settings before and after.
        let service = ServiceBuilder::new().layer(from_fn(authenticate)).service(router);
        let layer = AsgiLayer::new(service).request_body::<axum::body::Body>().at("/api");
        let app = layer.wait_time(std::time::Duration::from_secs(1)).layer(legacy);
        let request = Request::get("/api").header("x-user", "alice").body(Input::empty());
        let response = app.call(request.expect("a request")).expect("a response");
        assert_eq!(read(response).expect("a body"), "inside");
        assert_eq!(ask(&app, "/"), "sync []/ ");
    });
}

#[test]
fn an_adapter_is_a_layer_of_an_async_stack() {
    watched(|| {
        let router = Router::<()>::new().route("/", on_get(|| async { "inside ".repeat(100) }));
        let handler =
            ServiceBuilder::new().layer(AsgiLayer::adapter()).layer(CompressionLayer::new()).service(router);
        let request = Request::get("/").header("accept-encoding", "gzip").body(Input::empty());
        let response = handler.call(request.expect("a request")).expect("a response");
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let bytes = response.into_body().into_reader().chunk().expect("a chunk").expect("a chunk");
        assert_eq!(bytes[..2], [0x1f, 0x8b]);
        assert_eq!(answer(&handler), "inside ".repeat(100));
    });
}

#[test]
fn handlers_are_shared_and_boxed() {
    watched(|| {
        let handler: Arc<dyn SyncHandler> = Arc::new(AsgiHandler::new(service_fn(describe)));
        assert_eq!(ask(&handler, "/x"), "async []/x of /x");
        let layer = AsgiLayer::new(service_fn(describe)).at("/api");
        let app = layer.clone().layer(handler).clone();
        assert_eq!(ask(&app, "/api/x"), "async [/api]/x of /api/x");
        assert_eq!(ask(&app, "/x"), "async []/x of /x");
    });
}

/// Is `Send` and `Clone`, and neither `Sync` nor `Debug`.
#[derive(Clone)]
struct Plain(#[expect(dead_code, reason = "for its type")] std::cell::Cell<u8>);

#[test]
fn types_are_what_threads_and_stacks_need() {
    fn send<T: Send + 'static>() {}
    fn shared<T: Clone + Debug + Send + Sync + 'static>() {}

    type Function = fn(Request<Input>, &dyn SyncHandler) -> Response<Output>;

    shared::<AsgiLayer>();
    shared::<AsgiLayer<Plain>>();
    shared::<AsgiLayer<Plain, axum::body::Body>>();
    // What a service takes need be nothing at all.
    shared::<AsgiLayer<Plain, std::rc::Rc<()>>>();
    shared::<AsgiHandler<Plain>>();
    shared::<AsgiHandler<Plain, std::rc::Rc<()>>>();
    shared::<Asgi<Plain, Adapter>>();
    shared::<Asgi<Plain, Adapter, std::rc::Rc<()>>>();
    shared::<Adapter>();
    shared::<BackgroundTasks>();
    shared::<SyncFnLayer<Function>>();
    shared::<SyncFn<Function, Adapter>>();
    send::<Input>();
    send::<Output>();
    send::<Response<Output>>();
}

#[test]
fn types_say_what_they_are() {
    let layer = AsgiLayer::new(service_fn(describe)).at("/api");
    let text = format!("{layer:?}");
    assert!(text.starts_with("AsgiLayer") && text.contains("/api") && text.contains("wait_time"), "{text}");
    let text = format!("{:?}", AsgiHandler::new(service_fn(describe)));
    assert!(text.starts_with("AsgiHandler") && text.contains("wait_time"), "{text}");
    let once = sync_fn(|request: Request<Input>, next: &dyn SyncHandler| next.call(request));
    let text = format!("{once:?}");
    assert!(text.starts_with("SyncFnLayer"), "{text}");
    let app = AsgiLayer::new(service_fn(describe)).at("/api").layer(AsgiHandler::new(service_fn(describe)));
    let text = format!("{app:?}");
    assert!(text.starts_with("Asgi ") && text.contains("/api") && text.contains("AsgiHandler"), "{text}");
}
