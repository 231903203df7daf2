//! What a request should look like to each side, by simple means.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Version};
use tower_wsgi::{Environ, Scope, Variables};

use super::parts::{cut_at, rest_below};

/// What is known of a request.
#[derive(Clone)]
pub(super) struct Expected {
    /// All prefixes that were taken off, percent-encoded.
    root: String,
    /// The path below them; empty if the mount itself was asked for.
    rest: String,
    query: Option<String>,
    authority: Option<String>,
    pub(super) client: Option<SocketAddr>,
    pub(super) server: Option<(String, u16)>,
    pub(super) https: bool,
    pub(super) extra: BTreeMap<String, Vec<u8>>,
}

impl Expected {
    pub(super) fn new(request: &Request<()>) -> Self {
        let uri = request.uri();
        Self {
            root: String::new(),
            rest: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            authority: uri.authority().map(ToString::to_string),
            client: None,
            server: None,
            https: false,
            extra: BTreeMap::new(),
        }
    }

    /// A prefix of what is left of the path, or something like one.
    pub(super) fn prefix(&self, cut: u8) -> String {
        let prefix = cut_at(&self.rest, cut);
        if prefix.is_empty() { "/".to_owned() } else { prefix }
    }

    /// Takes a prefix off, where it is one.
    pub(super) fn try_mount(&mut self, prefix: &str) -> bool {
        let prefix = prefix.trim_end_matches('/');
        if self.rest.is_empty() && !prefix.is_empty() {
            return false;
        }
        let is_prefix = self.rest.is_empty() || rest_below(&self.rest, prefix).is_some();
        if is_prefix {
            self.mount(prefix);
        }
        is_prefix
    }

    /// Takes a prefix off.
    pub(super) fn mount(&mut self, prefix: &str) {
        self.rest = if self.rest.is_empty() {
            String::new()
        } else {
            rest_below(&self.rest, prefix).expect("a prefix")
        };
        self.root.push_str(prefix);
    }

    /// A host in front has taken a prefix off, and left `path`.
    pub(super) fn front(&mut self, prefix: &str, path: &str) {
        prefix.clone_into(&mut self.root);
        path.clone_into(&mut self.rest);
    }

    fn full(&self) -> String {
        [&*self.root, &*self.rest].concat()
    }

    fn target(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        self.full() + &query
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    fn check_uri<B>(&self, request: &Request<B>) {
        assert_eq!(request.uri().path(), if self.rest.is_empty() { "/" } else { &self.rest });
        assert_eq!(request.uri().query(), self.query.as_deref());
        assert_eq!(request.uri().authority().map(ToString::to_string), self.authority);
    }

    /// Holds the async side's view to it.
    pub(super) fn check_scope<B>(&self, request: &Request<B>) {
        self.check_uri(request);
        let scope = Scope::of(request);
        let (root, full) = (decode(&self.root), decode(self.full()));
        assert_eq!(scope.root_path(), String::from_utf8_lossy(&root));
        assert_eq!(scope.path(), String::from_utf8_lossy(&full));
        assert_eq!(scope.raw_path(), self.full());
        assert_eq!(scope.query_string(), self.query.as_deref().unwrap_or_default());
        assert_eq!(scope.uri().path_and_query().map(PathAndQuery::as_str), Some(&*self.target()));
        assert_eq!((scope.method(), scope.scheme()), (request.method(), self.scheme()));
        assert_eq!(scope.client(), self.client);
        assert_eq!(scope.server(), self.server());
        // ASGI leaves the `.0` of the newer versions out.
        let number = format!("{:?}", request.version()).replace("HTTP/", "");
        assert_eq!(scope.http_version(), number.replace("2.0", "2").replace("3.0", "3"));
    }

    fn server(&self) -> Option<(&str, u16)> {
        self.server.as_ref().map(|(name, port)| (&**name, *port))
    }

    /// Holds the sync side's view to it.
    pub(super) fn check_environ<B>(&self, request: &Request<B>) {
        self.check_uri(request);
        let environ = Environ::of(request);
        assert_eq!(*environ.script_name(), decode(&self.root));
        assert_eq!(*environ.path_info(), decode(&self.rest));
        assert_eq!((environ.remote(), environ.url_scheme()), (self.client, self.scheme()));
        assert_eq!(environ.server(), self.server());
        for (name, value) in &self.extra {
            assert_eq!(environ.get(name), Some(&value[..]), "{name}");
        }
    }

    /// Holds the table of variables to it: these and no others.
    pub(super) fn check_variables<B>(&self, request: &Request<B>) {
        let variables = Variables::of(request);
        let mut table: BTreeMap<String, Vec<u8>> = headers(request);
        let host = request.headers().get("host").map(HeaderValue::as_bytes);
        if host.is_none()
            && let Some(authority) = &self.authority
        {
            let host = authority.rsplit('@').next().unwrap_or_default();
            table.insert("HTTP_HOST".into(), host.into());
        }
        let mut set = |name: &str, value: &[u8]| table.insert(name.to_owned(), value.to_owned());
        set("GATEWAY_INTERFACE", b"CGI/1.1");
        set("SERVER_SOFTWARE", concat!("tower-wsgi/", env!("CARGO_PKG_VERSION")).as_bytes());
        set("SERVER_PROTOCOL", &protocol(request.version()));
        set("REQUEST_METHOD", request.method().as_str().as_bytes());
        set("SCRIPT_NAME", &decode(&self.root));
        set("PATH_INFO", &decode(&self.rest));
        set("QUERY_STRING", self.query.as_deref().unwrap_or_default().as_bytes());
        set("REQUEST_URI", self.target().as_bytes());
        set("wsgi.url_scheme", self.scheme().as_bytes());
        if self.https {
            set("HTTPS", b"on");
        }
        if let Some(client) = self.client {
            set("REMOTE_ADDR", client.ip().to_canonical().to_string().as_bytes());
            set("REMOTE_PORT", client.port().to_string().as_bytes());
        }
        let host = table.get("HTTP_HOST").filter(|_| host.is_none()).map(Vec::as_slice).or(host);
        let (name, port) = self.server.clone().unwrap_or_else(|| {
            let host = std::str::from_utf8(host.unwrap_or_default()).unwrap_or_default();
            let (name, port) = host_and_port(host);
            (name, port.unwrap_or(if self.https { 443 } else { 80 }))
        });
        table.insert("SERVER_NAME".into(), name.into());
        table.insert("SERVER_PORT".into(), port.to_string().into());
        table.extend(self.extra.clone());
        let seen = variables.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(seen.collect::<BTreeMap<_, _>>(), table);
        for (name, value) in variables.iter() {
            assert_eq!(variables.get(name), Some(value), "{name}");
        }
        let mut shown = BTreeMap::new();
        Variables::visit(request, |name, value| {
            shown.insert(name.to_string(), value.to_owned());
        });
        assert_eq!(shown, table);
    }
}

/// The variables of the headers that can be told from others.
fn headers<B>(request: &Request<B>) -> BTreeMap<String, Vec<u8>> {
    let mut table = BTreeMap::new();
    for (name, value) in request.headers() {
        let name = name.as_str();
        if name == "proxy" || name.contains('_') {
            continue;
        }
        let separator = if name == "cookie" { "; " } else { "," };
        let upper = name.to_ascii_uppercase().replace('-', "_");
        let prefix = if matches!(name, "content-type" | "content-length") { "" } else { "HTTP_" };
        let joined: &mut Vec<u8> = table
            .entry(format!("{prefix}{upper}"))
            .and_modify(|joined: &mut Vec<u8>| joined.extend_from_slice(separator.as_bytes()))
            .or_default();
        joined.extend_from_slice(value.as_bytes());
    }
    table
}

fn protocol(version: Version) -> Vec<u8> {
    // Its debug form is the one on the wire.
    format!("{version:?}").into_bytes()
}

/// A name and a port of a `Host`; whatever is no number belongs to the name.
fn host_and_port(host: &str) -> (String, Option<u16>) {
    let (name, port) = match host.rfind(':') {
        Some(at) if host[at + 1..].chars().all(|c| c.is_ascii_digit()) => {
            (&host[..at], host[at + 1..].parse().ok())
        }
        _ => (host, None),
    };
    (if name.is_empty() { "localhost" } else { name }.to_owned(), port)
}

/// Percent-decodes by the letter of RFC 3986; what is no escape stays.
pub(super) fn decode(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = text.as_ref();
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
