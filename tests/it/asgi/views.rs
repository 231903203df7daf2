//! C4: what a layer says of a request in an environ or a scope of its own making counts on both sides.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc as std_mpsc};

use axum::Router;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, Environ, Input, Scope, SyncHandler, Variables, WorkerPool, WsgiLayer,
    WsgiService, sync_fn,
};

use super::{Tell, read};
use crate::support::{blocking, idle, soon};

const CLIENT: ([u8; 4], u16) = ([1, 2, 3, 4], 5);

/// A request that a layer of the async side has given a user, and before that a scope or none.
fn of_alice(path: &str, with_scope: bool) -> Request<Body> {
    let mut request = Request::get(path).body(Body::empty()).expect("a request");
    if with_scope {
        let scope = Scope::of(&request).with_client(CLIENT.into());
        request.extensions_mut().insert(scope);
    }
    let mut environ = Environ::of(&request);
    environ.set("REMOTE_USER", "alice");
    request.extensions_mut().insert(environ);
    request
}

async fn whole<B: http_body::Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn c4_an_environ_that_an_async_layer_made_is_the_sync_sides() {
    let service = WsgiService::new(|request: Request<Input>| {
        let environ = Environ::of(&request);
        let user = environ.get("REMOTE_USER").map(String::from_utf8_lossy);
        Response::new(format!("{user:?} {:?}", environ.remote()))
    });
    let cases = [(false, r#"Some("alice") None"#), (true, r#"Some("alice") Some(1.2.3.4:5)"#)];
    for (with_scope, expected) in cases {
        let response = soon(service.clone().oneshot(of_alice("/", with_scope))).await.expect("a response");
        assert_eq!(whole(response).await, expected);
    }
}

#[tokio::test]
async fn c2_an_environ_that_an_async_layer_made_follows_axums_nest() {
    let service = WsgiService::new(|request: Request<Input>| {
        let variables = Variables::of(&request);
        let text = ["SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "REMOTE_USER"]
            .map(|name| String::from_utf8_lossy(variables.get(name).unwrap_or(b"nothing")).into_owned());
        Response::new(text.join(" "))
    });
    let nested = Router::<()>::new().fallback_service(service);
    let router = Router::<()>::new().nest("/api", nested);
    for with_scope in [false, true] {
        let request = of_alice("/api/x?id=1", with_scope).map(axum::body::Body::new);
        let response = soon(router.clone().oneshot(request)).await.expect("a response");
        assert_eq!(whole(response).await, "/api /x /api/x?id=1 alice", "with a scope: {with_scope}");
    }
}

#[test]
fn c4_a_scope_that_a_sync_layer_made_is_the_async_sides() {
    let handler = AsgiHandler::new(service_fn(|request: Request<Body>| async move {
        let scope = Scope::of(&request);
        let text = format!("{:?} {:?} {}", scope.client(), scope.server(), scope.scheme());
        Ok::<_, Infallible>(Response::new(Body::from(text)))
    }));
    let request = || {
        let variables = [
            ("REQUEST_METHOD", "GET"),
            ("PATH_INFO", "/"),
            ("REMOTE_ADDR", "10.0.0.1"),
            ("REMOTE_PORT", "80"),
        ];
        let request = Variables::from_iter(variables).into_request().expect("a request");
        request.map(|()| Input::empty())
    };
    let answer = |request| read(handler.call(request).expect("a response")).expect("a body");
    assert!(answer(request()).starts_with("Some(10.0.0.1:80) "));

    let mut changed = request();
    let scope = Scope::of(&changed).with_client(CLIENT.into()).with_server("example.org", 443);
    changed.extensions_mut().insert(scope.with_scheme(http::uri::Scheme::HTTPS));
    assert_eq!(answer(changed), r#"Some(1.2.3.4:5) Some(("example.org", 443)) https"#);
}

#[tokio::test]
async fn c4_an_environ_that_a_sync_layer_made_still_hears_of_a_client_that_leaves() {
    let (sender, started) = std_mpsc::channel();
    let (tell, dropped) = Tell::new();
    let (_kept, never) = oneshot::channel::<()>();
    let parts = Arc::new(Mutex::new(Some((sender, tell, never))));
    let service = service_fn(move |request: Request<Body>| {
        let (sender, tell, never) = parts.lock().expect("a lock").take().expect("one call");
        let client = Scope::of(&request).client();
        sender.send(client).expect("a test");
        async move {
            let _tell = tell;
            let _ = never.await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    // The address that a proxy in front has told: nothing but a scope can hold it.
    let real_ip = sync_fn(|mut request: Request<Input>, next: &dyn SyncHandler| {
        let environ = Environ::from(&Scope::of(&request).with_client(CLIENT.into()));
        request.extensions_mut().insert(environ);
        next.call(request)
    });
    let pool = WorkerPool::new(1);
    let stack = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .layer(real_ip)
        .layer(AsgiLayer::adapter())
        .service(service);
    let call = tokio::spawn(stack.oneshot(Request::new(Body::empty())));
    let client = blocking(move || super::next(&started)).await;
    assert_eq!(client, Some(SocketAddr::from(CLIENT)));
    call.abort();
    blocking(move || super::next(&dropped)).await;
    idle(&pool).await;
}
