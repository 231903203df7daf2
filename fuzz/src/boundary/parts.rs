//! What requests and variables are made of.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use arbitrary::Arbitrary;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

/// Any bytes, few of them.
#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Bytes(pub(super) Vec<u8>);

#[derive(Arbitrary, Clone, Debug)]
pub(super) struct Head {
    method: Word,
    version: u8,
    form: Form,
    path: Vec<Piece>,
    query: Option<Vec<Piece>>,
    headers: Vec<(Word, Bytes)>,
}

/// What the target looks like.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Form {
    Path,
    /// With an authority, as over HTTP/2.
    Absolute(u8),
    Authority(u8),
    Asterisk,
}

const AUTHORITIES: [&str; 6] =
    ["example.org", "example.org:8080", "user:word@host:1", "[::1]:443", "h:", "10.0.0.1:0"];

/// A piece of a path.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Piece {
    Slash,
    Char(u8),
    Escape(u8),
    Odd(u8),
}

const ODD: [&str; 12] = ["%", "%4", "%zz", "%%41", "é", "%2F", "%2f", "%25", ".", "..", "//", "a"];

impl Piece {
    fn text(self) -> String {
        match self {
            Self::Slash => "/".to_owned(),
            Self::Char(byte) => {
                let text = char::from(byte).to_string();
                let held = PathAndQuery::try_from(format!("/{text}")).ok();
                match held {
                    Some(held) if held.path().len() == 1 + text.len() => text,
                    _ => format!("%{byte:02X}"),
                }
            }
            Self::Escape(byte) if byte % 2 == 0 => format!("%{byte:02x}"),
            Self::Escape(byte) => format!("%{byte:02X}"),
            Self::Odd(which) => ODD[usize::from(which) % ODD.len()].to_owned(),
        }
    }
}

/// A token: one that means something, or any.
#[derive(Arbitrary, Clone, Debug)]
enum Word {
    Known(u8),
    Any(Vec<u8>),
}

const METHODS: [&str; 6] = ["GET", "POST", "HEAD", "OPTIONS", "CONNECT", "X-OWN"];

const HEADERS: [&str; 22] = [
    "host",
    "cookie",
    "content-type",
    "content-length",
    "proxy",
    "x_a",
    "x-a",
    "x--",
    "x__",
    "-",
    "_",
    "connection",
    "transfer-encoding",
    "content_length",
    "remote-user",
    "remote_addr",
    "script-name",
    "path_info",
    "http-proxy",
    "https",
    "x-forwarded-for",
    "proxy_",
];

impl Head {
    pub(super) fn request(&self) -> Option<Request<()>> {
        let text = |pieces: &[Piece]| pieces.iter().take(64).map(|piece| piece.text()).collect::<String>();
        let query = self.query.as_deref().map(|query| format!("?{}", text(query))).unwrap_or_default();
        let path = format!("/{}{query}", text(&self.path));
        let authority = |which: u8| AUTHORITIES[usize::from(which) % AUTHORITIES.len()];
        let uri = match self.form {
            Form::Path => Uri::try_from(path).ok()?,
            Form::Absolute(which) => Uri::try_from(format!("http://{}{path}", authority(which))).ok()?,
            Form::Authority(which) => Uri::try_from(authority(which)).ok()?,
            Form::Asterisk => Uri::from_static("*"),
        };
        let mut request = Request::new(());
        *request.method_mut() = match &self.method {
            Word::Known(which) => METHODS[usize::from(*which) % METHODS.len()].parse().ok()?,
            Word::Any(bytes) => Method::from_bytes(bytes).unwrap_or_default(),
        };
        let versions =
            [Version::HTTP_11, Version::HTTP_2, Version::HTTP_10, Version::HTTP_3, Version::HTTP_09];
        *request.version_mut() = versions[usize::from(self.version) % versions.len()];
        *request.uri_mut() = uri;
        for (name, value) in &self.headers {
            let name = match name {
                Word::Known(which) => {
                    Ok(HeaderName::from_static(HEADERS[usize::from(*which) % HEADERS.len()]))
                }
                Word::Any(bytes) => HeaderName::from_bytes(bytes),
            };
            // CGI does not tell an empty one from none.
            let empty =
                value.0.is_empty() && matches!(&name, Ok(name) if name.as_str().starts_with("content-"));
            let value = HeaderValue::from_bytes(if empty { b"0" } else { &value.0 });
            if let (Ok(name), Ok(value)) = (name, value) {
                request.headers_mut().append(name, value);
            }
        }
        Some(request)
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Address {
    V4([u8; 4], u16),
    V6([u8; 16], u16),
    /// An IPv4 client on a socket for both.
    Mapped([u8; 4], u16),
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        match address {
            Address::V4(ip, port) => (ip, port).into(),
            Address::V6(ip, port) => (IpAddr::from(ip), port).into(),
            Address::Mapped([a, b, c, d], port) => {
                let ip = Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]);
                (IpAddr::from(ip), port).into()
            }
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Server(u8);

impl Server {
    pub(super) fn name(self) -> &'static str {
        let names = ["example.org", "10.0.0.1", "::1", "/run/socket", "é"];
        names[usize::from(self.0) % names.len()]
    }
}

/// A variable that middleware sets.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Extra(u8);

impl Extra {
    pub(super) fn name(self) -> &'static str {
        let names =
            ["REMOTE_USER", "AUTH_TYPE", "DOCUMENT_ROOT", "PATH_TRANSLATED", "mod.x", "wsgi.input", ""];
        names[usize::from(self.0) % names.len()]
    }
}

/// What a prefix that ends at `cut` is, and what is left below it, found by segments; `None` if it does not end where one ends.
pub(super) fn below(path: &str, cut: u8) -> Option<(String, String)> {
    let prefix = cut_at(path, cut);
    let rest = rest_below(path, &prefix)?;
    Some((prefix, rest))
}

/// The beginning of a path, without slashes at its end.
pub(super) fn cut_at(path: &str, cut: u8) -> String {
    let mut at = usize::from(cut) % (path.len() + 1);
    while !path.is_char_boundary(at) {
        at -= 1;
    }
    path[..at].trim_end_matches('/').to_owned()
}

/// What is left of a path below a prefix.
pub(super) fn rest_below(path: &str, prefix: &str) -> Option<String> {
    let (path, prefix): (Vec<_>, Vec<_>) = (path.split('/').collect(), prefix.split('/').collect());
    let rest = path.strip_prefix(&prefix[..])?;
    Some(rest.iter().map(|segment| format!("/{segment}")).collect())
}

/// The same target with another path, as routers do it.
pub(super) fn with_path(uri: &Uri, path: &str) -> Uri {
    let path = if path.is_empty() { "/" } else { path };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().expect("a target"));
    Uri::from_parts(parts).expect("a target")
}
