//! Mounts inside mounts, on both sides in turn: what every level sees as the path, `SCRIPT_NAME` and `root_path`.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request as AxumRequest;
use axum::middleware::from_fn;
use http::{Request, Response};
use tower::{Layer as _, ServiceBuilder};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, BoxError, Environ, Input, Scope, SyncFnLayer, SyncHandler, WsgiLayer,
    sync_fn,
};

use super::SyncMiddleware;
use crate::support::{VERSIONS, serve_axum, soon, text, watched};

/// What the levels of a stack saw, a line each.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("a lock"))
    }

    /// A level on the sync side: its URI's path, `SCRIPT_NAME` and `PATH_INFO`; and then what its scope has.
    fn sync_level<B>(&self, name: &str, request: &Request<B>) {
        let (environ, path) = (Environ::of(request), request.uri().path());
        let (script, info) = (decoded(&environ.script_name()), decoded(&environ.path_info()));
        let outside = environ.scope();
        let line = format!("{name} {path} [{script}][{info}] outside {}", of_scope(&outside));
        self.0.lock().expect("a lock").push(line);
    }

    /// A level on the async side: its URI's path, and what its scope has; and then `SCRIPT_NAME` and `PATH_INFO` of the sync side around it.
    fn async_level<B>(&self, name: &str, request: &Request<B>) {
        let (scope, path) = (Scope::of(request), request.uri().path());
        let around = scope.environ().map_or("none".to_owned(), |environ| {
            format!("[{}][{}]", decoded(&environ.script_name()), decoded(&environ.path_info()))
        });
        let line = format!("{name} {path} {} outside {around}", of_scope(&scope));
        self.0.lock().expect("a lock").push(line);
    }

    /// A sync middleware that notes what it sees.
    fn sync(&self, name: &'static str) -> SyncFnLayer<impl SyncMiddleware + use<>> {
        let lines = self.clone();
        sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            lines.sync_level(name, &request);
            next.call(request)
        })
    }

    /// An async application that notes what it sees, and says its name.
    fn app(&self, name: &'static str) -> Router {
        let lines = self.clone();
        Router::new().fallback(move |request: AxumRequest| async move {
            lines.async_level(name, &request);
            name
        })
    }

    /// The same on the sync side.
    fn sync_app(&self, name: &'static str) -> impl SyncHandler + Clone + use<> {
        let lines = self.clone();
        move |request: Request<Input>| {
            lines.sync_level(name, &request);
            Response::new(name)
        }
    }
}

fn decoded(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn of_scope(scope: &Scope) -> String {
    format!("<{}|{}|{}?{}>", scope.root_path(), scope.path(), scope.raw_path(), scope.query_string())
}

/// Mounts at `/a` (sync), `/b` (async), `/c` (axum's `nest`), `/d` (sync) and `/e` (async, shifted by hand at `/e`), each inside the one before. What
/// is outside of one ends in the application beside it.
fn nested(lines: &Lines) -> Router {
    let log = lines.clone();
    let innermost = move |mut request: Request<Input>| {
        log.sync_level("at /d", &request);
        if Environ::shift(&mut request, "/e") {
            let log = log.clone();
            let app = Router::new().fallback(move |request: AxumRequest| async move {
                log.async_level("at /e", &request);
                "at /e"
            });
            return AsgiHandler::new(app).call(request);
        }
        Ok::<_, BoxError>(Response::new("at /d".into()))
    };
    let at_c = lines.app("beside /d").layer(WsgiLayer::new(innermost).at("/d").workers(1));
    let log = lines.clone();
    let at_b = Router::new().nest("/c", at_c).fallback_service(lines.app("beside /c")).layer(from_fn(
        move |request: AxumRequest, next: axum::middleware::Next| {
            log.async_level("at /b", &request);
            next.run(request)
        },
    ));
    let at_a = ServiceBuilder::new()
        .layer(lines.sync("at /a"))
        .layer(AsgiLayer::new(at_b).at("/b"))
        .service(lines.sync_app("beside /b"));
    lines.app("beside /a").layer(WsgiLayer::new(at_a).at("/a").workers(1))
}

const CASES: &[(&str, &str, &[&str])] = &[
    ("/x?q=1", "beside /a", &["beside /a /x <|/x|/x?q=1> outside none"]),
    ("/ax", "beside /a", &["beside /a /ax <|/ax|/ax?> outside none"]),
    (
        "/a/bx?q=1",
        "beside /b",
        &[
            "at /a /bx [/a][/bx] outside <|/a/bx|/a/bx?q=1>",
            "beside /b /bx [/a][/bx] outside <|/a/bx|/a/bx?q=1>",
        ],
    ),
    // The mount itself, without a slash and with one.
    ("/a", "beside /b", &["at /a / [/a][] outside <|/a|/a?>", "beside /b / [/a][] outside <|/a|/a?>"]),
    ("/a/", "beside /b", &["at /a / [/a][/] outside <|/a/|/a/?>", "beside /b / [/a][/] outside <|/a/|/a/?>"]),
    (
        "/a/b",
        "beside /c",
        &[
            "at /a /b [/a][/b] outside <|/a/b|/a/b?>",
            "at /b / </a/b|/a/b|/a/b?> outside [/a/b][]",
            "beside /c / </a/b|/a/b|/a/b?> outside [/a/b][]",
        ],
    ),
    (
        "/a/b/cx/",
        "beside /c",
        &[
            "at /a /b/cx/ [/a][/b/cx/] outside <|/a/b/cx/|/a/b/cx/?>",
            "at /b /cx/ </a/b|/a/b/cx/|/a/b/cx/?> outside [/a/b][/cx/]",
            "beside /c /cx/ </a/b|/a/b/cx/|/a/b/cx/?> outside [/a/b][/cx/]",
        ],
    ),
    (
        "/a/b/c/dx",
        "beside /d",
        &[
            "at /a /b/c/dx [/a][/b/c/dx] outside <|/a/b/c/dx|/a/b/c/dx?>",
            "at /b /c/dx </a/b|/a/b/c/dx|/a/b/c/dx?> outside [/a/b][/c/dx]",
            "beside /d /dx </a/b/c|/a/b/c/dx|/a/b/c/dx?> outside [/a/b][/c/dx]",
        ],
    ),
    (
        "/a/b/c/d/",
        "at /d",
        &[
            "at /a /b/c/d/ [/a][/b/c/d/] outside <|/a/b/c/d/|/a/b/c/d/?>",
            "at /b /c/d/ </a/b|/a/b/c/d/|/a/b/c/d/?> outside [/a/b][/c/d/]",
            "at /d / [/a/b/c/d][/] outside </a/b/c|/a/b/c/d/|/a/b/c/d/?>",
        ],
    ),
    // All of them, and what is percent-encoded stays as it was sent.
    (
        "/a/b/c/d/e/f%20g%2Fh?q=%20",
        "at /e",
        &[
            "at /a /b/c/d/e/f%20g%2Fh [/a][/b/c/d/e/f g/h] \
             outside <|/a/b/c/d/e/f g/h|/a/b/c/d/e/f%20g%2Fh?q=%20>",
            "at /b /c/d/e/f%20g%2Fh </a/b|/a/b/c/d/e/f g/h|/a/b/c/d/e/f%20g%2Fh?q=%20> \
             outside [/a/b][/c/d/e/f g/h]",
            "at /d /e/f%20g%2Fh [/a/b/c/d][/e/f g/h] \
             outside </a/b/c|/a/b/c/d/e/f g/h|/a/b/c/d/e/f%20g%2Fh?q=%20>",
            "at /e /f%20g%2Fh </a/b/c/d/e|/a/b/c/d/e/f g/h|/a/b/c/d/e/f%20g%2Fh?q=%20> \
             outside [/a/b/c/d/e][/f g/h]",
        ],
    ),
    // Segments of the same name as a mount are not taken for it.
    (
        "/a/a/b",
        "beside /b",
        &[
            "at /a /a/b [/a][/a/b] outside <|/a/a/b|/a/a/b?>",
            "beside /b /a/b [/a][/a/b] outside <|/a/a/b|/a/a/b?>",
        ],
    ),
    // An encoded slash is no border of segments.
    ("/a%2Fb", "beside /a", &["beside /a /a%2Fb <|/a/b|/a%2Fb?> outside none"]),
];

#[tokio::test]
async fn c4_mounts_inside_mounts_add_up_on_both_sides() {
    let lines = Lines::default();
    let server = serve_axum(nested(&lines)).await;
    for version in VERSIONS {
        for (path, answer, expected) in CASES {
            let response = server.ask(version, "GET", path).await;
            assert_eq!(text(response).await, *answer, "{version:?} {path}");
            assert_eq!(lines.take(), *expected, "{version:?} {path}");
        }
    }
}

#[test]
fn c4_mounts_inside_mounts_on_a_plain_thread() {
    watched(|| {
        let lines = Lines::default();
        let innermost = lines.app("beside /c").layer(WsgiLayer::new(lines.sync_app("at /c")).at("/c"));
        let handler = AsgiLayer::new(innermost).at("/b").layer(lines.sync_app("beside /b"));
        let handler = lines.sync("outside").layer(handler);
        for (path, expected) in [
            (
                "/b/c/d",
                &[
                    "outside /b/c/d [][/b/c/d] outside <|/b/c/d|/b/c/d?>",
                    "at /c /d [/b/c][/d] outside </b|/b/c/d|/b/c/d?>",
                ],
            ),
            (
                "/b/cd",
                &[
                    "outside /b/cd [][/b/cd] outside <|/b/cd|/b/cd?>",
                    "beside /c /cd </b|/b/cd|/b/cd?> outside [/b][/cd]",
                ],
            ),
            (
                "/bc/d",
                &[
                    "outside /bc/d [][/bc/d] outside <|/bc/d|/bc/d?>",
                    "beside /b /bc/d [][/bc/d] outside <|/bc/d|/bc/d?>",
                ],
            ),
        ] {
            handler.call(Request::get(path).body(Input::empty()).expect("a request")).expect("a response");
            assert_eq!(lines.take(), *expected, "{path}");
        }
    });
}

#[tokio::test]
async fn c4_an_encoded_prefix_is_compared_as_it_is_sent() {
    let lines = Lines::default();
    let at_b = lines.app("at b");
    let at_a = AsgiLayer::new(at_b).at("/b%2Fc").layer(lines.sync_app("beside b"));
    let router = lines.app("beside a").layer(WsgiLayer::new(at_a).at("/a%20b/"));
    let server = serve_axum(router).await;
    for (path, expected) in [
        ("/a%20b/b%2Fc/d%20", "at b /d%20 </a b/b/c|/a b/b/c/d |/a%20b/b%2Fc/d%20?> outside [/a b/b/c][/d ]"),
        ("/a%20b/b/c/d", "beside b /b/c/d [/a b][/b/c/d] outside <|/a b/b/c/d|/a%20b/b/c/d?>"),
        ("/a%20bc", "beside a /a%20bc <|/a bc|/a%20bc?> outside none"),
        // Other ways to write the same path are other paths.
        ("/a%20b/b%2fc/d", "beside b /b%2fc/d [/a b][/b/c/d] outside <|/a b/b/c/d|/a%20b/b%2fc/d?>"),
        ("/%61%20b", "beside a /%61%20b <|/a b|/%61%20b?> outside none"),
    ] {
        text(server.get(path).await).await;
        assert_eq!(lines.take(), [expected], "{path}");
    }
}

#[tokio::test]
async fn c4_a_layer_below_a_mount_sees_the_rest_and_one_above_it_the_whole() {
    let lines = Lines::default();
    let sync_mount = ServiceBuilder::new().layer(lines.sync("below")).service(lines.sync_app("app"));
    let router = lines.app("else").layer(WsgiLayer::new(sync_mount).at("/mount"));
    let log = lines.clone();
    let router = router.layer(from_fn(move |request: AxumRequest, next: axum::middleware::Next| {
        log.async_level("above", &request);
        next.run(request)
    }));
    let server = serve_axum(router).await;
    for version in VERSIONS {
        text(server.ask(version, "GET", "/mount/x").await).await;
        let expected = [
            "above /mount/x <|/mount/x|/mount/x?> outside none",
            "below /x [/mount][/x] outside <|/mount/x|/mount/x?>",
            "app /x [/mount][/x] outside <|/mount/x|/mount/x?>",
        ];
        assert_eq!(lines.take(), expected, "{version:?}");
    }
}

#[tokio::test]
async fn c4_an_async_mount_in_a_sync_stack_is_seen_by_what_is_below_it_alone() {
    let lines = Lines::default();
    let log = lines.clone();
    let below = lines.app("app").layer(from_fn(move |request: AxumRequest, next: axum::middleware::Next| {
        log.async_level("below", &request);
        next.run(request)
    }));
    let service = ServiceBuilder::new()
        .layer(WsgiLayer::adapter().workers(1))
        .layer(lines.sync("above"))
        .layer(AsgiLayer::new(below).at("/mount"))
        .service(lines.sync_app("else"));
    let mut service = service;
    for (path, expected) in [
        (
            "/mount/x",
            &[
                "above /mount/x [][/mount/x] outside <|/mount/x|/mount/x?>",
                "below /x </mount|/mount/x|/mount/x?> outside [/mount][/x]",
                "app /x </mount|/mount/x|/mount/x?> outside [/mount][/x]",
            ][..],
        ),
        (
            "/mounted",
            &[
                "above /mounted [][/mounted] outside <|/mounted|/mounted?>",
                "else /mounted [][/mounted] outside <|/mounted|/mounted?>",
            ],
        ),
    ] {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        soon(tower::Service::call(&mut service, request)).await.expect("a response");
        assert_eq!(lines.take(), *expected, "{path}");
    }
}
