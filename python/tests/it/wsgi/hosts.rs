//! An application on other hosts than a server, beside others, and under the standard library's own validator.

use std::io::Read;

use http::{Request, StatusCode, Version};
use http_body_util::Full;
use tower::Layer;
use tower_wsgi::{AsgiHandler, Input, SyncHandler, WorkerPool, WsgiLayer, WsgiService, gateway};

use super::support::{Module, VERSIONS, alone, is_alone, run, serve, site, watched};

fn text(response: http::Response<Input>) -> std::io::Result<String> {
    let mut text = String::new();
    response.into_body().read_to_string(&mut text).map(|_| text)
}

const WRITES: &str = r"
    def app(environ, start_response):
        write = start_response('201 Created', [('x-a', 'b')])
        write(b'one ')
        write(b'')
        write(b'two ')
        if environ['PATH_INFO'] == '/list': return [b'three']
        if environ['PATH_INFO'] == '/raise': raise ValueError('after_write_on_a_plain_host')
        if environ['PATH_INFO'] == '/much':
            for _ in range(100): write(b'x' * 1_000_000)
        if environ['PATH_INFO'] == '/none': return []
        return (chunk for chunk in [b'', b'three'])
";

#[test]
fn a3_write_on_a_host_that_sends_nothing_early_is_gathered() {
    watched(|| {
        let app = Module::new(WRITES).app();
        for (path, expected) in [("/", "one two three"), ("/list", "one two three"), ("/none", "one two ")] {
            let response = gateway::respond(&app, Request::get(path).body(Input::empty()).unwrap());
            assert_eq!(response.status(), StatusCode::CREATED);
            assert_eq!(response.headers()["x-a"], "b");
            assert_eq!(text(response).unwrap(), expected, "{path}");
        }
        // Nothing is out yet: a clean error, whatever was written.
        for path in ["/raise", "/much"] {
            let response = gateway::respond(&app, Request::get(path).body(Input::empty()).unwrap());
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        }
    });
}

#[test]
fn b2_an_application_is_called_like_any_other_handler() {
    watched(|| {
        let module = Module::new(
            r"
            closed = []
            class Body:
                def __iter__(self):
                    yield b'a'
                    yield b'b'
                    if fail: raise ValueError('in the middle')
                def close(self): closed.append(1)
            fail = []
            def app(environ, start_response):
                assert environ['PATH_INFO'] == '/p' and environ['REMOTE_USER'] == 'me'
                start_response('200 OK', [])
                return Body()
            ",
        );
        let app = module.app();
        let request = || {
            let mut request = Request::post("/p").body(Input::from("abc")).unwrap();
            let mut environ = tower_wsgi::Environ::of(&request);
            environ.set("REMOTE_USER", "me");
            request.extensions_mut().insert(environ);
            request
        };
        assert_eq!(text(gateway::respond(&app, request())).unwrap(), "ab");
        assert_eq!(module.show("closed"), "[1]");
        drop(app.call(request()).unwrap());
        assert_eq!(module.show("closed"), "[1, 1]");
        module.show("fail.append(1)");
        text(gateway::respond(&app, request())).unwrap_err();
        assert_eq!(module.show("closed"), "[1, 1, 1]");
        assert!(format!("{app:?}").contains("app"));
    });
}

#[test]
fn b8_an_application_inside_a_nest_of_crossings_answers() {
    run(async {
        let module = Module::new(
            r"
            def app(environ, start_response):
                write = start_response('200 OK', [])
                write(b'written ')
                return [environ['wsgi.input'].read()]
            ",
        );
        let pool = WorkerPool::new(1);
        let inner = WsgiLayer::adapter().pool(pool.clone()).layer(module.app());
        let nest: AsgiHandler<WsgiService<_>> = AsgiHandler::new(inner);
        let server = serve(WsgiLayer::adapter().pool(pool).layer(nest)).await;
        for version in VERSIONS {
            let answer = server.ask(version, server.request("POST", "/", Full::from("body"))).await;
            assert_eq!(answer.text(), "written body", "{version:?}");
        }
        // And without a server around it.
        let other = Module::new(WRITES);
        let handler = AsgiHandler::new(WsgiLayer::adapter().layer(other.app()));
        let answer = super::support::blocking(move || {
            text(gateway::respond(&handler, Request::get("/").body(Input::empty()).unwrap())).unwrap()
        });
        assert_eq!(answer.await, "one two three");
    });
}

#[test]
fn a10_two_applications_share_a_pool() {
    run(async {
        let module = Module::new(
            r"
            def first(environ, start_response):
                start_response('200 OK', [])
                return [b'first']
            def second(environ, start_response):
                start_response('200 OK', [])
                return (chunk for chunk in [b'sec', b'ond'])
            ",
        );
        let pool = WorkerPool::new(2);
        let first = WsgiLayer::new(module.wsgi("first")).at("/first").pool(pool.clone());
        let second = WsgiLayer::new(module.wsgi("second")).at("/second").pool(pool);
        let rust = axum::Router::new().fallback(async || "rust");
        let server = std::sync::Arc::new(serve(rust.layer(second).layer(first)).await);
        let mut asking = tokio::task::JoinSet::new();
        for n in 0..60 {
            let server = server.clone();
            asking.spawn(async move {
                let (path, expected) = [("/first", "first"), ("/second", "second"), ("/", "rust")][n % 3];
                assert_eq!(server.get(path).await.text(), expected);
            });
        }
        while let Some(done) = super::support::soon(asking.join_next()).await {
            done.unwrap();
        }
    });
}

/// Applications of each kind, inside the standard library's validator.
const VALIDATED: &str = r"
    import warnings, io
    from wsgiref.validate import validator
    warnings.simplefilter('error')
    plain = [('Content-Type', 'text/plain')]
    def hello(environ, start_response):
        start_response('200 OK', plain)
        return [b'hello']
    def generator(environ, start_response):
        start_response('200 OK', plain)
        yield b'hel'
        yield b'lo'
    def echo(environ, start_response):
        i = environ['wsgi.input']
        got = [i.read(2), i.readline(3), b''.join(i.readlines(2)), *i, i.read(10)]
        start_response('200 OK', plain)
        return [b''.join(got)]
    def writer(environ, start_response):
        write = start_response('200 OK', plain)
        write(b'hel')
        return [b'lo']
    def replaced(environ, start_response):
        import sys
        start_response('200 OK', plain)
        try:
            raise ValueError
        except ValueError:
            start_response('500 Sorry', plain, sys.exc_info())
        return [b'hello']
    def errors(environ, start_response):
        environ['wsgi.errors'].write('validated_errors\n')
        environ['wsgi.errors'].writelines(['validated_lines\n'])
        environ['wsgi.errors'].flush()
        start_response('200 OK', plain)
        return [b'hello']
    def empty(environ, start_response):
        start_response('204 No Content', [])
        return []
    def wrapped(environ, start_response):
        start_response('200 OK', plain)
        return environ['wsgi.file_wrapper'](io.BytesIO(b'hello'))
    applications = {'/' + a.__name__: validator(a) for a in (hello, generator, echo, writer, replaced, errors, empty, wrapped)}
    raised = []
    def app(environ, start_response):
        try:
            return applications[environ['PATH_INFO']](environ, start_response)
        except BaseException as error:
            raised.append(repr(error))
            raise
";

#[test]
fn pep3333_the_standard_librarys_validator_has_no_complaint() {
    const NAME: &str = "wsgi::hosts::pep3333_the_standard_librarys_validator_has_no_complaint";
    // What is said on the error stream is this test's own.
    if !is_alone(NAME) {
        let printed = alone(NAME, |_| {});
        for complaint in ["AssertionError", "Warning", "warning", "Exception", "without close"] {
            assert!(!printed.contains(complaint), "{printed}");
        }
        return;
    }
    run(async {
        let site = site(VALIDATED).await;
        for version in VERSIONS {
            for path in ["/hello", "/generator", "/writer", "/wrapped", "/errors"] {
                let answer = site.ask(version, site.request("GET", path, Full::default())).await;
                assert_eq!((answer.status, answer.text()), (StatusCode::OK, "hello"), "{path}");
            }
            let mut request = site.request("POST", "/echo?a=b", Full::from("l1\nl2\nl3\nl4\nrest"));
            request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
            assert_eq!(site.ask(version, request).await.text(), "l1\nl2\nl3\nl4\nrest");
            let answer = site.ask(version, site.request("GET", "/replaced", Full::default())).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (500, "hello"));
            let answer = site.ask(version, site.request("GET", "/empty", Full::default())).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
            for path in ["/hello", "/generator", "/wrapped"] {
                let answer = site.ask(version, site.request("HEAD", path, Full::default())).await;
                assert_eq!((answer.status, answer.text()), (StatusCode::OK, ""), "{path}");
            }
        }
        let request = site.request("GET", "/generator", Full::<bytes::Bytes>::default());
        drop(site.send(Version::HTTP_11, request).await.unwrap());
        site.idle().await;
        assert_eq!(site.module.show("raised"), "[]");
        assert_eq!(site.module.show("__import__('gc').collect() < 0 or raised"), "[]");
    });
}
