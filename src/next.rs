//! The service that a synchronous application stands in front of, callable from it.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response, Uri};
use tower_service::Service;

use crate::body::Body;
use crate::environ::Environ;
use crate::error::{BoxError, Error};
use crate::handler::SyncHandler;
use crate::input::Input;
use crate::nesting::mark_waited_for;
use crate::output::{Output, OutputKind, ResponseFuture};
use crate::parker::Watch;
use crate::scope::Scope;
use crate::view::join;
use crate::wait::{Wait, may_block};

/// A request extension: the service inside the layer that [`WsgiLayer::new(app)`](crate::WsgiLayer::new) made, callable from `app`. An application
/// that calls it is a synchronous middleware.
///
/// There are two ways. [`run`](Self::run) waits for the response and can work on it. [`forward`](Self::forward) hands the
/// request over and gives the worker back at once. Both give the inner service the request as it would have come without the layer: the
/// part of the path that the layer's mount took is put back in front. What the application took off after it, by
/// [`Environ::shift`], stays off, and so does the mount then: the inner service sees both in [`Scope::root_path`].
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower_wsgi::{BoxError, Input, Next, Output};
///
/// /// Asks a blocking session store who is there, then lets the async router answer.
/// fn sessions(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
///     let Some(next) = request.extensions_mut().remove::<Next>() else {
///         return Err("not behind WsgiLayer::new".into());
///     };
///     if !request.headers().contains_key("cookie") {
///         let mut refusal = Response::new(Output::empty());
///         *refusal.status_mut() = StatusCode::UNAUTHORIZED;
///         return Ok(refusal);
///     }
///     let mut response = next.forward(request);
///     response.headers_mut().insert("cache-control", "private".parse()?);
///     Ok(response)
/// }
///
/// # use axum::{Router, routing::get};
/// # use tower::ServiceExt;
/// # #[tokio::main]
/// # async fn main() -> Result<(), BoxError> {
/// let router: Router = Router::new().route("/", get(|| async { "Hello World!" }));
/// let app = router.layer(tower_wsgi::WsgiLayer::new(sessions));
/// # let stranger = Request::get("/").body(axum::body::Body::empty())?;
/// # assert_eq!(app.clone().oneshot(stranger).await?.status(), 401);
/// # let known = Request::get("/").header("cookie", "id=1").body(axum::body::Body::empty())?;
/// # assert_eq!(app.oneshot(known).await?.headers()["cache-control"], "private");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Next {
    service: Arc<dyn Any + Send + Sync>,
    call: CallInner,
    watch: Arc<dyn Watch>,
    mount: Option<Arc<Mount>>,
}

/// Calls the service of a type that only this function still knows.
pub(crate) type CallInner = fn(&(dyn Any + Send + Sync), Request<Body>) -> ResponseFuture;

/// What a mount did to a request's URI.
pub(crate) struct Mount {
    pub(crate) prefix: Arc<str>,
    pub(crate) before: Uri,
    pub(crate) after: Uri,
    /// How long the mount was after it.
    pub(crate) depth: usize,
}

impl Next {
    pub(crate) fn new(
        service: Arc<dyn Any + Send + Sync>,
        call: CallInner,
        watch: Arc<dyn Watch>,
        mount: Option<Mount>,
    ) -> Self {
        Self { service, call, watch, mount: mount.map(Arc::new) }
    }

    /// Calls the inner service and waits for the head of its response; the body is passed through, not waited for.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use http::{Request, Response};
    /// use tower::ServiceExt;
    /// use tower_wsgi::{BoxError, Input, Next, Output, WsgiLayer};
    ///
    /// /// Replaces pages that the async router does not have.
    /// fn fallback(mut request: Request<Input>) -> Result<Response<Output>, BoxError> {
    ///     let next = request.extensions_mut().remove::<Next>().ok_or("not behind WsgiLayer::new")?;
    ///     let response = next.run(request)?;
    ///     if response.status() == 404 {
    ///         return Ok(Response::new("from the archive".into())); // a blocking query, say
    ///     }
    ///     Ok(response)
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), BoxError> {
    /// let router: Router = Router::new().route("/", get(|| async { "the front page" }));
    /// let app = router.layer(WsgiLayer::new(fallback));
    /// let response = app.oneshot(Request::get("/1999").body(axum::body::Body::empty())?).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The service's error; an [`Error`] that [`is_disconnected`](Error::is_disconnected) when the response is wanted no more, one that
    /// [`is_inside_async`](Error::is_inside_async) when it is called inside an async task.
    ///
    /// # Panics
    /// With the service's panic, which is the handler's then: the crossing makes a 500 of it.
    ///
    /// # Blocking
    /// The calling worker polls the service itself, inside the request's runtime and span, and is woken by what wakes the service. While it
    /// waits its place in the pool is lent to another request.
    ///
    /// # Cancellation
    /// When the response is wanted no more, the call ends and the inner service's future is dropped.
    pub fn run(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        may_block()?;
        let mut request = self.restore(request);
        mark_waited_for(&mut request);
        let mut future = (self.call)(&*self.service, request);
        let wait = Wait { watch: Some(&self.watch), lends: true, asked: true, ..Wait::default() };
        let response = wait.until(move |cx| future.as_mut().poll(cx)).map_err(Error::from)??;
        let watch = Some(self.watch.clone());
        Ok(response.map(|body| Output { watch, ..Output::from(body) }))
    }

    /// Hands the request to the inner service: a tail call. Return what this returns as the handler's response; the worker
    /// is free then, while the inner service runs on the async side.
    ///
    /// Headers and extensions that are set on the returned value are set on the inner service's response. Its status is
    /// the inner service's, and so are its body, its `Content-Length` and its trailers. An error of the inner service is handled as the handler's own.
    ///
    /// # Cancellation
    /// When the response is wanted no more, the inner service's future is dropped, on the async side; one that has not begun is never called.
    #[must_use = "the request is handed over by returning this"]
    pub fn forward(&self, request: Request<Input>) -> Response<Output> {
        let request = self.restore(request);
        let Self { service, call, .. } = self.clone();
        Response::new(OutputKind::Forward(Box::new(move || call(&*service, request))).into())
    }

    /// The request as the inner service would have got it without the layer, with what was changed since.
    fn restore(&self, mut request: Request<Input>) -> Request<Body> {
        request.extensions_mut().remove::<Self>();
        let environ = request.extensions_mut().get_mut::<Environ>();
        if let Some(mount) = &self.mount {
            if environ.is_none_or(|environ| environ.unmount(&mount.prefix, mount.depth)) {
                *request.uri_mut() = if *request.uri() == mount.after {
                    mount.before.clone()
                } else {
                    join(&mount.prefix, request.uri())
                };
            }
        }
        Scope::cross(&mut request);
        request.map(Input::into_body)
    }
}

impl SyncHandler for Next {
    /// The same as [`run`](Self::run).
    fn call(&self, request: Request<Input>) -> Result<Response<Output>, BoxError> {
        self.run(request)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

/// Puts a service where [`call_inner`] finds it.
pub(crate) fn erase<S: Send + 'static>(service: S) -> Arc<dyn Any + Send + Sync> {
    Arc::new(Mutex::new(service))
}

/// Calls the service of type `S` that [`erase`] put away.
pub(crate) fn call_inner<S, B, RB>(
    service: &(dyn Any + Send + Sync),
    request: Request<Body>,
) -> ResponseFuture
where
    S: Service<Request<B>, Response = Response<RB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: From<Body> + Send + 'static,
    RB: http_body::Body + Send + 'static,
    RB::Error: Into<BoxError>,
{
    let service =
        service.downcast_ref::<Mutex<S>>().expect("erase and call_inner are used with the same type");
    let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Box::pin(async move {
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
        let response = service.call(request.map(B::from)).await;
        Ok(response.map_err(Into::into)?.map(Body::new))
    })
}
