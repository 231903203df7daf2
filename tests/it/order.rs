//! C4: order works as in the docs. What each layer of a mixed stack sees of a request and of its response, on whichever side of the boundary it
//! stands.

mod context;
mod links;
mod mounts;
mod moved;
mod request;
mod response;
mod stack;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use tower::{Layer, Service};
use tower_wsgi::{
    BackgroundTasks, BoxError, Environ, Error, Input, Next, Output, Scope, SyncFnLayer, SyncHandler, sync_fn,
};

use crate::support::is_worker;

/// What [`sync_fn`] makes a layer of.
trait SyncMiddleware:
    Fn(Request<Input>, &dyn SyncHandler) -> Result<Response<Output>, BoxError> + Send + Sync + 'static
{
}

impl<F> SyncMiddleware for F where
    F: Fn(Request<Input>, &dyn SyncHandler) -> Result<Response<Output>, BoxError> + Send + Sync + 'static
{
}

/// Where a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Async, with no crossing outside.
    Outside,
    /// Sync, on a thread that is no worker, with no crossing outside.
    Plain,
    /// Async, polled by such a thread.
    InPlain,
    /// Sync, with an async side around it.
    Sync,
    /// Async, inside a sync side on a worker.
    Inside,
    /// Sync, inside an async side that is inside a sync one.
    SyncAgain,
}

/// The layers that a request, or a response, has passed: an extension of either.
#[derive(Clone, Debug, Default, PartialEq)]
struct Passed(Vec<&'static str>);

/// What a layer sees of a request.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    layer: &'static str,
    target: String,
    /// The names of the headers that are the test's.
    headers: Vec<String>,
    passed: Vec<&'static str>,
    /// `REMOTE_USER`, as the side that the layer is on has it.
    user: Option<String>,
    /// Which of this crate's extensions there are.
    views: Vec<&'static str>,
    on_worker: bool,
}

/// What a layer sees of a response.
#[derive(Clone, Debug, PartialEq)]
struct Answered {
    layer: &'static str,
    status: u16,
    headers: Vec<String>,
    passed: Vec<&'static str>,
    error: Option<String>,
}

/// What the layers of a stack saw.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<(Vec<Seen>, Vec<Answered>)>>);

impl Log {
    /// A layer of this name, for either side.
    fn mark(&self, name: &'static str) -> Mark {
        Mark { name, log: self.clone() }
    }

    /// What was seen since the last time.
    fn take(&self) -> (Vec<Seen>, Vec<Answered>) {
        std::mem::take(&mut *self.0.lock().expect("a lock"))
    }

    /// What each layer saw of the responses since the last time.
    fn answers(&self) -> Vec<Answered> {
        self.take().1
    }
}

/// A layer that notes what it sees, and changes something of everything: it adds a header and an extension, takes a header off, adds to
/// `REMOTE_USER` where it can, and to the status.
#[derive(Clone)]
struct Mark {
    name: &'static str,
    log: Log,
}

impl Mark {
    /// The same as a sync middleware.
    fn sync(&self) -> SyncFnLayer<impl SyncMiddleware + use<>> {
        let mark = self.clone();
        sync_fn(move |mut request: Request<Input>, next: &dyn SyncHandler| {
            mark.enter(&mut request);
            let mut environ = Environ::of(&request);
            let user = [environ.get("REMOTE_USER").unwrap_or_default(), mark.name.as_bytes()].concat();
            environ.set("REMOTE_USER", user);
            request.extensions_mut().insert(environ);
            let mut response = next.call(request)?;
            mark.leave(&mut response);
            Ok::<_, BoxError>(response)
        })
    }

    fn enter<B>(&self, request: &mut Request<B>) {
        let seen = Seen {
            layer: self.name,
            target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: marks(request.headers()),
            passed: passed(request.extensions()),
            user: user(request),
            views: views(request.extensions()),
            on_worker: on_worker(),
        };
        self.log.0.lock().expect("a lock").0.push(seen);
        self.change(request.headers_mut());
        self.pass(request.extensions_mut());
    }

    fn leave<B>(&self, response: &mut Response<B>) {
        let answered = Answered {
            layer: self.name,
            status: response.status().as_u16(),
            headers: marks(response.headers()),
            passed: passed(response.extensions()),
            error: response.extensions().get::<Error>().map(ToString::to_string),
        };
        let next = StatusCode::from_u16(answered.status + 1).expect("a status");
        self.log.0.lock().expect("a lock").1.push(answered);
        *response.status_mut() = next;
        self.change(response.headers_mut());
        self.pass(response.extensions_mut());
    }

    fn change(&self, headers: &mut HeaderMap) {
        let name = HeaderName::try_from(format!("x-{}", self.name)).expect("a name");
        headers.insert(name, HeaderValue::from_static(self.name));
        headers.remove(format!("x-drop-{}", self.name));
    }

    fn pass(&self, extensions: &mut Extensions) {
        let passed: &mut Passed = extensions.get_or_insert_default();
        passed.0.push(self.name);
    }
}

impl<S> Layer<S> for Mark {
    type Service = Marked<S>;

    fn layer(&self, inner: S) -> Marked<S> {
        Marked { mark: self.clone(), inner }
    }
}

/// A [`Mark`] on the async side.
#[derive(Clone)]
struct Marked<S> {
    mark: Mark,
    inner: S,
}

impl<S, B, RB> Service<Request<B>> for Marked<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Future: Send + 'static,
{
    type Response = Response<RB>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<RB>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mark = self.mark.clone();
        mark.enter(&mut request);
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            mark.leave(&mut response);
            Ok(response)
        })
    }
}

fn marks(headers: &HeaderMap) -> Vec<String> {
    let names = headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("x-"));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    names
}

fn passed(extensions: &Extensions) -> Vec<&'static str> {
    extensions.get::<Passed>().cloned().unwrap_or_default().0
}

fn user<B>(request: &Request<B>) -> Option<String> {
    let scope;
    let environ = match request.extensions().get::<Environ>() {
        Some(environ) => environ,
        None => {
            scope = Scope::of(request);
            scope.environ()?
        }
    };
    environ.get("REMOTE_USER").map(|user| String::from_utf8_lossy(user).into_owned())
}

fn views(extensions: &Extensions) -> Vec<&'static str> {
    let present = [
        ("Environ", extensions.get::<Environ>().is_some()),
        ("Scope", extensions.get::<Scope>().is_some()),
        ("Next", extensions.get::<Next>().is_some()),
        ("BackgroundTasks", extensions.get::<BackgroundTasks>().is_some()),
    ];
    present.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
}

fn on_worker() -> bool {
    std::thread::current().name().is_some_and(is_worker)
}

/// A body of these frames, of unknown length.
struct Frames(VecDeque<Frame<Bytes>>);

impl Frames {
    fn new<const N: usize>(frames: [Frame<Bytes>; N]) -> Self {
        Self(frames.into())
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// What the requests ask for that a stack gets.
const TARGET: &str = "/a%20b/c?d=%20";

/// A request as the client of a stack sends it: with a header for each layer to take off.
fn request<B>(mut request: Request<B>, layers: &[(&'static str, Side)]) -> Request<B> {
    drops(request.headers_mut(), layers.iter().map(|(name, _)| *name));
    request
}

/// A response as the innermost application makes it.
fn response<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(210).expect("a status");
    drops(response.headers_mut(), ["a", "b", "c", "d", "e", "f"]);
    response
}

fn drops<'a>(headers: &mut HeaderMap, names: impl IntoIterator<Item = &'a str>) {
    for name in names {
        let name = HeaderName::try_from(format!("x-drop-{name}")).expect("a name");
        headers.insert(name, HeaderValue::from_static("1"));
    }
}

/// Checks what each of `layers` saw: of the request, all that those outside it did and nothing that those inside did; of the response, the
/// other way round.
fn check(log: &Log, layers: &[(&'static str, Side)], case: &str) {
    let names: Vec<_> = layers.iter().map(|(name, _)| *name).collect();
    let (seen, mut answered) = log.take();
    let expected = layers.iter().enumerate().map(|(at, (name, side))| {
        let sync = layers[..at].iter().filter(|(_, side)| is_sync(*side)).map(|(name, _)| *name);
        let user: String = sync.collect();
        let views: &[&str] = match side {
            Side::Outside => &[],
            // A host that has no environ gives none; the first middleware made one.
            Side::Plain if at == 0 => &[],
            Side::Plain | Side::Sync => &["Environ"],
            Side::InPlain | Side::Inside => &["Scope", "BackgroundTasks"],
            Side::SyncAgain => &["Environ", "BackgroundTasks"],
        };
        Seen {
            layer: name,
            target: TARGET.to_owned(),
            headers: mixed(&names[..at], &names[at..]),
            passed: names[..at].to_vec(),
            user: (!user.is_empty()).then_some(user),
            views: views.to_vec(),
            on_worker: matches!(side, Side::Sync | Side::Inside | Side::SyncAgain),
        }
    });
    assert_eq!(seen, expected.collect::<Vec<_>>(), "the request, {case}");

    let all = ["a", "b", "c", "d", "e", "f"];
    answered.reverse();
    let expected = layers.iter().enumerate().map(|(at, (name, _))| Answered {
        layer: name,
        status: 210 + (names.len() - 1 - at) as u16,
        headers: mixed(&names[at + 1..], &without(&all, &names[at + 1..])),
        passed: names[at + 1..].iter().rev().copied().collect(),
        error: None,
    });
    assert_eq!(answered, expected.collect::<Vec<_>>(), "the response, {case}");
}

fn is_sync(side: Side) -> bool {
    matches!(side, Side::Plain | Side::Sync | Side::SyncAgain)
}

fn without(all: &[&'static str], names: &[&str]) -> Vec<&'static str> {
    all.iter().copied().filter(|name| !names.contains(name)).collect()
}

/// The names of the headers that are there when some layers were passed and others were not.
fn mixed(passed: &[&str], others: &[&str]) -> Vec<String> {
    let passed = passed.iter().map(|name| format!("x-{name}"));
    let mut names: Vec<_> = passed.chain(others.iter().map(|name| format!("x-drop-{name}"))).collect();
    names.sort();
    names
}
