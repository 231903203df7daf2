//! Finding a Python application: `package.module:attribute`, in which environment, and what it speaks.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use pyo3::exceptions::PyModuleNotFoundError;
use pyo3::prelude::*;
use pyo3::types::PyModule;

use crate::error::{Error, Kind};
use crate::interpreter;

/// Where a Python application is to be found, and how it is loaded.
///
/// ```
/// use tower_wsgi_python::{Import, PyWsgi};
///
/// let app = Import::new("wsgiref.simple_server:demo_app").load()?;
/// let app = PyWsgi::new(app);
/// # assert_eq!(format!("{app:?}"), "PyWsgi { name: \"wsgiref.simple_server:demo_app\", .. }");
/// # Ok::<(), tower_wsgi_python::Error>(())
/// ```
///
/// An application that a function makes, and that is in none of the usual places:
///
/// ```
/// use tower_wsgi_python::Import;
///
/// # let temporary = tempfile::tempdir()?;
/// # let site = temporary.path();
/// # std::fs::create_dir(site.join("src"))?;
/// std::fs::write(site.join("src/shop.py"), "def create_app(): return lambda environ, start_response: []")?;
///
/// let app = Import::new("shop:create_app").factory(true).chdir(site).path("src").load()?;
/// assert_eq!(app.name(), "shop:create_app");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The interpreter
/// There is one per process. The first load starts it, with the virtual environment that was asked for, or else the active one (`VIRTUAL_ENV`); a later load cannot choose
/// another. Signals stay the host's.
#[derive(Clone, Debug)]
#[must_use = "nothing is imported before `load`"]
pub struct Import {
    target: String,
    factory: bool,
    chdir: Option<PathBuf>,
    paths: Vec<PathBuf>,
    venv: Option<PathBuf>,
}

impl Import {
    /// The application at `target`: `"package.module:attribute"`, where the attribute may have dots, and may be a call without arguments, `"shop:create_app()"`.
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), factory: false, chdir: None, paths: Vec::new(), venv: None }
    }

    /// Whether the attribute is a function that makes the application, called once without arguments; false by default.
    pub fn factory(mut self, factory: bool) -> Self {
        self.factory = factory;
        self
    }

    /// Makes `dir` the process's working directory before the import, as many applications expect it. Relative directories given to [`path`](Self::path) are seen from there; that of [`venv`](Self::venv) from where the program was before.
    pub fn chdir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.chdir = Some(dir.into());
        self
    }

    /// Puts `dir` in front of `sys.path`; several times for several. Behind them stands the working directory, as for `python -m`.
    pub fn path(mut self, dir: impl Into<PathBuf>) -> Self {
        self.paths.push(dir.into());
        self
    }

    /// The virtual environment whose packages are used; by default the active one.
    ///
    /// ```
    /// use tower_wsgi_python::Import;
    ///
    /// // It is looked at before anything is imported.
    /// let error = Import::new("mysite.wsgi:application").venv("/no/such/venv").load().unwrap_err();
    /// assert!(error.is_interpreter());
    /// ```
    pub fn venv(mut self, dir: impl Into<PathBuf>) -> Self {
        self.venv = Some(dir.into());
        self
    }

    /// Starts the interpreter if it does not run, and imports the application.
    ///
    /// # Errors
    /// [`Error::is_interpreter`] if the interpreter cannot be started as asked; [`Error::is_import`] for everything on the way to a callable object.
    ///
    /// # Blocking
    /// Imports are Python code that runs on the calling thread, for as long as they take: for a big Django site that is seconds.
    pub fn load(self) -> Result<PyApp, Error> {
        // Before the working directory changes, for the shell that named it was in the old one.
        let venv = self.venv.as_deref().map(std::path::absolute).transpose();
        let venv = venv.map_err(|error| Error::new(Kind::Interpreter, format!("--venv: {error}")))?;
        if let Some(dir) = &self.chdir {
            std::env::set_current_dir(dir).map_err(|error| {
                Error::new(Kind::Import, format!("no working directory {}: {error}", dir.display()))
            })?;
        }
        interpreter::start(venv.as_deref())?;
        interpreter::attached(|py| {
            self.extend_path(py)?;
            let callable = self.resolve(py)?;
            Ok(PyApp { callable, target: self.target.clone() })
        })
    }

    fn extend_path(&self, py: Python<'_>) -> Result<(), Error> {
        let cwd = std::env::current_dir()
            .map_err(|error| Error::new(Kind::Import, format!("no working directory: {error}")))?;
        let dirs = self.paths.iter().map(|path| cwd.join(path)).chain([cwd.clone()]);
        let extend = |dirs: Vec<PathBuf>| -> PyResult<()> {
            let path = py.import("sys")?.getattr("path")?;
            for dir in dirs.iter().rev() {
                let dir: &OsStr = dir.as_os_str();
                if !path.contains(dir)? {
                    path.call_method1("insert", (0, dir))?;
                }
            }
            Ok(())
        };
        for dir in &self.paths {
            if !cwd.join(dir).is_dir() {
                return Err(Error::new(Kind::Import, format!("no directory {} for the path", dir.display())));
            }
        }
        extend(dirs.collect())
            .map_err(|error| Error::raised(Kind::Import, "sys.path cannot be changed", py, &error))
    }

    fn resolve(&self, py: Python<'_>) -> Result<Py<PyAny>, Error> {
        let fail = |message: String| Error::new(Kind::Import, message);
        let (module, attribute) = self.parts()?;
        let (attribute, factory) = match attribute.strip_suffix("()") {
            Some(attribute) => (attribute, true),
            None if attribute.contains('(') => {
                return Err(fail(format!(
                    "{:?} is more than a call without arguments, NAME(): what needs arguments needs a function of its own that passes them",
                    self.target
                )));
            }
            None => (attribute, self.factory),
        };
        let imported = PyModule::import(py, module).map_err(|error| import_error(py, module, &error))?;
        let mut object = imported.into_any();
        for name in attribute.split('.') {
            object = object.getattr(name).map_err(|error| {
                Error::raised(Kind::Import, format!("{module} has no attribute {attribute}"), py, &error)
            })?;
        }
        if !object.is_callable() {
            let kind = a_type(&object);
            return Err(fail(format!("{module}:{attribute} is not callable: it is {kind}")));
        }
        if factory {
            object = object.call0().map_err(|error| {
                let message = format!("the factory {module}:{attribute} failed");
                Error::raised(Kind::Import, message, py, &error)
            })?;
            if !object.is_callable() {
                let kind = a_type(&object);
                return Err(fail(format!(
                    "the factory {module}:{attribute} returned no application: {kind} is not callable"
                )));
            }
        }
        Ok(object.unbind())
    }

    fn parts(&self) -> Result<(&str, &str), Error> {
        let parts = self.target.split_once(':');
        parts.filter(|(module, attribute)| !module.is_empty() && !attribute.is_empty()).ok_or_else(|| {
            let message = format!(
                "{:?} names no application: expected MODULE:ATTRIBUTE, like mysite.wsgi:application",
                self.target
            );
            Error::new(Kind::Import, message)
        })
    }
}

/// Tells a module that is not there from one that fails while it is imported.
fn import_error(py: Python<'_>, module: &str, error: &PyErr) -> Error {
    let missing = error.is_instance_of::<PyModuleNotFoundError>(py).then(|| {
        let name = error.value(py).getattr("name").and_then(|name| name.extract::<String>());
        name.unwrap_or_default()
    });
    match missing {
        // A parent package counts: `mysite` of `mysite.wsgi`.
        Some(name)
            if module == name || module.strip_prefix(&*name).is_some_and(|rest| rest.starts_with('.')) =>
        {
            let path = py.import("sys").and_then(|sys| sys.getattr("path"));
            let path = path.map(|path| path.to_string()).unwrap_or_default();
            Error::new(Kind::Import, format!("no module named {name}; Python looked in {path}"))
        }
        Some(name) => {
            let hint = match interpreter::environment() {
                Some(Some(venv)) => format!("; packages come from {}", venv.display()),
                Some(None) => {
                    "; no virtual environment is active: VIRTUAL_ENV is not set (--venv, Import::venv)"
                        .to_owned()
                }
                None => String::new(),
            };
            let message = format!("{module} failed while it was imported: no module named {name}{hint}");
            Error::raised(Kind::Import, message, py, error)
        }
        None => Error::raised(Kind::Import, format!("{module} failed while it was imported"), py, error),
    }
}

/// The name of an object's type, with its article.
fn a_type(object: &Bound<'_, PyAny>) -> String {
    let name = object.get_type().name().map_or_else(|_| "value".to_owned(), |name| name.to_string());
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// A Python application, loaded: what [`PyWsgi`](crate::PyWsgi) and [`PyAsgi`](crate::PyAsgi) are made of.
///
/// ```
/// use pyo3::prelude::*;
/// use tower_wsgi_python::{Import, Interface, PyApp};
///
/// let demo = Import::new("wsgiref.simple_server:demo_app").load()?;
/// assert_eq!((demo.name(), demo.interface()), ("wsgiref.simple_server:demo_app", Interface::Wsgi));
///
/// // One that this program has made itself.
/// let code = c"async def app(scope, receive, send): ...";
/// let app = Python::attach(|py| PyModule::from_code(py, code, c"", c"")?.getattr("app").map(Bound::unbind))?;
/// let app = PyApp::from_callable("mine", app);
/// assert_eq!((app.name(), app.interface()), ("mine", Interface::Asgi));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PyApp {
    callable: Py<PyAny>,
    target: String,
}

/// `inspect.CO_VARARGS`: a function's code takes `*args`.
const VARARGS: usize = 4;

/// What a Python application speaks.
///
/// ```
/// use axum::Router;
/// use tower_wsgi::WsgiService;
/// use tower_wsgi_python::{Error, Import, Interface, PyApp, PyAsgi, PyWsgi};
///
/// /// Hosts an application of either kind.
/// fn host(app: PyApp) -> Result<Router, Error> {
///     Ok(match app.interface() {
///         Interface::Wsgi => Router::new().fallback_service(WsgiService::new(PyWsgi::new(app))),
///         Interface::Asgi => Router::new().fallback_service(PyAsgi::new(app)?),
///     })
/// }
///
/// assert!(host(Import::new("wsgiref.simple_server:demo_app").load()?).is_ok());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// [PEP 3333](https://peps.python.org/pep-3333/): a callable of `environ` and `start_response`.
    Wsgi,
    /// [ASGI 3](https://asgi.readthedocs.io/en/latest/specs/main.html): an async callable of `scope`, `receive` and `send`.
    Asgi,
}

impl PyApp {
    /// An application that is in the interpreter already, for programs that use PyO3 themselves. `name` is what the log calls it.
    pub fn from_callable(name: impl Into<String>, callable: Py<PyAny>) -> Self {
        Self { callable, target: name.into() }
    }

    /// What the application speaks: ASGI if calling it makes a coroutine or takes three arguments, WSGI otherwise.
    ///
    /// # Blocking
    /// The calling thread waits for the interpreter's lock: it looks at a Python object.
    #[must_use]
    pub fn interface(&self) -> Interface {
        let detect = |py: Python<'_>| -> PyResult<bool> {
            let inspect = py.import("inspect")?;
            let callable = self.callable.bind(py);
            let is_async = |object: &Bound<'_, PyAny>| -> PyResult<bool> {
                inspect.call_method1("iscoroutinefunction", (object,))?.extract()
            };
            // Of an instance, its class's `__call__` is what a call calls.
            if is_async(callable)? || is_async(&callable.getattr("__call__")?)? {
                return Ok(true);
            }
            let parameters = inspect.call_method1("signature", (callable,))?.getattr("parameters")?;
            let mut required = 0;
            for parameter in parameters.call_method0("values")?.try_iter()? {
                let parameter = parameter?;
                let kind = parameter.getattr("kind")?.to_string();
                let has_default = !parameter.getattr("default")?.is(&parameter.getattr("empty")?);
                required += usize::from(kind.starts_with("POSITIONAL") && !has_default);
            }
            Ok(required == 3)
        };
        match interpreter::attached(detect) {
            Ok(true) => Interface::Asgi,
            // What cannot be looked into, a function written in C say, is far more often WSGI.
            Ok(false) | Err(_) => Interface::Wsgi,
        }
    }

    /// Whether it is beyond doubt that a call as ASGI has it would raise: a Python function of two arguments, or an object with such a `__call__`.
    ///
    /// The code tells, and not the signature, which a decorator takes over from the function inside.
    pub(crate) fn is_surely_wsgi(&self) -> bool {
        let detect = |py: Python<'_>| -> PyResult<bool> {
            let types = py.import("types")?;
            let is_a = |object: &Bound<'_, PyAny>, name| object.is_instance(&types.getattr(name)?);
            let mut callable = self.callable.bind(py).clone();
            if !is_a(&callable, "FunctionType")? && !is_a(&callable, "MethodType")? {
                callable = callable.getattr("__call__")?;
            }
            let mut arguments = 2;
            if is_a(&callable, "MethodType")? {
                callable = callable.getattr("__func__")?;
                arguments = 3;
            }
            if !is_a(&callable, "FunctionType")? || !callable.getattr("__defaults__")?.is_none() {
                return Ok(false);
            }
            let code = callable.getattr("__code__")?;
            let takes: usize = code.getattr("co_argcount")?.extract()?;
            let flags: usize = code.getattr("co_flags")?.extract()?;
            Ok(takes == arguments && flags & VARARGS == 0)
        };
        self.interface() == Interface::Wsgi && interpreter::attached(detect).unwrap_or(false)
    }

    /// What it was loaded from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target
    }

    pub(crate) fn into_callable(self) -> Py<PyAny> {
        self.callable
    }
}

impl fmt::Debug for PyApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PyApp").field("target", &self.target).finish_non_exhaustive()
    }
}
