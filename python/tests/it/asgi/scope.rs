//! The scope of a request.

use http::{Method, Request, Version};
use tower_wsgi::{AsgiHandler, Body, Environ, Input, Scope, SyncHandler};

use super::support::*;

const TELL: &str = r#"
def plain(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value

@http_only
async def app(scope, receive, send):
    for key in ["raw_path", "query_string"]:
        assert type(scope[key]) is bytes
    for header in scope["headers"]:
        assert [type(part) for part in header] == [bytes, bytes]
    await reply(send, plain(scope))
"#;

#[test]
fn a_scope_has_every_key() {
    run(async {
        let app = start(TELL);
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri("/caf%C3%A9/a%2Fb?x=%20&y")
            .header("Host", "example.org")
            .header("X-Twice", "1")
            .header("X-Twice", "2")
            .body(Body::empty())
            .unwrap();
        let scope = Scope::of(&request)
            .with_client("10.0.0.1:4000".parse().unwrap())
            .with_server("127.0.0.1", 80)
            .with_scheme(http::uri::Scheme::HTTPS);
        request.extensions_mut().insert(scope);
        let scope = json(call(&app, request).await).await;
        let expected = serde_json::json!({
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "PUT",
            "scheme": "https",
            "path": "/café/a/b",
            "raw_path": "/caf%C3%A9/a%2Fb",
            "query_string": "x=%20&y",
            "root_path": "",
            "headers": [["host", "example.org"], ["x-twice", "1"], ["x-twice", "2"]],
            "client": ["10.0.0.1", 4000],
            "server": ["127.0.0.1", 80],
            "state": {},
            "extensions": {},
        });
        assert_eq!(scope, expected);
    });
}

#[test]
fn what_nobody_told_is_none() {
    run(async {
        let request = Request::builder().version(Version::HTTP_10).uri("/%FF").body(Body::empty()).unwrap();
        let scope = json(call(&start(TELL), request).await).await;
        assert_eq!(scope["client"], serde_json::Value::Null);
        assert_eq!(scope["server"], serde_json::Value::Null);
        assert_eq!(scope["scheme"], "http");
        assert_eq!(scope["http_version"], "1.0");
        assert_eq!(scope["path"], "/\u{fffd}");
        assert_eq!(scope["raw_path"], "/%FF");
    });
}

/// A proxy that trusts the host that its target names must not be told another one.
#[test]
fn the_authority_is_the_host_and_cookies_are_joined() {
    run(async {
        let request = Request::builder()
            .version(Version::HTTP_2)
            .uri("http://user@example.org:81/")
            .header("host", "evil")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(Body::empty())
            .unwrap();
        let scope = json(call(&start(TELL), request).await).await;
        assert_eq!(scope["http_version"], "2");
        assert_eq!(scope["headers"], serde_json::json!([["host", "example.org:81"], ["cookie", "a=1; b=2"]]));
        assert_eq!(scope["extensions"], serde_json::json!({"http.response.trailers": {}}));
    });
}

#[test]
fn scopes_are_not_shared() {
    run(async {
        let app = start(
            r#"
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        scope["state"]["list"] = []
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    before = [len(scope["state"]), len(scope["asgi"]), len(scope["extensions"]), len(scope["state"]["list"])]
    for key in ["state", "asgi", "extensions"]:
        scope[key]["new"] = 1
    scope["state"]["list"].append(1)
    scope["new"] = 1
    await reply(send, before)
"#,
        );
        // Shallow: what is in the state is one for all.
        for seen in 0..3 {
            assert_eq!(json(call(&app, get("/")).await).await, serde_json::json!([1, 2, 0, seen]));
        }
    });
}

#[test]
fn a_synchronous_hosts_environ_is_in_the_scope() {
    run(async {
        let app = start(TELL);
        let scope = tokio::task::spawn_blocking(move || {
            let handler = AsgiHandler::new(app);
            let mut request = Request::post("/x").body(Input::from("hello")).unwrap();
            let mut environ = Environ::of(&request);
            environ.set("REMOTE_USER", b"Ren\xe9".to_vec());
            request.extensions_mut().insert(environ);
            let response = handler.call(request).unwrap();
            std::io::read_to_string(response.into_body().into_reader()).unwrap()
        });
        let scope: serde_json::Value = serde_json::from_str(&scope.await.unwrap()).unwrap();
        let environ = scope["wsgi_environ"].as_object().unwrap();
        assert_eq!(environ["REQUEST_METHOD"], "POST");
        assert_eq!(environ["PATH_INFO"], "/x");
        assert_eq!(environ["REMOTE_USER"], "René");
    });
}
