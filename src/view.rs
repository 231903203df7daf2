//! What `Scope` and `Environ` have in common: the facts of a request that its URI, method and headers no longer
//! tell once it was mounted, and how paths are split at mounts.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use percent_encoding::percent_decode_str;

/// What one side knows of a request. Cheap to clone: both sides share the facts until one of them changes some.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View(Arc<Facts>);

/// The facts of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    /// The target as the outermost side saw it.
    pub(crate) uri: Uri,
    /// The part of `uri`'s path that mounts have taken off, percent-encoded; no slash at its end.
    pub(crate) root: String,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) client: Option<SocketAddr>,
    /// What the request's `ConnectInfo` said when it was last looked at.
    pub(crate) told: Option<SocketAddr>,
    pub(crate) server: Option<(Arc<str>, u16)>,
    pub(crate) scheme: Scheme,
}

impl Deref for View {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl DerefMut for View {
    fn deref_mut(&mut self) -> &mut Facts {
        Arc::make_mut(&mut self.0)
    }
}

impl From<Facts> for View {
    fn from(facts: Facts) -> Self {
        Self(Arc::new(facts))
    }
}

impl View {
    /// The view of a request that nobody described yet. With the feature `axum`, the client comes from
    /// `ConnectInfo` and the original target from `OriginalUri`.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let original = original_uri(request);
        let client = client(request);
        let mut view = Self::from(Facts {
            uri: original.unwrap_or(request.uri()).clone(),
            root: String::new(),
            method: request.method().clone(),
            version: request.version(),
            client,
            told: client,
            server: None,
            scheme: Scheme::HTTP,
        });
        if original.is_some() {
            view.follow(request);
        }
        view
    }

    /// Brings an outer view up to date with the request as it is here: what is missing at the front of
    /// its path was taken by mounts in between.
    pub(crate) fn follow<B>(&mut self, request: &Request<B>) {
        if self.method != *request.method() {
            self.method = request.method().clone();
        }
        if self.version != request.version() {
            self.version = request.version();
        }
        self.connect(request, None);
        if let Some(length) = mounted(self.uri.path(), request.uri().path()) {
            if length != self.root.len() {
                self.root = self.uri.path()[..length].to_owned();
            }
        } else {
            // Somebody rewrote the path: what is known of the mount stays, the rest is as it is now.
            self.uri = join(&self.root, request.uri());
        }
        if self.uri.query() != request.uri().query() {
            self.uri = with_path(request.uri(), self.uri.path());
        }
    }

    /// The same for an inner view, which knows every mount: a path that is not the one below them was rewritten, even if the
    /// old one ends with it.
    pub(crate) fn rewrite<B>(&mut self, request: &Request<B>) {
        let (path, rest) = (request.uri().path(), self.rest());
        if path != rest && !(path == "/" && rest.is_empty()) {
            self.uri = join(&self.root, request.uri());
        }
        self.follow(request);
    }

    /// Whether `ConnectInfo`, if there is one, says what it said when it was last looked at.
    pub(crate) fn is_told<B>(&self, request: &Request<B>) -> bool {
        client(request).is_none_or(|client| self.told == Some(client))
    }

    /// Takes over what is said of the connection: by `ConnectInfo`, if that is news, and by another view.
    pub(crate) fn connect<B>(&mut self, request: &Request<B>, other: Option<&Self>) {
        if !self.is_told(request) {
            let told = client(request);
            // What a scope says wins over what the server has told, but not over what a layer has made of that since.
            if self.client.is_none() || self.told.is_some() {
                self.client = told;
            }
            self.told = told;
        }
        if let Some(other) = other {
            let facts = &mut **self;
            facts.client = other.client.or(facts.client);
            facts.server = other.server.clone().or(facts.server.take());
            facts.scheme = other.scheme.clone();
        }
    }

    /// Moves `prefix` from the path to the mount.
    pub(crate) fn mount(&mut self, prefix: &str) {
        self.root.push_str(prefix);
        if !self.uri.path().starts_with(&self.root) {
            self.uri = join(&self.root, &self.uri);
        }
    }

    /// The path below the mount, percent-encoded. Empty when the mount itself was asked for.
    pub(crate) fn rest(&self) -> &str {
        self.uri.path().get(self.root.len()..).unwrap_or_default()
    }
}

/// Percent-decodes a path.
pub(crate) fn decode(path: &str) -> Cow<'_, [u8]> {
    percent_decode_str(path).into()
}

/// The length of what `original` has in front of `path`, if the one ends with the other. A router gives `/` to an
/// application whose mount was asked for without a slash.
fn mounted(original: &str, path: &str) -> Option<usize> {
    match original.strip_suffix(path) {
        Some(prefix) if prefix.is_empty() || prefix.starts_with('/') && path.starts_with('/') => {
            Some(prefix.len())
        }
        _ => (path == "/" && original.starts_with('/')).then_some(original.len()),
    }
}

/// What is left of `path` below `prefix`, which has no slash at its end. Splits at segment borders only:
/// `/api` does not own `/apiary`. The empty prefix owns everything, the `*` of `OPTIONS` too.
pub(crate) fn split<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    (prefix.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// A layer's prefix, without a slash at its end.
///
/// # Panics
/// If it does not start with a slash, or is not the path of a URI.
pub(crate) fn prefix_of(prefix: &str) -> Arc<str> {
    assert!(prefix.starts_with('/'), "a prefix starts with a slash, which {prefix:?} does not");
    let path = PathAndQuery::try_from(prefix).ok();
    assert!(
        path.is_some_and(|path| path.as_str() == prefix && path.query().is_none()),
        "a prefix is the path of a URI, which {prefix:?} is not"
    );
    prefix.trim_end_matches('/').into()
}

/// `uri` with `path` in place of its own; the query stays.
pub(crate) fn with_path(uri: &Uri, path: &str) -> Uri {
    let path = if path.is_empty() { "/" } else { path };
    let target = match uri.query() {
        Some(query) => PathAndQuery::from_maybe_shared([path, "?", query].concat().into_bytes()),
        None => PathAndQuery::from_maybe_shared(path.to_owned().into_bytes()),
    };
    let mut parts = uri.clone().into_parts();
    match target {
        Ok(target) => parts.path_and_query = Some(target),
        Err(_) => return uri.clone(),
    }
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// `uri` with `prefix` in front of its path.
pub(crate) fn join(prefix: &str, uri: &Uri) -> Uri {
    if prefix.is_empty() {
        return uri.clone();
    }
    with_path(uri, &[prefix, uri.path()].concat())
}

#[cfg(feature = "axum")]
fn original_uri<B>(request: &Request<B>) -> Option<&Uri> {
    let original = request.extensions().get::<axum::extract::OriginalUri>();
    original.map(|original| &original.0)
}

#[cfg(feature = "axum")]
fn client<B>(request: &Request<B>) -> Option<SocketAddr> {
    let info = request.extensions().get::<axum::extract::ConnectInfo<SocketAddr>>();
    info.map(|info| info.0)
}

/// Tells axum's extractors what the view knows: the client in any case, so that there are no two opinions of it, and the original target where nobody else did.
#[cfg(feature = "axum")]
pub(crate) fn tell_axum<B>(request: &mut Request<B>, view: &mut View) {
    use axum::extract::{ConnectInfo, OriginalUri};

    if let Some(told) = view.client.filter(|told| client(request) != Some(*told)) {
        request.extensions_mut().insert(ConnectInfo(told));
        view.told = Some(told);
    }
    if !view.root.is_empty() {
        request.extensions_mut().get_or_insert_with(|| OriginalUri(view.uri.clone()));
    }
}

#[cfg(not(feature = "axum"))]
pub(crate) fn tell_axum<B>(_: &mut Request<B>, _: &mut View) {}

#[cfg(not(feature = "axum"))]
fn original_uri<B>(_: &Request<B>) -> Option<&Uri> {
    None
}

#[cfg(not(feature = "axum"))]
fn client<B>(_: &Request<B>) -> Option<SocketAddr> {
    None
}
