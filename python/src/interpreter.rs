//! The embedded interpreter: its start with a virtual environment, the threads' states, and its end.
//!
//! Nearly all of the crate's unsafe code is here: PyO3 has no safe way to configure an interpreter, nor to keep a thread's state while the thread is detached.

#![expect(
    unsafe_code,
    reason = "PyO3 offers the interpreter's configuration and thread states only as raw calls"
)]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::error::{Error, Kind};
use crate::log::tell;

/// The interpreter that this crate was built with.
const BASE: &str = env!("TOWER_WSGI_PYTHON");

/// The virtual environment that the interpreter was started with, once it was.
static STARTED: Mutex<Option<Option<PathBuf>>> = Mutex::new(None);

/// Starts the interpreter, with the virtual environment `venv`, or else the active one (`VIRTUAL_ENV`), or none. Leaves the calling thread detached.
///
/// # Errors
/// If there is no such environment, if it is of another Python, or if the interpreter runs already with another one.
pub(crate) fn start(venv: Option<&Path>) -> Result<(), Error> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: may be asked at any time.
    if unsafe { ffi::Py_IsInitialized() } != 0 {
        let running = started.clone();
        // Not held while this thread attaches: those who are attached ask for it.
        drop(started);
        return match (venv, running) {
            (Some(wanted), Some(running)) if running.as_deref() != Some(&*absolute(wanted)?) => {
                let running = match running {
                    Some(running) => format!("with {}", running.display()),
                    None => "without one".to_owned(),
                };
                let message =
                    format!("the interpreter runs already {running}: too late for {}", wanted.display());
                Err(Error::new(Kind::Interpreter, message))
            }
            (Some(wanted), None) => check_prefix(&absolute(wanted)?),
            _ => Ok(()),
        };
    }
    let active = std::env::var_os("VIRTUAL_ENV").filter(|active| !active.is_empty()).map(PathBuf::from);
    let venv = venv.map(Path::to_owned).or(active).map(|venv| absolute(&venv)).transpose()?;
    let executable = match &venv {
        Some(venv) => check(venv)?,
        None => PathBuf::from(BASE),
    };
    // SAFETY: the interpreter is not initialized, and the lock keeps others of this crate from it.
    unsafe { initialize(&executable) }?;
    *started = Some(venv);
    Ok(())
}

/// The virtual environment that the interpreter runs with; the outer `None` where somebody else has started it.
pub(crate) fn environment() -> Option<Option<PathBuf>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn absolute(venv: &Path) -> Result<PathBuf, Error> {
    std::fs::canonicalize(venv).map_err(|error| {
        Error::new(Kind::Interpreter, format!("no virtual environment at {}: {error}", venv.display()))
    })
}

/// Whether the interpreter, which somebody else has started, runs with the virtual environment.
fn check_prefix(wanted: &Path) -> Result<(), Error> {
    let prefix = Python::attach(|py| py.import("sys")?.getattr("prefix")?.extract::<PathBuf>());
    match prefix {
        Ok(prefix) if std::fs::canonicalize(&prefix).is_ok_and(|prefix| prefix == wanted) => Ok(()),
        _ => {
            let message =
                format!("the interpreter was started by somebody else, without {}", wanted.display());
            Err(Error::new(Kind::Interpreter, message))
        }
    }
}

/// The executable of a virtual environment that fits.
fn check(venv: &Path) -> Result<PathBuf, Error> {
    let fail = |message: String| Error::new(Kind::Interpreter, message);
    let config = venv.join("pyvenv.cfg");
    let text = std::fs::read_to_string(&config).map_err(|error| {
        fail(format!("{} is not a virtual environment: {}: {error}", venv.display(), config.display()))
    })?;
    let theirs = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        // `venv` and `virtualenv` have names of their own for it.
        matches!(key.trim(), "version" | "version_info").then(|| series(value.trim()))
    });
    let ours = series(version());
    if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
        let venv = venv.display();
        return Err(fail(format!(
            "the virtual environment {venv} is of Python {theirs}, but this program embeds Python {ours}: \
             make one with {BASE} -m venv, or build the program with PYO3_PYTHON={venv}/bin/python"
        )));
    }
    Ok(venv.join("bin").join("python3"))
}

/// `3.11` of `3.11.7`.
fn series(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The version of the embedded Python: `3.11.7`.
pub(crate) fn version() -> &'static str {
    // SAFETY: a static string that may be asked for at any time.
    let version = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
    version.to_str().ok().and_then(|version| version.split(' ').next()).unwrap_or_default()
}

/// # Safety
/// The interpreter must not be initialized, and nobody else may be about to.
unsafe fn initialize(executable: &Path) -> Result<(), Error> {
    let program = CString::new(executable.as_os_str().as_bytes())
        .map_err(|_| Error::new(Kind::Interpreter, "a NUL byte in the path of a virtual environment"))?;
    let mut config = MaybeUninit::<ffi::PyConfig>::uninit();
    // SAFETY: the configuration is initialized first, used by this thread alone, and cleared once.
    let status = unsafe {
        ffi::PyConfig_InitPythonConfig(config.as_mut_ptr());
        let config = &mut *config.as_mut_ptr();
        // Signals are the host's.
        config.install_signal_handlers = 0;
        config.parse_argv = 0;
        // From here CPython finds its library, and `pyvenv.cfg` beside it.
        let mut status = ffi::PyConfig_SetBytesString(config, &mut config.program_name, program.as_ptr());
        if ffi::PyStatus_Exception(status) == 0 {
            status = ffi::Py_InitializeFromConfig(config);
        }
        ffi::PyConfig_Clear(config);
        status
    };
    // SAFETY: a plain question about a plain value.
    if unsafe { ffi::PyStatus_Exception(status) } != 0 {
        let reason = if status.err_msg.is_null() {
            "no reason given".into()
        } else {
            // SAFETY: not null, and static in CPython.
            unsafe { CStr::from_ptr(status.err_msg) }.to_string_lossy()
        };
        let executable = executable.display();
        return Err(Error::new(
            Kind::Interpreter,
            format!("Python {} at {executable} could not be started: {reason}", version()),
        ));
    }
    // SAFETY: the thread that initialized it is attached; from here on whoever needs it attaches.
    unsafe { ffi::PyEval_SaveThread() };
    Python::attach(prepare)
        .map_err(|error| Error::new(Kind::Interpreter, format!("no standard library at {BASE}: {error}")))
}

/// Imports early what would do something unwanted if an application imported it first.
fn prepare(py: Python<'_>) -> PyResult<()> {
    // It notes the thread that imports it first as the main one.
    py.import("threading")?;
    // It takes SIGINT over wherever nobody has: a host without a handler could not be interrupted any more.
    let signal = py.import("signal")?;
    let interrupt = signal.getattr("SIGINT")?;
    let taken = signal.getattr("default_int_handler")?;
    if signal.call_method1("getsignal", (&interrupt,))?.is(&taken) {
        signal.call_method1("signal", (interrupt, signal.getattr("SIG_DFL")?))?;
    }
    Ok(())
}

/// Runs what a Python program leaves for its end: waits for its threads that are no daemons, calls what it registered with `atexit`, writes out what its streams hold.
///
/// For programs about to exit. Nothing is called in the interpreter after this. The interpreter's memory is left to the operating system: threads may still be in it, and CPython ends those that come
/// back to an interpreter that is gone in a way that no Rust thread survives.
///
/// # Blocking
/// Waits for Python's own non-daemon threads.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// use pyo3::{prelude::*, types::PyCFunction};
/// use tower_wsgi_python::{PyWsgi, run_exit_handlers};
///
/// let app = PyWsgi::import("wsgiref.simple_server:demo_app")?;
/// let saved = Arc::new(AtomicBool::new(false));
/// let save = saved.clone();
/// Python::attach(|py| {
///     let save = PyCFunction::new_closure(py, None, None, move |_, _| save.store(true, Ordering::Relaxed))?;
///     py.import("atexit")?.call_method1("register", (save,)) // as an application does
///         .map(drop)
/// })?;
/// // … serve it …
/// drop(app);
/// run_exit_handlers();
/// assert!(saved.load(Ordering::Relaxed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run_exit_handlers() {
    let ran = Python::try_attach(|py| -> PyResult<()> {
        py.import("threading")?.call_method0("_shutdown")?;
        py.import("atexit")?.call_method0("_run_exitfuncs")?;
        let sys = py.import("sys")?;
        for stream in ["stdout", "stderr"] {
            let stream = sys.getattr(stream)?;
            if !stream.is_none() {
                stream.call_method0("flush")?;
            }
        }
        Ok(())
    });
    if let Some(Err(error)) = ran {
        tell!("Python's exit handlers failed: {error}");
    }
}

/// Attaches the calling thread to the interpreter for the time of `work`, with a thread state that the thread keeps.
///
/// Without that state each attachment would make and free one, with the memory for its frames: several microseconds. It goes with the thread.
pub(crate) fn attached<R>(work: impl for<'py> FnOnce(Python<'py>) -> R) -> R {
    KEPT.with(|_| ());
    Python::attach(work)
}

thread_local! {
    static KEPT: Kept = Kept::new();
}

/// A thread's state in the interpreter, made by this crate while the thread is detached.
struct Kept(Option<(ffi::PyGILState_STATE, *mut ffi::PyThreadState)>);

impl Kept {
    fn new() -> Self {
        // SAFETY: the interpreter is initialized, since there is something to call in it. A thread that has a state already, attached or not, is left alone.
        unsafe {
            if !ffi::PyGILState_GetThisThreadState().is_null() {
                return Self(None);
            }
            let ensured = ffi::PyGILState_Ensure();
            Self(Some((ensured, ffi::PyEval_SaveThread())))
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some((ensured, state)) = self.0.take() {
            // SAFETY: the state is this thread's own, detached since it was made; the release belongs to the one ensure, and frees it. The interpreter is never finalized by this crate.
            unsafe {
                ffi::PyEval_RestoreThread(state);
                ffi::PyGILState_Release(ensured);
            }
        }
    }
}
