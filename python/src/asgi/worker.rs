//! The event loop's thread: takes what the hub brings, and starts the application's tasks.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet};

use super::awaits::Target;
use super::desk::Desk;
use super::exchange::Producer;
use super::http::Http;
use super::hub::{Event, Hub};
use super::scope::Scopes;
use super::socket::{SocketEnd, WebSocket};
use super::starter::Starter;
use super::wakes;
use crate::asgi::EventLoop;
use crate::error::{Error, Kind};
use crate::import::PyApp;
use crate::interpreter;
use crate::log::tell;

/// How long the loop is kept from its other work while requests come and are answered at once.
const STAY: Duration = Duration::from_millis(2);

/// How often the thread lets others run and looks again before it sleeps.
const SEARCHES: usize = 200;

type Report = mpsc::Sender<Result<(), Error>>;

/// Runs an application on a loop until the hub is closed and everything has ended.
pub(super) fn run(app: PyApp, kind: EventLoop, name: &str, hub: Arc<Hub>, report: Report) {
    interpreter::attached(|py| {
        let driven = (|| {
            let driver = driver(py)?;
            let kind = match kind {
                EventLoop::Auto => "auto",
                EventLoop::Asyncio => "asyncio",
                EventLoop::Uvloop => "uvloop",
            };
            let event_loop = driver.call_method1("make_loop", (kind,))?;
            let app = app.into_callable();
            let state = PyDict::new(py);
            let running = PySet::empty(py)?;
            let desk = Arc::new(Desk::new(py, event_loop.clone().unbind())?);
            let server = Server {
                hub: hub.clone(),
                scopes: Scopes::new(py, state.clone().unbind())?,
                starter: Starter::new(py, &driver, &event_loop)?,
                desk,
                running: running.clone().unbind(),
                app: app.clone_ref(py),
                batch: Mutex::default(),
                closing: Mutex::default(),
            };
            let host = Host {
                server: Py::new(py, server)?,
                report: Mutex::new(Some(report.clone())),
                name: name.to_owned(),
            };
            driver.call_method1("run", (event_loop, app, state, running, host)).map(drop)
        })();
        if let Err(error) = driven {
            let message = format!("the event loop of {name} failed");
            // If the application runs, nobody waits for this any more.
            let traceback = crate::error::traceback(py, &error);
            if report.send(Err(Error::raised(Kind::Startup, message, py, &error))).is_err() {
                tell!("the event loop of {name} failed\n{traceback}");
            }
        }
        // Whatever happened, nothing may be sent to a loop that is not there.
        hub.close();
        hub.take(&mut VecDeque::new());
    });
}

/// The module with what is easier said in Python.
fn driver(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    let code = std::ffi::CString::new(include_str!("driver.py"))?;
    PyModule::from_code(py, &code, c"tower_wsgi/driver.py", c"tower_wsgi_driver")
}

/// What the driver tells.
#[pyclass(frozen, module = "tower_wsgi")]
struct Host {
    server: Py<Server>,
    report: Mutex<Option<Report>>,
    name: String,
}

impl Host {
    fn tell(&self, outcome: Result<(), Error>) {
        if let Some(report) = self.report.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = report.send(outcome);
        }
    }
}

#[pymethods]
impl Host {
    /// The application has started. `closing` is to be resolved when it is to end.
    fn started(&self, py: Python<'_>, closing: Py<PyAny>) -> PyResult<()> {
        let server = self.server.get();
        *server.closing.lock().unwrap_or_else(PoisonError::into_inner) = Some(closing);
        let event_loop = server.desk.event_loop.bind(py);
        event_loop.call_method1(intern!(py, "add_reader"), (server.hub.fd(), &self.server))?;
        self.tell(Ok(()));
        Ok(())
    }

    /// The application does not want to start.
    fn refused(&self, py: Python<'_>, message: &str, error: Option<Bound<'_, PyAny>>) {
        let name = &self.name;
        self.tell(Err(match error {
            Some(error) => {
                let error = PyErr::from_value(error);
                Error::raised(Kind::Startup, format!("the lifespan startup of {name} failed"), py, &error)
            }
            None if message.is_empty() => {
                Error::new(Kind::Startup, format!("the lifespan startup of {name} failed"))
            }
            None => Error::new(Kind::Startup, format!("the lifespan startup of {name} failed: {message}")),
        }));
    }

    /// The loop is about to be closed.
    fn ended(&self, py: Python<'_>) -> PyResult<()> {
        let server = self.server.get();
        let event_loop = server.desk.event_loop.bind(py);
        event_loop.call_method1(intern!(py, "remove_reader"), (server.hub.fd(),)).map(drop)
    }

    fn report(&self, py: Python<'_>, what: &str, error: Bound<'_, PyAny>) {
        let traceback = crate::error::traceback(py, &PyErr::from_value(error));
        tell!("{}: {what}\n{traceback}", self.name);
    }
}

/// What the loop calls when the hub has something for it.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct Server {
    hub: Arc<Hub>,
    desk: Arc<Desk>,
    scopes: Scopes,
    starter: Starter,
    /// The application's tasks that have paused. A loop itself holds them weakly.
    running: Py<PySet>,
    app: Py<PyAny>,
    batch: Mutex<VecDeque<Event>>,
    closing: Mutex<Option<Py<PyAny>>>,
}

#[pymethods]
impl Server {
    fn __call__(slf: &Bound<'_, Self>) {
        let (this, py) = (slf.get(), slf.py());
        this.hub.clear();
        let mut batch = std::mem::take(&mut *this.batch.lock().unwrap_or_else(PoisonError::into_inner));
        let began = Instant::now();
        loop {
            this.hub.take(&mut batch);
            let gathering = wakes::gather();
            for event in batch.drain(..) {
                Self::handle(slf, event);
                wakes::between();
            }
            drop(gathering);
            // Tasks that have paused wait for the loop.
            let alone = this.running.bind(py).is_empty() && began.elapsed() < STAY;
            if alone && (this.hub.has_events() || this.linger(py)) {
                continue;
            }
            if !this.hub.sleep() {
                // The loop comes back at once, after its other work.
                this.hub.nudge();
            }
            break;
        }
        *this.batch.lock().unwrap_or_else(PoisonError::into_inner) = batch;
    }
}

impl Server {
    /// Looks out for the next request for a moment: a client that sends one after another is answered far sooner than by a thread that has to be woken. True if there is one.
    fn linger(&self, py: Python<'_>) -> bool {
        py.detach(|| {
            (0..SEARCHES).any(|_| {
                std::thread::yield_now();
                self.hub.has_events()
            })
        })
    }

    fn handle(slf: &Bound<'_, Self>, event: Event) {
        let py = slf.py();
        let this = slf.get();
        let handled = match event {
            Event::Http(producer) => Self::start_http(slf, producer),
            Event::WebSocket(end) => Self::start_websocket(slf, end),
            Event::Wake(key) => match this.desk.target(key) {
                Some(Target::Http(http)) => Http::settle(http.bind(py)),
                Some(Target::WebSocket(socket)) => WebSocket::settle(socket.bind(py)),
                None => Ok(()),
            },
            Event::Close => this.finish(py),
        };
        if let Err(error) = handled {
            let traceback = crate::error::traceback(py, &error);
            tell!("an event of the loop could not be handled\n{traceback}");
        }
    }

    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        // They would stay as long as their clients do.
        for socket in self.desk.take_sockets().into_values() {
            socket.get().go_away();
        }
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner).take();
        closing.map_or(Ok(()), |closing| super::desk::resolve(py, closing))
    }

    fn start_http(slf: &Bound<'_, Self>, producer: Producer) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if producer.0.is_closed() {
            return Ok(());
        }
        let scope = this.scopes.http(py, &producer.0.request)?;
        let key = producer.0.key();
        let http = Bound::new(py, Http::new(producer, this.desk.clone()))?;
        let receive = http.getattr(intern!(py, "receive"))?;
        let send = http.getattr(intern!(py, "send"))?;
        this.desk.set_starting(Some(key));
        let task = this.app.bind(py).call1((scope, receive, send));
        let task = task.and_then(|coroutine| this.starter.start(py, coroutine));
        this.desk.set_starting(None);
        this.watch(py, task, &Target::Http(http.unbind()))
    }

    fn start_websocket(slf: &Bound<'_, Self>, end: SocketEnd) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let scope = this.scopes.websocket(py, end.request(), &end.subprotocols)?;
        let socket = Bound::new(py, WebSocket::new(end, this.desk.clone()))?;
        let receive = socket.getattr(intern!(py, "receive"))?;
        let send = socket.getattr(intern!(py, "send"))?;
        let task = this.app.bind(py).call1((scope, receive, send));
        let task = task.and_then(|coroutine| this.starter.start(py, coroutine));
        this.watch(py, task, &Target::WebSocket(socket.unbind()))
    }

    /// Sees to it that somebody learns of the task's end.
    fn watch(&self, py: Python<'_>, task: PyResult<Bound<'_, PyAny>>, target: &Target) -> PyResult<()> {
        let task = match task {
            Ok(task) => task,
            Err(error) => {
                target.raised(py, &error);
                return Ok(());
            }
        };
        if task.call_method0(intern!(py, "done"))?.is_truthy()? {
            return conclude(&task, target);
        }
        if let Target::Http(http) = target {
            http.get().release_head();
        }
        self.running.bind(py).add(&task)?;
        let finished = Finished { target: target.clone_ref(py), running: self.running.clone_ref(py) };
        task.call_method1(intern!(py, "add_done_callback"), (finished,)).map(drop)
    }
}

/// A task's callback for its end.
#[pyclass(frozen, freelist = 64, module = "tower_wsgi")]
struct Finished {
    target: Target,
    running: Py<PySet>,
}

#[pymethods]
impl Finished {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        self.running.bind(task.py()).discard(task)?;
        conclude(task, &self.target)
    }
}

/// Looks at how a task ended.
fn conclude(task: &Bound<'_, PyAny>, target: &Target) -> PyResult<()> {
    let py = task.py();
    match task.call_method0(intern!(py, "exception")) {
        Ok(exception) if exception.is_none() => target.returned(py),
        Ok(exception) => target.raised(py, &PyErr::from_value(exception)),
        // It was cancelled.
        Err(error) => target.raised(py, &error),
    }
    Ok(())
}

impl Target {
    fn returned(&self, py: Python<'_>) {
        match self {
            Self::Http(http) => http.get().returned(),
            Self::WebSocket(socket) => socket.get().returned(py),
        }
    }

    fn raised(&self, py: Python<'_>, error: &PyErr) {
        match self {
            Self::Http(http) => http.get().raised(py, error),
            Self::WebSocket(socket) => socket.get().raised(py, error),
        }
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Http(http) => Self::Http(http.clone_ref(py)),
            Self::WebSocket(socket) => Self::WebSocket(socket.clone_ref(py)),
        }
    }
}
