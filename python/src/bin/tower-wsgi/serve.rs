//! One process: loads the application, serves it, ends in order.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{Builder, UpgradeableConnection};
use socket2::Socket;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tower_layer::Layer;
use tower_service::Service;
use tower_wsgi::{Body, WsgiLayer};
use tower_wsgi_python::{Interface, PyApp, PyAsgi, PyWsgi, run_exit_handlers};
use tracing::{debug, error, info, warn};

use crate::access::AccessLog;
use crate::args::{self, Args};
use crate::bind::{self, Listener, Stream};
use crate::connection::{Connection, Shared};
use crate::failure::{self, Failure};
use crate::keeper::{Keeper, Kept, Stoppable, TICK};
use crate::signals::Stop;

/// How long a reader of a request's body waits for the client's next bytes: a WSGI thread, that is.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);

/// After a failed `accept`, most likely for want of file descriptors: running requests will give some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is done once connections are accepted.
pub(crate) trait Ready: FnOnce() + Send + 'static {}

impl<F: FnOnce() + Send + 'static> Ready for F {}

/// Serves from this process.
pub(crate) fn alone(args: &Args) -> Result<(), Failure> {
    let stop = Stop::new();
    stop.on_signals().map_err(|error| Failure::other("signals cannot be waited for", error))?;
    let socket = args.bind.bind().map_err(|error| Failure::bind(args, error))?;
    let file = args.bind.file();
    let url = bind::url(&socket).map_err(|error| Failure::bind(args, error))?;
    let served = run(args, socket, &stop, move || crate::say(&format!("listening on {url}")));
    args.bind.unbind(file);
    served
}

/// Loads the application and serves it on a bound socket, until `stop` is asked. Calls `ready` once connections are accepted.
///
/// The interpreter is used by this thread before and after; the runtime's own thread never waits for it.
pub(crate) fn run(args: &Args, socket: Socket, stop: &Stop, ready: impl Ready) -> Result<(), Failure> {
    let served = load_and_serve(args, socket, stop, ready);
    if served.is_ok() {
        // Exit handlers may wait for threads that never end, or for an interpreter that is stuck.
        let limit = args.graceful_timeout;
        thread::spawn(move || {
            thread::sleep(limit);
            error!("the application's exit handlers took too long: they are left behind");
            process::exit(failure::OTHER.into());
        });
    }
    // After a failure as well: what the application printed is still in its buffers.
    run_exit_handlers();
    served
}

fn load_and_serve(args: &Args, socket: Socket, stop: &Stop, ready: impl Ready) -> Result<(), Failure> {
    let app = args.import().load()?;
    // One thread keeps an interpreter busy. It is the scheduler of several all the same: that of a current-thread runtime is woken by a system call for every response that comes from
    // another thread, this one only if it sleeps.
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::other("no runtime", error))?;
    let log = args.access_log.then(AccessLog::start).transpose();
    let log = log.map_err(|error| Failure::other("no access log", error))?;
    let shared = Shared { root_path: args.root_path.clone(), log: log.clone() };
    let serving = Serving { socket, shared, stop: stop.clone(), ready, limit: args.graceful_timeout };
    match interface(args, &app)? {
        Interface::Wsgi => {
            let layer = WsgiLayer::adapter().workers(args.workers.get()).read_timeout(BODY_TIMEOUT);
            let app = PyWsgi::new(app).multiprocess(args.processes.get() > 1);
            let service = layer.layer(app);
            info!(interface = "WSGI", workers = args.workers, "serving {}", args.target());
            serving.run(args, &runtime, service)?;
        }
        Interface::Asgi => {
            let doubtful = app.interface() == Interface::Wsgi;
            let service = PyAsgi::on(app, args.event_loop())?;
            if doubtful {
                // Wrapped callables do not always show what they are.
                warn!("{} looks like a WSGI application, and is served as an ASGI one", args.target());
            }
            info!(interface = "ASGI", "serving {}", args.target());
            let served = serving.run(args, &runtime, service.clone());
            let end = async { timeout(args.graceful_timeout, service.shutdown()).await };
            if runtime.block_on(end).is_err() {
                warn!("the application's shutdown took too long: it is left behind");
            }
            served?;
        }
    }
    if let Some(log) = log {
        log.flush();
    }
    Ok(())
}

/// Which interface the application is served by.
fn interface(args: &Args, app: &PyApp) -> Result<Interface, Failure> {
    let found = app.interface();
    match (args.interface, found) {
        (args::Interface::Auto, found) => Ok(found),
        // It is sure: a call of it makes a coroutine, or lacks an argument.
        (args::Interface::Wsgi, Interface::Asgi) => {
            let message =
                format!("{} is an ASGI application: it cannot be served with --interface wsgi", app.name());
            Err(Failure::new(failure::IMPORT, message))
        }
        (args::Interface::Wsgi, Interface::Wsgi) => Ok(Interface::Wsgi),
        // Where that is wrong beyond doubt, the start fails.
        (args::Interface::Asgi, _) => Ok(Interface::Asgi),
    }
}

/// What is served, but for the application.
struct Serving<R> {
    socket: Socket,
    shared: Shared,
    stop: Stop,
    ready: R,
    limit: Duration,
}

impl<R: Ready> Serving<R> {
    /// Serves on the runtime's thread, while this one waits.
    fn run<S: Host>(self, args: &Args, runtime: &Runtime, service: S) -> Result<(), Failure> {
        match runtime.block_on(runtime.spawn(serve(self, service))) {
            Ok(served) => served.map_err(|error| Failure::bind(args, error)),
            Err(panicked) => Err(Failure::other("the server failed", panicked)),
        }
    }
}

/// A service that connections can be given to.
trait Host:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Host for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Accepts connections until `stop` is asked, and lets them finish.
async fn serve<R: Ready, S: Host>(serving: Serving<R>, service: S) -> io::Result<()> {
    let Serving { socket, shared, stop, ready, limit } = serving;
    let listener = Listener::new(socket)?;
    stop.serving();
    ready();
    let shared = Arc::new(shared);
    let mut keeper = Keeper::default();
    let mut ticks = interval(TICK);
    let mut connections = JoinSet::new();
    let mut asked = pin!(stop.asked());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut asked => break,
            _ = ticks.tick() => {
                keeper.tick();
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let activity = keeper.admit();
                let connection = Connection::new(service.clone(), shared.clone(), peer, activity.clone());
                let builder = builder();
                let stream = Kept::new(stream, activity.clone());
                connections.spawn(async move {
                    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), connection);
                    match activity.keep(served.into_owned()).await {
                        Some(Ok(())) => {}
                        Some(Err(error)) => debug!(%error, "a connection failed"),
                        None => debug!("a connection without a request was closed"),
                    }
                });
            }
            Err(error) if is_the_clients(&error) => debug!(%error, "a connection failed"),
            Err(error) => {
                error!(%error, "no connection can be accepted for now");
                tokio::select! {
                    () = &mut asked => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    // Clients that come now are refused, and can go elsewhere.
    drop(listener);
    info!("stopping");
    keeper.stop();
    let finished = timeout(limit, async { while connections.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        warn!("{} connections took too long to finish: they are cut", connections.len());
        connections.shutdown().await;
    }
    Ok(())
}

/// Of connections that were gone before they were accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

impl<S: Host> Stoppable
    for UpgradeableConnection<'static, TokioIo<Kept<Stream>>, Connection<S>, TokioExecutor>
{
    fn stop(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        // WebSocket over HTTP/2, RFC 8441.
        .enable_connect_protocol();
    builder
}
