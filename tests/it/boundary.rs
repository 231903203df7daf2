//! C1 to C4: the two views of a request, and what crosses.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::{map_request, map_response};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tower::util::MapRequestLayer;
use tower::{Layer, ServiceExt};
use tower_wsgi::{Body, BoxError, Environ, Input, Next, Output, Scope, Variables, WsgiLayer, WsgiService};

use crate::support::{PATIENCE, Server, VERSIONS, blocking, serve, soon, text};

const SOFTWARE: &str = concat!("tower-wsgi/", env!("CARGO_PKG_VERSION"));

/// A request's variables, a line each.
fn table<B>(request: &Request<B>) -> String {
    let variables = Variables::of(request);
    variables.iter().map(|(name, value)| format!("{name}={}\n", value.escape_ascii())).collect()
}

/// A request's scope, a line for each key, and the path that the request has here.
fn keys<B>(request: &Request<B>) -> String {
    let scope = Scope::of(request);
    let lines = [
        ("http_version", scope.http_version().to_owned()),
        ("method", scope.method().to_string()),
        ("scheme", scope.scheme().to_owned()),
        ("path", scope.path().into_owned()),
        ("raw_path", scope.raw_path().to_owned()),
        ("query_string", scope.query_string().to_owned()),
        ("root_path", scope.root_path().into_owned()),
        ("client", format!("{:?}", scope.client())),
        ("server", format!("{:?}", scope.server())),
        ("here", request.uri().path().to_owned()),
    ];
    lines.map(|(key, value)| format!("{key}={value}\n")).concat()
}

/// The value in a line of [`table`] or [`keys`].
fn value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// A handler that tells its variables.
#[expect(clippy::needless_pass_by_value, reason = "a handler owns its request")]
fn app(request: Request<Input>) -> Response<String> {
    Response::new(table(&request))
}

/// A handler that tells its variables, the URI that it was given and the path of the scope around it.
#[expect(clippy::needless_pass_by_value, reason = "a handler owns its request")]
fn mounted(request: Request<Input>) -> Response<String> {
    let scope = Environ::of(&request).scope();
    let (uri, table) = (request.uri().path(), table(&request));
    Response::new(format!(
        "{table}here={uri}\nroot_path={}\nraw_path={}\n",
        scope.root_path(),
        scope.raw_path()
    ))
}

/// An asynchronous application that tells its scope.
async fn describe(request: axum::extract::Request) -> String {
    keys(&request)
}

/// The inner service of a request that a sync middleware was given.
fn next(request: &Request<Input>) -> Result<Next, BoxError> {
    request.extensions().get().cloned().ok_or_else(|| "not behind WsgiLayer::new".into())
}

/// A layer that knows the connection as a server does.
fn connection<B>(mut request: Request<B>) -> Request<B> {
    let scope = Scope::of(&request)
        .with_client(SocketAddr::from(([10, 0, 0, 1], 4000)))
        .with_server("10.0.0.2", 8443)
        .with_scheme(Scheme::HTTPS);
    request.extensions_mut().insert(scope);
    request
}

/// Sends a head over HTTP/1.1 as it is; returns head and body of the answer.
async fn raw(server: &Server, head: impl AsRef<[u8]>) -> (String, String) {
    let end = b"\r\nHost: example.org\r\nConnection: close\r\n\r\n";
    let answer = soon(server.raw([head.as_ref(), end].concat())).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a response");
    (head.to_owned(), body.to_owned())
}

/// GETs a path; returns the answer's body.
async fn ask(server: &Server, version: Version, path: &str) -> String {
    let request = server.request("GET", path, Body::empty());
    text(soon(server.send(version, request)).await.expect("a response")).await
}

#[tokio::test]
async fn c1_a_request_becomes_these_variables_and_no_others() {
    let server = serve(MapRequestLayer::new(connection).layer(WsgiService::new(app))).await;
    let head =
        "POST /a%20b/%FF?c=%20d HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nX-Two-Words: v";
    let (_, body) = raw(&server, head).await;
    let expected = format!(
        "CONTENT_LENGTH=0\n\
         CONTENT_TYPE=text/plain\n\
         GATEWAY_INTERFACE=CGI/1.1\n\
         HTTPS=on\n\
         HTTP_CONNECTION=close\n\
         HTTP_HOST=example.org\n\
         HTTP_X_TWO_WORDS=v\n\
         PATH_INFO=/a b/\\xff\n\
         QUERY_STRING=c=%20d\n\
         REMOTE_ADDR=10.0.0.1\n\
         REMOTE_PORT=4000\n\
         REQUEST_METHOD=POST\n\
         REQUEST_URI=/a%20b/%FF?c=%20d\n\
         SCRIPT_NAME=\n\
         SERVER_NAME=10.0.0.2\n\
         SERVER_PORT=8443\n\
         SERVER_PROTOCOL=HTTP/1.1\n\
         SERVER_SOFTWARE={SOFTWARE}\n\
         wsgi.url_scheme=https\n"
    );
    assert_eq!(body, expected);
}

#[tokio::test]
async fn c1_http2_has_its_host_in_the_authority() {
    let server = serve(WsgiService::new(app)).await;
    let request = Request::get(format!("http://{}/", server.addr)).body(Body::empty()).expect("a request");
    let response = soon(server.send(Version::HTTP_2, request)).await.expect("a response");
    let (addr, port) = (server.addr, server.addr.port());
    let expected = format!(
        "GATEWAY_INTERFACE=CGI/1.1\n\
         HTTP_HOST={addr}\n\
         PATH_INFO=/\n\
         QUERY_STRING=\n\
         REQUEST_METHOD=GET\n\
         REQUEST_URI=/\n\
         SCRIPT_NAME=\n\
         SERVER_NAME=127.0.0.1\n\
         SERVER_PORT={port}\n\
         SERVER_PROTOCOL=HTTP/2.0\n\
         SERVER_SOFTWARE={SOFTWARE}\n\
         wsgi.url_scheme=http\n"
    );
    assert_eq!(text(response).await, expected);
}

#[tokio::test]
async fn c1_http_1_0_is_told() {
    let server = serve(WsgiService::new(app)).await;
    let (_, body) = raw(&server, "GET / HTTP/1.0").await;
    assert_eq!(value(&body, "SERVER_PROTOCOL"), Some("HTTP/1.0"));
}

#[test]
fn c1_every_version_is_told_on_both_sides_and_comes_back() {
    let versions = [
        (Version::HTTP_09, "0.9", "HTTP/0.9"),
        (Version::HTTP_10, "1.0", "HTTP/1.0"),
        (Version::HTTP_11, "1.1", "HTTP/1.1"),
        (Version::HTTP_2, "2", "HTTP/2.0"),
        (Version::HTTP_3, "3", "HTTP/3.0"),
    ];
    for (version, key, variable) in versions {
        let request = Request::get("/").version(version).body(()).expect("a request");
        assert_eq!(Scope::of(&request).http_version(), key);
        let variables = Variables::of(&request);
        assert_eq!(variables.get("SERVER_PROTOCOL"), Some(variable.as_bytes()));
        assert_eq!(variables.into_request().expect("a request").version(), version);
    }
}

#[test]
fn c1_a_variable_that_is_shown_is_a_headers_or_has_a_name_of_its_own() {
    let request = Request::post("/").header("content-type", "a/b").header("x-two-words", "v");
    let request = request.body(()).expect("a request");
    let mut shown = Vec::new();
    Variables::visit(&request, |name, value| {
        let (header, plain) = (name.header().map(|header| header.as_str().to_owned()), name.plain());
        assert_ne!(header.is_some(), plain.is_some(), "{name}");
        assert!(plain.is_none_or(|plain| plain == name.to_string()));
        shown.push((name.to_string(), header, value.to_owned()));
    });
    let headers: Vec<_> =
        shown.iter().filter_map(|(name, header, _)| Some((&**name, header.as_deref()?))).collect();
    assert_eq!(headers, [("CONTENT_TYPE", "content-type"), ("HTTP_X_TWO_WORDS", "x-two-words")]);
    let again: Variables = shown.into_iter().map(|(name, _, value)| (name, value)).collect();
    assert!(again == Variables::of(&request));
    Variables::visit(&request, |name, _| assert_eq!(format!("{name:>30}").len(), 30));
}

#[tokio::test]
async fn c1_a_path_is_decoded_to_bytes_and_kept_as_it_was_sent() {
    let server = serve(WsgiService::new(mounted)).await;
    let cases = [
        ("/%FF", "/\\xff"),
        ("/a%2Fb", "/a/b"),
        ("/a%2fb", "/a/b"),
        ("/%C3%A9", "/\\xc3\\xa9"),
        ("/%", "/%"),
        ("/%zz%4", "/%zz%4"),
        ("/a%253F", "/a%3F"),
        ("/a%3Fb%23", "/a?b#"),
        ("//a//", "//a//"),
        ("/a+b", "/a+b"),
        ("/../%2e", "/../."),
    ];
    for (path, info) in cases {
        for version in VERSIONS {
            let answer = ask(&server, version, &format!("{path}?{path}")).await;
            assert_eq!(value(&answer, "PATH_INFO"), Some(info), "{version:?}");
            assert_eq!(value(&answer, "REQUEST_URI"), Some(&*format!("{path}?{path}")), "{version:?}");
            assert_eq!(value(&answer, "QUERY_STRING"), Some(path), "{version:?}");
            assert_eq!(value(&answer, "raw_path"), Some(path), "{version:?}");
        }
    }
}

#[tokio::test]
async fn c1_a_query_and_a_path_that_are_not_ascii_are_passed_as_bytes() {
    let server = serve(WsgiService::new(app)).await;
    let (_, body) = raw(&server, "GET /é?q=ü HTTP/1.1").await;
    assert_eq!(value(&body, "QUERY_STRING"), Some("q=\\xc3\\xbc"));
    assert_eq!(value(&body, "PATH_INFO"), Some("/\\xc3\\xa9"));
    assert_eq!(value(&body, "REQUEST_URI"), Some("/\\xc3\\xa9?q=\\xc3\\xbc"));
}

#[tokio::test]
async fn c1_content_headers_stand_without_http() {
    let server = serve(WsgiService::new(app)).await;
    for version in VERSIONS {
        let mut request = server.request("POST", "/", Body::from("four"));
        request.headers_mut().insert("content-type", HeaderValue::from_static("text/plain"));
        let answer = text(soon(server.send(version, request)).await.expect("a response")).await;
        assert_eq!(value(&answer, "CONTENT_LENGTH"), Some("4"), "{version:?}");
        assert_eq!(value(&answer, "CONTENT_TYPE"), Some("text/plain"), "{version:?}");
        assert!(!answer.contains("HTTP_CONTENT"), "{version:?}: {answer}");
    }
}

#[tokio::test]
async fn c1_repeated_headers_are_joined() {
    let server = serve(WsgiService::new(app)).await;
    for version in VERSIONS {
        let mut request = server.request("GET", "/", Body::empty());
        for (name, value) in [
            ("x-a", &b"1"[..]),
            ("cookie", b"a=1"),
            ("x-a", b"2, 3"),
            ("cookie", b"b=2"),
            ("x-a", b"\xe9"),
            ("x-b", b""),
        ] {
            request.headers_mut().append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let answer = text(soon(server.send(version, request)).await.expect("a response")).await;
        assert_eq!(value(&answer, "HTTP_X_A"), Some("1,2, 3,\\xe9"), "{version:?}");
        assert_eq!(value(&answer, "HTTP_COOKIE"), Some("a=1; b=2"), "{version:?}");
        assert_eq!(value(&answer, "HTTP_X_B"), Some(""), "{version:?}");
    }
}

#[test]
fn c1_a_header_that_comes_80000_times_is_joined_in_linear_time() {
    let mut request = Request::new(());
    let each = HeaderValue::from_str(&"v".repeat(100)).expect("a value");
    for _ in 0..80_000 {
        request.headers_mut().append("x-a", each.clone());
    }
    let started = Instant::now();
    let variables = Variables::of(&request);
    // Linear work takes milliseconds; copying what is there for each repeat moves 320 GB.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let joined = variables.get("HTTP_X_A").expect("the header");
    assert_eq!(joined.len(), 80_000 * 101 - 1);
}

#[test]
fn c1_a_path_of_30000_segments_becomes_a_request_in_linear_time() {
    let path = "/a".repeat(30_000);
    let variables: Variables =
        [("REQUEST_URI", path.clone()), ("PATH_INFO", format!("{path}x"))].into_iter().collect();
    let started = Instant::now();
    let request = variables.into_request().expect("a request");
    // Linear work takes milliseconds; decoding the path up to each slash goes over 900 MB.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(request.uri().path(), format!("{path}x"));
}

#[tokio::test]
async fn c1_the_client_comes_from_connect_info() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let router =
        Router::new().route("/async", axum::routing::get(describe)).fallback_service(WsgiService::new(app));
    let make = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async move { axum::serve(listener, make).await });
    let fetch = |path: &'static str| {
        blocking(move || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect(addr).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("to send");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("a response");
            (stream.local_addr().expect("an address"), answer)
        })
    };
    let (client, answer) = soon(fetch("/")).await;
    assert_eq!(value(&answer, "REMOTE_ADDR"), Some("127.0.0.1"));
    assert_eq!(value(&answer, "REMOTE_PORT"), Some(&*client.port().to_string()));
    let (client, answer) = soon(fetch("/async")).await;
    assert_eq!(value(&answer, "client"), Some(&*format!("{:?}", Some(client))));
    serving.abort();
}

#[test]
fn c1_addresses_are_text_as_cgi_has_it() {
    let cases = [
        ("10.0.0.1:4000", "10.0.0.1", "4000"),
        ("[2001:db8::1]:5", "2001:db8::1", "5"),
        ("[::ffff:10.0.0.1]:6", "10.0.0.1", "6"),
    ];
    for (client, address, port) in cases {
        let mut request = Request::new(());
        let scope = Scope::of(&request).with_client(client.parse().expect("an address"));
        request.extensions_mut().insert(scope);
        let variables = Variables::of(&request);
        assert_eq!(variables.get("REMOTE_ADDR"), Some(address.as_bytes()));
        assert_eq!(variables.get("REMOTE_PORT"), Some(port.as_bytes()));
        assert_eq!(Environ::of(&request).remote(), client.parse().ok());
    }
    let unknown = Variables::of(&Request::new(()));
    assert_eq!(unknown.get("REMOTE_ADDR"), None);
    assert_eq!(unknown.get("REMOTE_PORT"), None);
}

#[test]
fn c1_the_servers_name_and_port_are_told_or_guessed() {
    let cases = [
        ("example.org", Scheme::HTTP, "example.org", "80"),
        ("example.org", Scheme::HTTPS, "example.org", "443"),
        ("example.org:8080", Scheme::HTTP, "example.org", "8080"),
        ("[::1]:8080", Scheme::HTTP, "[::1]", "8080"),
        ("[::1]", Scheme::HTTP, "[::1]", "80"),
        ("", Scheme::HTTP, "localhost", "80"),
        ("example.org:", Scheme::HTTP, "example.org", "80"),
        ("example.org:99999", Scheme::HTTP, "example.org", "80"),
        ("example.org:http", Scheme::HTTP, "example.org:http", "80"),
    ];
    for (host, scheme, name, port) in cases {
        let mut request = Request::builder().header("host", host).body(()).expect("a request");
        let scope = Scope::of(&request).with_scheme(scheme);
        request.extensions_mut().insert(scope.clone());
        let variables = Variables::of(&request);
        assert_eq!(variables.get("SERVER_NAME"), Some(name.as_bytes()), "{host:?}");
        assert_eq!(variables.get("SERVER_PORT"), Some(port.as_bytes()), "{host:?}");

        request.extensions_mut().insert(scope.with_server("told", 1));
        let variables = Variables::of(&request);
        assert_eq!(variables.get("SERVER_NAME"), Some(&b"told"[..]));
        assert_eq!(variables.get("SERVER_PORT"), Some(&b"1"[..]));
    }
}

#[tokio::test]
async fn c1_the_scope_has_the_keys_of_asgi() {
    let router = Router::new().nest("/a%20b", Router::new().fallback(describe));
    let server = serve(MapRequestLayer::new(connection).layer(router)).await;
    for (version, number) in VERSIONS.into_iter().zip(["1.1", "2"]) {
        let answer = ask(&server, version, "/a%20b/%C3%A9%2F?c=%20").await;
        let expected = format!(
            "http_version={number}\n\
             method=GET\n\
             scheme=https\n\
             path=/a b/é/\n\
             raw_path=/a%20b/%C3%A9%2F\n\
             query_string=c=%20\n\
             root_path=/a b\n\
             client=Some(10.0.0.1:4000)\n\
             server=Some((\"10.0.0.2\", 8443))\n\
             here=/%C3%A9%2F\n"
        );
        assert_eq!(answer, expected);
    }
}

#[test]
fn c1_variables_that_cannot_be_what_they_stand_for_are_errors() {
    let cases: [(&'static str, &[u8]); 10] = [
        ("REQUEST_METHOD", b"G T"),
        ("PATH_INFO", b"x"),
        ("PATH_INFO", b"http://evil/"),
        ("SCRIPT_NAME", b"api"),
        ("SERVER_PORT", b"eighty"),
        ("SERVER_NAME", b"\xff"),
        ("REMOTE_PORT", b"70000"),
        ("HTTP_X", b"a\nb"),
        ("HTTP_X Y", b""),
        ("wsgi.url_scheme", b"not a scheme"),
    ];
    for (name, bytes) in cases {
        let plain = [("PATH_INFO", "/"), ("REMOTE_ADDR", "10.0.0.1"), ("SERVER_NAME", "a")];
        let mut variables: Variables = plain.into_iter().collect();
        variables.clone().into_request().expect("a request");
        variables.set(name, bytes);
        let error = variables.into_request().expect_err(name);
        assert!(error.is_request(), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}

#[test]
fn c1_a_target_that_no_uri_can_hold_is_encoded() {
    let variables: Variables =
        [("REQUEST_URI", "/<a>?<b>"), ("PATH_INFO", "/<a>"), ("QUERY_STRING", "<b>")].into_iter().collect();
    let request = variables.into_request().expect("a request");
    assert_eq!(request.uri(), "/%3Ca%3E?%3Cb%3E");
    let again = Variables::of(&request);
    assert_eq!(again.get("PATH_INFO"), Some(&b"/<a>"[..]));
    assert_eq!(again.get("REQUEST_URI"), Some(&b"/<a>?<b>"[..]));

    let variables: Variables = [("QUERY_STRING", &b"q=\xff"[..]), ("PATH_INFO", b"/")].into_iter().collect();
    let request = variables.into_request().expect("a request");
    assert_eq!(request.uri(), "/?q=%FF");
}

#[tokio::test]
async fn c2_a_prefix_splits_at_segment_borders() {
    for prefix in ["/api", "/api/"] {
        let router = Router::new().fallback(describe).layer(WsgiLayer::new(mounted).at(prefix));
        let server = serve(router).await;
        let own = [("/api", ""), ("/api/", "/"), ("/api/x", "/x"), ("/api//", "//"), ("/api/api", "/api")];
        let foreign = ["/apiary", "/apiary/x", "/ap", "/", "/x/api", "/API/x", "/api%2Fx", "//api", "/%61pi"];
        for version in VERSIONS {
            for (path, rest) in own {
                let answer = ask(&server, version, path).await;
                assert_eq!(value(&answer, "PATH_INFO"), Some(rest), "{version:?} {path}");
                let here = if rest.is_empty() { "/" } else { rest };
                assert_eq!(value(&answer, "here"), Some(here), "{version:?} {path}");
                assert_eq!(value(&answer, "SCRIPT_NAME"), Some("/api"), "{version:?} {path}");
                assert_eq!(value(&answer, "REQUEST_URI"), Some(path), "{version:?} {path}");
                assert_eq!(value(&answer, "raw_path"), Some(path), "{version:?} {path}");
                assert_eq!(value(&answer, "root_path"), Some(""), "{version:?} {path}");
            }
            for path in foreign {
                let answer = ask(&server, version, path).await;
                assert_eq!(value(&answer, "PATH_INFO"), None, "{version:?} {path}");
                assert_eq!(value(&answer, "here"), Some(path), "{version:?} {path}");
            }
        }
    }
}

#[tokio::test]
async fn c2_without_a_prefix_the_application_gets_every_request() {
    let inner = tower::service_fn(async |_: Request<Body>| {
        Ok::<_, std::convert::Infallible>(Response::new(Body::from("inner")))
    });
    let service = WsgiLayer::new(app).layer(inner);
    for (method, uri, info) in
        [("OPTIONS", "*", "*"), ("CONNECT", "example.org:443", ""), ("GET", "//", "//"), ("GET", "/", "/")]
    {
        let request = Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request");
        let response = soon(service.clone().oneshot(request)).await.expect("a response");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let answer = String::from_utf8(body.to_vec()).expect("text");
        assert_eq!(value(&answer, "PATH_INFO"), Some(info), "{method} {uri}");
        assert_eq!(value(&answer, "REQUEST_METHOD"), Some(method));
    }
}

#[tokio::test]
async fn c2_a_mount_keeps_the_query() {
    let server = serve(Router::new().fallback(describe).layer(WsgiLayer::new(app).at("/api"))).await;
    for (path, info) in [("/api?a=%20?b", ""), ("/api/?a=%20?b", "/"), ("/api/x?a=%20?b", "/x")] {
        let answer = ask(&server, Version::HTTP_11, path).await;
        assert_eq!(value(&answer, "PATH_INFO"), Some(info));
        assert_eq!(value(&answer, "QUERY_STRING"), Some("a=%20?b"));
        assert_eq!(value(&answer, "REQUEST_URI"), Some(path));
    }
}

#[tokio::test]
async fn c2_nested_mounts_add_up() {
    // axum's nest in axum's nest, a layer's mount in it, and a shift inside the handler.
    let handler = |mut request: Request<Input>| {
        Environ::shift(&mut request, "/sub");
        mounted(request)
    };
    let legacy = Router::new()
        .route("/{*rest}", axum::routing::any(describe))
        .layer(WsgiLayer::new(handler).at("/leg%20acy"));
    let router = Router::new().nest("/outer", Router::new().nest("/mid", legacy));
    let server = serve(router).await;
    let cases = [
        ("/outer/mid/leg%20acy/sub/x", "/outer/mid/leg acy/sub", "/x"),
        ("/outer/mid/leg%20acy/sub/", "/outer/mid/leg acy/sub", "/"),
        ("/outer/mid/leg%20acy/sub", "/outer/mid/leg acy/sub", ""),
        ("/outer/mid/leg%20acy/subway", "/outer/mid/leg acy", "/subway"),
        ("/outer/mid/leg%20acy/", "/outer/mid/leg acy", "/"),
        ("/outer/mid/leg%20acy", "/outer/mid/leg acy", ""),
    ];
    for version in VERSIONS {
        for (path, script, info) in cases {
            let answer = ask(&server, version, path).await;
            assert_eq!(value(&answer, "SCRIPT_NAME"), Some(script), "{version:?} {path}");
            assert_eq!(value(&answer, "PATH_INFO"), Some(info), "{version:?} {path}");
            assert_eq!(value(&answer, "REQUEST_URI"), Some(path), "{version:?} {path}");
            assert_eq!(value(&answer, "raw_path"), Some(path), "{version:?} {path}");
            assert_eq!(value(&answer, "root_path"), Some("/outer/mid"), "{version:?} {path}");
        }
        let answer = ask(&server, version, "/outer/mid/other").await;
        assert_eq!(value(&answer, "root_path"), Some("/outer/mid"), "{version:?}");
        assert_eq!(value(&answer, "path"), Some("/outer/mid/other"), "{version:?}");
    }
}

#[tokio::test]
async fn c2_a_nest_asked_for_without_a_slash_has_an_empty_path() {
    let router = Router::new().nest_service("/api", WsgiService::new(app));
    let server = serve(router).await;
    for (path, info) in [("/api", ""), ("/api/", "/"), ("/api/x", "/x")] {
        let answer = ask(&server, Version::HTTP_11, path).await;
        assert_eq!(value(&answer, "SCRIPT_NAME"), Some("/api"), "{path}");
        assert_eq!(value(&answer, "PATH_INFO"), Some(info), "{path}");
    }
}

#[tokio::test]
async fn c2_a_root_path_that_a_proxy_took_off_is_in_front_of_all_mounts() {
    let root = |mut request: Request<_>| {
        let scope = Scope::of(&request).with_root_path("/site%20a");
        request.extensions_mut().insert(scope);
        request
    };
    let router = Router::new().nest_service("/n", WsgiService::new(app));
    let server = serve(MapRequestLayer::new(root).layer(router)).await;
    for (path, info) in [("/n/x?q", "/x"), ("/n/", "/"), ("/n", "")] {
        let answer = ask(&server, Version::HTTP_11, path).await;
        assert_eq!(value(&answer, "SCRIPT_NAME"), Some("/site a/n"), "{path}");
        assert_eq!(value(&answer, "PATH_INFO"), Some(info), "{path}");
        assert_eq!(value(&answer, "REQUEST_URI"), Some(&*format!("/site%20a{path}")), "{path}");
    }
}

#[test]
fn c2_shifts_add_up_and_leave_foreign_paths_alone() {
    let mut request = Request::get("/a/b/c?q").body(()).expect("a request");
    for foreign in ["/b", "/a/bc", "/a/b/c/d", "a", "/A"] {
        assert!(!Environ::shift(&mut request, foreign), "{foreign}");
        assert_eq!(request.uri(), "/a/b/c?q");
        assert!(request.extensions().is_empty());
    }
    assert!(Environ::shift(&mut request, "/a"));
    assert!(Environ::shift(&mut request, "/b/c"));
    assert!(!Environ::shift(&mut request, "/c"));
    assert_eq!(request.uri(), "/?q");
    let environ = Environ::of(&request);
    assert_eq!(&*environ.script_name(), b"/a/b/c");
    assert_eq!(&*environ.path_info(), b"");
    assert_eq!(environ.scope().root_path(), "");
    assert_eq!(environ.scope().raw_path(), "/a/b/c");
}

#[test]
fn c2_shifts_on_the_async_side_add_up_and_leave_foreign_paths_alone() {
    let mut request = Request::get("/a/b/c?q").body(()).expect("a request");
    for foreign in ["/b", "/a/bc", "/a/b/c/d", "a", "/A"] {
        assert!(!Scope::shift(&mut request, foreign), "{foreign}");
        assert_eq!(request.uri(), "/a/b/c?q");
        assert!(request.extensions().is_empty());
    }
    assert!(Scope::shift(&mut request, "/a"));
    assert!(Scope::shift(&mut request, "/b/"));
    assert_eq!(request.uri(), "/c?q");
    let scope = Scope::of(&request);
    assert_eq!((&*scope.root_path(), scope.raw_path()), ("/a/b", "/a/b/c"));
    assert_eq!(&*Environ::of(&request).script_name(), b"/a/b");
}

#[test]
fn c2_a_slash_at_the_end_of_a_shift_makes_no_difference() {
    let mut request = Request::get("/a/b").body(()).expect("a request");
    assert!(Environ::shift(&mut request, "/"));
    assert_eq!(request.uri(), "/a/b");
    assert!(Environ::shift(&mut request, "/a/"));
    assert_eq!(request.uri(), "/b");
    assert_eq!(&*Environ::of(&request).script_name(), b"/a");
    assert!(Environ::shift(&mut request, "/b"));
    assert!(Environ::shift(&mut request, "/"));
    assert_eq!(&*Environ::of(&request).script_name(), b"/a/b");
    assert_eq!(&*Environ::of(&request).path_info(), b"");
}

/// A sync middleware that does to the request's path what a header says, and calls the inner service in one of both ways.
fn reroute(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    let next = next(&request)?;
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let (uri, prefix) = (header("x-uri").map(str::to_owned), header("x-shift").map(str::to_owned));
    let run = header("x-run").is_some();
    if let Some(uri) = uri {
        *request.uri_mut() = uri.parse()?;
    }
    if let Some(prefix) = prefix {
        assert!(Environ::shift(&mut request, &prefix));
    }
    if run { next.run(request) } else { Ok(next.forward(request)) }
}

/// What the inner service behind [`reroute`] tells, called in both ways.
async fn rerouted(server: &Server, path: &str, header: Option<(&'static str, &str)>) -> String {
    let mut answers = Vec::new();
    for run in [false, true] {
        let mut request = server.request("GET", path, Body::empty());
        if let Some((name, value)) = header {
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        if run {
            request.headers_mut().insert("x-run", HeaderValue::from_static("1"));
        }
        answers.push(text(soon(server.send(Version::HTTP_11, request)).await.expect("a response")).await);
    }
    assert_eq!(answers[0], answers[1]);
    answers.remove(0)
}

#[tokio::test]
async fn c2_next_puts_the_mount_back() {
    let inner = Router::new().fallback(describe).layer(WsgiLayer::new(reroute).at("/api"));
    let server = serve(Router::new().nest("/nest", inner)).await;
    // Asked for, rewritten to, and what the inner service gets.
    let cases = [
        ("/nest/api/x?q=1", None, "/api/x", "q=1"),
        ("/nest/api/", None, "/api/", ""),
        ("/nest/api", None, "/api", ""),
        ("/nest/api/api", None, "/api/api", ""),
        ("/nest/api/old?q=1", Some("/new"), "/api/new", ""),
        ("/nest/api/old", Some("/new?q=2"), "/api/new", "q=2"),
        ("/nest/api/old", Some("/"), "/api/", ""),
        ("/nest/api", Some("/new/"), "/api/new/", ""),
        ("/nest/api/a/b", Some("/b"), "/api/b", ""),
        ("/nest/api/api/b", Some("/b"), "/api/b", ""),
    ];
    for (path, rewritten, here, query) in cases {
        let answer = rerouted(&server, path, rewritten.map(|uri| ("x-uri", uri))).await;
        let case = format!("{path} {rewritten:?}");
        assert_eq!(value(&answer, "here"), Some(here), "{case}");
        assert_eq!(value(&answer, "query_string"), Some(query), "{case}");
        assert_eq!(value(&answer, "root_path"), Some("/nest"), "{case}");
        assert_eq!(value(&answer, "raw_path"), Some(&*format!("/nest{here}")), "{case}");
    }
}

#[tokio::test]
async fn c4_a_shift_before_next_is_a_mount_of_the_inner_service() {
    let bare = serve(Router::new().fallback(describe).layer(WsgiLayer::new(reroute))).await;
    let mounted = serve(Router::new().fallback(describe).layer(WsgiLayer::new(reroute).at("/api"))).await;
    let cases = [
        (&bare, "/sub/x", "/sub", "/x"),
        (&bare, "/sub", "/sub", "/"),
        (&mounted, "/api/sub/x", "/api/sub", "/x"),
        (&mounted, "/api/sub", "/api/sub", "/"),
    ];
    for (server, path, root, here) in cases {
        let answer = rerouted(server, path, Some(("x-shift", "/sub"))).await;
        assert_eq!(value(&answer, "here"), Some(here), "{path}");
        assert_eq!(value(&answer, "root_path"), Some(root), "{path}");
        assert_eq!(value(&answer, "raw_path"), Some(path), "{path}");
    }
}

#[tokio::test]
async fn c3_headers_that_look_like_variables_become_none() {
    let server = serve(WsgiService::new(app)).await;
    let head = "GET / HTTP/1.1\r\n\
        X_A: before\r\nX-A: 1\r\nX_A: after\r\n\
        Proxy: http://evil\r\nPROXY: http://evil\r\n\
        SCRIPT_NAME: /evil\r\nPATH_INFO: /evil\r\nREMOTE_USER: root\r\nREMOTE_ADDR: 6.6.6.6\r\nHTTP_HOST: evil\r\n\
        Script-Name: /evil\r\nRemote-User: root\r\nAuth-Type: none\r\nHTTPS: on\r\n\
        Content_Type: evil\r\nContent_Length: 5";
    let (_, body) = raw(&server, head).await;
    let expected = format!(
        "GATEWAY_INTERFACE=CGI/1.1\n\
         HTTP_AUTH_TYPE=none\n\
         HTTP_CONNECTION=close\n\
         HTTP_HOST=example.org\n\
         HTTP_HTTPS=on\n\
         HTTP_REMOTE_USER=root\n\
         HTTP_SCRIPT_NAME=/evil\n\
         HTTP_X_A=1\n\
         PATH_INFO=/\n\
         QUERY_STRING=\n\
         REQUEST_METHOD=GET\n\
         REQUEST_URI=/\n\
         SCRIPT_NAME=\n\
         SERVER_NAME=example.org\n\
         SERVER_PORT=80\n\
         SERVER_PROTOCOL=HTTP/1.1\n\
         SERVER_SOFTWARE={SOFTWARE}\n\
         wsgi.url_scheme=http\n"
    );
    assert_eq!(body, expected);
}

#[test]
fn c3_a_cgi_hosts_http_proxy_goes_no_further() {
    let variables: Variables = [
        ("PATH_INFO", "/"),
        ("HTTP_PROXY", "http://evil"),
        ("HTTP_CONTENT_TYPE", "evil"),
        ("HTTP_CONTENT_LENGTH", "5"),
    ]
    .into_iter()
    .collect();
    let request = variables.into_request().expect("a request");
    assert!(request.headers().is_empty());
    let again = Variables::of(&request);
    assert_eq!(again.iter().find(|(name, _)| name.starts_with("HTTP_")), None);
    assert_eq!(again.get("CONTENT_TYPE"), None);
}

#[test]
fn c3_a_cgi_host_that_spells_names_as_they_came_changes_no_body() {
    for evil in
        ["HTTP_content_length", "HTTP_CONTENT-LENGTH", "HTTP_Content_Type", "HTTP_proxy", "HTTP_Proxy"]
    {
        let sent = [("CONTENT_LENGTH", "4"), ("CONTENT_TYPE", "text/plain"), (evil, "5")];
        let request = Variables::from_iter(sent).into_request().expect("a request");
        let headers = request.headers();
        assert_eq!(headers.len(), 2, "{evil}: {headers:?}");
        assert_eq!(
            (headers["content-length"].as_bytes(), headers["content-type"].as_bytes()),
            (&b"4"[..], &b"text/plain"[..]),
            "{evil}"
        );
    }
}

#[tokio::test]
async fn c3_a_client_cannot_claim_https() {
    let handler = WsgiLayer::new(app).at("/sync");
    let server = serve(Router::new().fallback(describe).layer(handler)).await;
    for version in VERSIONS {
        for (path, scheme) in [("/sync", "wsgi.url_scheme"), ("/async", "scheme")] {
            let request = Request::get(format!("https://{}{path}", server.addr))
                .header("host", server.addr.to_string())
                .header("x-forwarded-proto", "https")
                .header("forwarded", "proto=https");
            let request = request.body(Body::empty()).expect("a request");
            let response = soon(server.send(version, request)).await.expect("a response");
            let answer = text(response).await;
            assert_eq!(value(&answer, scheme), Some("http"), "{version:?} {path}");
            assert_eq!(value(&answer, "HTTPS"), None, "{version:?} {path}");
        }
    }
}

/// Headers that are the connection's.
const HOP_BY_HOP: [(&str, &str); 7] = [
    ("connection", "x-hop, keep-alive"),
    ("connection", "X-Other"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("te", "trailers"),
    ("transfer-encoding", "gzip"),
    ("upgrade", "evil"),
];

fn with_hop_by_hop(output: Output) -> Response<Output> {
    let own = [("x-hop", "1"), ("x-other", "2"), ("x-stay", "3")];
    let mut response = Response::builder();
    for (name, value) in HOP_BY_HOP.into_iter().chain(own) {
        response = response.header(name, value);
    }
    response.body(output).expect("a response")
}

#[tokio::test]
async fn c3_hop_by_hop_headers_of_an_application_are_dropped() {
    let app = |request: Request<Input>| -> Result<_, BoxError> {
        let output = match request.uri().path() {
            "/full" => Output::from("body"),
            "/chunks" => Output::try_iter(["bo", "dy"].map(Ok::<_, BoxError>)),
            "/writer" => Output::writer(|w| std::io::Write::write_all(w, b"body")),
            _ => {
                let next = next(&request)?;
                let mut response = with_hop_by_hop(Output::empty());
                std::mem::swap(response.body_mut(), next.forward(request).body_mut());
                return Ok(response);
            }
        };
        Ok(with_hop_by_hop(output))
    };
    let server = serve(Router::new().fallback(|| async { "body" }).layer(WsgiLayer::new(app))).await;
    for path in ["/full", "/chunks", "/writer", "/forward"] {
        for version in VERSIONS {
            let request = server.request("GET", path, Body::empty());
            let response = soon(server.send(version, request)).await.expect("a response");
            let headers = response.headers().clone();
            assert_eq!(text(response).await, "body", "{version:?} {path}");
            assert_eq!(
                headers.get("x-stay").map(HeaderValue::as_bytes),
                Some(&b"3"[..]),
                "{version:?} {path}"
            );
            for name in ["x-hop", "x-other", "connection", "keep-alive", "proxy-connection", "te", "upgrade"]
            {
                assert!(!headers.contains_key(name), "{version:?} {path}: {name}");
            }
            let coding = headers.get("transfer-encoding").map(HeaderValue::as_bytes);
            assert_ne!(coding, Some(&b"gzip"[..]), "{version:?} {path}");
        }
    }
}

#[tokio::test]
async fn c3_switching_protocols_keeps_its_headers() {
    let server = serve(WsgiService::new(|_: Request<Input>| {
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header("connection", "upgrade, x-hop").header("upgrade", "echo");
        response.header("x-hop", "1").body("").expect("a response")
    }))
    .await;
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let answer = String::from_utf8(soon(server.raw(head)).await).expect("text");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for line in ["connection: upgrade, x-hop", "upgrade: echo", "x-hop: 1"] {
        assert!(answer.lines().any(|other| other == line), "{line} in {answer}");
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Token(&'static str);

#[derive(Clone, Debug, PartialEq)]
struct Other(&'static str);

/// The value of a header, as text.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn c4_an_outer_layers_extensions_are_seen_by_the_handler() {
    let handler = |request: Request<Input>| {
        let token = request.extensions().get::<Token>();
        Response::new(format!("{token:?} {}", header(request.headers(), "x-outer")))
    };
    let outer = map_request(|mut request: axum::extract::Request| async move {
        request.extensions_mut().insert(Token("outer"));
        request.headers_mut().insert("x-outer", HeaderValue::from_static("1"));
        request
    });
    let router = Router::new().fallback_service(WsgiService::new(handler)).layer(outer);
    let server = serve(router).await;
    for version in VERSIONS {
        assert_eq!(ask(&server, version, "/").await, "Some(Token(\"outer\")) 1");
    }
}

#[test]
fn c4_a_path_that_a_layer_rewrites_is_no_mount() {
    // A request whose scope was made before its path, or what stands for one, became another.
    for (before, after) in [("/old", "/new"), ("/files/*", "*"), ("/a/b", "/b/c")] {
        let mut request = Request::options(before).body(()).expect("a request");
        let scope = Scope::of(&request);
        request.extensions_mut().insert(scope);
        *request.uri_mut() = after.parse().expect("a target");
        let scope = Scope::of(&request);
        assert_eq!((&*scope.root_path(), scope.raw_path()), ("", after), "{before}");
    }
    // The sync side knows each mount: what leads to the top is a rewrite, too.
    let mut request = Request::get("/deep/down").body(()).expect("a request");
    let environ = Environ::of(&request);
    request.extensions_mut().insert(environ);
    *request.uri_mut() = "/".parse().expect("a target");
    assert!(Environ::shift(&mut request, "/"));
    let environ = Environ::of(&request);
    assert_eq!((&*environ.script_name(), &*environ.path_info()), (&b""[..], &b"/"[..]));
}

#[test]
fn c4_a_method_and_a_version_that_a_layer_sets_are_the_scopes() {
    let mut request = Request::get("/").body(()).expect("a request");
    let scope = Scope::of(&request);
    request.extensions_mut().insert(scope);
    *request.method_mut() = http::Method::PUT;
    *request.version_mut() = Version::HTTP_10;
    let scope = Scope::of(&request);
    assert_eq!((scope.method(), scope.http_version()), (&http::Method::PUT, "1.0"));
}

#[tokio::test]
async fn c4_a_sync_middlewares_changes_are_seen_inside() {
    let middleware = |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next = next(&request)?;
        let mut environ = Environ::of(&request);
        environ.set("REMOTE_USER", "alice");
        request.extensions_mut().insert(environ);
        request.extensions_mut().insert(Token("middleware"));
        request.headers_mut().insert("x-middle", HeaderValue::from_static("1"));
        *request.method_mut() = http::Method::PUT;
        if request.uri().path().starts_with("/run") { next.run(request) } else { Ok(next.forward(request)) }
    };
    let inner = async |request: axum::extract::Request| {
        let scope = Scope::of(&request);
        let user = scope.environ().and_then(|environ| environ.get("REMOTE_USER"));
        let user = user.map(|user| user.escape_ascii().to_string());
        let token = request.extensions().get::<Token>();
        let other = request.extensions().get::<Other>();
        let header = header(request.headers(), "x-middle");
        format!("{user:?} {token:?} {other:?} {header} {} {}", scope.method(), request.method())
    };
    let outer = map_request(|mut request: axum::extract::Request| async move {
        request.extensions_mut().insert(Token("outer"));
        request.extensions_mut().insert(Other("outer"));
        request
    });
    let router = Router::new().fallback(inner).layer(WsgiLayer::new(middleware)).layer(outer);
    let server = serve(router).await;
    for version in VERSIONS {
        for path in ["/run", "/forward"] {
            let answer = ask(&server, version, path).await;
            let expected = "Some(\"alice\") Some(Token(\"middleware\")) Some(Other(\"outer\")) 1 PUT PUT";
            assert_eq!(answer, expected, "{version:?} {path}");
        }
    }
}

#[tokio::test]
async fn c4_what_a_middleware_set_reaches_the_handler_two_crossings_further() {
    let user = |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next = next(&request)?;
        let mut environ = Environ::of(&request);
        environ.set("REMOTE_USER", "alice");
        request.extensions_mut().insert(environ);
        next.run(request)
    };
    let kind = |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next = next(&request)?;
        let mut environ = Environ::of(&request);
        environ.set("AUTH_TYPE", "Basic");
        request.extensions_mut().insert(environ);
        Ok(next.forward(request))
    };
    let router = Router::new()
        .nest_service("/api", WsgiService::new(app))
        .layer(WsgiLayer::new(kind))
        .layer(WsgiLayer::new(user).at("/api"));
    let server = serve(MapRequestLayer::new(connection).layer(router)).await;
    for version in VERSIONS {
        let answer = ask(&server, version, "/api/x").await;
        assert_eq!(value(&answer, "REMOTE_USER"), Some("alice"), "{version:?}");
        assert_eq!(value(&answer, "AUTH_TYPE"), Some("Basic"), "{version:?}");
        assert_eq!(value(&answer, "REMOTE_ADDR"), Some("10.0.0.1"), "{version:?}");
        assert_eq!(value(&answer, "SCRIPT_NAME"), Some("/api"), "{version:?}");
        assert_eq!(value(&answer, "PATH_INFO"), Some("/x"), "{version:?}");
    }
}

#[tokio::test]
async fn c4_a_response_is_seen_and_changed_on_the_way_back() {
    let middleware = |request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next = next(&request)?;
        if request.uri().path() == "/forward" {
            let mut response = next.forward(request);
            response.extensions_mut().insert(Other("middleware"));
            response.headers_mut().insert("x-inner", HeaderValue::from_static("replaced"));
            response.headers_mut().insert("x-middle", HeaderValue::from_static("1"));
            return Ok(response);
        }
        let mut response = next.run(request)?;
        assert_eq!(response.extensions().get(), Some(&Token("inner")));
        assert_eq!(response.extensions_mut().insert(Other("middleware")), Some(Other("inner")));
        let seen = response.headers_mut().insert("x-inner", HeaderValue::from_static("replaced"));
        assert_eq!(seen, Some(HeaderValue::from_static("inner")));
        response.headers_mut().insert("x-middle", HeaderValue::from_static("1"));
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    };
    let inner = async || {
        let mut response = Response::new(axum::body::Body::from("inner"));
        response.extensions_mut().insert(Token("inner"));
        response.extensions_mut().insert(Other("inner"));
        response.headers_mut().insert("x-inner", HeaderValue::from_static("inner"));
        response.headers_mut().insert("x-kept", HeaderValue::from_static("inner"));
        *response.status_mut() = StatusCode::CREATED;
        response
    };
    let outer = map_response(|mut response: Response<axum::body::Body>| async move {
        let extensions = response.extensions();
        let seen = format!("{:?} {:?}", extensions.get::<Token>(), extensions.get::<Other>());
        response.headers_mut().insert("x-outer", seen.parse().expect("a value"));
        response
    });
    let router = Router::new().fallback(inner).layer(WsgiLayer::new(middleware)).layer(outer);
    let server = serve(router).await;
    for version in VERSIONS {
        for (path, status) in [("/run", StatusCode::ACCEPTED), ("/forward", StatusCode::CREATED)] {
            let request = server.request("GET", path, Body::empty());
            let response = soon(server.send(version, request)).await.expect("a response");
            assert_eq!(response.status(), status, "{version:?} {path}");
            let headers = response.headers();
            let seen = ["x-inner", "x-middle", "x-kept"].map(|name| header(headers, name));
            assert_eq!(seen, ["replaced", "1", "inner"], "{version:?} {path}");
            let outer = header(headers, "x-outer");
            assert_eq!(outer, "Some(Token(\"inner\")) Some(Other(\"middleware\"))", "{version:?} {path}");
            assert_eq!(text(response).await, "inner", "{version:?} {path}");
        }
    }
}

#[test]
fn c4_what_was_set_for_the_sync_side_can_be_taken_back() {
    let mut request = Request::new(());
    let mut environ = Environ::of(&request);
    environ.set("REMOTE_USER", "alice");
    request.extensions_mut().insert(environ.clone());
    assert_eq!(Variables::of(&request).get("REMOTE_USER"), Some(&b"alice"[..]));
    assert!(environ.unset("REMOTE_USER"));
    assert!(!environ.unset("REMOTE_USER"));
    request.extensions_mut().insert(environ);
    assert_eq!(Variables::of(&request).get("REMOTE_USER"), None);
}
