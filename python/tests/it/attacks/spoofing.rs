//! Whom a request is from, and where it goes: nothing of that is a client's to say.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::faults::support::{Seen, Site, Wire, command, responses, show, unharmed};
use crate::support::server::Server;
use crate::support::watched;

/// Headers as they are sent, and what they add to a WSGI environ: nothing, or a variable of their own.
const HEADERS: &[(&str, Option<(&str, &str)>)] = &[
    // Names with `_` are those of other headers, once they are variables.
    ("Remote_User: eve", None),
    ("REMOTE_USER: eve", None),
    ("Script_Name: /eve", None),
    ("Path_Info: /eve", None),
    ("Content_Length: 5", None),
    ("Content_Type: text/eve", None),
    ("Transfer_Encoding: chunked", None),
    ("X_Forwarded_For: 6.6.6.6", None),
    ("X_Forwarded_Proto: https", None),
    ("X-Forwarded_Proto: https", None),
    ("X_Forwarded-Proto: https", None),
    ("HTTP_HOST: eve", None),
    ("HTTP_X: eve", None),
    ("_: eve", None),
    ("Host_: eve", None),
    ("_Host: eve", None),
    ("wsgi.input_terminated: eve", None),
    // What CGI programs take for their proxy (CVE-2016-5385).
    ("Proxy: http://eve", None),
    ("proxy: http://eve", None),
    ("PROXY: http://eve", None),
    // These are the client's own words, under names that nobody takes for others.
    ("Remote-User: eve", Some(("HTTP_REMOTE_USER", "eve"))),
    ("Remote-Addr: 6.6.6.6", Some(("HTTP_REMOTE_ADDR", "6.6.6.6"))),
    ("Script-Name: /eve", Some(("HTTP_SCRIPT_NAME", "/eve"))),
    ("Path-Info: /eve", Some(("HTTP_PATH_INFO", "/eve"))),
    ("Server-Name: eve", Some(("HTTP_SERVER_NAME", "eve"))),
    ("Server-Port: 1", Some(("HTTP_SERVER_PORT", "1"))),
    ("Request-Method: EVE", Some(("HTTP_REQUEST_METHOD", "EVE"))),
    ("Request-Uri: /eve", Some(("HTTP_REQUEST_URI", "/eve"))),
    ("Auth-Type: eve", Some(("HTTP_AUTH_TYPE", "eve"))),
    ("HTTPS: on", Some(("HTTP_HTTPS", "on"))),
    ("wsgi.url_scheme: https", None),
    ("wsgi.url-scheme: https", Some(("HTTP_WSGI.URL_SCHEME", "https"))),
    ("HTTP-Host: eve", Some(("HTTP_HTTP_HOST", "eve"))),
    ("X-Forwarded-For: 6.6.6.6", Some(("HTTP_X_FORWARDED_FOR", "6.6.6.6"))),
    ("X-Forwarded-Proto: https", Some(("HTTP_X_FORWARDED_PROTO", "https"))),
    ("X-Forwarded-Host: eve", Some(("HTTP_X_FORWARDED_HOST", "eve"))),
    ("X-Forwarded-Prefix: /eve", Some(("HTTP_X_FORWARDED_PREFIX", "/eve"))),
    ("X-Forwarded-Port: 1", Some(("HTTP_X_FORWARDED_PORT", "1"))),
    ("X-Forwarded-Ssl: on", Some(("HTTP_X_FORWARDED_SSL", "on"))),
    ("X-Script-Name: /eve", Some(("HTTP_X_SCRIPT_NAME", "/eve"))),
    ("X-Real-Ip: 6.6.6.6", Some(("HTTP_X_REAL_IP", "6.6.6.6"))),
    ("Forwarded: for=6.6.6.6;proto=https", Some(("HTTP_FORWARDED", "for=6.6.6.6;proto=https"))),
    ("X-Http-Method-Override: DELETE", Some(("HTTP_X_HTTP_METHOD_OVERRIDE", "DELETE"))),
    ("Content-Type: text/eve", Some(("CONTENT_TYPE", "text/eve"))),
    ("Content-Length: 0", Some(("CONTENT_LENGTH", "0"))),
];

fn shown(seen: &Seen) -> BTreeMap<String, Value> {
    serde_json::from_value(seen.json()).expect("an object")
}

/// Asks, and tells what there is more or other than without the header.
fn difference(site: &Site, header: &str, plain: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let request = format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{header}Connection: close\r\n\r\n");
    let mut seen = shown(&site.ask(request.as_bytes()));
    for name in plain.keys() {
        assert!(seen.contains_key(name), "{header} took {name} away");
    }
    // A connection has a port of its own.
    seen.retain(|name, value| name != "REMOTE_PORT" && plain.get(name) != Some(value));
    seen
}

#[test]
fn c3_no_header_becomes_a_variable_that_is_not_its_own() {
    unharmed("app:wsgi", |site, every| {
        let plain = shown(&site.get("/a?b"));
        assert_eq!(plain["wsgi.url_scheme"], "http");
        assert_eq!(plain["REMOTE_ADDR"], "127.0.0.1");
        assert_eq!(plain["SCRIPT_NAME"], "");
        assert!(!plain.contains_key("REMOTE_USER") && !plain.contains_key("HTTPS"), "{plain:?}");
        for (header, variable) in HEADERS.iter().step_by(every) {
            let more = difference(site, &format!("{header}\r\n"), &plain);
            let expected = variable.map(|(name, value)| (name.to_owned(), Value::from(value)));
            assert_eq!(more, expected.into_iter().collect(), "{header}");
        }
        // Next to one that it might be taken for, in either order, it changes nothing.
        for header in [
            "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n",
            "X-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 6.6.6.6\r\n",
        ] {
            let more = difference(site, header, &plain);
            assert_eq!(more, BTreeMap::from([("HTTP_X_FORWARDED_FOR".to_owned(), Value::from("1.2.3.4"))]));
        }
        site.notes();
    });
}

#[test]
fn c3_no_header_becomes_another_key_of_a_scope() {
    unharmed("app:asgi", |site, every| {
        let plain = shown(&site.get("/a?b"));
        assert_eq!(
            (&plain["scheme"], &plain["root_path"], &plain["path"]),
            (&"http".into(), &"".into(), &"/a".into())
        );
        for (header, _) in HEADERS.iter().step_by(every) {
            let mut more = difference(site, &format!("{header}\r\n"), &plain);
            let headers = more.remove("headers").expect("other headers");
            assert_eq!(more, BTreeMap::new(), "{header}");
            // It is there as it came, but for its case: `_` and `-` are two characters.
            let (name, value) = header.split_once(": ").expect("a header");
            let expected = serde_json::json!([name.to_ascii_lowercase(), value]);
            assert!(headers.as_array().expect("a list").contains(&expected), "{header}: {headers}");
            assert_eq!(headers.as_array().map(Vec::len), Some(3), "{headers}");
        }
        site.notes();
    });
}

/// What a proxy took off a path is said on the command line, and nowhere else.
#[test]
fn c3_the_root_path_is_the_operators() {
    watched(|| {
        for (target, key) in [("app:wsgi", "SCRIPT_NAME"), ("app:asgi", "root_path")] {
            let mut server = Server::start(command(target).args(["--root-path", "/shop"]));
            let site = Site { addr: server.addr, server };
            for path in ["/a", "/shop/a", "/shop", "/%73hop/a", "//shop", "/shop/../a"] {
                for header in
                    ["", "Script-Name: /eve\r\n", "X-Forwarded-Prefix: /eve\r\n", "Root-Path: /eve\r\n"]
                {
                    let request =
                        format!("GET {path} HTTP/1.1\r\nHost: a\r\n{header}Connection: close\r\n\r\n");
                    let seen = shown(&site.ask(request.as_bytes()));
                    assert_eq!(seen[key], "/shop", "{path} {header}");
                }
            }
            server = site.server;
            assert!(server.stop().success());
        }
    });
}

/// Whom a request is for: two hosts are no host, and a target's wins over the header's (RFC 9112, section 3.2).
#[test]
fn c3_a_request_has_one_host_or_is_refused() {
    const CASES: &[(&str, Option<&str>)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n", Some("a")),
        ("GET / HTTP/1.1\r\nHost: a:81\r\n", Some("a:81")),
        ("GET / HTTP/1.1\r\nHost:\r\n", Some("")),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n", Some("a, b")),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost_: b\r\n", Some("a")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: b\r\n", Some("a")),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", None),
        ("GET / HTTP/1.1\r\nHOST: a\r\nhost: b\r\n", None),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n", None),
        ("GET / HTTP/1.1\r\n", None),
        ("GET http://c/ HTTP/1.1\r\n", None),
        ("GET http://c/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n", None),
        ("GET http://c/ HTTP/1.1\r\nHost: a\r\n", Some("c")),
        ("GET http://user@c/ HTTP/1.1\r\nHost: a\r\n", Some("c")),
        ("GET http://c@d/ HTTP/1.1\r\nHost: c\r\n", Some("d")),
        ("GET http://c:81/ HTTP/1.1\r\nHost: a\r\n", Some("c:81")),
        ("GET http://c HTTP/1.1\r\nHost: a\r\n", Some("c")),
        ("GET https://c/ HTTP/1.1\r\nHost: a\r\n", Some("c")),
        // A target that is neither a path nor a URL.
        ("GET c HTTP/1.1\r\nHost: a\r\n", None),
        ("GET c:81 HTTP/1.1\r\nHost: a\r\n", None),
        ("POST a@c HTTP/1.1\r\nHost: a\r\n", None),
    ];
    for target in ["app:wsgi", "app:asgi"] {
        unharmed(target, move |site, every| {
            for (request, host) in CASES.iter().step_by(every) {
                let mut wire = Wire::open(site.addr);
                wire.send(
                    format!("{request}Connection: close\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
                        .as_bytes(),
                );
                let bytes = wire.rest();
                let seen = responses(&bytes, "GET");
                assert_eq!(seen.len(), 1, "{request}: {}", show(&bytes));
                let Some(host) = host else {
                    assert_eq!(
                        (seen[0].status, seen[0].header("connection")),
                        (400, Some(&b"close"[..])),
                        "{request}: {}",
                        show(&bytes)
                    );
                    continue;
                };
                let seen = shown(&seen[0]);
                let (told, scheme) = match target {
                    "app:wsgi" => (seen["HTTP_HOST"].clone(), &seen["wsgi.url_scheme"]),
                    _ => {
                        let headers = seen["headers"].as_array().expect("a list");
                        let mut hosts = headers.iter().filter(|pair| pair[0] == "host");
                        let told = hosts.next().expect("a host")[1].clone();
                        assert_eq!(hosts.next(), None, "{request}");
                        (told, &seen["scheme"])
                    }
                };
                assert_eq!((&told, scheme), (&(*host).into(), &"http".into()), "{request}: {}", show(&bytes));
            }
            let notes = site.notes();
            assert!(!notes.contains_key("path GET /smuggled"), "{notes:?}");
        });
    }
    // HTTP/1.0 knows no hosts.
    unharmed("app:wsgi", |site, _| {
        let seen = shown(&site.ask(b"GET / HTTP/1.0\r\n\r\n"));
        assert!(!seen.contains_key("HTTP_HOST"), "{seen:?}");
    });
}
