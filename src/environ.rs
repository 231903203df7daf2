//! The request as CGI and WSGI describe it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;

use crate::early::{Begin, Early};
use crate::parker::Watch;
use crate::scope::Scope;
use crate::view::{View, decode, split, with_path};

/// The request as the synchronous side sees it: a request extension with what PEP 3333 and RFC 3875 call the environment.
///
/// Method, URI and headers stay in the [`http::Request`], whose URI is the part below the mount. The environ holds what the request does not tell.
/// All of it together, as a table of variables, is [`Variables::of`](crate::Variables::of).
///
/// ```
/// use http::{Request, Response};
/// use tower_wsgi::{Environ, Input, Output};
///
/// fn app(request: Request<Input>) -> Response<Output> {
///     let environ = Environ::of(&request);
///     let text = match environ.remote() {
///         Some(address) => format!("{} under {:?}", address.ip(), environ.script_name()),
///         None => "a client without an address".to_owned(),
///     };
///     Response::new(text.into())
/// }
/// # let text = std::io::read_to_string(app(Request::new(Input::empty())).into_body().into_reader()).unwrap();
/// # assert_eq!(text, "a client without an address");
/// ```
///
/// What it says of a request that a host has described, and a mount has changed:
///
/// ```
/// use std::net::SocketAddr;
/// use http::Request;
/// use tower_wsgi::{Environ, Scope};
///
/// let client = SocketAddr::from(([192, 0, 2, 1], 4000));
/// let mut request = Request::get("/shop/a%20cart").body(())?;
/// let scope = Scope::of(&request).with_client(client).with_server("example.org", 8080);
/// request.extensions_mut().insert(scope);
/// Environ::shift(&mut request, "/shop");
///
/// let environ = Environ::of(&request);
/// assert_eq!(environ.script_name(), &b"/shop"[..]);
/// assert_eq!(environ.path_info(), &b"/a cart"[..]);
/// assert_eq!(environ.remote(), Some(client));
/// assert_eq!(environ.server(), Some(("example.org", 8080)));
/// assert_eq!(environ.url_scheme(), "http");
/// assert_eq!(environ.scope().path(), "/shop/a cart");
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone)]
pub struct Environ {
    pub(crate) view: View,
    /// Variables that come from neither the request nor the connection, like `REMOTE_USER`.
    extra: BTreeMap<Cow<'static, str>, Vec<u8>>,
    /// The async side's view, where it differs from ours.
    scope: Option<Arc<Scope>>,
    watch: Option<Arc<dyn Begin>>,
}

impl Environ {
    /// The environ of a request: the one that it carries, with what a layer of this side has said of the connection since, or one made from the request alone.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let (environ, scope) = (request.extensions().get::<Self>(), request.extensions().get::<Scope>());
        match (environ, scope) {
            (Some(environ), scope) => {
                let mut environ = environ.clone();
                environ.hear(request, scope);
                environ
            }
            (None, Some(_)) => Self::from(&Scope::of(request)),
            (None, None) => Self::plain(request),
        }
    }

    /// Whether this, which the request carries, is all that is said of its connection.
    pub(crate) fn is_current<B>(&self, request: &Request<B>) -> bool {
        request.extensions().get::<Scope>().is_none() && self.view.is_told(request)
    }

    /// The environ of a request that nobody described yet.
    fn plain<B>(request: &Request<B>) -> Self {
        Self { view: View::of(request), extra: BTreeMap::new(), scope: None, watch: None }
    }

    /// The environ of a request that crosses to the sync side. Takes the scope out of it.
    pub(crate) fn crossing<B>(request: &mut Request<B>, watch: Arc<dyn Begin>) -> Self {
        // What a layer of the async side has set in an environ of its own making counts as well.
        let carried = request.extensions_mut().remove::<Self>();
        let mut environ = match (request.extensions_mut().remove::<Scope>(), carried) {
            (Some(mut scope), carried) => {
                scope.view.follow(request);
                let mut environ = Self::inside(scope);
                environ.extra.extend(carried.map(|carried| carried.extra).unwrap_or_default());
                environ
            }
            (None, Some(mut carried)) => {
                carried.view.follow(request);
                carried
            }
            (None, None) => Self::plain(request),
        };
        environ.watch = Some(watch);
        environ
    }

    /// The environ inside of a scope.
    fn inside(scope: Scope) -> Self {
        if scope.environ.is_none() {
            return Self { view: scope.view, extra: BTreeMap::new(), scope: None, watch: None };
        }
        Self {
            view: scope.view.clone(),
            extra: scope.environ().map(|environ| environ.extra.clone()).unwrap_or_default(),
            watch: scope.environ().and_then(|environ| environ.watch.clone()),
            scope: Some(Arc::new(scope)),
        }
    }

    /// Tells when the response is wanted no more.
    pub(crate) fn watch(&self) -> Option<Arc<dyn Watch>> {
        self.watch.clone().map(Begin::into_watch)
    }

    /// Takes over what a layer of this side has said of the connection since it was made; the scope stays as it was.
    pub(crate) fn hear<B>(&mut self, request: &Request<B>, said: Option<&Scope>) {
        if said.is_some() || !self.view.is_told(request) {
            self.keep_scope();
            self.view.connect(request, said.map(|said| &said.view));
        }
    }

    /// Notes that `prefix` was taken off the path; the scope stays as it was.
    pub(crate) fn mount(&mut self, prefix: &str) {
        self.keep_scope();
        self.view.mount(prefix);
    }

    /// Brings it up to date with the request as it is further inside; the scope stays as it was.
    pub(crate) fn rewrite<B>(&mut self, request: &Request<B>) {
        self.keep_scope();
        self.view.rewrite(request);
    }

    /// Before this side's view becomes another than the async side's.
    fn keep_scope(&mut self) {
        if self.scope.is_none() {
            self.scope = Some(Arc::new(self.scope()));
        }
    }

    /// The length of the mount, percent-encoded.
    pub(crate) fn depth(&self) -> usize {
        self.view.root.len()
    }

    /// Puts `prefix` back in front of the path. False, and nothing changed, if something else was mounted since it brought the mount to `depth`.
    pub(crate) fn unmount(&mut self, prefix: &str, depth: usize) -> bool {
        let last = self.depth() == depth && self.view.root.ends_with(prefix);
        if last {
            self.view.root.truncate(depth - prefix.len());
        }
        last
    }

    /// Where the application is mounted: `SCRIPT_NAME`, percent-decoded; empty at the top.
    #[must_use]
    pub fn script_name(&self) -> Cow<'_, [u8]> {
        decode(&self.view.root)
    }

    /// [`script_name`](Self::script_name) as it was sent, percent-encoded: what links and redirects to the application itself begin with.
    ///
    /// ```
    /// use http::header::LOCATION;
    /// use http::{Request, Response, StatusCode};
    /// use tower_wsgi::{BoxError, Environ, Input};
    ///
    /// fn added(request: Request<Input>) -> Result<Response<&'static str>, BoxError> {
    ///     let location = format!("{}/items", Environ::of(&request).raw_script_name());
    ///     Ok(Response::builder().status(StatusCode::SEE_OTHER).header(LOCATION, location).body("")?)
    /// }
    /// # let mut request = Request::post("/legacy/items").body(Input::empty())?;
    /// # assert!(Environ::shift(&mut request, "/legacy"));
    /// # assert_eq!(added(request)?.headers()[LOCATION], "/legacy/items");
    /// # Ok::<(), BoxError>(())
    /// ```
    #[must_use]
    pub fn raw_script_name(&self) -> &str {
        &self.view.root
    }

    /// The path below the mount: `PATH_INFO`, percent-decoded. Empty if the mount itself was asked for, without a slash.
    /// It does not follow changes that are made to the request's URI; [`shift`](Self::shift) does both.
    #[must_use]
    pub fn path_info(&self) -> Cow<'_, [u8]> {
        decode(self.view.rest())
    }

    /// The server's name or address and its port, where the server told them.
    #[must_use]
    pub fn server(&self) -> Option<(&str, u16)> {
        let (host, port) = self.view.server.as_ref()?;
        Some((host, *port))
    }

    /// The client's address: `REMOTE_ADDR` and `REMOTE_PORT`. `None` where the server did not tell it: `axum::serve` does so with `router.into_make_service_with_connect_info::<SocketAddr>()`, others by a [`Scope`].
    /// Behind a proxy it is the proxy's; a layer that knows better says so by [`Scope::with_client`], on either side.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.view.client
    }

    /// `http` or `https`: `wsgi.url_scheme`.
    #[must_use]
    pub fn url_scheme(&self) -> &str {
        self.view.scheme.as_str()
    }

    /// Whether the response is wanted no more: the client left, or a layer outside gave up. Never blocks. False if
    /// the request did not come through a crossing.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower_wsgi::{BoxError, Environ, Input, SyncHandler};
    ///
    /// fn sum(request: Request<Input>) -> Result<Response<String>, BoxError> {
    ///     let environ = Environ::of(&request);
    ///     let mut sum = 0_u64;
    ///     for n in 0..100_000 {
    ///         if n % 1_000 == 0 && environ.is_disconnected() {
    ///             return Err("nobody waits for it any more".into());
    ///         }
    ///         sum += n;
    ///     }
    ///     Ok(Response::new(sum.to_string()))
    /// }
    ///
    /// assert!(SyncHandler::call(&sum, Request::new(Input::empty())).is_ok());
    /// ```
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_closed())
    }

    /// What begins the response before the handler returns; `None` on a host that sends it when it is returned.
    ///
    /// ```
    /// use http::Request;
    /// use tower_wsgi::{Environ, Input};
    ///
    /// // Who calls the handler itself, a test say, gets the response when it is returned.
    /// let request = Request::new(Input::empty());
    /// assert!(Environ::of(&request).early().is_none());
    /// ```
    #[must_use]
    pub fn early(&self) -> Option<Early> {
        self.watch.clone().map(Early::new)
    }

    /// The request as the asynchronous side around this one sees it (a2wsgi's `environ["asgi.scope"]`), with the path
    /// as it was before this side's mounts.
    #[doc(alias = "asgi.scope")]
    #[must_use]
    pub fn scope(&self) -> Scope {
        match &self.scope {
            Some(scope) => (**scope).clone(),
            None => Scope { view: self.view.clone(), environ: None },
        }
    }

    /// A variable set by [`set`](Self::set), or by the host that the request came from.
    ///
    /// ```
    /// use tower_wsgi::{Environ, Variables};
    ///
    /// // As a CGI host has it. What the request itself tells is not among them.
    /// let variables = [("REMOTE_USER", "alice"), ("PATH_INFO", "/cart"), ("DOCUMENT_ROOT", "/srv/www")];
    /// let request = Variables::from_iter(variables).into_request()?;
    /// let environ = Environ::of(&request);
    /// assert_eq!(environ.get("REMOTE_USER"), Some(&b"alice"[..]));
    /// assert_eq!(environ.get("DOCUMENT_ROOT"), Some(&b"/srv/www"[..]));
    /// assert_eq!(environ.get("PATH_INFO"), None);
    /// # Ok::<(), tower_wsgi::Error>(())
    /// ```
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.extra.get(name).map(Vec::as_slice)
    }

    /// Sets a variable that the request itself does not hold, like `REMOTE_USER`: middleware's word to what is
    /// inside. In [`Variables`](crate::Variables) it wins over one made from the request; the environ's own facts, [`remote`](Self::remote) say, stay what they are.
    ///
    /// ```
    /// # use http::Request;
    /// # use tower_wsgi::{Environ, Input, Variables};
    /// let mut request = Request::new(Input::empty());
    /// let mut environ = Environ::of(&request);
    /// environ.set("REMOTE_USER", "alice");
    /// request.extensions_mut().insert(environ);
    /// assert_eq!(Variables::of(&request).get("REMOTE_USER"), Some(&b"alice"[..]));
    /// ```
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Vec<u8>>) {
        self.extra.insert(name.into(), value.into());
    }

    /// Takes a variable back; true if it was [`set`](Self::set).
    ///
    /// ```
    /// use http::Request;
    /// use tower_wsgi::Environ;
    ///
    /// let mut environ = Environ::of(&Request::new(()));
    /// environ.set("REMOTE_USER", "alice");
    /// // What follows is for everybody.
    /// assert!(environ.unset("REMOTE_USER"));
    /// assert_eq!(environ.get("REMOTE_USER"), None);
    /// ```
    pub fn unset(&mut self, name: &str) -> bool {
        self.extra.remove(name).is_some()
    }

    /// Moves `prefix` from the request's path to `SCRIPT_NAME`, both in its URI and in the environ that it carries: what a router on
    /// the sync side does before it calls an application mounted at `prefix`. False, and nothing changed, if
    /// the path does not lie under it; `/api` does not own `/apiary`.
    ///
    /// `prefix` is percent-encoded as in the request, with a slash at its start. One at its end makes no difference.
    ///
    /// ```
    /// # use http::Request;
    /// # use tower_wsgi::Environ;
    /// let mut request = Request::get("/shop/cart?id=1").body(()).unwrap();
    /// assert!(!Environ::shift(&mut request, "/sho"));
    /// assert!(Environ::shift(&mut request, "/shop"));
    /// assert_eq!(request.uri(), "/cart?id=1");
    /// assert_eq!(&*Environ::of(&request).script_name(), b"/shop");
    /// ```
    pub fn shift<B>(request: &mut Request<B>, prefix: &str) -> bool {
        let prefix = prefix.trim_end_matches('/');
        let Some(rest) = split(request.uri().path(), prefix) else {
            return false;
        };
        let uri = with_path(request.uri(), rest);
        let mut environ = Self::of(request);
        environ.rewrite(request);
        environ.mount(prefix);
        *request.uri_mut() = uri;
        request.extensions_mut().insert(environ);
        true
    }

    pub(crate) fn extra(&self) -> impl Iterator<Item = (&Cow<'static, str>, &Vec<u8>)> {
        self.extra.iter()
    }
}

impl From<&Scope> for Environ {
    /// The environ that a synchronous application inside an asynchronous one sees. It remembers the scope, and has what was [`set`](Self::set) in the scope's own environ.
    /// It is not the request's own, which knows whether the client has left: what a layer has to say of the connection goes into the request as a scope.
    fn from(scope: &Scope) -> Self {
        Self::inside(scope.clone())
    }
}

impl fmt::Debug for Environ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environ")
            .field("script_name", &String::from_utf8_lossy(&self.script_name()))
            .field("path_info", &String::from_utf8_lossy(&self.path_info()))
            .field("server", &self.view.server)
            .field("remote", &self.view.client)
            .field("url_scheme", &self.url_scheme())
            .field("extra", &self.extra)
            .finish_non_exhaustive()
    }
}
