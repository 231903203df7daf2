//! Finding and importing an application, and what is said where that fails. Each interpreter is one of its own: a process can start only one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use tower_wsgi_python::{Error, Import, Interface, PyApp, PyAsgi, PyWsgi};

use crate::log;
use crate::wsgi::support::{alone, is_alone, watched};

/// A directory with modules to import.
fn modules() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "shop.py",
        "\
def app(environ, start_response):
    start_response('200 OK', [])
    return [b'shop']
class Site:
    class inner:
        handler = staticmethod(app)
site = Site()
made = []
def create():
    made.append(1)
    return app
def needs(settings):
    return app
def fails():
    raise ValueError('the factory has no database')
def returns_none():
    pass
number = 5
async def spoken(scope, receive, send):
    pass
class Asgi:
    async def __call__(self, scope, receive, send):
        pass
class Wsgi:
    def __call__(self, environ, start_response):
        pass
asgi, wsgi = Asgi(), Wsgi()
def three(scope, receive, send):
    return spoken(scope, receive, send)
def optional(environ, start_response, extra=None):
    return []
import functools
class Static:
    @staticmethod
    def __call__(environ, start_response):
        return []
static, partial = Static(), functools.partial(app)
@functools.wraps(app)
def wrapped(*args):
    return app(*args)
class Site2:
    def __init__(self, environ, start_response):
        pass
def asgi2(scope):
    return spoken
async def two(environ, start_response):
    pass
",
    );
    write("package/__init__.py", "");
    write("package/wsgi.py", "from shop import app as application\n");
    write("broken_syntax.py", "def app(:\n");
    write("broken_import.py", "import a_module_that_nobody_has\n");
    write("broken_raise.py", "def set_up():\n    raise RuntimeError('no settings')\nset_up()\n");
    write("broken_exit.py", "import sys\nsys.exit(3)\n");
    write("broken_package/__init__.py", "import broken_raise\n");
    write("broken_package/wsgi.py", "");
    dir
}

/// The test's own process: in it, `test` runs with a directory of modules, which is the working directory as well.
fn in_process(name: &str, test: impl FnOnce(&Path) + Send + 'static) {
    if !is_alone(name) {
        let dir = modules();
        alone(name, |command| {
            command.current_dir(dir.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        });
        return;
    }
    watched(move || test(&std::env::current_dir().unwrap()));
}

fn fails(import: Import) -> Error {
    let error = import.load().expect_err("an error");
    // `main` prints the one, everybody else the other.
    assert!(!error.to_string().is_empty());
    assert_eq!(format!("{error:?}"), error.to_string());
    error
}

#[test]
fn loading_finds_what_is_there() {
    in_process("loading::loading_finds_what_is_there", |_| {
        for target in ["shop:app", "shop:site.inner.handler", "shop:create()", "package.wsgi:application"] {
            let app = Import::new(target).load().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(app.name(), target);
            assert_eq!(app.interface(), Interface::Wsgi);
            assert!(format!("{:?}", PyWsgi::new(app)).contains(target));
        }
        Import::new("shop:create").factory(true).load().unwrap();
        Import::new("shop:create()").factory(true).load().unwrap();
        PyWsgi::import("shop:app").unwrap();
    });
}

#[test]
fn loading_says_what_is_wrong() {
    in_process("loading::loading_says_what_is_wrong", |_| {
        for (target, factory, said, raised) in [
            ("shop", false, "names no application: expected MODULE:ATTRIBUTE", None),
            (":app", false, "names no application", None),
            ("shop:", false, "names no application", None),
            ("", false, "names no application", None),
            ("nowhere:app", false, "no module named nowhere; Python looked in [", None),
            ("package.nowhere:app", false, "no module named package.nowhere;", None),
            ("nowhere.package:app", false, "no module named nowhere;", None),
            (
                "broken_import:app",
                false,
                "broken_import failed while it was imported: no module named a_module_that_nobody_has; no virtual environment is active: VIRTUAL_ENV is not set (--venv, Import::venv)",
                Some("ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
            ),
            ("broken_syntax:app", false, "broken_syntax failed while it was imported", Some("SyntaxError")),
            ("broken_raise:app", false, "broken_raise failed while", Some("RuntimeError: no settings")),
            (
                "broken_package.wsgi:app",
                false,
                "broken_package.wsgi failed",
                Some("RuntimeError: no settings"),
            ),
            ("broken_exit:app", false, "broken_exit failed while it was imported", Some("SystemExit: 3")),
            ("shop:missing", false, "shop has no attribute missing", Some("AttributeError")),
            ("shop:site.missing", false, "shop has no attribute site.missing", Some("AttributeError")),
            ("shop:number", false, "shop:number is not callable: it is an int", None),
            ("shop:number()", false, "shop:number is not callable", None),
            (
                "shop:fails()",
                false,
                "the factory shop:fails failed",
                Some("ValueError: the factory has no database"),
            ),
            ("shop:fails", true, "the factory shop:fails failed", Some("ValueError")),
            ("shop:needs()", false, "the factory shop:needs failed", Some("TypeError")),
            ("shop:returns_none()", false, "returned no application: a NoneType is not callable", None),
            ("shop:needs('x')", false, "is more than a call without arguments, NAME()", None),
            ("shop:create().x", false, "is more than a call without arguments", None),
            ("os.path.nothing:app", false, "os.path.nothing", None),
        ] {
            let error = fails(Import::new(target).factory(factory));
            assert!(error.is_import() && !error.is_interpreter() && !error.is_startup(), "{target}");
            let shown = error.to_string();
            assert!(shown.lines().next().unwrap().contains(said), "{target}: {shown}");
            match raised {
                Some(raised) => assert!(error.traceback().unwrap().contains(raised), "{target}: {shown}"),
                None => assert_eq!(error.traceback(), None, "{target}"),
            }
        }
        // The interpreter is as good as before.
        PyWsgi::import("shop:app").unwrap();
        assert!(!log::text().contains("ERROR"));
    });
}

#[test]
fn loading_tracebacks_say_where() {
    in_process("loading::loading_tracebacks_say_where", |_| {
        for (target, place) in [("broken_raise:app", "in set_up"), ("shop:fails()", "in fails")] {
            let error = fails(Import::new(target));
            let traceback = error.traceback().unwrap();
            assert!(traceback.starts_with("Traceback (most recent call last)"), "{traceback}");
            assert!(traceback.contains(place), "{traceback}");
        }
    });
}

#[test]
fn loading_calls_a_factory_once() {
    in_process("loading::loading_calls_a_factory_once", |_| {
        Import::new("shop:create()").factory(true).load().unwrap();
        let made = pyo3::Python::attach(|py| {
            use pyo3::types::PyAnyMethods;
            py.import("shop").unwrap().getattr("made").unwrap().len().unwrap()
        });
        assert_eq!(made, 1);
    });
}

#[test]
fn loading_looks_in_the_paths_in_their_order_and_in_the_working_directory_last() {
    in_process(
        "loading::loading_looks_in_the_paths_in_their_order_and_in_the_working_directory_last",
        |dir| {
            for name in ["first", "second"] {
                std::fs::create_dir(dir.join(name)).unwrap();
                let text = format!("def app(environ, start_response): pass\napp.of = '{name}'\n");
                std::fs::write(dir.join(name).join("both.py"), &text).unwrap();
                std::fs::write(dir.join(name).join("shop.py"), &text).unwrap();
            }
            std::fs::create_dir(dir.join("elsewhere")).unwrap();
            std::fs::write(dir.join("elsewhere/here.py"), "def app(environ, start_response): pass\n")
                .unwrap();
            Import::new("both:app").path("first").path(dir.join("second")).load().unwrap();
            Import::new("shop:app").load().unwrap();
            let of = |module: &str| {
                pyo3::Python::attach(|py| {
                    use pyo3::types::PyAnyMethods;
                    let app = py.import(module).unwrap().getattr("app").unwrap();
                    app.getattr("of").unwrap().extract::<String>().unwrap()
                })
            };
            assert_eq!((of("both"), of("shop")), ("first".into(), "first".into()));
            // The working directory is the process's.
            Import::new("here:app").chdir("elsewhere").load().unwrap();
            assert!(std::env::current_dir().unwrap().ends_with("elsewhere"));
            let error = fails(Import::new("here:app").chdir("nowhere"));
            assert!(
                error.is_import() && error.to_string().contains("no working directory nowhere"),
                "{error}"
            );
            let error = fails(Import::new("here:app").path("nowhere"));
            assert!(
                error.is_import() && error.to_string().contains("no directory nowhere for the path"),
                "{error}"
            );
        },
    );
}

#[test]
fn loading_tells_wsgi_from_asgi() {
    in_process("loading::loading_tells_wsgi_from_asgi", |_| {
        for (target, interface) in [
            ("shop:app", Interface::Wsgi),
            ("shop:wsgi", Interface::Wsgi),
            ("shop:optional", Interface::Wsgi),
            ("shop:create", Interface::Wsgi),
            ("builtins:print", Interface::Wsgi),
            ("builtins:dict", Interface::Wsgi),
            ("shop:spoken", Interface::Asgi),
            ("shop:asgi", Interface::Asgi),
            ("shop:three", Interface::Asgi),
        ] {
            assert_eq!(Import::new(target).load().unwrap().interface(), interface, "{target}");
        }
    });
}

#[test]
fn loading_refuses_a_wsgi_application_as_an_asgi_one_where_that_is_sure() {
    const NAME: &str = "loading::loading_refuses_a_wsgi_application_as_an_asgi_one_where_that_is_sure";
    in_process(NAME, |_| {
        for target in
            ["shop:app", "shop:wsgi", "shop:static", "shop:site.inner.handler", "shop:wsgi.__call__"]
        {
            let error = PyAsgi::import(target).expect_err(target);
            assert!(error.is_import() && !error.is_startup(), "{error}");
            assert!(error.to_string().contains("is a WSGI application"), "{error}");
        }
        let doubtful = [
            "shop:optional",
            "shop:partial",
            "shop:wrapped",
            "shop:Site2",
            "shop:asgi2",
            "shop:two",
            "shop:spoken",
            "builtins:print",
        ];
        for target in doubtful {
            PyAsgi::import(target).unwrap_or_else(|error| panic!("{error}"));
        }
    });
}

/// A directory that looks like a virtual environment of a version.
fn environment(dir: &Path, name: &str, config: Option<&str>) -> std::path::PathBuf {
    let venv = dir.join(name);
    std::fs::create_dir_all(venv.join("bin")).unwrap();
    if let Some(config) = config {
        std::fs::write(venv.join("pyvenv.cfg"), config).unwrap();
    }
    venv
}

#[test]
fn loading_refuses_what_is_no_environment_or_another_pythons() {
    in_process("loading::loading_refuses_what_is_no_environment_or_another_pythons", |dir| {
        environment(dir, "none", None);
        environment(dir, "old", Some("home = /usr\nversion = 2.7.18\n"));
        environment(dir, "other", Some("home = /usr\nversion_info = 3.99.1.final.0\n"));
        for (venv, said) in [
            ("nowhere", vec!["no virtual environment at", "nowhere"]),
            ("none", vec!["none is not a virtual environment", "pyvenv.cfg"]),
            ("old", vec!["is of Python 2.7, but this program embeds Python 3.", "-m venv", "PYO3_PYTHON="]),
            ("other", vec!["is of Python 3.99, but"]),
        ] {
            let error = fails(Import::new("shop:app").venv(venv));
            assert!(error.is_interpreter() && error.traceback().is_none(), "{venv}");
            for said in said {
                assert!(error.to_string().contains(said), "{venv}: {error}");
            }
        }
        // None of these has started anything: a right one may come yet.
        PyWsgi::import("shop:app").unwrap();
        environment(dir, "late", Some("version = 3.99\n"));
        let error = fails(Import::new("shop:app").venv("late"));
        assert!(error.is_interpreter(), "{error}");
        assert!(
            error.to_string().contains("the interpreter runs already without one: too late for"),
            "{error}"
        );
    });
}

#[test]
fn loading_uses_the_packages_of_its_environment() {
    const NAME: &str = "loading::loading_uses_the_packages_of_its_environment";
    in_process(NAME, |dir| {
        let base = tower_wsgi_python_base(dir);
        let made = std::process::Command::new(base).args(["-m", "venv", "--without-pip", "venv"]).status();
        assert!(made.unwrap().success());
        let mut lib = std::fs::read_dir(dir.join("venv/lib")).unwrap();
        let packages = lib.next().unwrap().unwrap().path().join("site-packages");
        std::fs::write(packages.join("installed.py"), "def app(environ, start_response): pass\n").unwrap();
        let app = Import::new("installed:app").venv("venv").load().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(app.name(), "installed:app");
        let error = fails(Import::new("broken_import:app"));
        let venv = std::fs::canonicalize(dir.join("venv")).unwrap();
        let hint = format!("nobody_has; packages come from {}\n", venv.display());
        assert!(error.to_string().contains(&hint), "{error}");
        // The same again is no other one.
        Import::new("installed:app").venv(dir.join("venv")).load().unwrap();
        Import::new("installed:app").venv("venv/../venv").load().unwrap();
        environment(dir, "second", Some("version = 3.99\n"));
        let error = fails(Import::new("shop:app").venv("second"));
        assert!(error.to_string().contains("the interpreter runs already with "), "{error}");
    });
}

#[test]
fn loading_uses_the_active_environment() {
    const NAME: &str = "loading::loading_uses_the_active_environment";
    if !is_alone(NAME) {
        let dir = modules();
        environment(dir.path(), "active", Some("version = 2.7\n"));
        alone(NAME, |command| {
            command.current_dir(dir.path()).env("VIRTUAL_ENV", dir.path().join("active"));
        });
        return;
    }
    watched(|| {
        let error = fails(Import::new("shop:app"));
        assert!(error.is_interpreter() && error.to_string().contains("is of Python 2.7"), "{error}");
    });
}

/// The Python that the crate was built with, as a message tells it.
fn tower_wsgi_python_base(dir: &Path) -> String {
    environment(dir, "wrong", Some("version = 2.7\n"));
    let error = fails(Import::new("shop:app").venv("wrong")).to_string();
    let (_, command) = error.split_once("make one with ").unwrap();
    command.split_once(" -m venv").unwrap().0.to_owned()
}

#[test]
fn loading_takes_what_a_program_made_itself() {
    watched(|| {
        crate::wsgi::support::start_interpreter();
        let callable = pyo3::Python::attach(|py| {
            py.eval(c"lambda environ, start_response: []", None, None).unwrap().unbind()
        });
        let app = PyApp::from_callable("a lambda", callable);
        assert_eq!((app.name(), app.interface()), ("a lambda", Interface::Wsgi));
    });
}
