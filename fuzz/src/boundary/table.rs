//! Any variables: they are an error, or a request that says the same.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderValue, Request};
use tower_wsgi::Variables;

use super::expected::decode;
use super::parts::Bytes;

/// A variable.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Pair(Name, Value);

#[derive(Arbitrary, Clone, Debug)]
enum Name {
    Known(u8),
    Header(String),
    Any(String),
}

const NAMES: [&str; 30] = [
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "REQUEST_URI",
    "SERVER_PROTOCOL",
    "SERVER_NAME",
    "SERVER_PORT",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "HTTP_CONTENT_TYPE",
    "HTTP_CONTENT_LENGTH",
    "HTTP_content_length",
    "HTTP_CONTENT-LENGTH",
    "HTTP_PROXY",
    "HTTP_proxy",
    "HTTP_HOST",
    "HTTP_COOKIE",
    "HTTP_X_A",
    "HTTP_X-A",
    "HTTP_",
    "HTTP__",
    "HTTPS",
    "REQUEST_SCHEME",
    "wsgi.url_scheme",
    "REMOTE_USER",
    "GATEWAY_INTERFACE",
    "SERVER_SOFTWARE",
];

#[derive(Arbitrary, Clone, Debug)]
enum Value {
    Known(u8),
    Path(Vec<u8>),
    Any(Bytes),
}

const VALUES: [&[u8]; 34] = [
    b"",
    b"/",
    b"//",
    b"*",
    b"/a",
    b"/a/",
    b"/a%20b/c?d=e",
    b"/a b/c",
    b"/a%2Fb",
    b"/\xff",
    b"/?",
    b"/#",
    b"a",
    b"a=b&c=\xff",
    b"?",
    b"GET",
    b"POST",
    b"OPTIONS",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/3",
    b"INCLUDED",
    b"5",
    b"05",
    b"65536",
    b"10.0.0.1",
    b"::ffff:10.0.0.1",
    b"2001:DB8::1",
    b"on",
    b"https",
    b"http",
    b"example.org:80",
    b"text/plain",
    b"\r\nX: 1",
];

impl Pair {
    fn name(&self) -> String {
        match &self.0 {
            Name::Known(which) => NAMES[usize::from(*which) % NAMES.len()].to_owned(),
            Name::Header(name) => format!("HTTP_{name}"),
            Name::Any(name) => name.clone(),
        }
    }

    fn value(&self) -> Vec<u8> {
        match &self.1 {
            Value::Known(which) => VALUES[usize::from(*which) % VALUES.len()].to_owned(),
            Value::Path(bytes) => [b"/", &bytes[..]].concat(),
            Value::Any(Bytes(bytes)) => bytes.clone(),
        }
    }
}

/// Holds a request made of variables to them.
pub(super) fn check(pairs: &[Pair]) {
    let table: BTreeMap<_, _> = pairs.iter().take(32).map(|pair| (pair.name(), pair.value())).collect();
    let variables: Variables = table.clone().into_iter().collect();
    let request = match variables.into_request() {
        Ok(request) => request,
        Err(error) => return assert!(error.is_request(), "{error:?}"),
    };
    let again = Variables::of(&request);
    for (name, value) in &table {
        check_variable(name, value, &table, &again);
    }
    check_headers(request.headers(), &table);
    check_path(&table, &again);
    if again.get("SCRIPT_NAME").is_some_and(|script| script.ends_with(b"/")) {
        // Without the path as it was sent, nobody knows how a slash at the end was.
        return;
    }
    // And once more: nothing piles up, and nothing is taken for something else now.
    let third = match again.clone().into_request() {
        Ok(third) => third,
        Err(error) => {
            // Without a name, a port is nobody's, and was passed on as it was.
            let has_name = table.get("SERVER_NAME").is_some_and(|name| !name.is_empty());
            return assert!(!has_name && error.to_string().contains("SERVER_PORT"), "{error:?}");
        }
    };
    assert_eq!(Variables::of(&third), again);
    assert_eq!((third.uri(), third.headers()), (request.uri(), request.headers()));
    check_uri(&request);
}

fn check_variable(name: &str, value: &[u8], table: &BTreeMap<String, Vec<u8>>, again: &Variables) {
    match name {
        "HTTP_PROXY" | "HTTP_CONTENT_TYPE" | "HTTP_CONTENT_LENGTH" => {
            assert_eq!(again.get(name), None, "{name} is never a request's");
        }
        "CONTENT_TYPE" | "CONTENT_LENGTH" if value.is_empty() => assert_eq!(again.get(name), None),
        // Looked at together.
        "SCRIPT_NAME" | "PATH_INFO" => {}
        // What a URI cannot hold is encoded.
        "QUERY_STRING" => assert_eq!(decode(again.get(name).unwrap_or_default()), decode(value)),
        _ if name.starts_with("HTTP_") => {
            // Names that no host makes may stand for the same header.
            let same = |other: &&String| header_of(other).is_some_and(|other| Some(other) == header_of(name));
            let is_plain = !name.bytes().any(|byte| byte.is_ascii_lowercase() || byte == b'-');
            if is_plain && table.keys().filter(same).count() == 1 {
                assert_eq!(again.get(name), Some(value), "{name}");
            }
        }
        _ => assert_eq!(again.get(name), Some(value), "{name}"),
    }
}

fn header_of(variable: &str) -> Option<String> {
    let name = match variable {
        "CONTENT_TYPE" | "CONTENT_LENGTH" => variable,
        _ => variable.strip_prefix("HTTP_")?,
    };
    Some(name.to_ascii_lowercase().replace('_', "-"))
}

/// Each header has its variable, and those that decide about the body, or about outgoing requests, only the one that is meant for them.
fn check_headers(headers: &HeaderMap, table: &BTreeMap<String, Vec<u8>>) {
    for (name, value) in headers {
        let value = value.as_bytes();
        let said = table
            .iter()
            .any(|(variable, said)| header_of(variable).as_deref() == Some(name.as_str()) && said == value);
        assert!(said, "{name} is made up");
    }
    for (name, variable) in [("content-type", "CONTENT_TYPE"), ("content-length", "CONTENT_LENGTH")] {
        let said = table.get(variable).filter(|value| !value.is_empty()).map(Vec::as_slice);
        assert_eq!(headers.get(name).map(HeaderValue::as_bytes), said, "{name} is another variable's");
    }
    assert!(!headers.contains_key("proxy"), "a header Proxy is somebody's HTTP_PROXY");
}

fn check_path(table: &BTreeMap<String, Vec<u8>>, again: &Variables) {
    let part = |name: &str| table.get(name).map(Vec::as_slice).unwrap_or_default();
    let (script, info) = (part("SCRIPT_NAME"), part("PATH_INFO"));
    let (script_again, info_again) = (again.get("SCRIPT_NAME"), again.get("PATH_INFO"));
    // One slash at its end is left out, where it is none of a segment's.
    let is_same = script_again == Some(script) || script_again == script.strip_suffix(b"/");
    assert!(is_same, "{:?} became {script_again:?}", script.escape_ascii().to_string());
    if script_again == Some(b"") && info.is_empty() {
        assert_eq!(info_again, Some(&b"/"[..]), "the top has a path");
    } else {
        assert_eq!(info_again, Some(info));
    }
}

/// The request's target is one path, with no host in it that nobody sent.
fn check_uri(request: &Request<()>) {
    let uri = request.uri();
    assert!(uri.authority().is_none() && uri.scheme().is_none(), "{uri}");
    assert!(uri.path().starts_with('/') || uri.path() == "*", "{uri}");
}
