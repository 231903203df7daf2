//! The compatibility list, proven: a natural application of each framework, in the command-line server and below a prefix in axum.
//!
//! All applications have the same URLs (`tests/apps`), so that one driver, [`drive`], checks all of them; where frameworks differ, or
//! cannot do a thing, [`App`] says so. The WSGI ones run inside PEP 3333's validator from the standard library.
//!
//! `COMPAT_SERVER` and `COMPAT_MOUNTED` name other programs with the same command lines to run in place of ours, to tell a fault of a
//! framework from one of this crate.

mod admin;
mod asynchronous;
mod drive;
mod host;
mod pages;
mod transfer;

use host::Hosting;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    Wsgi,
    Asgi,
}

/// An application, and what its framework does differently from others.
#[derive(Clone, Copy, Debug)]
struct App {
    /// Its directory in `tests/apps`.
    dir: &'static str,
    /// `MODULE:ATTRIBUTE`.
    target: &'static str,
    /// The same application inside PEP 3333's validator.
    validated: Option<&'static str>,
    interface: Interface,
    /// A piece of the framework's own page for what is not found.
    not_found: &'static str,
    /// A piece of the framework's own page for what is forbidden.
    forbidden: &'static str,
    /// A piece of the framework's own page for an exception; `None` where it leaves that to the server.
    failure: Option<&'static str>,
    /// Whether routes for `GET` answer `HEAD` too.
    head: bool,
    /// Whether responses whose length is known say it.
    lengths: bool,
    /// Whether a JSON body is accepted without a `Content-Length`.
    chunked_json: bool,
    /// Whether a multipart body is.
    chunked_multipart: bool,
    /// Whether static files answer `If-Modified-Since`.
    conditional: bool,
    /// Whether static files answer `Range`.
    ranges: bool,
    /// Whether the application's routes must be told of the prefix, because the framework does not take it off the path.
    routes_have_prefix: bool,
    /// Whether the request's URL has the prefix twice, because the framework puts it before a path that has it.
    doubles_prefix: bool,
    /// Whether the framework itself logs that a client has left in the middle of a response.
    logs_leavers: bool,
    /// What lines on standard error may hold that are the framework's own business.
    noise: &'static [&'static str],
    lifespan: bool,
    events: bool,
    background: bool,
    websocket: Option<WebSockets>,
    admin: bool,
}

/// What a framework can do with a WebSocket beyond messages and subprotocols.
#[derive(Clone, Copy, Debug)]
struct WebSockets {
    /// Whether the client sees the code 4001 and the reason "bye" when the application closes with them; else the connection just ends.
    close_code: bool,
    /// Whether the application is told the code that the client closes with; else only that the client is gone.
    closed_code: bool,
    /// Whether the application can refuse a handshake.
    denies: bool,
}

const WSGI: App = App {
    dir: "",
    target: "app:app",
    validated: Some("app:validated"),
    interface: Interface::Wsgi,
    not_found: "Not Found",
    forbidden: "Forbidden",
    failure: Some("Internal Server Error"),
    head: true,
    lengths: true,
    chunked_json: true,
    chunked_multipart: true,
    conditional: true,
    ranges: true,
    routes_have_prefix: false,
    doubles_prefix: false,
    logs_leavers: false,
    noise: &[],
    lifespan: false,
    events: false,
    background: false,
    websocket: None,
    admin: false,
};

const ASGI: App = App {
    validated: None,
    interface: Interface::Asgi,
    lifespan: true,
    events: true,
    background: true,
    websocket: Some(WebSockets { close_code: true, closed_code: true, denies: true }),
    ..WSGI
};

const DJANGO: App = App {
    dir: "django",
    target: "notebook.wsgi:application",
    validated: Some("notebook.wsgi:validated"),
    failure: Some("Server Error (500)"),
    ranges: false,
    chunked_json: false,
    chunked_multipart: false,
    admin: true,
    ..WSGI
};

const DJANGO_ASYNC: App = App {
    target: "notebook.asgi:application",
    validated: None,
    interface: Interface::Asgi,
    chunked_json: true,
    events: true,
    noise: &["StreamingHttpResponse must consume synchronous iterators", "async for part in content"],
    ..DJANGO
};

const FLASK: App = App { dir: "flask", ..WSGI };

const PYRAMID: App = App { dir: "pyramid", failure: None, ..WSGI };

const BOTTLE: App = App { dir: "bottle", chunked_json: false, chunked_multipart: false, ..WSGI };

const FALCON: App = App {
    dir: "falcon",
    target: "wsgi_app:app",
    validated: Some("wsgi_app:validated"),
    chunked_json: false,
    chunked_multipart: false,
    ..WSGI
};

const FALCON_ASYNC: App =
    App { dir: "falcon", target: "asgi_app:app", routes_have_prefix: true, doubles_prefix: true, ..ASGI };

const KUI: App = App {
    dir: "kui",
    target: "wsgi_app:app",
    validated: Some("wsgi_app:validated"),
    not_found: "Nothing matches the given URI",
    forbidden: "Request forbidden",
    failure: None,
    conditional: false,
    ..WSGI
};

const KUI_ASYNC: App = App {
    dir: "kui",
    target: "asgi_app:app",
    not_found: "Nothing matches the given URI",
    forbidden: "Request forbidden",
    failure: None,
    conditional: false,
    routes_have_prefix: true,
    doubles_prefix: true,
    ..ASGI
};

const STARLETTE: App = App { dir: "starlette", ..ASGI };

const FASTAPI: App = App { dir: "fastapi", head: false, ..ASGI };

const QUART: App = App {
    dir: "quart",
    websocket: Some(WebSockets { close_code: true, closed_code: false, denies: true }),
    ..ASGI
};

const SANIC: App = App {
    dir: "sanic",
    head: false,
    lengths: false,
    logs_leavers: true,
    routes_have_prefix: true,
    websocket: Some(WebSockets { close_code: false, closed_code: false, denies: false }),
    ..ASGI
};

/// A test for each hosting.
macro_rules! works {
    ($($name:ident: $app:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn works_in_the_server() {
                drive::app($app, Hosting::Server);
            }

            #[test]
            fn works_below_a_prefix_in_axum() {
                drive::app($app, Hosting::Mounted);
            }
        }
    )*};
}

works! {
    django_wsgi: DJANGO;
    django_asgi: DJANGO_ASYNC;
    flask_wsgi: FLASK;
    pyramid_wsgi: PYRAMID;
    bottle_wsgi: BOTTLE;
    falcon_wsgi: FALCON;
    falcon_asgi: FALCON_ASYNC;
    kui_wsgi: KUI;
    kui_asgi: KUI_ASYNC;
    starlette_asgi: STARLETTE;
    fastapi_asgi: FASTAPI;
    quart_asgi: QUART;
    sanic_asgi: SANIC;
}
