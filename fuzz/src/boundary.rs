//! Requests and variables across the boundary, there and back: nothing is lost, nothing can be made up by a client, prefixes end where segments end.

mod expected;
mod parts;
mod table;

use std::convert::Infallible;
use std::net::SocketAddr;

use arbitrary::Arbitrary;
use axum::extract::{ConnectInfo, OriginalUri};
use http::uri::Scheme;
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, Environ, Error, Input, Output, Scope, SyncHandler, Variables, WsgiLayer,
};

use self::expected::Expected;
use self::parts::{Address, Bytes, Extra, Head, Server, below, with_path};
use self::table::Pair;
use crate::harness::{block_on, idle, pool, with_case};

#[derive(Arbitrary, Debug)]
enum Case {
    Request(Box<Trip>),
    Variables(Vec<Pair>),
}

/// A request on its way: through the async side to the sync side, and on to an async service inside of that.
#[derive(Arbitrary, Clone, Debug)]
struct Trip {
    head: Head,
    start: Start,
    connect_info: Option<Address>,
    told: Option<Told>,
    /// Where each prefix ends in what is left of the path.
    scope_shifts: Vec<u8>,
    crossing: Crossing,
    environ_shifts: Vec<u8>,
    extra: Vec<(Extra, Bytes)>,
    asgi_mount: Option<u8>,
}

/// What a server, or a layer outside, says of the connection.
#[derive(Arbitrary, Clone, Debug)]
struct Told {
    client: Option<Address>,
    server: Option<(Server, u16)>,
    https: bool,
}

/// Who has taken the first part of the path off before the request gets here.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Start {
    Nobody,
    /// axum's `nest`.
    Nest(u8),
    /// A host in front.
    Front(u8),
}

/// How the request comes to the sync side.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Crossing {
    /// Without a worker.
    Plain,
    /// Mounted there.
    Mounted(u8),
}

/// Runs the target.
///
/// # Panics
/// If something is lost, spoofed, or split inside a segment.
pub fn check(data: &[u8]) {
    with_case(data, |case: &Case| match case {
        Case::Request(trip) => trip.run(),
        Case::Variables(pairs) => table::check(pairs),
    });
}

impl Trip {
    fn run(&self) {
        let Some(mut request) = self.head.request() else {
            return;
        };
        if !request.uri().path().starts_with('/') {
            return any_target(&request);
        }
        let mut expected = Expected::new(&request);
        self.begin(&mut request, &mut expected);
        expected.check_scope(&request);
        for cut in &self.scope_shifts {
            shift(&mut request, &mut expected, *cut, Scope::shift);
            expected.check_scope(&request);
        }
        match self.crossing {
            Crossing::Plain => {
                let environ = Environ::from(&Scope::of(&request));
                request.extensions_mut().remove::<Scope>();
                request.extensions_mut().insert(environ);
                self.sync_side(request.map(|()| Input::empty()), expected);
            }
            Crossing::Mounted(cut) => self.cross(request, expected, cut),
        }
    }

    /// What happens before the request gets here.
    fn begin(&self, request: &mut Request<()>, expected: &mut Expected) {
        let whole = request.uri().clone();
        if let Start::Nest(cut) = self.start
            && let Some((prefix, rest)) = below(whole.path(), cut)
        {
            *request.uri_mut() = with_path(&whole, &rest);
            request.extensions_mut().insert(OriginalUri(whole.clone()));
            expected.mount(&prefix);
        }
        if let Some(address) = self.connect_info {
            let address = SocketAddr::from(address);
            request.extensions_mut().insert(ConnectInfo(address));
            expected.client = Some(address);
        }
        if let Start::Front(cut) = self.start
            && let Some((prefix, rest)) = below(whole.path(), cut)
        {
            *request.uri_mut() = with_path(&whole, &rest);
            let scope = Scope::of(request).with_root_path(&prefix);
            request.extensions_mut().insert(scope);
            expected.front(&prefix, request.uri().path());
        }
        if let Some(told) = &self.told {
            let mut scope = Scope::of(request);
            if let Some(address) = told.client {
                scope = scope.with_client(address.into());
                expected.client = Some(address.into());
            }
            if let Some((server, port)) = told.server {
                scope = scope.with_server(server.name(), port);
                expected.server = Some((server.name().to_owned(), port));
            }
            if told.https {
                scope = scope.with_scheme(Scheme::HTTPS);
                expected.https = true;
            }
            request.extensions_mut().insert(scope);
        }
    }

    /// Crosses to a worker, if the request is under the mount.
    fn cross(&self, request: Request<()>, mut expected: Expected, cut: u8) {
        let prefix = expected.prefix(cut);
        let outside = expected.clone();
        let is_inside = expected.try_mount(&prefix);
        let trip = self.clone();
        let app = move |request: Request<Input>| {
            assert!(is_inside, "{} is not under the mount", request.uri());
            trip.sync_side(request, expected.clone());
            Response::new("inside")
        };
        let inner = service_fn(move |request: Request<Body>| {
            assert!(!is_inside, "{} is under the mount", request.uri());
            outside.check_scope(&request);
            async { Ok::<_, Infallible>(Response::new(Body::empty())) }
        });
        let pool = pool(1);
        let service = WsgiLayer::new(app).at(&prefix).pool(pool.clone()).layer(inner);
        let response = block_on(service.oneshot(request.map(|()| Body::empty()))).expect("never an error");
        assert_eq!(response.status(), 200, "{:?}", response.extensions().get::<Error>());
        drop(response);
        idle(&pool);
    }

    fn sync_side(&self, mut request: Request<Input>, mut expected: Expected) {
        expected.check_environ(&request);
        for cut in &self.environ_shifts {
            shift(&mut request, &mut expected, *cut, Environ::shift);
            expected.check_environ(&request);
        }
        let mut environ = Environ::of(&request);
        for (name, value) in &self.extra {
            environ.set(name.name(), value.0.clone());
            expected.extra.insert(name.name().to_owned(), value.0.clone());
        }
        request.extensions_mut().insert(environ);
        expected.check_environ(&request);
        expected.check_variables(&request);
        there_and_back(&request);
        if let Some(cut) = self.asgi_mount {
            inside(request, expected, cut);
        }
    }
}

/// Shifts a prefix, where that is one.
fn shift<B>(
    request: &mut Request<B>,
    expected: &mut Expected,
    cut: u8,
    shift: impl FnOnce(&mut Request<B>, &str) -> bool,
) {
    let prefix = expected.prefix(cut);
    let before = request.uri().clone();
    let shifted = shift(request, &prefix);
    assert_eq!(shifted, expected.try_mount(&prefix), "{before} below {prefix}");
    if !shifted {
        assert_eq!(*request.uri(), before, "nothing has changed");
    }
}

/// The async service inside of the sync side.
fn inside(request: Request<Input>, mut expected: Expected, cut: u8) {
    let prefix = expected.prefix(cut);
    let outside = expected.clone();
    let is_inside = expected.try_mount(&prefix);
    let service = service_fn(move |request: Request<Body>| {
        assert!(is_inside, "{} is not under the mount", request.uri());
        assert!(request.extensions().get::<Environ>().is_none());
        expected.check_scope(&request);
        let scope = Scope::of(&request);
        let environ = scope.environ().expect("the environ of the sync side");
        for (name, value) in &expected.extra {
            assert_eq!(environ.get(name), Some(&value[..]), "{name}");
        }
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let inner = move |request: Request<Input>| {
        assert!(!is_inside, "{} is under the mount", request.uri());
        outside.check_environ(&request);
        Response::new(Output::empty())
    };
    if prefix == "/" {
        AsgiHandler::new(service).call(request).expect("a response");
    } else {
        AsgiLayer::new(service).at(&prefix).layer(inner).call(request).expect("a response");
    }
}

/// From a request to variables, and back.
fn there_and_back<B>(request: &Request<B>) {
    let variables = Variables::of(request);
    let again = variables.clone().into_request().expect("a request");
    assert_eq!(Variables::of(&again), variables);
    assert_eq!(again.uri().path(), request.uri().path());
    assert_eq!((again.method(), again.version()), (request.method(), request.version()));
    let environ = Environ::of(request);
    let scope = Scope::from(&environ);
    let back = Environ::from(&scope);
    assert_eq!((back.script_name(), back.path_info()), (environ.script_name(), environ.path_info()));
    assert_eq!((back.server(), back.remote()), (environ.server(), environ.remote()));
    assert_eq!(back.url_scheme(), environ.url_scheme());
    assert_eq!((back.scope().uri(), back.scope().root_path()), (scope.uri(), scope.root_path()));
}

/// A request whose target is no path: `OPTIONS *`, `CONNECT host:port`.
fn any_target(request: &Request<()>) {
    let variables = Variables::of(request);
    assert_eq!(variables.get("SCRIPT_NAME"), Some(&b""[..]));
    let again = variables.clone().into_request().expect("a request");
    // A target that is only an authority has no path; a request that is made has one.
    if request.uri().path() == "*" {
        assert_eq!(Variables::of(&again), variables);
    }
    let mut shifted = request.clone();
    assert!(!Environ::shift(&mut shifted, "/a") && !Scope::shift(&mut shifted, "/a"));
    assert!(Environ::shift(&mut shifted, "/"));
    assert_eq!(Variables::of(&shifted), variables);
}
