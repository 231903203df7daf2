//! Paths that say one thing to whoever guards them and another to whoever serves them.

use axum::Router;
use axum::routing::get;
use serde_json::Value;
use tower_wsgi::WsgiLayer;
use tower_wsgi_python::{PyAsgiLayer, PyWsgi};

use crate::faults::support::{Site, Wire, responses, show, unharmed};

/// What an application is told of a target; `None` if the server refuses it.
fn told(site: &Site, target: &[u8]) -> Option<Value> {
    let mut wire = Wire::open(site.addr);
    wire.send(&[b"GET ", target, b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat());
    let bytes = wire.rest();
    let mut seen = responses(&bytes, "GET");
    assert_eq!(seen.len(), 1, "{}: {}", show(target), show(&bytes));
    if seen[0].status == 400 {
        return None;
    }
    Some(seen.remove(0).json())
}

/// One character for each byte, as a WSGI application has them.
fn native(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[test]
fn c1_each_byte_of_a_path_is_decoded_once() {
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, move |site, every| {
            let check = |sent: &[u8], path: &[u8], query: &str| {
                let Some(seen) = told(site, sent) else {
                    return false;
                };
                if target == "app:wsgi" {
                    assert_eq!(seen["PATH_INFO"], native(path), "{}", show(sent));
                    assert_eq!(seen["REQUEST_URI"], native(sent), "{}", show(sent));
                    assert_eq!(seen["QUERY_STRING"], query, "{}", show(sent));
                } else {
                    assert_eq!(seen["path"], String::from_utf8_lossy(path).as_ref(), "{}", show(sent));
                    let raw = sent.split(|byte| *byte == b'?').next().expect("a part");
                    assert_eq!(seen["raw_path"], native(raw), "{}", show(sent));
                    assert_eq!(seen["query_string"], query, "{}", show(sent));
                }
                true
            };
            for byte in (0..=255_u8).step_by(every) {
                for escaped in [format!("/a%{byte:02x}c"), format!("/a%{byte:02X}c")] {
                    assert!(check(escaped.as_bytes(), &[b'/', b'a', byte, b'c'], ""), "{escaped}");
                }
                // Not a second time.
                let twice = format!("/a%25{byte:02x}c");
                assert!(check(twice.as_bytes(), format!("/a%{byte:02x}c").as_bytes(), ""));
                let raw = [b'/', b'a', byte, b'c'];
                match byte {
                    b'?' => assert!(check(&raw, b"/a", "c")),
                    // No part of a request, but left out by those who send one in error.
                    b'#' => drop(told(site, &raw)),
                    b'!' | b'$'..=b';' | b'=' | b'@'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => {
                        assert!(check(&raw, &raw, ""), "{byte}");
                    }
                    // Neither refused nor read as anything but itself.
                    _ => drop(byte != b' ' && check(&raw, &raw, "")),
                }
            }
            // Nothing is tidied up: what was asked for is what is served.
            for same in [
                "//", "//a", "/a//b", "/./a", "/../a", "/a/..", "/a/../b", "/%", "/%4", "/%4g", "/%%",
                "/a;b=c", "/a\\b", "/a&b=c", "/a:b@c",
            ] {
                assert!(check(same.as_bytes(), same.as_bytes(), ""), "{same}");
            }
            for (sent, path) in [
                (&b"/%2e%2e/a"[..], &b"/../a"[..]),
                (b"/a%2fb", b"/a/b"),
                (b"/a%5cb", b"/a\\b"),
                (b"/a%00b", b"/a\0b"),
                (b"/a%0d%0aX:%20y", b"/a\r\nX: y"),
                (b"/%c3%a9", b"/\xc3\xa9"),
                (b"/%c0%af", b"/\xc0\xaf"),
                (b"/%ed%a0%80", b"/\xed\xa0\x80"),
                (b"/%ff%fe", b"/\xff\xfe"),
                (b"/%f4%90%80%80", b"/\xf4\x90\x80\x80"),
            ] {
                assert!(check(sent, path, ""), "{}", show(sent));
            }
            site.notes();
        });
    }
}

/// Who gets a request where an application is mounted at `/api`: the application, with the rest of the path, or Rust.
const MOUNTED: &[(&str, Option<&str>)] = &[
    ("/api", Some("")),
    ("/api/", Some("/")),
    ("/api/a", Some("/a")),
    ("/api//a", Some("//a")),
    ("/api/../b", Some("/../b")),
    ("/api/%2e%2e/b", Some("/../b")),
    ("/api/a%2fb", Some("/a/b")),
    ("/api/a%00b", Some("/a\0b")),
    ("/api?b", Some("")),
    ("/apiary", None),
    ("/api;x", None),
    ("/api%2fa", None),
    ("/api%00", None),
    ("/api%3fa", None),
    ("/api.", None),
    ("/API/a", None),
    // The same bytes to whoever decodes them, and another path to whoever guards them.
    ("/%61pi/a", None),
    ("/ap%69", None),
    ("//api/a", None),
    ("/./api/a", None),
    ("/x/../api/a", None),
    ("/%2fapi/a", None),
    ("\\api/a", None),
    ("/", None),
    ("*", None),
    ("http://api/", None),
    ("http://api/api", Some("")),
    ("http://x/%61pi", None),
];

/// Both layers split a path alike, and at the borders of segments.
#[test]
fn c2_a_mount_owns_what_it_says_and_nothing_that_looks_like_it() {
    use crate::asgi::support as asgi;
    use crate::wsgi::support as wsgi;

    wsgi::run(async {
        let module = wsgi::Module::new(
            r"
            import json
            def app(environ, start_response):
                start_response('200 OK', [])
                return [json.dumps(['python', environ['SCRIPT_NAME'], environ['PATH_INFO']]).encode()]
            ",
        );
        let site: PyWsgi = module.app();
        let app = asgi::start(
            "@http_only\nasync def app(scope, receive, send):\n    root, path = scope['root_path'], scope['path']\n    assert path.startswith(root), scope\n    await reply(send, ['python', root, path[len(root):]])",
        );
        let rust =
            || Router::new().route("/", get(|| async { r#"["rust"]"# })).fallback(|| async { r#"["rust"]"# });
        let servers = [
            wsgi::serve(rust().layer(WsgiLayer::new(site).at("/api"))).await,
            wsgi::serve(rust().layer(PyAsgiLayer::new(app).at("/api"))).await,
        ];
        for (target, expected) in MOUNTED {
            for (number, server) in servers.iter().enumerate() {
                let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                let bytes = server.raw(request).await;
                let seen = responses(&bytes, "GET").remove(0);
                if seen.status == 400 && expected.is_none() {
                    continue;
                }
                let expected = match expected {
                    Some(rest) => serde_json::json!(["python", "/api", rest]),
                    None => serde_json::json!(["rust"]),
                };
                assert_eq!(seen.json(), expected, "{target} on {number}");
            }
        }
    });
}
