//! One request on its way through the crossing: the object that the response future, the worker and the body share, in one
//! allocation.

use std::any::Any;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{self, Poll, Waker};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body as _, Frame};
use tokio::runtime::Handle;
use tracing::Span;

use super::begun::EarlyState;
use super::deliver::{deliver, fail};
use super::events::{At, Events};
use super::future::{ResponseFuture, is_ready};
use super::produce::{Producer, produce};
use super::service::Shared;
use super::settings::Around;
use crate::body::{Body, Source};
use crate::environ::Environ;
use crate::error::{BoxError, Error, Kind, drop_quietly};
use crate::exchange::{Begin, Exchange, Leftover, Room};
use crate::handler::SyncHandler;
use crate::input::Input;
use crate::nesting::{note_reliance, on_behalf_of};
use crate::next::{CallInner, Mount, Next};
use crate::output::Forward;
use crate::parker::Watch;
use crate::pool::{Group, Job, lend};
use crate::relay::relay;
use crate::response::declared_length;
use crate::sync::{AtomicBool, Ordering};
use crate::view::{split, with_path};

/// One request and its response.
pub(crate) struct Call<H> {
    pub(super) exchange: Exchange<Work, Answer, Frame<Bytes>, Error>,
    pub(super) shared: Arc<Shared<H>>,
    /// The method on the wire, which decides about the response's body whatever a middleware makes of it.
    pub(super) method: Method,
    next: Option<InnerService>,
    context: OnceLock<Context>,
    /// Whether a handler on the same pool waits for the response.
    waited_for: AtomicBool,
    pub(super) early: EarlyState,
    pub(super) events: Events,
}

/// What of the caller's surroundings goes with the work.
struct Context {
    span: Span,
    runtime: Option<Handle>,
    around: Option<Mutex<Around>>,
}

/// The inner service, and how to call it.
type InnerService = (Arc<dyn Any + Send + Sync>, CallInner);

/// What a worker is to do.
#[expect(clippy::large_enum_variant, reason = "it is stored once, in the call's own allocation")]
pub(crate) enum Work {
    Start(Request<Input>),
    Resume(Box<Producer>),
    /// The inner service failed that the request was forwarded to.
    Fail(Error),
}

/// What the response future gets.
pub(crate) enum Answer {
    /// The whole response, or one whose body needs no worker.
    Response(Response<Body>),
    /// The head of a response whose body comes through the exchange, of a declared length or not.
    Stream(Response<()>, Option<u64>),
    /// The head to be merged into the inner service's response.
    Forward(Response<()>, Forward),
}

impl<H: SyncHandler> Call<H> {
    /// Takes a request in; nothing runs before the future is polled.
    pub(super) fn start(
        shared: &Arc<Shared<H>>,
        request: Request<Body>,
        next: Option<InnerService>,
    ) -> ResponseFuture<H> {
        let method = request.method().clone();
        let length =
            declared_length(request.headers()).ok().flatten().or_else(|| request.body().size_hint().exact());
        let request = request.map(|body| Input::declared(body, length));
        let settings = &shared.settings;
        // A server of HTTP/1 has all of a head in one buffer, whichever header it is.
        let buffer = request.headers().values().next().cloned();
        // One that need not be read ahead goes where a worker takes it from: it is large to be moved about.
        let (held, ahead) = if is_ready(&request, settings.prefetch) {
            (Some(Work::Start(request)), None)
        } else {
            (None, Some(Box::new(request)))
        };
        let call = Arc::new(Self {
            exchange: Exchange::new(settings.send_queue_size, held),
            shared: shared.clone(),
            method,
            next,
            context: OnceLock::new(),
            waited_for: AtomicBool::new(false),
            early: EarlyState::default(),
            events: Events::default(),
        });
        ResponseFuture::new(call, ahead, buffer)
    }

    /// Takes note of the caller's surroundings, when the future is first polled: layers set them up around the poll as well
    /// as around the call, but not all of them around the call.
    pub(super) fn capture(&self) {
        self.context.get_or_init(|| Context {
            span: Span::current(),
            runtime: Handle::try_current().ok(),
            around: self.shared.settings.capture.as_ref().map(|capture| Mutex::new(capture())),
        });
    }

    /// Runs `work` as its caller would: in the span, on the runtime, inside the context hook.
    fn enter(&self, work: impl FnOnce()) {
        let Some(context) = self.context.get() else {
            return work();
        };
        let _runtime = context.runtime.as_ref().map(Handle::enter);
        let _span = context.span.enter();
        let Some(around) = &context.around else {
            return work();
        };
        let mut work = Some(work);
        let mut around = around.lock().unwrap_or_else(PoisonError::into_inner);
        around(&mut || {
            if let Some(work) = work.take() {
                work();
            }
        });
        drop(around);
        if work.is_some() {
            let message = "the context hook did not run what it was given";
            self.exchange.finish(Err(Error::new(Kind::Response, message)));
        }
    }

    /// Runs the handler.
    fn run_handler(self: &Arc<Self>, mut request: Request<Input>) {
        self.prepare(&mut request);
        let handler = &self.shared.handler;
        let started = self.events.started(self.span());
        let told = |status| Events::returned(self.span(), started, status);
        let failed = |error: &Error| {
            told(error.status());
            fail(self, error);
        };
        match catch_unwind(AssertUnwindSafe(|| on_behalf_of(request, |request| handler.call(request)))) {
            Ok(Ok(response)) => {
                told(response.status());
                deliver(self, response);
            }
            Ok(Err(error)) => failed(&Error::handler(error)),
            Err(payload) => failed(&Error::panic(&*payload)),
        }
    }

    /// The caller's span.
    pub(super) fn span(&self) -> Option<&Span> {
        self.context.get().map(|context| &context.span)
    }

    /// Gives the request what belongs to the sync side.
    fn prepare(self: &Arc<Self>, request: &mut Request<Input>) {
        let mut environ = Environ::crossing(request, self.clone());
        let prefix = &self.shared.prefix;
        let mut mount = None;
        if !prefix.is_empty() {
            environ.mount(prefix);
            let rest = split(request.uri().path(), prefix).unwrap_or_default();
            let after = with_path(request.uri(), rest);
            let before = mem::replace(request.uri_mut(), after.clone());
            mount = Some(Mount { prefix: prefix.clone(), before, after, depth: environ.depth() });
        }
        let extensions = request.extensions_mut();
        if let Some((service, call)) = &self.next {
            extensions.insert(Next::new(service.clone(), *call, self.clone(), mount));
        } else {
            // One from a crossing outside would lead back to this very service.
            extensions.remove::<Next>();
        }
        extensions.insert(environ);
        let input = request.body_mut();
        input.set_read_timeout(self.shared.settings.read_timeout);
        input.set_watch(self.clone());
    }

    /// Takes note of whether a handler on the same pool waits for the response.
    pub(super) fn set_waited_for(&self, waited_for: bool) {
        self.waited_for.store(waited_for, Ordering::Relaxed);
    }

    /// Waits until there is room for a frame; false if nobody listens any more. Where the one who listens is a handler on the same pool, it may be waiting for
    /// this worker's place.
    pub(super) fn wait_room(&self) -> bool {
        if self.waited_for.load(Ordering::Relaxed) && self.exchange.room() == Room::Full {
            return lend(|| self.exchange.wait_room());
        }
        self.exchange.wait_room()
    }

    /// Whoever waited for this call does so no more.
    pub(super) fn abandon(self: &Arc<Self>, leftover: Leftover) {
        let pool = &self.shared.settings.pool;
        match leftover {
            Leftover::None => {}
            Leftover::InQueue => pool.withdraw(&(self.clone() as Arc<dyn Job>)),
            Leftover::Parked => pool.discard(self.clone()),
        }
    }
}

impl<H: SyncHandler> Job for Call<H> {
    fn run(self: Arc<Self>) {
        let done = catch_unwind(AssertUnwindSafe(|| match self.exchange.begin() {
            Begin::Run(Work::Start(request)) => self.enter(|| self.run_handler(request)),
            Begin::Run(Work::Resume(producer)) => self.enter(|| produce(&self, producer)),
            Begin::Run(Work::Fail(error)) => self.enter(|| fail(&self, &error)),
            Begin::Drop(work) => self.enter(|| drop(work)),
            Begin::Nothing => {}
        }));
        if let Err(payload) = done {
            let error = Error::panic(&*payload);
            tracing::error!(%error, "a panic outside the handler");
            self.exchange.finish(Err(error));
        }
    }

    fn refuse(self: Arc<Self>, error: io::Error) {
        // There is no thread to drop the work on: here is the only place left. Others wait behind this one, whatever comes of that.
        drop_quietly(self.exchange.begin());
        let message = "no thread could be started for a worker";
        self.exchange.finish(Err(Error::with_source(Kind::Overloaded, message, error)));
    }

    fn group(&self) -> Arc<dyn Group> {
        self.shared.clone()
    }

    fn group_id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }
}

impl<H: SyncHandler> Group for Shared<H> {
    fn enter(&self, inside: &mut dyn FnMut()) {
        self.handler.serve(inside);
    }
}

impl<H: SyncHandler> Source for Call<H> {
    fn poll_frame(
        &self,
        cx: &mut task::Context<'_>,
        resume: &mut bool,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.exchange.poll_frame(cx, resume);
        if polled.is_pending() {
            note_reliance(&self.shared.settings.pool);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn resume(self: Arc<Self>) {
        let call = self.clone();
        self.shared.settings.pool.resume(call);
    }

    fn is_drained(&self) -> bool {
        self.exchange.is_drained()
    }

    fn close(self: Arc<Self>) {
        if !self.exchange.is_drained() {
            self.events.left(self.span(), At::Body);
        }
        self.abandon(self.exchange.close());
    }
}

impl<H: SyncHandler> Watch for Call<H> {
    fn is_closed(&self) -> bool {
        self.exchange.is_closed()
    }

    fn watch(&self, waker: &Waker) -> bool {
        self.exchange.watch_close(waker)
    }

    fn relay(&self, body: Body) -> Body {
        relay(body, &self.exchange)
    }
}
