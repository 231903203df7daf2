//! Requests as tables of CGI and WSGI variables, and back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::environ::Environ;
use crate::error::{BoxError, Error, Kind};
use crate::scope::Scope;
use crate::view::{Facts, decode};

/// What a path may hold as it is: RFC 3986's `pchar` and the slash.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The same for a query, in which everything is taken as encoded already.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// A request as a table of variables: [RFC 3875, section 4.1](https://www.rfc-editor.org/rfc/rfc3875#section-4.1), and those that
/// [PEP 3333](https://peps.python.org/pep-3333/#environ-variables) adds.
///
/// Values are bytes. `SCRIPT_NAME` and `PATH_INFO` are percent-decoded, `QUERY_STRING` and `REQUEST_URI` are as they were sent. Each header is a
/// variable `HTTP_` and its name, `CONTENT_TYPE` and `CONTENT_LENGTH` stand without the `HTTP_`. A header that came
/// several times is joined with `,`, cookies with `; `.
///
/// A client cannot set any other variable than its headers': those with an underscore in their name are left out (`X_A` and `X-A`
/// would be the same variable), and so is `Proxy`, since `HTTP_PROXY` directs the outgoing requests of many programs.
///
/// ```
/// use http::Request;
/// use tower_wsgi::Variables;
///
/// let request = Request::get("/a%20b?c=d").header("host", "example.org").body(()).unwrap();
/// let mut variables = Variables::of(&request);
/// assert_eq!(variables.get("PATH_INFO"), Some(&b"/a b"[..]));
/// assert_eq!(variables.get("HTTP_HOST"), Some(&b"example.org"[..]));
///
/// variables.set("REMOTE_USER", "alice");
/// assert!(variables.iter().any(|(name, value)| name == "REMOTE_USER" && value == b"alice"));
///
/// let again = variables.into_request().unwrap();
/// assert_eq!(again.uri(), "/a%20b?c=d");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables {
    table: BTreeMap<Cow<'static, str>, Vec<u8>>,
}

impl Variables {
    /// The variables of a request: from its method, URI, version and headers, and from the [`Environ`] (or else the
    /// [`Scope`]) that it carries.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let mut variables = Self::default();
        Self::visit(request, |name, value| variables.set(name.into_text(), value));
        variables
    }

    /// Shows each variable of a request to `visit`, without making a table of them: for hosts that have one of their own to fill. A name that comes
    /// again replaces its value.
    ///
    /// ```
    /// # use http::Request;
    /// # use tower_wsgi::Variables;
    /// let request = Request::get("/").header("x-forwarded-for", "10.0.0.1").body(()).unwrap();
    /// let mut forwarded = None;
    /// Variables::visit(&request, |name, value| {
    ///     if name.header().is_some_and(|header| header == "x-forwarded-for") {
    ///         assert_eq!(name.to_string(), "HTTP_X_FORWARDED_FOR");
    ///         forwarded = Some(value.to_owned());
    ///     }
    /// });
    /// assert_eq!(forwarded.as_deref(), Some(&b"10.0.0.1"[..]));
    /// ```
    pub fn visit<B>(request: &Request<B>, mut visit: impl FnMut(VariableName<'_>, &[u8])) {
        let made;
        let environ = match request.extensions().get::<Environ>() {
            Some(environ) if environ.is_current(request) => environ,
            _ => {
                made = Environ::of(request);
                &made
            }
        };
        visit_headers(request.headers(), &mut visit);
        visit_request(request, environ, &mut visit);
        visit_connection(request, environ, &mut visit);
        for (name, value) in environ.extra() {
            visit(VariableName::of(name), value);
        }
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.table.get(name).map(Vec::as_slice)
    }

    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) {
        self.table.insert(name.into(), value.into());
    }

    /// All variables in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.table.iter().map(|(name, value)| (&**name, value.as_slice()))
    }

    /// The request that these variables describe: what a CGI host's environment is turned into. It carries an [`Environ`] with
    /// the mount, the connection, and every variable that says more than the request. Its URI is the part below
    /// the mount.
    ///
    /// Where `REQUEST_URI` is present and fits, the path keeps the encoding it was sent with. What a URI cannot hold is percent-encoded,
    /// in the query too. Left out are `HTTP_PROXY`, `HTTP_CONTENT_TYPE` and `HTTP_CONTENT_LENGTH`; `CONTENT_TYPE` and
    /// `CONTENT_LENGTH` if they are empty; and a slash at the end of `SCRIPT_NAME`.
    ///
    /// # Errors
    /// If a variable cannot be what it stands for; see [`Error::is_request`].
    pub fn into_request(self) -> Result<Request<()>, Error> {
        let mut request = Request::new(());
        *request.method_mut() = match self.get("REQUEST_METHOD") {
            Some(method) => Method::from_bytes(method).map_err(|e| invalid("REQUEST_METHOD", e))?,
            None => Method::GET,
        };
        *request.version_mut() = match self.get("SERVER_PROTOCOL") {
            Some(b"HTTP/0.9") => Version::HTTP_09,
            Some(b"HTTP/1.0") => Version::HTTP_10,
            Some(b"HTTP/2.0" | b"HTTP/2") => Version::HTTP_2,
            Some(b"HTTP/3.0" | b"HTTP/3") => Version::HTTP_3,
            _ => Version::HTTP_11,
        };
        *request.headers_mut() = self.headers()?;
        let (root, rest, uri) = self.target()?;
        *request.uri_mut() = rest;
        let view = Facts {
            uri,
            root,
            method: request.method().clone(),
            version: request.version(),
            client: self.client()?,
            told: None,
            server: self.server()?,
            scheme: self.scheme()?,
        };
        let mut environ = Environ::from(&Scope { view: view.into(), environ: None });
        for (name, value) in self.beyond(&request, &environ) {
            environ.set(name, value);
        }
        request.extensions_mut().insert(environ);
        Ok(request)
    }

    /// What these variables say that the request and the environ made of them do not.
    fn beyond(&self, request: &Request<()>, environ: &Environ) -> Vec<(Cow<'static, str>, Vec<u8>)> {
        let mut known = Self::default();
        let mut note = |name: VariableName<'_>, value: &[u8]| known.set(name.into_text(), value);
        visit_request(request, environ, &mut note);
        visit_connection(request, environ, &mut note);
        let from_request = |name: &str| {
            name.starts_with("HTTP_")
                || matches!(
                    name,
                    "CONTENT_TYPE"
                        | "CONTENT_LENGTH"
                        | "REQUEST_METHOD"
                        | "SCRIPT_NAME"
                        | "PATH_INFO"
                        | "QUERY_STRING"
                )
        };
        let beyond = self
            .table
            .iter()
            .filter(|(name, value)| !from_request(name) && known.get(name) != Some(value.as_slice()));
        beyond.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        for (variable, value) in &self.table {
            let name = match &**variable {
                "CONTENT_TYPE" => CONTENT_TYPE,
                "CONTENT_LENGTH" => CONTENT_LENGTH,
                _ => {
                    let Some(name) = variable.strip_prefix("HTTP_") else {
                        continue;
                    };
                    let name = name.to_ascii_lowercase().replace('_', "-");
                    // However the host writes it: this is where different names become one.
                    if matches!(&*name, "content-type" | "content-length" | "proxy") {
                        continue;
                    }
                    HeaderName::try_from(name).map_err(|e| invalid(variable, e))?
                }
            };
            // CGI hosts set these two to nothing when there is no body.
            if value.is_empty() && (name == CONTENT_TYPE || name == CONTENT_LENGTH) {
                continue;
            }
            let value = HeaderValue::from_bytes(value).map_err(|e| invalid(variable, e))?;
            // A table of variables may name more headers than a map holds.
            headers.try_insert(name, value).map_err(|e| invalid(variable, e))?;
        }
        Ok(headers)
    }

    /// The mount, the URI below it and the whole one.
    fn target(&self) -> Result<(String, Uri, Uri), Error> {
        let script = self.get("SCRIPT_NAME").unwrap_or_default();
        let info = self.get("PATH_INFO").unwrap_or_default();
        let bare = script.strip_suffix(b"/").unwrap_or(script);
        // A slash at the end may be part of the last segment, where it was sent as `%2F`.
        let raw = self.raw_path(bare, info).or_else(|| self.raw_path(script, info));
        let (root, rest) = raw.unwrap_or_else(|| {
            let encode = |path| percent_encode(path, PATH).to_string();
            (encode(bare), encode(info))
        });
        if !root.is_empty() && !root.starts_with('/') {
            return Err(invalid("SCRIPT_NAME", "it does not start with a slash"));
        }
        // Without its slash it would be read as a host. `OPTIONS *` has no path.
        let is_path = rest.is_empty() || rest.starts_with('/') || rest == "*" && root.is_empty();
        if !is_path {
            return Err(invalid("PATH_INFO", "it does not start with a slash"));
        }
        let query = self.query();
        let uri = |path: &str| {
            let path = if path.is_empty() { "/" } else { path };
            let target = if query.is_empty() { path.to_owned() } else { [path, "?", &query].concat() };
            Uri::try_from(target).map_err(|e| invalid("PATH_INFO", e))
        };
        Ok((root.clone(), uri(&rest)?, uri(&(root + &rest))?))
    }

    /// The query as it was sent, encoded where a URI cannot hold it.
    fn query(&self) -> String {
        let query = self.get("QUERY_STRING").unwrap_or_default();
        let target = PathAndQuery::try_from([b"/?", query].concat()).ok();
        let held = target.as_ref().and_then(PathAndQuery::query).filter(|held| held.as_bytes() == query);
        held.map_or_else(|| percent_encode(query, QUERY).to_string(), str::to_owned)
    }

    /// The path as it was sent, split where its decoded form splits.
    fn raw_path(&self, script: &[u8], info: &[u8]) -> Option<(String, String)> {
        let raw = text(self.get("REQUEST_URI")?)?;
        let raw = raw.split(['?', '#']).next()?;
        // Other hosts let more through than a URI can hold.
        PathAndQuery::try_from(raw).ok()?;
        // Segments decode one by one, so that their lengths tell the only border that can fit. A client
        // sends as many slashes as it likes: each is looked at once.
        let (mut start, mut length) = (0, 0);
        let mut borders = raw.match_indices('/').map(|(at, _)| at).chain([raw.len()]);
        let at = borders.find(|at| {
            length += decode(&raw[start..*at]).len();
            start = *at;
            length >= script.len()
        })?;
        let (root, rest) = raw.split_at(at);
        let fits = !root.ends_with('/') && *decode(root) == *script && *decode(rest) == *info;
        fits.then(|| (root.to_owned(), rest.to_owned()))
    }

    fn client(&self) -> Result<Option<SocketAddr>, Error> {
        let Some(address) = self.get("REMOTE_ADDR").filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let address: Option<IpAddr> = text(address).and_then(|text| text.parse().ok());
        let Some(address) = address else {
            // A host behind a local socket may say anything here; the variable itself is kept.
            return Ok(None);
        };
        Ok(Some((address, self.port("REMOTE_PORT")?.unwrap_or(0)).into()))
    }

    fn server(&self) -> Result<Option<(Arc<str>, u16)>, Error> {
        let Some(name) = self.get("SERVER_NAME").filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let name = text(name).ok_or_else(|| invalid("SERVER_NAME", "it is not text"))?;
        Ok(Some((name.into(), self.port("SERVER_PORT")?.unwrap_or(80))))
    }

    fn port(&self, name: &str) -> Result<Option<u16>, Error> {
        match self.get(name) {
            None | Some(b"") => Ok(None),
            Some(value) => match text(value).and_then(|text| text.parse().ok()) {
                Some(port) => Ok(Some(port)),
                None => Err(invalid(name, "it is not a port")),
            },
        }
    }

    fn scheme(&self) -> Result<Scheme, Error> {
        let https = self.get("HTTPS");
        match self.get("wsgi.url_scheme").or(self.get("REQUEST_SCHEME")) {
            Some(scheme) => Scheme::try_from(scheme).map_err(|e| invalid("wsgi.url_scheme", e)),
            None if matches!(https, Some(b"on" | b"1")) => Ok(Scheme::HTTPS),
            None => Ok(Scheme::HTTP),
        }
    }
}

impl<N: Into<Cow<'static, str>>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Variables {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        let pairs = pairs.into_iter();
        Self { table: pairs.map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.iter();
        f.debug_map()
            .entries(
                pairs.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())),
            )
            .finish()
    }
}

/// The name of a variable, as [`Variables::visit`] shows it. `Display` writes it out: `HTTP_ACCEPT`.
///
/// ```
/// use std::collections::HashMap;
/// use http::{HeaderName, Request};
/// use tower_wsgi::Variables;
///
/// // A host with many requests makes the name of a header's variable once.
/// let mut names: HashMap<HeaderName, String> = HashMap::new();
/// let mut others = Vec::new();
/// let request = Request::get("/").header("accept", "*/*").body(()).unwrap();
/// Variables::visit(&request, |name, _| match (name.header(), name.plain()) {
///     (Some(header), _) => drop(names.entry(header.clone()).or_insert_with(|| name.to_string())),
///     (None, plain) => others.extend(plain.map(str::to_owned)),
/// });
/// assert_eq!(names[&http::header::ACCEPT], "HTTP_ACCEPT");
/// assert!(others.iter().any(|name| name == "REQUEST_METHOD"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct VariableName<'a>(Name<'a>);

#[derive(Clone, Copy, Debug)]
enum Name<'a> {
    Header(&'a HeaderName),
    Plain(&'a str),
}

impl<'a> VariableName<'a> {
    fn of(name: &'a str) -> Self {
        Self(Name::Plain(name))
    }

    /// The header that the variable is made of; `None` for the others. A host that serves many requests keeps the names that it made of headers.
    #[must_use]
    pub fn header(&self) -> Option<&'a HeaderName> {
        match self.0 {
            Name::Header(name) => Some(name),
            Name::Plain(_) => None,
        }
    }

    /// The name, where it is not made of a header's.
    #[must_use]
    pub fn plain(&self) -> Option<&'a str> {
        match self.0 {
            Name::Header(_) => None,
            Name::Plain(name) => Some(name),
        }
    }

    fn into_text(self) -> String {
        match self.0 {
            Name::Plain(name) => name.to_owned(),
            Name::Header(name) => {
                let mut text = String::with_capacity(5 + name.as_str().len());
                if *name != CONTENT_TYPE && *name != CONTENT_LENGTH {
                    text.push_str("HTTP_");
                }
                text.extend(
                    name.as_str().chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }),
                );
                text
            }
        }
    }
}

impl fmt::Display for VariableName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Name::Plain(name) => f.pad(name),
            Name::Header(_) => f.pad(&self.into_text()),
        }
    }
}

/// Takes a variable in.
type Visit<'a> = dyn FnMut(VariableName<'_>, &[u8]) + 'a;

fn visit_headers(headers: &HeaderMap, visit: &mut Visit<'_>) {
    for name in headers.keys() {
        if name.as_str() == "proxy" || name.as_str().contains('_') {
            continue;
        }
        let mut values = headers.get_all(name).iter();
        let first = values.next().map(HeaderValue::as_bytes).unwrap_or_default();
        let mut joined = Cow::Borrowed(first);
        let separator: &[u8] = if name == COOKIE { b"; " } else { b"," };
        for value in values {
            let joined = joined.to_mut();
            joined.extend_from_slice(separator);
            joined.extend_from_slice(value.as_bytes());
        }
        visit(VariableName(Name::Header(name)), &joined);
    }
}

fn visit_request<B>(request: &Request<B>, environ: &Environ, visit: &mut Visit<'_>) {
    let mut set = |name, value: &[u8]| visit(VariableName::of(name), value);
    let uri = request.uri();
    set("GATEWAY_INTERFACE", b"CGI/1.1");
    set("SERVER_SOFTWARE", concat!("tower-wsgi/", env!("CARGO_PKG_VERSION")).as_bytes());
    set("SERVER_PROTOCOL", protocol(request.version()));
    set("REQUEST_METHOD", request.method().as_str().as_bytes());
    set("SCRIPT_NAME", &environ.script_name());
    // An http::Uri has no empty path: the environ knows whether the slash was sent.
    let path = if uri.path() == "/" && environ.view.rest().is_empty() {
        Cow::Borrowed(&b""[..])
    } else {
        decode(uri.path())
    };
    set("PATH_INFO", &path);
    set("QUERY_STRING", uri.query().unwrap_or_default().as_bytes());
    let target = environ.view.uri.path_and_query();
    set("REQUEST_URI", target.map_or("/", PathAndQuery::as_str).as_bytes());
    set("wsgi.url_scheme", environ.url_scheme().as_bytes());
    if environ.view.scheme == Scheme::HTTPS {
        set("HTTPS", b"on");
    }
}

fn visit_connection<B>(request: &Request<B>, environ: &Environ, visit: &mut Visit<'_>) {
    let sent = request.headers().get(HOST).map(HeaderValue::as_bytes);
    // HTTP/2 has no Host header; its authority is in the URI.
    let authority = request.uri().authority().or(environ.view.uri.authority());
    let implied =
        authority.filter(|_| sent.is_none()).map(|authority| host_of(authority.as_str()).as_bytes());
    if let Some(host) = implied {
        visit(VariableName(Name::Header(&HOST)), host);
    }
    let (name, port) = match environ.server() {
        Some(server) => server,
        None => {
            let https = environ.view.scheme == Scheme::HTTPS;
            let host = sent.or(implied).and_then(text).unwrap_or_default();
            let (name, port) = split_host(host);
            let name = if name.is_empty() { "localhost" } else { name };
            (name, port.unwrap_or(if https { 443 } else { 80 }))
        }
    };
    visit(VariableName::of("SERVER_NAME"), name.as_bytes());
    visit(VariableName::of("SERVER_PORT"), itoa::Buffer::new().format(port).as_bytes());
    if let Some(remote) = environ.remote() {
        visit(VariableName::of("REMOTE_ADDR"), address(remote.ip().to_canonical()).as_bytes());
        visit(VariableName::of("REMOTE_PORT"), itoa::Buffer::new().format(remote.port()).as_bytes());
    }
}

/// An address as it is written. The standard library takes for an IPv4 address as long as the other variables take together.
fn address(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else {
        return address.to_string();
    };
    let mut text = String::with_capacity("255.255.255.255".len());
    for octet in address.octets() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(itoa::Buffer::new().format(octet));
    }
    text
}

/// The version as a request line has it.
fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}

/// An authority without its user information.
fn host_of(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// A host's name and port; a port only if there can be one of that number.
fn split_host(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port.parse().ok()),
        _ => (host, None),
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn invalid(name: &str, reason: impl Into<BoxError>) -> Error {
    Error::with_source(Kind::Request, format!("the variable {name} is not valid"), reason)
}
