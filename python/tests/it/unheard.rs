//! A program without a `tracing` subscriber, which only a process of its own is here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::CString;

use http::Request;
use pyo3::prelude::*;
use tower_wsgi::{AsgiHandler, Input, SyncHandler};
use tower_wsgi_python::{Import, PyApp, PyAsgi, PyWsgi};

use crate::wsgi::support::{alone, is_alone, watched};

const APPS: &str = "
def raises(environ, start_response):
    environ['wsgi.errors'].write('a line\\nand its successor\\n')
    raise ValueError('in a view\\x1b[2J')
def begins(environ, start_response):
    start_response('200 OK', [])
    yield b'begun'
    raise ValueError('in a generator')
def text(environ, start_response):
    start_response('200 OK', [])
    return ['text']
async def fails(scope, receive, send):
    raise ValueError('in a coroutine')
async def silent(scope, receive, send):
    pass
";

#[test]
fn without_a_subscriber_failures_are_told_on_stderr() {
    const NAME: &str = "unheard::without_a_subscriber_failures_are_told_on_stderr";
    if !is_alone(NAME) {
        let said = alone(NAME, |_| {});
        for told in [
            "\nand its successor\n",
            "\nGET /raises%20 failed\nTraceback (most recent call last):\n",
            "\nValueError: in a view\\u{1b}[2J\n",
            "\nGET /begins%20 failed\nTraceback (most recent call last):\n",
            "\nValueError: in a generator\n",
            "\nGET /text%20 failed\nTypeError: a WSGI application must return an iterable of bytes, not of str\n",
            "\nGET /fails%0a failed\nthe application failed\nTraceback (most recent call last):\n",
            "\nValueError: in a coroutine\n",
            "\nGET /silent%0a failed\nthe application returned without a response\n",
        ] {
            assert_eq!(said.matches(told).count(), 1, "{told:?} in {said}");
        }
        return;
    }
    watched(|| {
        Import::new("wsgiref.simple_server:demo_app").load().unwrap();
        let code = CString::new(APPS).unwrap();
        let module = Python::attach(|py| PyModule::from_code(py, &code, c"", c"apps").map(Bound::unbind));
        let module = module.unwrap();
        let app = |name: &str| {
            let callable = Python::attach(|py| module.bind(py).getattr(name).map(Bound::unbind));
            PyApp::from_callable(name, callable.unwrap())
        };
        let get = |path: &str| Request::get(path).body(Input::empty()).unwrap();
        PyWsgi::new(app("raises")).call(get("/raises%20?x")).unwrap_err();
        let begun = PyWsgi::new(app("begins")).call(get("/begins%20?x")).unwrap();
        std::io::read_to_string(begun.into_body().into_reader()).unwrap_err();
        PyWsgi::new(app("text")).call(get("/text%20?x")).unwrap_err();
        for name in ["fails", "silent"] {
            let handler = AsgiHandler::new(PyAsgi::new(app(name)).unwrap());
            assert_eq!(handler.call(get(&format!("/{name}%0a?x"))).unwrap().status(), 500);
        }
    });
}
