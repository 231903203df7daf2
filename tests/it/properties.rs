//! C1 and C2, for requests that nobody thought of.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::LazyLock;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tower::{Layer, ServiceExt};
use tower_wsgi::{
    Body, BoxError, Environ, Input, Next, Scope, SyncHandler, Variables, WorkerPool, WsgiLayer,
};

use crate::support::soon;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What stands between two slashes: all that an `http::Uri` lets through, percent-encoded well and badly.
fn segment() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        r#"[a-z0-9._~!$&'()*+,;=:@|{}"^\[\]\\-]{1,3}"#,
        any::<u8>().prop_map(|byte| format!("%{byte:02X}")),
        any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        select(vec!["%", "%4", "%zz", "%%41", "é", "%2F", "%25"]).prop_map(str::to_owned),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

fn path() -> impl Strategy<Value = String> {
    vec(segment(), 1..5).prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect())
}

fn query() -> impl Strategy<Value = String> {
    let piece = prop_oneof!["[a-z0-9?/&=+|`{}^-]{1,4}", segment().prop_map(|text| text.replace('"', ""))];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// Some part of a path that ends where a segment ends.
fn part(path: &str, index: Index) -> &str {
    let borders: Vec<_> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
    path[..*index.get(&borders)].trim_end_matches('/')
}

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let names = ["host", "cookie", "content-type", "content-length", "proxy", "x_a", "x-a", "accept", "x--"];
    let name = prop_oneof![select(names.to_vec()).prop_map(str::to_owned), "[a-z][a-z0-9-]{0,4}"];
    let byte = prop_oneof![b' '..=b'~', 0x80..=0xffu8, Just(b'\t')];
    (name, vec(byte, 0..6)).prop_map(|(name, mut value)| {
        // CGI does not tell an empty one from none.
        if value.is_empty() && name.starts_with("content-") {
            value.push(b'0');
        }
        let name = HeaderName::try_from(name).expect("a name");
        (name, HeaderValue::from_bytes(&value).expect("a value"))
    })
}

/// What only a server knows.
type Connection = (Option<SocketAddr>, Option<(String, u16)>, bool);

fn connection() -> impl Strategy<Value = Connection> {
    (any::<Option<SocketAddr>>(), option::of(("[a-z0-9.:]{0,6}", any::<u16>())), any::<bool>())
}

fn with_connection(scope: Scope, (client, server, https): Connection) -> Scope {
    let scope = match client {
        Some(client) => scope.with_client(client),
        None => scope,
    };
    let scope = match server {
        Some((host, port)) => scope.with_server(host, port),
        None => scope,
    };
    scope.with_scheme(if https { Scheme::HTTPS } else { Scheme::HTTP })
}

/// Any request, mounted anywhere, with an authority (as in HTTP/2) or not.
fn request() -> impl Strategy<Value = Request<()>> {
    let methods = [Method::GET, Method::POST, Method::from_bytes(b"X-OWN").expect("a method")];
    let versions = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2, Version::HTTP_3];
    let head = (select(methods.to_vec()), select(versions.to_vec()), vec(header(), 0..6));
    let target = (option::of("[a-z]{1,4}(:[0-9]{0,5})?"), path(), option::of(query()), any::<Index>());
    (head, target, option::of(connection())).prop_map(|((method, version, headers), target, connection)| {
        let (authority, path, query, mount) = target;
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let origin = authority.map(|authority| format!("http://{authority}")).unwrap_or_default();
        let uri = format!("{origin}{path}{query}");
        let request = Request::builder().method(method).version(version).uri(uri);
        let mut request = request.body(()).expect("a request");
        request.headers_mut().extend(headers);
        if let Some(connection) = connection {
            let scope = with_connection(Scope::of(&request), connection);
            request.extensions_mut().insert(scope);
        }
        assert!(Environ::shift(&mut request, part(&path, mount)));
        request
    })
}

/// What a CGI host may say.
fn variables() -> impl Strategy<Value = Variables> {
    let below = || vec(any::<u8>(), 0..6).prop_map(|bytes| [b"/", &bytes[..]].concat());
    let script = prop_oneof![Just(Vec::new()), below()].prop_map(|mut script| {
        while script.ends_with(b"/") {
            script.pop();
        }
        script
    });
    let info = prop_oneof![Just(Vec::new()), below()];
    let path = (script, info, query(), any::<[bool; 3]>());
    let path = path.prop_map(|(script, info, query, [told, encoded, slash])| {
        let info = if script.is_empty() && info.is_empty() { b"/".to_vec() } else { info };
        let whole = [&script[..], &info].concat();
        let raw = match (told, encoded) {
            (false, _) => None,
            (true, true) => Some(encode(&whole, slash)),
            (true, false) => Some(String::from_utf8_lossy(&whole).into_owned()),
        };
        let raw = raw.map(|raw| format!("{raw}?{query}").into_bytes());
        let uri = raw.map(|raw| ("REQUEST_URI".to_owned(), raw));
        let path = [("SCRIPT_NAME", script), ("PATH_INFO", info), ("QUERY_STRING", query.into_bytes())];
        path.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(uri).collect::<Vec<_>>()
    });
    let fixed = |name: &'static str, values: &'static [&'static str]| {
        option::of(select(values).prop_map(move |value| (name.to_owned(), value.as_bytes().to_vec())))
    };
    let values = (
        fixed("REQUEST_METHOD", &["GET", "POST", "X-OWN"]),
        fixed("SERVER_PROTOCOL", &["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/2.0", "INCLUDED", ""]),
        fixed("REMOTE_ADDR", &["10.0.0.1", "2001:DB8::1", "::ffff:10.0.0.1", "unix:", ""]),
        fixed("REMOTE_PORT", &["1", "04000", ""]),
        fixed("SERVER_NAME", &["example.org", "::1", ""]),
        fixed("SERVER_PORT", &["80", "0443", ""]),
        fixed("wsgi.url_scheme", &["http", "https"]),
        fixed("REQUEST_SCHEME", &["http", "https"]),
        fixed("HTTPS", &["on", "off", "1", ""]),
        fixed("CONTENT_LENGTH", &["", "5"]),
    );
    let values = values.prop_map(|(a, b, c, d, e, f, g, h, i, j)| [a, b, c, d, e, f, g, h, i, j]);
    let byte = || prop_oneof![b' '..=b'~', 0x80..=0xffu8];
    let free = prop_oneof![
        ("HTTP_[A-Z0-9_]{1,6}", vec(byte(), 0..6)),
        ("(REMOTE_USER|AUTH_TYPE|DOCUMENT_ROOT|REDIRECT_X|mod.x)", vec(any::<u8>(), 0..6)),
        ("HTTP_(HOST|PROXY|CONTENT_TYPE|CONTENT_LENGTH|COOKIE)", vec(byte(), 0..6)),
    ];
    (path, values, vec(free, 0..6)).prop_map(|(path, values, free)| {
        path.into_iter().chain(values.into_iter().flatten()).chain(free).collect()
    })
}

/// What `into_request` says that it leaves out.
fn is_left_out(name: &str, value: &[u8]) -> bool {
    matches!(name, "HTTP_PROXY" | "HTTP_CONTENT_TYPE" | "HTTP_CONTENT_LENGTH")
        || (matches!(name, "CONTENT_TYPE" | "CONTENT_LENGTH") && value.is_empty())
}

/// Percent-encodes all but letters, and slashes if asked to.
fn encode(bytes: &[u8], slash: bool) -> String {
    let one = |&byte: &u8| match byte {
        b'/' if !slash => "/".to_owned(),
        b'a'..=b'z' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    bytes.iter().map(one).collect()
}

/// Percent-decodes by the letter of RFC 3986; what is no escape stays.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    while let [first, rest @ ..] = bytes {
        let escaped = match bytes {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            decoded.push(u8::try_from(high * 16 + low).expect("two digits"));
            bytes = &bytes[3..];
        } else {
            decoded.push(*first);
            bytes = rest;
        }
    }
    decoded
}

/// What is left of a path below a prefix, found by its segments.
fn below(path: &str, prefix: &str) -> Option<String> {
    let (path, prefix): (Vec<_>, Vec<_>) = (path.split('/').collect(), prefix.split('/').collect());
    let rest = path.strip_prefix(&prefix[..])?;
    Some(rest.iter().map(|segment| format!("/{segment}")).collect())
}

/// Paths of which one is often the beginning of another.
fn short_path() -> impl Strategy<Value = String> {
    let segment = select(vec!["a", "ab", "%61", ""]);
    vec(segment, 1..5).prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect())
}

/// All that a scope says.
fn said(scope: &Scope) -> impl PartialEq + std::fmt::Debug + use<> {
    let place = (scope.uri().clone(), scope.root_path().into_owned(), scope.path().into_owned());
    let server = scope.server().map(|(host, port)| (host.to_owned(), port));
    let version = scope.http_version();
    (place, scope.method().clone(), version, scope.scheme().to_owned(), scope.client(), server)
}

/// All that an environ says, but for the scope.
fn told(environ: &Environ) -> impl PartialEq + std::fmt::Debug + use<> {
    let server = environ.server().map(|(host, port)| (host.to_owned(), port));
    let place = (environ.script_name().into_owned(), environ.path_info().into_owned());
    let user = environ.get("REMOTE_USER").map(<[u8]>::to_vec);
    (place, server, environ.remote(), environ.url_scheme().to_owned(), user)
}

/// The workers of all cases.
static POOL: LazyLock<WorkerPool> = LazyLock::new(|| WorkerPool::new(1));

/// What a mounted application, or the service behind it, answers to a GET.
fn answer<H: SyncHandler>(layer: WsgiLayer<H>, request: Request<Body>) -> String {
    let inner = tower::service_fn(async |request: Request<Body>| {
        let scope = Scope::of(&request);
        let text = format!("inner {} {} {}", request.uri(), scope.root_path(), scope.uri());
        Ok::<_, Infallible>(Response::new(Body::from(text)))
    });
    let service = layer.pool(POOL.clone()).layer(inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let response = soon(service.oneshot(request)).await.expect("a response");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn c1_a_request_survives_as_variables(request in request()) {
        let variables = Variables::of(&request);
        let again = variables.clone().into_request().expect("a request");
        prop_assert_eq!(&Variables::of(&again), &variables);
        prop_assert_eq!(again.uri().path(), request.uri().path());
        prop_assert_eq!(again.method(), request.method());
        prop_assert_eq!(again.version(), request.version());
        // And once more: nothing piles up.
        let third = Variables::of(&again).into_request().expect("a request");
        prop_assert_eq!(&Variables::of(&third), &variables);
    }

    #[test]
    fn c1_a_rewritten_request_survives_as_variables(mut request in request(), path in path()) {
        *request.uri_mut() = Uri::try_from(path).expect("a target");
        let variables = Variables::of(&request);
        // Without the path as it was sent, nobody knows how a slash at the end was.
        prop_assume!(!variables.get("SCRIPT_NAME").unwrap_or_default().ends_with(b"/"));
        let again = variables.clone().into_request().expect("a request");
        prop_assert_eq!(&Variables::of(&again), &variables);
    }

    #[test]
    fn c1_variables_survive_as_a_request(variables in variables()) {
        let request = variables.clone().into_request().expect("a request");
        let again = Variables::of(&request);
        for (name, value) in variables.iter().filter(|(name, value)| !is_left_out(name, value)) {
            prop_assert_eq!(again.get(name), Some(value), "{}", name);
        }
        for name in ["HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"] {
            prop_assert_eq!(again.get(name), None, "{}", name);
        }
    }

    #[test]
    fn c1_scope_and_environ_are_there_and_back_the_same(request in request(), user in option::of("[a-z]{0,3}")) {
        let mut environ = Environ::of(&request);
        if let Some(user) = user {
            environ.set("REMOTE_USER", user);
        }
        let scope = Scope::from(&environ);
        prop_assert_eq!(told(scope.environ().expect("the environ")), told(&environ));
        prop_assert_eq!(told(&Environ::from(&scope)), told(&environ));
        prop_assert_eq!(said(&Environ::from(&scope).scope()), said(&scope));
        prop_assert_eq!(said(&Scope::from(&Environ::from(&scope))), said(&scope));
        // The other side's view is the one from before this side's mounts.
        prop_assert_eq!(said(&scope.environ().expect("the environ").scope()), said(&environ.scope()));
    }

    #[test]
    fn c1_a_path_is_decoded_by_the_book(path in path()) {
        let request = Request::get(&path).body(()).expect("a request");
        let decoded = decode(&path);
        let (variables, environ, scope) = (Variables::of(&request), Environ::of(&request), Scope::of(&request));
        prop_assert_eq!(variables.get("PATH_INFO"), Some(&decoded[..]));
        prop_assert_eq!(&*environ.path_info(), &decoded[..]);
        prop_assert_eq!(&*scope.path(), &*String::from_utf8_lossy(&decoded));
        prop_assert_eq!(scope.raw_path(), &path);
    }

    #[test]
    fn c1_any_bytes_arrive_in_path_info(bytes in vec(any::<u8>(), 0..20), slash: bool) {
        let request = Request::get(format!("/{}", encode(&bytes, slash))).body(()).expect("a request");
        let expected = [b"/", &bytes[..]].concat();
        let variables = Variables::of(&request);
        prop_assert_eq!(variables.get("PATH_INFO"), Some(&expected[..]));
    }

    #[test]
    fn c2_a_shift_splits_segments(path in short_path(), prefix in short_path()) {
        let prefix = prefix.trim_end_matches('/');
        let mut request = Request::get(&path).body(()).expect("a request");
        let shifted = Environ::shift(&mut request, prefix);
        let environ = Environ::of(&request);
        let scope = environ.scope();
        prop_assert_eq!(scope.uri(), &*path);
        match below(&path, prefix) {
            Some(rest) => {
                prop_assert!(shifted);
                prop_assert_eq!(&*environ.script_name(), &decode(prefix)[..]);
                prop_assert_eq!(&*environ.path_info(), &decode(&rest)[..]);
                prop_assert_eq!(request.uri(), if rest.is_empty() { "/" } else { &*rest });
            }
            None => {
                prop_assert!(!shifted);
                prop_assert_eq!(request.uri(), &*path);
                prop_assert_eq!(&*environ.script_name(), b"");
            }
        }
    }

    #[test]
    fn c2_two_shifts_are_one(path in short_path(), first: Index, second: Index) {
        let whole = part(&path, first);
        let outer = part(whole, second);
        let get = || Request::get(&path).body(()).expect("a request");
        let (mut once, mut twice) = (get(), get());
        prop_assert!(Environ::shift(&mut once, whole));
        prop_assert!(Environ::shift(&mut twice, outer));
        prop_assert!(Environ::shift(&mut twice, &whole[outer.len()..]));
        prop_assert_eq!(once.uri(), twice.uri());
        prop_assert_eq!(Variables::of(&once), Variables::of(&twice));
        prop_assert_eq!(said(&Environ::of(&once).scope()), said(&Environ::of(&twice).scope()));
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn c2_a_mount_owns_its_segments_and_nothing_else(path in short_path(), prefix in short_path()) {
        let app = |request: Request<Input>| {
            let environ = Environ::of(&request);
            let (script, info) = (environ.script_name(), environ.path_info());
            let text = format!("{} {} {}", script.escape_ascii(), info.escape_ascii(), environ.scope().uri());
            Response::new(text)
        };
        let request = Request::get(&path).body(Body::empty()).expect("a request");
        let answer = answer(WsgiLayer::new(app).at(&prefix), request);
        let prefix = prefix.trim_end_matches('/');
        let expected = match below(&path, prefix) {
            Some(rest) => format!("{} {} {path}", decode(prefix).escape_ascii(), decode(&rest).escape_ascii()),
            None => format!("inner {path}  {path}"),
        };
        prop_assert_eq!(answer, expected);
    }

    #[test]
    fn c2_next_undoes_any_mount(path in short_path(), mount: Index, rewritten in option::of(short_path())) {
        let app = |mut request: Request<Input>| -> Result<_, BoxError> {
            let next: Next = request.extensions().get().cloned().ok_or("no inner service")?;
            if let Some(uri) = request.extensions().get::<Uri>().cloned() {
                *request.uri_mut() = uri;
            }
            Ok(next.forward(request))
        };
        let prefix = part(&path, mount);
        let mut request = Request::get(&path).body(Body::empty()).expect("a request");
        if let Some(rewritten) = &rewritten {
            request.extensions_mut().insert(Uri::try_from(rewritten).expect("a target"));
        }
        let answer = answer(WsgiLayer::new(app).at(&format!("{prefix}/")), request);
        let rest = below(&path, prefix).expect("its own part");
        let seen = if rest.is_empty() { "/" } else { &rest };
        let expected = match rewritten.filter(|rewritten| rewritten != seen) {
            Some(rewritten) => format!("{prefix}{rewritten}"),
            None => path,
        };
        prop_assert_eq!(answer, format!("inner {expected}  {expected}"));
    }
}
