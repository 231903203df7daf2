//! `Environ::scope` and `Scope::environ`: the chain of views, a link for each crossing, back to the outermost side.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request as AxumRequest;
use axum::middleware::from_fn;
use http::uri::Scheme;
use http::{Request, Response};
use tower::{Layer as _, Service as _, ServiceBuilder};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, Environ, Input, Scope, SyncHandler, WsgiLayer, WsgiService, sync_fn,
};

use crate::support::{Events, soon, watched};

/// A link of the chain: on the sync side `SCRIPT_NAME`, `PATH_INFO` and `REMOTE_USER`; on the async one `root_path` and `path`.
fn sync_link(environ: &Environ) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let user = environ.get("REMOTE_USER").map_or("nobody".to_owned(), text);
    format!("sync [{}][{}] {user}", text(&environ.script_name()), text(&environ.path_info()))
}

fn async_link(scope: &Scope) -> String {
    format!("async [{}] {}", scope.root_path(), scope.path())
}

/// All links from a scope outwards.
fn chain_of_scope(scope: &Scope) -> Vec<String> {
    let mut links = vec![async_link(scope)];
    if let Some(environ) = scope.environ() {
        links.extend(chain_of_environ(environ));
    }
    links
}

/// All links from an environ outwards. An environ always has a scope; one that came from no async side is the same facts in ASGI's words, and the
/// end.
fn chain_of_environ(environ: &Environ) -> Vec<String> {
    let mut links = vec![sync_link(environ)];
    links.extend(chain_of_scope(&environ.scope()));
    links
}

fn set_user(request: &mut Request<Input>, user: &str) {
    let mut environ = Environ::of(request);
    environ.set("REMOTE_USER", user);
    request.extensions_mut().insert(environ);
}

#[tokio::test]
async fn c4_each_link_of_the_chain_is_as_its_own_side_saw_it() {
    let events = Events::new();
    let tell = events.teller();
    let innermost = move |request: Request<Input>| {
        tell(chain_of_environ(&Environ::of(&request)));
        Response::new(())
    };
    let tell = events.teller();
    let at_c = Router::new()
        .fallback(|| async {})
        .layer(WsgiLayer::new(innermost).at("/d").workers(1))
        .layer(from_fn(move |request: AxumRequest, next: axum::middleware::Next| {
            tell(chain_of_scope(&Scope::of(&request)));
            next.run(request)
        }));
    let tell = events.teller();
    let at_a = ServiceBuilder::new()
        .layer(sync_fn(move |mut request: Request<Input>, next: &dyn SyncHandler| {
            tell(chain_of_environ(&Environ::of(&request)));
            set_user(&mut request, "alice");
            next.call(request)
        }))
        .layer(AsgiLayer::new(Router::new().nest("/c", at_c)).at("/b"))
        .service(|_: Request<Input>| Response::new(()));
    let tell = events.teller();
    let mut router = Router::new().layer(WsgiLayer::new(at_a).at("/a").workers(1)).layer(from_fn(
        move |request: AxumRequest, next: axum::middleware::Next| {
            tell(chain_of_scope(&Scope::of(&request)));
            next.run(request)
        },
    ));
    let request = Request::get("/a/b/c/d/e").body(axum::body::Body::empty()).expect("a request");
    let response = soon(router.call(request)).await.expect("a response");
    assert_eq!(response.status(), 200);
    let expected: [&[&str]; 4] = [
        &["async [] /a/b/c/d/e"],
        &["sync [/a][/b/c/d/e] nobody", "async [] /a/b/c/d/e"],
        &["async [/a/b/c] /a/b/c/d/e", "sync [/a/b][/c/d/e] alice", "async [] /a/b/c/d/e"],
        &[
            "sync [/a/b/c/d][/e] alice",
            "async [/a/b/c] /a/b/c/d/e",
            "sync [/a/b][/c/d/e] alice",
            "async [] /a/b/c/d/e",
        ],
    ];
    assert_eq!(events.drain(), expected);
}

#[test]
fn c4_a_chain_that_starts_on_the_sync_side() {
    watched(|| {
        let events = Events::new();
        let (inside, again) = (events.teller(), events.teller());
        let innermost = move |request: Request<Input>| {
            again(chain_of_environ(&Environ::of(&request)));
            Response::new(())
        };
        let service = ServiceBuilder::new()
            .map_request(move |request: Request<Body>| {
                inside(chain_of_scope(&Scope::of(&request)));
                request
            })
            .service(WsgiService::new(innermost));
        let mut request = Request::get("/a/b").body(Input::empty()).expect("a request");
        set_user(&mut request, "alice");
        assert!(Environ::shift(&mut request, "/a"));
        AsgiHandler::new(service).call(request).expect("a response");
        let expected: [&[&str]; 2] = [
            // The last link is the environ's facts before it was shifted, in the words of an async side that there is none of.
            &["async [/a] /a/b", "sync [/a][/b] alice", "async [] /a/b"],
            &["sync [/a][/b] alice", "async [/a] /a/b", "sync [/a][/b] alice", "async [] /a/b"],
        ];
        assert_eq!(events.drain(), expected);
    });
}

#[tokio::test]
async fn c4_what_is_set_inside_is_not_seen_by_the_links_outside() {
    let events = Events::new();
    let tell = events.teller();
    let mut service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|mut request: Request<Input>, next: &dyn SyncHandler| {
            set_user(&mut request, "alice");
            next.call(request)
        }))
        .layer(AsgiLayer::adapter())
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|mut request: Request<Input>, next: &dyn SyncHandler| {
            set_user(&mut request, "bob");
            next.call(request)
        }))
        .service(move |request: Request<Input>| {
            tell(chain_of_environ(&Environ::of(&request)));
            Response::new(())
        });
    soon(service.call(Request::new(Body::empty()))).await.expect("a response");
    assert_eq!(events.drain(), [["sync [][/] bob", "async [] /", "sync [][/] alice", "async [] /"]]);
}

/// Facts of the connection, on either side.
type Facts = (Option<SocketAddr>, Option<(String, u16)>, String);

#[tokio::test]
async fn c4_the_facts_of_the_connection_reach_every_side() {
    let events: Events<Facts> = Events::new();
    let server = |server: Option<(&str, u16)>| server.map(|(host, port)| (host.to_owned(), port));
    let on_sync = move |request: &Request<Input>, tell: &dyn Fn(Facts)| {
        let environ = Environ::of(request);
        tell((environ.remote(), server(environ.server()), environ.url_scheme().to_owned()));
    };
    let (first, second, third) = (events.teller(), events.teller(), events.teller());
    let mut service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            on_sync(&request, &first);
            next.call(request)
        }))
        .layer(AsgiLayer::adapter())
        .map_request(move |request: Request<Body>| {
            let scope = Scope::of(&request);
            second((scope.client(), server(scope.server()), scope.scheme().to_owned()));
            request
        })
        .layer(WsgiLayer::adapter().workers(1))
        .service(move |request: Request<Input>| {
            on_sync(&request, &third);
            Response::new(())
        });
    let client = SocketAddr::from(([192, 0, 2, 1], 4000));
    let mut request = Request::new(Body::empty());
    let scope =
        Scope::of(&request).with_client(client).with_server("example.org", 8443).with_scheme(Scheme::HTTPS);
    request.extensions_mut().insert(scope);
    soon(service.call(request)).await.expect("a response");
    let expected = (Some(client), Some(("example.org".to_owned(), 8443)), "https".to_owned());
    assert_eq!(events.drain(), [expected.clone(), expected.clone(), expected]);
}

#[tokio::test]
async fn c4_what_the_host_says_of_the_root_path_is_in_front_of_all() {
    let events = Events::new();
    let tell = events.teller();
    let innermost = WsgiLayer::new(move |request: Request<Input>| {
        tell(chain_of_environ(&Environ::of(&request)));
        Response::new(())
    });
    let at_b = innermost.at("/c").layer(Router::new());
    let at_a = AsgiLayer::new(at_b).at("/b").layer(|_: Request<Input>| Response::new(()));
    let mut service = WsgiLayer::new(at_a).at("/a").layer(Router::<()>::new());
    let mut request = Request::get("/a/b/c/d").body(axum::body::Body::empty()).expect("a request");
    let scope = Scope::of(&request).with_root_path("/proxy");
    request.extensions_mut().insert(scope);
    soon(service.call(request)).await.expect("a response");
    let expected = [
        "sync [/proxy/a/b/c][/d] nobody",
        "async [/proxy/a/b] /proxy/a/b/c/d",
        "sync [/proxy/a/b][/c/d] nobody",
        "async [/proxy] /proxy/a/b/c/d",
    ];
    assert_eq!(events.drain(), [expected]);
}
