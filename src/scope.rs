//! The request as ASGI describes it.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::Scheme;
use http::{Method, Request, Uri, Version};

use crate::environ::Environ;
use crate::view::{View, decode, split, tell_axum, with_path};

/// The request as the asynchronous side sees it: an ASGI HTTP scope, as a request extension.
///
/// A request's URI, method and headers stay where they are, in the [`http::Request`]. The scope holds what they do not tell: who is
/// connected, over what, and where the application is mounted. `uri()` is the target as it was before any mount took
/// its part off.
///
/// | | [`Scope`] | [`Environ`] |
/// | --- | --- | --- |
/// | lives on | the async side | the sync side |
/// | speaks | [ASGI](https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope) | [PEP 3333](https://peps.python.org/pep-3333/#environ-variables) |
/// | mount | [`root_path`](Self::root_path) | [`script_name`](Environ::script_name) |
/// | the other side's view | [`environ`](Self::environ) | [`scope`](Environ::scope) |
///
/// A server that knows more than the request says puts a scope into it; so does a synchronous host, which has no other way to tell. In axum, with the feature `axum`, this is not needed for the
/// client's address and for nested routers: `ConnectInfo` and `OriginalUri` are read.
///
/// ```
/// use std::net::SocketAddr;
/// use http::{Request, uri::Scheme};
/// use tower_wsgi::Scope;
///
/// fn describe<B>(mut request: Request<B>, peer: SocketAddr, local: SocketAddr) -> Request<B> {
///     let scope = Scope::of(&request)
///         .with_client(peer)
///         .with_server(local.ip().to_string(), local.port())
///         .with_scheme(Scheme::HTTPS);
///     request.extensions_mut().insert(scope);
///     request
/// }
/// # let peer = SocketAddr::from(([10, 0, 0, 1], 4000));
/// # let request = describe(Request::new(()), peer, peer);
/// # assert_eq!(Scope::of(&request).client(), Some(peer));
/// ```
///
/// What is asked of it:
///
/// ```
/// use http::{Method, Request};
/// use tower_wsgi::Scope;
///
/// let mut request = Request::post("/a%20shop/cart?id=1").body(())?;
/// Scope::shift(&mut request, "/a%20shop");
/// let scope = Scope::of(&request);
///
/// assert_eq!((scope.method(), scope.http_version()), (&Method::POST, "1.1"));
/// assert_eq!(scope.uri(), "/a%20shop/cart?id=1"); // the request's own is `/cart?id=1` now
/// assert_eq!((scope.raw_root_path(), &*scope.root_path()), ("/a%20shop", "/a shop"));
/// assert_eq!((scope.raw_path(), &*scope.path()), ("/a%20shop/cart", "/a shop/cart"));
/// assert_eq!(scope.query_string(), "id=1");
/// assert_eq!(scope.scheme(), "http");
/// assert_eq!((scope.client(), scope.server()), (None, None)); // no server told
/// assert!(scope.environ().is_none()); // no synchronous host around it
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone)]
pub struct Scope {
    pub(crate) view: View,
    pub(crate) environ: Option<Arc<Environ>>,
}

impl Scope {
    /// The scope of a request on the async side: the one that it carries, brought up to date with its path, or one made from the [`Environ`] that a host gave it, or from the
    /// request alone. On the sync side [`Environ::scope`] has it.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        match request.extensions().get::<Self>() {
            Some(scope) => {
                let mut scope = scope.clone();
                scope.view.follow(request);
                scope
            }
            None => match request.extensions().get::<Environ>() {
                Some(environ) => Self::from(environ),
                None => Self { view: View::of(request), environ: None },
            },
        }
    }

    /// Gives a request that crosses to the async side its scope, made of the environ that is taken out of it.
    pub(crate) fn cross<B>(request: &mut Request<B>) {
        let carried = request.extensions_mut().remove::<Environ>();
        let mut environ = match carried {
            Some(mut environ) => {
                // What a host, or a layer of the sync side, has said in a scope of its own making counts as well.
                let said = request.extensions_mut().remove::<Self>();
                environ.hear(request, said.as_ref());
                environ.rewrite(request);
                environ
            }
            None => Environ::of(request),
        };
        tell_axum(request, &mut environ.view);
        let scope = Self { view: environ.view.clone(), environ: Some(Arc::new(environ)) };
        request.extensions_mut().insert(scope);
    }

    /// Sets the client's address. Behind the next crossing to the async side, axum's `ConnectInfo` is the same.
    #[must_use]
    pub fn with_client(mut self, client: SocketAddr) -> Self {
        self.view.client = Some(client);
        self
    }

    /// Sets the name or address and the port that the server listens on.
    #[must_use]
    pub fn with_server(mut self, host: impl Into<Arc<str>>, port: u16) -> Self {
        self.view.server = Some((host.into(), port));
        self
    }

    /// Sets the scheme; `http` by default. It is never taken from the request, which a client can make up.
    #[must_use]
    pub fn with_scheme(mut self, scheme: Scheme) -> Self {
        self.view.scheme = scheme;
        self
    }

    /// Says that a host in front has taken `root_path` off the request's path: the full path is the two together. Percent-encoded,
    /// with a slash at its start; one at its end makes no difference.
    ///
    /// ```
    /// use http::Request;
    /// use tower_wsgi::Scope;
    ///
    /// // A proxy has `/shop` and sends the rest.
    /// let request = Request::get("/cart").body(())?;
    /// let scope = Scope::of(&request).with_root_path("/shop");
    /// assert_eq!((&*scope.root_path(), &*scope.path()), ("/shop", "/shop/cart"));
    /// # Ok::<(), http::Error>(())
    /// ```
    #[must_use]
    pub fn with_root_path(mut self, root_path: &str) -> Self {
        let root_path = root_path.trim_end_matches('/');
        let rest = crate::view::with_path(&self.view.uri, self.view.rest());
        self.view.uri = crate::view::join(root_path, &rest);
        root_path.clone_into(&mut self.view.root);
        self
    }

    /// Moves `prefix` from the request's path to [`root_path`](Self::root_path), both in its URI and in the scope that it carries: what a router on the async side does before it calls an application
    /// mounted at `prefix`. False, and nothing changed, if the path does not lie under it; `/api` does not own `/apiary`.
    ///
    /// `prefix` is percent-encoded as in the request, with a slash at its start. One at its end makes no difference. On the sync side it is [`Environ::shift`].
    ///
    /// ```
    /// # use http::Request;
    /// # use tower_wsgi::Scope;
    /// let mut request = Request::get("/shop/cart?id=1").body(()).unwrap();
    /// assert!(!Scope::shift(&mut request, "/sho"));
    /// assert!(Scope::shift(&mut request, "/shop"));
    /// assert_eq!(request.uri(), "/cart?id=1");
    /// assert_eq!(Scope::of(&request).root_path(), "/shop");
    /// assert_eq!(Scope::of(&request).path(), "/shop/cart");
    /// ```
    pub fn shift<B>(request: &mut Request<B>, prefix: &str) -> bool {
        let prefix = prefix.trim_end_matches('/');
        let Some(rest) = split(request.uri().path(), prefix) else {
            return false;
        };
        let uri = with_path(request.uri(), rest);
        let mut scope = Self::of(request);
        scope.view.mount(prefix);
        *request.uri_mut() = uri;
        request.extensions_mut().insert(scope);
        true
    }

    /// Where the application is mounted, percent-decoded; empty at the top. Bytes that are not UTF-8 are replaced,
    /// [`raw_path`](Self::raw_path) has them.
    #[must_use]
    pub fn root_path(&self) -> Cow<'_, str> {
        lossy(decode(&self.view.root))
    }

    /// [`root_path`](Self::root_path) as it was sent, percent-encoded: what links and redirects to the application itself begin with.
    #[must_use]
    pub fn raw_root_path(&self) -> &str {
        &self.view.root
    }

    /// The whole path, the mount included, percent-decoded. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn path(&self) -> Cow<'_, str> {
        lossy(decode(self.raw_path()))
    }

    /// The whole path as it was sent, without the query.
    #[must_use]
    pub fn raw_path(&self) -> &str {
        self.view.uri.path()
    }

    /// The query, percent-encoded; empty if there is none.
    #[must_use]
    pub fn query_string(&self) -> &str {
        self.view.uri.query().unwrap_or_default()
    }

    /// The request's target as it was before any mount took its part off.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.view.uri
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.view.method
    }

    /// `1.0`, `1.1`, `2` or `3`.
    #[must_use]
    pub fn http_version(&self) -> &'static str {
        match self.view.version {
            Version::HTTP_09 => "0.9",
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "1.1",
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.view.scheme.as_str()
    }

    /// The client's address, where the server told it.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        self.view.client
    }

    /// The server's name or address and its port, where the server told them.
    #[must_use]
    pub fn server(&self) -> Option<(&str, u16)> {
        let (host, port) = self.view.server.as_ref()?;
        Some((host, *port))
    }

    /// The synchronous host's view of this request, if it came through one (a2wsgi's `scope["wsgi_environ"]`).
    #[doc(alias = "wsgi_environ")]
    #[must_use]
    pub fn environ(&self) -> Option<&Environ> {
        self.environ.as_deref()
    }
}

impl From<&Environ> for Scope {
    /// The scope that an asynchronous application inside a synchronous one sees. It remembers the environ.
    fn from(environ: &Environ) -> Self {
        Self { view: environ.view.clone(), environ: Some(Arc::new(environ.clone())) }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("root_path", &self.root_path())
            .field("uri", &self.view.uri)
            .field("client", &self.view.client)
            .field("server", &self.view.server)
            .field("scheme", &self.scheme())
            .field("environ", &self.environ.is_some())
            .finish_non_exhaustive()
    }
}

fn lossy(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Cow::Owned(text),
            Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        },
    }
}
