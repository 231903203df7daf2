//! The trait of a synchronous application.

use std::sync::Arc;

use http::{Request, Response};

use crate::error::BoxError;
use crate::input::Input;
use crate::output::Output;

/// A synchronous application: what WSGI calls an application, as a trait.
///
/// Closures and functions that take a request and return a response implement it, and so do those that return a `Result` of one, with any
/// error that `?` turns into a boxed one.
///
/// ```
/// use std::io::{self, Read};
/// use http::{Request, Response};
/// use tower_wsgi::{Input, Output, SyncHandler};
///
/// fn hello(_: Request<Input>) -> Response<&'static str> {
///     Response::new("Hello World!")
/// }
///
/// fn shout(mut request: Request<Input>) -> io::Result<Response<Output>> {
///     let mut text = String::new();
///     request.body_mut().read_to_string(&mut text)?;
///     Ok(Response::new(text.to_uppercase().into()))
/// }
///
/// struct Greeter { name: String }
///
/// impl SyncHandler for Greeter {
///     fn call(&self, _: Request<Input>) -> Result<Response<Output>, tower_wsgi::BoxError> {
///         Ok(Response::new(format!("Hello {}!", self.name).into()))
///     }
/// }
///
/// fn app() -> impl SyncHandler {
///     |request: Request<Input>| match request.uri().path() {
///         "/hello" => SyncHandler::call(&hello, request),
///         "/shout" => SyncHandler::call(&shout, request),
///         _ => Greeter { name: "nobody".into() }.call(request),
///     }
/// }
/// # let response = app().call(Request::get("/hello").body(Input::empty()).unwrap());
/// # assert_eq!(response.unwrap().status(), 200);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a synchronous handler",
    note = "functions `Fn(Request<Input>) -> Response<T>` and `-> Result<Response<T>, E>` are, and so is an `Arc` of a handler",
    note = "an async service becomes one by `AsgiHandler::new(service)` or `AsgiLayer::adapter()`"
)]
pub trait SyncHandler: Send + Sync + 'static {
    /// Answers a request. May block.
    ///
    /// For functions and closures write `SyncHandler::call(&handler, request)`: std's own traits of functions have a `call` too, and the compiler warns of `handler.call(request)`, which may mean that one some day.
    ///
    /// # Errors
    /// Any error; the crossing makes a 500 of it, which carries it (see [`Error`](crate::Error)).
    ///
    /// # Panics
    /// A panic is caught by the crossing and becomes a 500.
    ///
    /// # Blocking
    /// It may wait for as long as it likes, on the calling thread: behind a [`WsgiService`](crate::WsgiService) a worker, which runs nothing else meanwhile, on a synchronous host the host's own.
    ///
    /// # Cancellation
    /// Nothing interrupts it. When the response is wanted no more, its reads of the request's body fail, and [`Environ::is_disconnected`](crate::Environ::is_disconnected) is true; what it returns then is dropped.
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError>;

    /// Runs `calls`, in which a worker calls the handler for one request after another and produces the bodies of its responses, as long as some wait. For what is worth taking once for many requests, an interpreter's lock say:
    ///
    /// ```
    /// # use std::sync::Mutex;
    /// # use http::{Request, Response};
    /// # use tower_wsgi::{BoxError, Input, Output, SyncHandler};
    /// struct Scripts { interpreter: Mutex<()> }
    ///
    /// impl SyncHandler for Scripts {
    ///     fn call(&self, _: Request<Input>) -> Result<Response<Output>, BoxError> {
    ///         Ok(Response::new("run by the one thread that is inside".into()))
    ///     }
    ///
    ///     fn serve(&self, calls: &mut dyn FnMut()) {
    ///         let _inside = self.interpreter.lock();
    ///         calls();
    ///     }
    /// }
    /// # let mut calls = 0;
    /// # Scripts { interpreter: Mutex::new(()) }.serve(&mut || calls += 1);
    /// # assert_eq!(calls, 1);
    /// ```
    ///
    /// It has to call `calls` once; where it does not, they are run without it. A worker holds no request while it waits to come in; where that takes milliseconds while others inside get their work done, it turns back.
    /// Only a handler that is a [`WsgiService`](crate::WsgiService)'s own is asked: not one inside a sync middleware or a closure, whose code would be run inside too, nor on a synchronous host.
    ///
    /// # Panics
    /// A panic is logged. The requests that wait are run all the same, without it.
    ///
    /// # Blocking
    /// The worker waits in it to come in, for whatever the handler has it wait for, and nothing here ends that wait. `calls` returns when no request of this handler is next.
    fn serve(&self, calls: &mut dyn FnMut()) {
        calls();
    }
}

/// The place of the application in a layer that has none of its own: see [`WsgiLayer::adapter`](crate::WsgiLayer::adapter) and
/// [`AsgiLayer::adapter`](crate::AsgiLayer::adapter).
///
/// ```
/// use axum::{Router, routing::get};
/// use http::Request;
/// use tower_layer::Layer;
/// use tower_wsgi::{Adapter, AsgiLayer, Input, SyncHandler};
///
/// /// One crossing for several services: its type has to be written out.
/// struct Host { crossing: AsgiLayer<Adapter> }
///
/// let host = Host { crossing: AsgiLayer::adapter() };
/// let site = host.crossing.layer(Router::<()>::new().route("/", get(|| async { "the site" })));
/// let api = host.crossing.layer(Router::<()>::new().route("/", get(|| async { "the API" })));
///
/// let response = api.call(Request::get("/").body(Input::empty())?)?;
/// assert_eq!(std::io::read_to_string(response.into_body().into_reader())?, "the API");
/// # Ok::<(), tower_wsgi::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Adapter;

/// What a function may return to be a [`SyncHandler`]: a response of anything that [`Output`] is made from, or a `Result` of one.
///
/// ```
/// use http::{Request, Response};
/// use tower_wsgi::{BoxError, Input, IntoResult, Output};
///
/// /// Takes whatever functions a layer takes.
/// fn probe<R: IntoResult>(app: impl Fn(Request<Input>) -> R) -> Result<Response<Output>, BoxError> {
///     app(Request::new(Input::empty())).into_result()
/// }
///
/// assert!(probe(|_| Response::new("Hello World!")).is_ok());
/// assert!(probe(|_| Err::<Response<String>, _>("out of order")).is_err());
/// ```
#[diagnostic::on_unimplemented(
    message = "a synchronous handler cannot return `{Self}`",
    note = "it returns a `Response<T>`, or a `Result<Response<T>, E>`, where `T` is `&'static str`, `String`, `Vec<u8>`, `Bytes` or an `Output`",
    note = "it is no `async fn`; other responses of axum's become one by `into_response().map(Output::body)`"
)]
pub trait IntoResult {
    /// Turns it into what [`SyncHandler::call`] returns.
    ///
    /// # Errors
    /// The function's error.
    fn into_result(self) -> Result<Response<Output>, BoxError>;
}

impl<T: Into<Output>> IntoResult for Response<T> {
    fn into_result(self) -> Result<Response<Output>, BoxError> {
        Ok(self.map(Into::into))
    }
}

impl<T: Into<Output>, E: Into<BoxError>> IntoResult for Result<Response<T>, E> {
    fn into_result(self) -> Result<Response<Output>, BoxError> {
        match self {
            Ok(response) => Ok(response.map(Into::into)),
            Err(error) => Err(error.into()),
        }
    }
}

impl<F, R> SyncHandler for F
where
    F: Fn(Request<Input>) -> R + Send + Sync + 'static,
    R: IntoResult,
{
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        self(request).into_result()
    }
}

impl<H: SyncHandler + ?Sized> SyncHandler for Arc<H> {
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        (**self).call(request)
    }

    fn serve(&self, calls: &mut dyn FnMut()) {
        (**self).serve(calls);
    }
}
