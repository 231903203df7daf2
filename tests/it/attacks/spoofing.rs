//! Clients that say what only a server may say: in headers, in the target, in the variables that a CGI host makes of headers.

use std::collections::BTreeMap;
use std::io::empty;

use axum::Router;
use http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use tower::ServiceBuilder;
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, Environ, Input, Scope, SyncHandler, Variables, WsgiLayer, WsgiService,
};

use super::{Answer, cgi_get, gateway, send};
use crate::support::{Events, Server, VERSIONS, serve, serve_axum, soon, text};

/// All that both views say of a request, but for the headers themselves, a line each; and then the variables that are headers.
fn describe<B>(request: &Request<B>) -> String {
    let (environ, variables) = (Environ::of(request), Variables::of(request));
    let scope = Scope::of(request);
    let mut text = format!(
        "scope={:?} {} {:?} {:?} {} {}\nenviron={:?} {:?} {:?} {:?} {} {:?}\n",
        scope.root_path(),
        scope.uri(),
        scope.client().map(|client| client.ip()),
        scope.server(),
        scope.scheme(),
        scope.method(),
        environ.script_name(),
        environ.path_info(),
        environ.remote().map(|remote| remote.ip()),
        environ.server(),
        environ.url_scheme(),
        environ.get("REMOTE_USER"),
    );
    for (name, value) in variables.iter().filter(|(name, _)| *name != "REMOTE_PORT") {
        text.push_str(&format!("{name}={}\n", value.escape_ascii()));
    }
    text
}

#[expect(clippy::needless_pass_by_value, reason = "a handler owns its request")]
fn app(request: Request<Input>) -> Response<String> {
    Response::new(describe(&request))
}

async fn async_app(request: axum::extract::Request) -> String {
    describe(&request)
}

/// The handler in hyper, mounted in axum behind a server that knows its clients, mounted by the layer, and an async service inside a sync one.
async fn servers() -> Vec<Server> {
    let nested = Router::new().nest_service("/mount", WsgiService::new(app));
    let layered = Router::new().layer(WsgiLayer::new(app).at("/mount"));
    let inside = ServiceBuilder::new()
        .layer(WsgiLayer::adapter())
        .layer(AsgiLayer::adapter())
        .service(Router::<()>::new().fallback(async_app));
    vec![
        serve(WsgiService::new(app)).await,
        serve_axum(nested).await,
        serve_axum(layered).await,
        serve(inside).await,
    ]
}

/// What only a server says.
const SERVERS_OWN: [&str; 33] = [
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "DOCUMENT_ROOT",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "HTTP_HOST",
    "HTTP_PROXY",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "REDIRECT_STATUS",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
    "SSL_CLIENT_S_DN",
    "X_FORWARDED_FOR",
    "X_FORWARDED_PROTO",
    "wsgi.url_scheme",
    "wsgi.input",
    "asgi.scope",
    "mod_wsgi.auth",
];

/// Ways to write one as the name of a header.
fn spellings(name: &str) -> Vec<String> {
    let dashed = name.replace('_', "-");
    let mut all = vec![name.to_owned(), name.to_lowercase(), dashed.clone()];
    all.extend([name, &dashed].map(|name| format!("HTTP_{name}")));
    all.extend([name, &dashed].map(|name| format!("HTTP-{name}")));
    all.push(name.replacen('_', "-", 1));
    all.sort();
    all.dedup();
    // These two are headers, and one of each is sent.
    all.retain(|name| !matches!(&*name.to_lowercase(), "content-length" | "content-type"));
    all
}

fn lines(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

/// Checks that nothing was changed but for variables that are `HTTP_` and a header's name without an underscore.
fn unchanged(plain: &str, attacked: &str, sent: &[String]) {
    let (plain, mut attacked) = (lines(plain), lines(attacked));
    for name in sent.iter().filter(|name| !name.contains('_') && !name.eq_ignore_ascii_case("proxy")) {
        let variable = format!("HTTP_{}", name.to_uppercase().replace('-', "_"));
        if !plain.contains_key(&*variable) {
            assert!(attacked.remove(&*variable).is_some(), "{name} got lost");
        }
    }
    assert_eq!(plain, attacked, "{sent:?}");
}

#[tokio::test]
async fn c3_no_header_becomes_a_variable_of_the_servers() {
    let names: Vec<String> = SERVERS_OWN.iter().flat_map(|name| spellings(name)).collect();
    let names = [
        &names[..],
        &["Proxy", "PROXY", "pRoXy", "HTTP", "HTTP-", "HTTP_", "_", "-", "__"].map(str::to_owned),
    ]
    .concat();
    for server in servers().await {
        for version in VERSIONS {
            // hyper takes a hundred headers over HTTP/1.
            for names in names.chunks(60) {
                let mut answers = Vec::new();
                for sent in [&[][..], names] {
                    let mut request = server.request("POST", "/mount/x?q", Body::from("hello"));
                    request.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
                    for name in sent {
                        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                        request.headers_mut().append(name, HeaderValue::from_static("evil"));
                    }
                    let response = soon(server.send(version, request)).await.expect("a response");
                    assert_eq!(response.status(), 200);
                    answers.push(text(response).await);
                }
                unchanged(&answers[0], &answers[1], &folded(names));
            }
        }
    }
}

/// The names without those that differ in their letters' case alone.
fn folded(names: &[String]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| name.to_lowercase()).collect();
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn c3_what_a_proxy_would_say_is_not_believed() {
    let said = [
        ("forwarded", "for=6.6.6.6;proto=https;host=evil.example;by=7.7.7.7"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded-ssl", "on"),
        ("x-forwarded-server", "evil"),
        ("x-real-ip", "6.6.6.6"),
        ("x-script-name", "/evil"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x-http-method-override", "DELETE"),
        ("x-method-override", "DELETE"),
        ("x-url-scheme", "https"),
        ("front-end-https", "on"),
        ("client-ip", "6.6.6.6"),
        ("true-client-ip", "6.6.6.6"),
        ("cf-connecting-ip", "6.6.6.6"),
        ("via", "1.1 evil"),
        ("x-remote-user", "root"),
    ];
    for server in servers().await {
        for version in VERSIONS {
            let plain = server.request("GET", "/mount/x", Body::empty());
            let mut request = server.request("GET", "/mount/x", Body::empty());
            for (name, value) in said {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            let plain = text(soon(server.send(version, plain)).await.expect("a response")).await;
            let attacked = text(soon(server.send(version, request)).await.expect("a response")).await;
            unchanged(&plain, &attacked, &said.map(|(name, _)| name.to_owned()));
        }
    }
}

/// The value of a variable in the only answer.
fn variable(answers: &[Answer], name: &str) -> String {
    let [answer] = answers else { panic!("{answers:?}") };
    lines(&answer.body).get(name).copied().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn c3_the_host_is_the_one_in_the_header_and_the_targets_only_where_there_is_none() {
    let server = serve(WsgiService::new(app)).await;
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a:81", "a:81", "a", "81"),
        // As for every layer that looks at the header: nobody on the way sees another host than the application.
        ("GET http://b:82/ HTTP/1.1\r\nHost: a:81", "a:81", "a", "81"),
        ("GET http://b:82/ HTTP/1.1", "b:82", "b", "82"),
        ("GET http://b:82/ HTTP/1.1\r\nHost:", "", "localhost", "80"),
        ("GET http://user:secret@b:82/ HTTP/1.1", "b:82", "b", "82"),
        ("GET http://a@b@c:83/ HTTP/1.1\r\nHost: d", "d", "d", "80"),
        ("GET http://a@b@c:83/ HTTP/1.1", "c:83", "c", "83"),
        ("GET https://b/ HTTP/1.1", "b", "b", "80"),
        ("GET / HTTP/1.1", "none", "localhost", "80"),
        // Two of them are no host's name, to an application that checks it.
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b", "a,b", "a", "80"),
    ];
    for (head, host, name, port) in cases {
        let answers = send(&server, format!("{head}\r\nConnection: close\r\n\r\n")).await;
        let found = ["HTTP_HOST", "SERVER_NAME", "SERVER_PORT"].map(|name| variable(&answers, name));
        assert_eq!(found, [host, name, port], "{head}");
        assert_eq!(variable(&answers, "wsgi.url_scheme"), "http", "{head}");
        assert_eq!(variable(&answers, "REQUEST_URI"), "/", "{head}");
        assert_eq!(variable(&answers, "REMOTE_USER"), "none", "{head}");
    }
}

#[tokio::test]
async fn c3_an_authority_of_http2_gives_no_user_and_no_scheme() {
    let server = serve(WsgiService::new(app)).await;
    for (uri, sent, host) in [
        ("http://b:82/x", None, "b:82"),
        ("https://b:82/x", None, "b:82"),
        ("http://root:secret@b:82/x", None, "b:82"),
        ("http://b:82/x", Some("a:81"), "a:81"),
    ] {
        let mut request = Request::get(uri).version(Version::HTTP_2).body(Body::empty()).expect("a request");
        if let Some(host) = sent {
            request.headers_mut().insert("host", HeaderValue::from_static(host));
        }
        let answer = text(soon(server.send(Version::HTTP_2, request)).await.expect("a response")).await;
        let found =
            ["HTTP_HOST", "wsgi.url_scheme", "REQUEST_URI"].map(|name| lines(&answer)[name].to_owned());
        assert_eq!(found, [host, "http", "/x"], "{uri}");
        // The scope's own URI is what the client sent.
        let variables: Vec<_> = answer.lines().skip(2).collect();
        assert!(!variables.concat().contains("secret") && !answer.contains("HTTPS="), "{answer}");
    }
}

#[tokio::test]
async fn c1_header_bytes_that_are_not_ascii_are_passed_on_and_break_nothing() {
    // A server that unwraps them into text ends here (CVE-2026-42544).
    let names = [
        "Host",
        "Accept",
        "Cookie",
        "Content-Type",
        "Connection",
        "Upgrade",
        "Expect",
        "TE",
        "Trailer",
        "Sec-WebSocket-Protocol",
        "Keep-Alive",
        "Authorization",
        "X",
    ];
    for server in servers().await {
        for name in names {
            let head = [
                b"GET /mount/x HTTP/1.1\r\n",
                name.as_bytes(),
                b": \x80caf\xe9\xff\t!\r\nConnection: close\r\n\r\n",
            ]
            .concat();
            let answers = send(&server, head).await;
            let variable = match name {
                "Content-Type" => "CONTENT_TYPE".to_owned(),
                name => format!("HTTP_{}", name.to_uppercase().replace('-', "_")),
            };
            let value =
                if name == "Connection" { "\\x80caf\\xe9\\xff\\t!,close" } else { "\\x80caf\\xe9\\xff\\t!" };
            assert_eq!(self::variable(&answers, &variable), value, "{name}");
        }
    }
}

#[test]
fn c3_what_a_cgi_host_made_of_headers_is_nothing_but_headers() {
    let handlers: [fn(Variables) -> Answer; 2] = [
        |variables| gateway(app, variables, empty()).0,
        |variables| gateway(AsgiHandler::new(Router::new().fallback(async_app)), variables, empty()).0,
    ];
    for ask in handlers {
        let host: [(&str, &[u8]); 6] = [
            ("SCRIPT_NAME", b"/cgi-bin/app"),
            ("REMOTE_ADDR", b"10.0.0.1"),
            ("REMOTE_USER", b"alice"),
            ("SERVER_NAME", b"example.org"),
            ("SERVER_PORT", b"80"),
            ("HTTP_HOST", b"example.org"),
        ];
        let plain = ask(cgi_get("/x", host)).body;
        for name in SERVERS_OWN {
            let name = format!("HTTP_{}", name.to_uppercase().replace('.', "_"));
            let more: [(&str, &[u8]); 1] = [(&name, b"evil")];
            let attacked = ask(cgi_get("/x", host.into_iter().chain(more))).body;
            let (plain, mut attacked) = (lines(&plain), lines(&attacked));
            if matches!(&*name, "HTTP_HTTP_HOST" | "HTTP_HTTP_PROXY")
                || !matches!(&*name, "HTTP_CONTENT_TYPE" | "HTTP_CONTENT_LENGTH")
            {
                assert_eq!(attacked.remove(&*name), Some("evil"), "{name}");
            }
            assert_eq!(plain, attacked, "{name}");
        }
    }
}

#[test]
fn c3_names_of_variables_that_no_header_has_are_refused_or_left_alone() {
    let seen = Events::new();
    let tell = seen.teller();
    let handler = move |request: Request<Input>| {
        tell(request.headers().clone());
        Response::new("")
    };
    let handler = std::sync::Arc::new(handler);
    for name in [
        "HTTP_",
        "HTTP_A B",
        "HTTP_A:B",
        "HTTP_A\r\nB",
        "HTTP_A\0",
        "HTTP_É",
        "HTTP_A/B",
        "HTTP_(A)",
        "HTTP_\u{7f}",
    ] {
        let (answer, served) = gateway(handler.clone(), cgi_get("/", [(name, &b"evil"[..])]), empty());
        assert_eq!(answer.status, 400, "{name:?}");
        assert!(served.expect_err("an error").is_request(), "{name:?}");
        assert!(seen.drain().is_empty(), "{name:?}");
    }
    // A table of variables need not be an environment: these are no headers' either.
    for name in
        ["http_proxy", "Http_Proxy", "HTTP", "HTTPX_A", " HTTP_A", "X_HTTP_A", "HTTPS_PROXY", "ALL_PROXY"]
    {
        let (answer, _) = gateway(handler.clone(), cgi_get("/", [(name, &b"evil"[..])]), empty());
        assert_eq!(answer.status, 200, "{name:?}");
        assert!(seen.drain().pop().expect("a request").is_empty(), "{name:?}");
    }
}

#[test]
fn c3_no_way_around_the_variables_leads_to_the_proxy() {
    // From a header to a variable, from a variable to a header, and both in turn: through every crossing once.
    let seen = Events::new();
    let tell = seen.teller();
    let innermost = move |request: Request<Input>| {
        tell(Variables::of(&request));
        Response::new("")
    };
    let handler =
        ServiceBuilder::new().layer(AsgiLayer::adapter()).layer(WsgiLayer::adapter()).service(innermost);
    let mut request = Request::new(Input::empty());
    for name in ["proxy", "x-a"] {
        request.headers_mut().insert(name, HeaderValue::from_static("http://evil"));
    }
    handler.call(request).expect("a response");
    let variables = seen.drain().pop().expect("a request");
    assert_eq!(variables.get("HTTP_PROXY"), None);
    assert_eq!(variables.get("HTTP_X_A"), Some(&b"http://evil"[..]));
    let again = variables.into_request().expect("a request");
    assert_eq!(again.headers().get("proxy"), None);
    // What the server itself sets is the server's to say.
    let mut environ = Environ::of(&again);
    environ.set("HTTP_PROXY", "http://own");
    let mut again = again;
    again.extensions_mut().insert(environ);
    assert_eq!(Variables::of(&again).get("HTTP_PROXY"), Some(&b"http://own"[..]));
}

#[tokio::test]
async fn c1_methods_are_what_was_sent() {
    let server = serve(WsgiService::new(app)).await;
    for method in ["get", "GeT", "TRACE", "TRACK", "DEBUG", "PRI", "PROPFIND", "X-OWN", "!#$%&'*+-.^_`|~0"] {
        let answers =
            send(&server, format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(variable(&answers, "REQUEST_METHOD").replace("\\'", "'"), method);
    }
    assert!(Method::from_bytes(b"GET\r\nX:").is_err());
}
