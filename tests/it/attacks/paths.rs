//! Paths that mean one thing to who guards a mount and another to who is behind it.

use std::convert::Infallible;

use axum::Router;
use axum::routing::any as on_any;
use http::{Request, Response, Uri};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tower::{Layer as _, ServiceBuilder};
use tower_wsgi::{
    AsgiLayer, Body, BoxError, Environ, Input, Output, Scope, SyncHandler, Variables, WorkerPool, WsgiLayer,
    WsgiService, sync_fn,
};

use super::{call, send};
use crate::support::{serve, serve_axum, watched};

/// Percent-decodes by the letter of RFC 3986; what is no escape stays.
fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        match (*byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).expect("two digits"));
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// What is left of a path below a mount, found by its segments.
fn below(path: &str, prefix: &str) -> Option<String> {
    let (path, prefix): (Vec<_>, Vec<_>) = (path.split('/').collect(), prefix.split('/').collect());
    let rest = path.strip_prefix(&prefix[..])?;
    Some(rest.iter().map(|segment| format!("/{segment}")).collect())
}

/// A mounted handler: where it finds itself, and what is whole of the path.
#[expect(clippy::needless_pass_by_value, reason = "a handler owns its request")]
fn mounted(request: Request<Input>) -> Response<String> {
    let (environ, variables) = (Environ::of(&request), Variables::of(&request));
    assert_eq!(variables.get("SCRIPT_NAME"), Some(&*environ.script_name()));
    assert_eq!(variables.get("PATH_INFO"), Some(&*environ.path_info()));
    Response::new(format!(
        "mounted {} {} {} {}",
        environ.script_name().escape_ascii(),
        environ.path_info().escape_ascii(),
        request.uri().path(),
        environ.scope().raw_path(),
    ))
}

/// What [`mounted`] should say at `prefix`, with `rest` of `path`.
fn told(prefix: &str, rest: &str, path: &str) -> String {
    let here = if rest.is_empty() { "/" } else { rest };
    format!("mounted {} {} {here} {path}", decode(prefix).escape_ascii(), decode(rest).escape_ascii())
}

/// What is answered where the layer's mount is at `prefix`.
fn expected(path: &str, prefix: &str) -> String {
    below(path, prefix).map_or_else(|| format!("inner {path}"), |rest| told(prefix, &rest, path))
}

/// A mount of axum's and what is below it: of two slashes after it axum takes the first for its own.
fn below_nest(path: &str, prefix: &str) -> Option<(String, String)> {
    let rest = below(path, prefix)?;
    Some(match rest.strip_prefix('/').filter(|rest| rest.starts_with('/')) {
        Some(rest) => (format!("{prefix}/"), rest.to_owned()),
        None => (prefix.to_owned(), rest),
    })
}

/// The same where it is axum's.
fn nested(path: &str, prefix: &str) -> String {
    below_nest(path, prefix)
        .map_or_else(|| format!("inner {path}"), |(prefix, rest)| told(&prefix, &rest, path))
}

async fn inner(request: axum::extract::Request) -> String {
    format!("inner {}", request.uri().path())
}

/// The tricks: of each the path that it is sent as, and whether it is under `/api`.
const TRICKS: [(&str, bool); 46] = [
    ("/api", true),
    ("/api/", true),
    ("/api//", true),
    ("/api/x", true),
    ("/api/../admin", true),
    ("/api/..", true),
    ("/api/.", true),
    ("/api/%2e%2e/admin", true),
    ("/api/..%2fadmin", true),
    ("/api/x;y=z", true),
    ("/api/%00", true),
    ("/api/%ff%fe", true),
    ("/api/%zz", true),
    ("/api/%", true),
    ("/api/\\..\\admin", true),
    ("/api/api", true),
    ("/api/%2e", true),
    ("/api/a:b@c", true),
    ("/api//evil.example/x", true),
    ("/api/%252e%252e/admin", true),
    ("/api?x=/../admin", true),
    ("/apiary", false),
    ("/ap", false),
    ("/API", false),
    ("/Api/x", false),
    ("//api", false),
    ("//api/x", false),
    ("/./api", false),
    ("/x/../api", false),
    ("/api%2f", false),
    ("/api%2Fx", false),
    ("/api%2f..%2fadmin", false),
    ("/%61pi", false),
    ("/%61pi/x", false),
    ("/api%00", false),
    ("/api;x", false),
    ("/api;/x", false),
    ("/api.", false),
    ("/api%20", false),
    ("/api\\x", false),
    ("/api%5cx", false),
    ("/%2fapi", false),
    ("/%2e/api", false),
    ("/api%", false),
    ("/x/api", false),
    ("/", false),
];

#[tokio::test]
async fn c2_no_trick_enters_a_mount_or_leaves_it() {
    let layer = Router::new().fallback(inner).layer(WsgiLayer::new(mounted).at("/api"));
    let nest = Router::new().nest_service("/api", WsgiService::new(mounted)).fallback(inner);
    let servers = [
        (serve(layer.clone()).await, expected as fn(&str, &str) -> String),
        (serve_axum(layer).await, expected),
        (serve(nest.clone()).await, nested),
        (serve_axum(nest).await, nested),
    ];
    for (server, expected) in servers {
        for (target, is_own) in TRICKS {
            // As a path, and with a scheme and a host in front of it.
            for target in [target.to_owned(), format!("http://evil.example{target}")] {
                let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                let answers = send(&server, head).await;
                let [answer] = &answers[..] else { panic!("{target}: {answers:?}") };
                let path = target.strip_prefix("http://evil.example").unwrap_or(&target);
                let path = path.split('?').next().unwrap_or_default();
                assert_eq!((answer.status, &answer.body), (200, &expected(path, "/api")), "{target}");
                assert_eq!(answer.body.starts_with("mounted"), is_own, "{target}");
            }
        }
        for target in ["*", "a:443"] {
            let method = if target == "*" { "OPTIONS" } else { "CONNECT" };
            let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answers = send(&server, head).await;
            assert!(answers.iter().all(|answer| !answer.body.starts_with("mounted")), "{target}");
        }
    }
}

#[test]
fn c2_no_trick_enters_an_async_mount_in_a_sync_stack_or_leaves_it() {
    let service = tower::service_fn(|request: Request<Body>| async move {
        let scope = Scope::of(&request);
        let text = format!("mounted {} {} {}", scope.root_path(), request.uri().path(), scope.raw_path());
        Ok::<_, Infallible>(Response::new(Body::from(text)))
    });
    let handler = AsgiLayer::new(service)
        .at("/api")
        .layer(|request: Request<Input>| Response::new(format!("inner {}", request.uri().path())));
    let handler = std::sync::Arc::new(handler);
    for (target, is_own) in TRICKS {
        let handler = handler.clone();
        let answer = watched(move || {
            let request = Request::get(target).body(Input::empty()).expect("a request");
            let response = handler.call(request).expect("a response");
            std::io::read_to_string(response.into_body().into_reader()).expect("a body")
        });
        let path = target.split('?').next().unwrap_or_default();
        let expected = match below(path, "/api") {
            Some(rest) => format!("mounted /api {} {path}", if rest.is_empty() { "/" } else { &rest }),
            None => format!("inner {path}"),
        };
        assert_eq!(answer, expected, "{target}");
        assert_eq!(answer.starts_with("mounted"), is_own, "{target}");
    }
}

#[tokio::test]
async fn c2_targets_that_are_no_path_are_refused_or_no_mounts() {
    let server = serve(Router::new().fallback(inner).layer(WsgiLayer::new(mounted).at("/api"))).await;
    for target in
        ["api/x", "../api", "?/api", "#/api", "\\api", "http:/api", "http:///api", "http://", "/a#b", ""]
    {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answers = send(&server, head).await;
        assert!(answers.iter().all(|answer| !answer.body.starts_with("mounted")), "{target}: {answers:?}");
    }
    // The longest that hyper takes, and one more.
    for (length, status) in [(65_533, 200), (65_536, 414)] {
        let target = format!("/api/{}", "x".repeat(length - "/api/".len()));
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answers = send(&server, head).await;
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [status]);
        assert!(status != 200 || answers[0].body == expected(&target, "/api"));
    }
}

/// Pieces of paths that somebody may read in two ways.
fn segment() -> impl Strategy<Value = String> {
    let whole = select(vec![
        "api", "API", "ap", "apiary", "%61pi", "ap%69", "v1", "..", ".", "%2e%2e", "%2E", ".%2e", "",
        "api;x", ";api", "\\", "%5c", "api\\", "%2f", "%2F..", "api%2f..", "%252f", "%00", "api%00", "%zz",
        "%", "%4", "%%", "é", "%c3%a9", "api.", "api%20", "a:b", "@", "*",
    ]);
    prop_oneof![6 => whole.prop_map(str::to_owned), 1 => "[a-c%.;]{0,3}"]
}

fn path() -> impl Strategy<Value = String> {
    vec(segment(), 1..5).prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect())
}

/// Mounts, some of them with what has to be encoded.
fn mount() -> impl Strategy<Value = &'static str> {
    select(vec![
        "/api",
        "/api/v1",
        "/%61pi",
        "/api%2f..",
        "/a:b",
        "/api/..",
        "/..",
        "/%2e%2e",
        "/api.",
        "/api;x",
        "/%c3%a9",
        "/api/api",
    ])
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// The workers of all cases.
static POOL: std::sync::LazyLock<WorkerPool> = std::sync::LazyLock::new(|| WorkerPool::new(1));

/// Those of what is around an async service, of which each may need one of the others.
static OUTER: std::sync::LazyLock<WorkerPool> = std::sync::LazyLock::new(|| WorkerPool::new(1));

/// A router as a service whose body is ours.
fn ours(
    router: Router,
) -> impl tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + use<>
{
    ServiceBuilder::new()
        .map_response(|response: axum::response::Response| response.map(Body::new))
        .map_request(|request: Request<Body>| request.map(axum::body::Body::new))
        .service(router)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c2_the_layers_mount_and_axums_nest_own_the_same_paths(path in path(), mount in mount()) {
        let sync = || WsgiLayer::adapter().pool(POOL.clone()).layer(mounted);
        let layer = Router::new().fallback(inner).layer(WsgiLayer::new(mounted).pool(POOL.clone()).at(mount));
        prop_assert_eq!(run(call(ours(layer), get(&path))), (200, expected(&path, mount)));
        let nest = Router::new().nest_service(mount, sync()).fallback(inner);
        prop_assert_eq!(run(call(ours(nest), get(&path))), (200, nested(&path, mount)));
    }

    #[test]
    fn c2_who_stands_at_a_mount_stands_before_all_of_it(path in path(), mount in mount()) {
        // The guard is a mount; what it guards is a route, a nest and another mount at the same place.
        let refuse = |_: Request<Input>| Response::builder().status(403).body("refused");
        let secret = || on_any(|| async { "secret" });
        let guard = || WsgiLayer::new(refuse).pool(POOL.clone()).at(mount);
        let routes = Router::new().route(mount, secret()).route(&format!("{mount}/"), secret()).route(&format!("{mount}/{{*rest}}"), secret());
        let nest = Router::new().nest(mount, Router::new().fallback(|| async { "secret" }));
        let handler = WsgiLayer::new(|_: Request<Input>| Response::new("secret")).pool(POOL.clone()).at(mount);
        let layer = Router::new().fallback(inner).layer(handler);
        let inside = AsgiLayer::new(ours(Router::new().fallback(|| async { "secret" }))).at(mount).layer(|_: Request<Input>| Response::new("inner"));
        let sync = Router::new().fallback_service(WsgiLayer::adapter().pool(POOL.clone()).layer(inside));
        for guarded in [routes, nest, layer, sync] {
            let guarded = Router::new().fallback_service(guarded).layer(guard());
            let (status, body) = run(call(ours(guarded), get(&path)));
            prop_assert_ne!(&*body, "secret");
            prop_assert_eq!(status == 403, below(&path, mount).is_some());
        }
    }

    #[test]
    fn c2_nested_mounts_see_one_path_in_parts(path in path(), first in mount(), second in mount()) {
        // The layer's in axum's, and the layer's in the one for async services.
        let whole = format!("{first}{second}");
        let between = || {
            let layer = WsgiLayer::new(mounted).pool(POOL.clone()).at(second);
            Router::new().fallback(|| async { "between" }).layer(layer)
        };
        let nest = Router::new().nest_service(first, between()).fallback(inner);
        let handler = |request: Request<Input>| Response::new(format!("inner {}", request.uri().path()));
        let two = AsgiLayer::new(ours(between())).at(first).layer(handler);
        let two = Router::new().fallback_service(WsgiLayer::adapter().pool(OUTER.clone()).layer(two));
        for path in [path.clone(), format!("{first}{path}"), format!("{whole}{path}")] {
            let parts = below(&path, first).map(|rest| (first.to_owned(), rest));
            for (router, parts) in [(&nest, below_nest(&path, first)), (&two, parts)] {
                let expected = match parts {
                    None => format!("inner {path}"),
                    Some((first, rest)) => match below(&rest, second) {
                        None => "between".to_owned(),
                        Some(rest) => told(&format!("{first}{second}"), &rest, &path),
                    },
                };
                prop_assert_eq!(run(call(ours(router.clone()), get(&path))).1, expected);
            }
        }
    }
}

/// What WSGI frameworks do: they route by the decoded path.
#[expect(clippy::needless_pass_by_value, reason = "a handler owns its request")]
fn framework(request: Request<Input>) -> Response<&'static str> {
    let environ = Environ::of(&request);
    let path = [&*environ.script_name(), &environ.path_info()].concat();
    let is_admin = path == b"/admin" || path.starts_with(b"/admin/");
    Response::new(if is_admin { "secret" } else { "public" })
}

/// A guard on the sync side, of the same path as the framework's.
fn guard(request: Request<Input>, next: &dyn SyncHandler) -> Result<Response<Output>, BoxError> {
    let environ = Environ::of(&request);
    let path = [&*environ.script_name(), &environ.path_info()].concat();
    if path == b"/admin" || path.starts_with(b"/admin/") {
        return Ok(Response::builder().status(403).body("refused".into())?);
    }
    next.call(request)
}

#[tokio::test]
async fn c2_an_application_that_decodes_its_path_is_guarded_by_the_decoded_path() {
    let refuse = |_: Request<Input>| Response::builder().status(403).body("refused");
    // A mount compares what was sent (as axum's routes do): it is a place, and no guard of what decodes.
    let by_mount = WsgiLayer::new(refuse).at("/admin").layer(WsgiService::new(framework));
    let by_path = ServiceBuilder::new().layer(WsgiLayer::adapter()).layer(sync_fn(guard)).service(framework);
    for path in ["/admin", "/admin/x", "/%61dmin", "/%61dmin/x", "/admin%2fx", "/adm%69n/"] {
        let plain = !path.contains('%');
        assert_eq!(
            call(by_mount.clone(), get(path)).await.1,
            if plain { "refused" } else { "secret" },
            "{path}"
        );
        assert_eq!(call(by_path.clone(), get(path)).await.1, "refused", "{path}");
    }
    for path in ["/", "/administrator", "//admin", "/x/admin"] {
        assert_eq!(call(by_path.clone(), get(path)).await.1, "public", "{path}");
    }
}

#[test]
fn c2_a_shift_by_a_clients_own_words_stays_inside_its_path() {
    for (path, prefix, taken) in [
        ("/a/b", "/a", true),
        ("/a/b", "/a/", true),
        ("/a/b", "", true),
        ("/a/b", "/", true),
        ("/a/b", "/a/b", true),
        ("/a/b", "/a/b//", true),
        ("/a/b", "a", false),
        ("/a/b", "/a/b/c", false),
        ("/a/b", "/..", false),
        ("/a/b", "/a?", false),
        ("/a/b", "/a b", false),
        ("/a/b", "/A", false),
        ("/a/b", "http://a", false),
        ("//a/b", "/a", false),
        ("//a/b", "//a", true),
        ("*", "/", true),
        ("*", "/a", false),
        ("*", "*", true),
    ] {
        let mut request = Request::builder().uri(path).body(()).expect("a request");
        assert_eq!(Environ::shift(&mut request, prefix), taken, "{path} {prefix}");
        let (environ, whole) = (Environ::of(&request), Environ::of(&request).scope());
        assert_eq!(whole.uri().path(), path, "{path} {prefix}");
        let joined = [&*environ.script_name(), &environ.path_info()].concat();
        assert_eq!(joined, path.as_bytes(), "{path} {prefix}");
        let mut other = Request::builder().uri(path).body(()).expect("a request");
        assert_eq!(Scope::shift(&mut other, prefix), taken);
        assert_eq!(other.uri(), request.uri());
    }
    assert_eq!(Uri::from_static("*").path(), "*");
}
