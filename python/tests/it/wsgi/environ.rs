//! The environ: what is in it, in which form, and what a client cannot put there.

use http::{Request, StatusCode, Version};
use http_body_util::Full;
use tower::{Layer, ServiceBuilder};
use tower_wsgi::{Environ, Scope, WorkerPool, WsgiLayer};

use super::support::{Module, VERSIONS, logged, run, serve, site};

/// An application that answers with what an expression makes of its environ.
const EVALUATE: &str = r"
    from urllib.parse import unquote
    def app(environ, start_response):
        start_response('200 OK', [])
        return [repr(eval(unquote(environ['HTTP_X_EVAL']), dict(e=environ))).encode()]
";

#[test]
fn c1_the_environ_is_a_dict_of_native_strings_with_all_that_pep_3333_asks_for() {
    run(async {
        let site = site(
            r"
            problems = []
            seen = []
            def app(environ, start_response):
                if type(environ) is not dict: problems.append(type(environ))
                text = ['REQUEST_METHOD', 'SCRIPT_NAME', 'PATH_INFO', 'QUERY_STRING', 'CONTENT_TYPE', 'CONTENT_LENGTH', 'SERVER_NAME',
                    'SERVER_PORT', 'SERVER_PROTOCOL', 'HTTP_HOST', 'HTTP_X_LATIN', 'wsgi.url_scheme', 'REQUEST_URI']
                for key in text:
                    if type(environ.get(key)) is not str: problems.append((key, environ.get(key)))
                for key, value in environ.items():
                    if type(key) is not str: problems.append(key)
                    if '.' not in key and type(value) is not str: problems.append(key)
                    if type(value) is str: value.encode('latin-1')
                for key, value in {'wsgi.version': (1, 0), 'wsgi.multithread': True, 'wsgi.multiprocess': False, 'wsgi.run_once': False,
                        'wsgi.input_terminated': True, 'wsgi.url_scheme': 'http', 'REQUEST_METHOD': 'POST', 'SCRIPT_NAME': '',
                        'PATH_INFO': '/p', 'QUERY_STRING': 'q=1', 'CONTENT_TYPE': 'text/x', 'CONTENT_LENGTH': '2',
                        'HTTP_X_LATIN': 'caf\xe9', 'REQUEST_URI': '/p?q=1'}.items():
                    if environ.get(key) != value or type(environ.get(key)) is not type(value): problems.append((key, environ.get(key)))
                for key in ('wsgi.input', 'wsgi.errors', 'wsgi.file_wrapper', 'asgi.scope', 'tower_wsgi.client_disconnected'):
                    if key not in environ: problems.append(key)
                for key in ('HTTP_CONTENT_TYPE', 'HTTP_CONTENT_LENGTH'):
                    if key in environ: problems.append(key)
                # It is the application's own: what it does to it is nobody else's.
                if 'mine' in environ: problems.append('mine')
                environ['mine'] = 1
                environ.pop('wsgi.version')
                environ['wsgi.multithread'] = 'changed'
                seen.append(environ['SERVER_PROTOCOL'])
                start_response('200 OK', [])
                return []
            ",
        )
        .await;
        for version in VERSIONS {
            let mut request = site.request("POST", "/p?q=1", Full::from("ab"));
            request.headers_mut().insert("content-type", "text/x".parse().unwrap());
            request.headers_mut().insert("x-latin", http::HeaderValue::from_bytes(b"caf\xe9").unwrap());
            assert_eq!(site.ask(version, request).await.status, StatusCode::OK);
        }
        assert_eq!(site.module.show("problems"), "[]");
        assert_eq!(site.module.show("seen"), "['HTTP/1.1', 'HTTP/2.0']");
    });
}

#[test]
fn c1_variables_have_the_forms_of_the_standard() {
    run(async {
        let site = site(EVALUATE).await;
        let cases = [
            ("GET /%FF", "", "e['PATH_INFO'],e['REQUEST_URI']", "('/ÿ', '/%FF')"),
            ("GET /a%2Fb", "", "e['PATH_INFO'],e['REQUEST_URI']", "('/a/b', '/a%2Fb')"),
            (
                "GET /%C3%A4?%C3%A4",
                "",
                "e['PATH_INFO'].encode('latin-1').decode(),e['QUERY_STRING']",
                "('/ä', '%C3%A4')",
            ),
            ("GET /a%20b+c", "", "e['PATH_INFO']", "'/a b+c'"),
            ("GET /", "", "e['QUERY_STRING'],e['SERVER_PORT'].isdigit()", "('', True)"),
            ("GET /", "cookie: a=1\r\ncookie: b=2\r\n", "e['HTTP_COOKIE']", "'a=1; b=2'"),
            ("GET /", "accept: a\r\naccept: b\r\n", "e['HTTP_ACCEPT'].replace(' ','')", "'a,b'"),
            ("GET /", "x_a: 3\r\nx-a: 1\r\n", "e['HTTP_X_A']", "'1'"),
            ("GET /", "x_a: 3\r\n", "'HTTP_X_A'%20in%20e", "False"),
            ("GET /", "proxy: http://evil\r\n", "'HTTP_PROXY'%20in%20e", "False"),
            (
                "GET /",
                "remote-user: evil\r\nscript-name: evil\r\n",
                "e.get('REMOTE_USER'),e['SCRIPT_NAME']",
                "(None, '')",
            ),
            ("GET /", "x-made-up: 1\r\n", "e['HTTP_X_MADE_UP']", "'1'"),
            ("PURGE /", "", "e['REQUEST_METHOD']", "'PURGE'"),
            ("GET /", "", "'CONTENT_LENGTH'%20in%20e%20or%20e.get('CONTENT_TYPE')", "None"),
            ("GET http://example.org/x?y", "", "e['PATH_INFO'],e['QUERY_STRING']", "('/x', 'y')"),
        ];
        for (line, headers, expression, expected) in cases {
            let request = format!(
                "{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-eval: {expression}\r\n{headers}\r\n"
            );
            let answer = String::from_utf8(site.raw(request).await).unwrap();
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            assert_eq!(body, expected, "{line} {headers} {expression}");
        }
        // A client that invents names does not make the server keep them.
        for n in 0..600 {
            let request = format!(
                "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-eval: e['HTTP_X_N{n}']\r\nx-n{n}: {n}\r\n\r\n"
            );
            let answer = String::from_utf8(site.raw(request).await).unwrap();
            assert!(answer.ends_with(&format!("'{n}'")), "{answer}");
        }
    });
}

#[test]
fn c2_a_mount_is_split_off_and_the_scope_has_the_whole() {
    run(async {
        let module = Module::new(EVALUATE);
        let router = axum::Router::new().fallback(async || "not under the mount");
        let server = serve(router.layer(WsgiLayer::new(module.app()).at("/api"))).await;
        let ask = async |path: &str, expression: &str| {
            let mut request = server.request("GET", path, Full::default());
            request.headers_mut().insert("x-eval", expression.parse().unwrap());
            server.ask(Version::HTTP_11, request).await.text().to_owned()
        };
        let split = "e['SCRIPT_NAME'],e['PATH_INFO']";
        assert_eq!(ask("/api/x%2Fy", split).await, "('/api', '/x/y')");
        assert_eq!(ask("/api", split).await, "('/api', '')");
        assert_eq!(ask("/api/", split).await, "('/api', '/')");
        assert_eq!(ask("/apiary", split).await, "not under the mount");
        let scope = "e['asgi.scope']['path'],e['asgi.scope']['raw_path'],e['asgi.scope']['query_string']";
        assert_eq!(ask("/api/%C3%A4?q=%20", scope).await, "('/api/ä', b'/api/%C3%A4', b'q=%20')");
    });
}

#[test]
fn c1_asgi_scope_is_a_mapping_with_the_keys_of_an_http_scope() {
    run(async {
        let site = site(
            r"
            seen = []
            def app(environ, start_response):
                scope = environ['asgi.scope']
                as_dict = dict(scope)
                assert as_dict == dict(scope.items()) and list(scope) == list(as_dict) == list(scope.keys())
                assert list(scope.values()) == list(as_dict.values()) and len(scope) == len(as_dict)
                assert 'type' in scope and 'nothing' not in scope
                assert scope.get('nothing') is None and scope.get('nothing', 5) == 5 and scope.get('type') == 'http'
                assert {**scope} == as_dict and repr(scope) == repr(as_dict)
                import collections.abc
                assert isinstance(scope, collections.abc.Mapping)
                match scope:
                    case {'type': 'http'}: pass
                    case _: raise AssertionError('no mapping')
                for act in (lambda: scope['nothing'], lambda: scope.__setitem__('a', 1), lambda: scope.__delitem__('type')):
                    try:
                        act()
                    except (KeyError, AttributeError, TypeError):
                        pass
                    else:
                        raise AssertionError('it can be changed')
                seen.append(as_dict)
                start_response('200 OK', [])
                return []
            ",
        )
        .await;
        for (version, shown) in VERSIONS.into_iter().zip(["1.1", "2"]) {
            let answer = site.ask(version, site.request("POST", "/p%20q?r=s", Full::from("x"))).await;
            assert_eq!(answer.status, StatusCode::OK);
            for (key, value) in [
                ("type", "'http'"),
                ("http_version", &format!("'{shown}'")),
                ("method", "'POST'"),
                ("scheme", "'http'"),
                ("path", "'/p q'"),
                ("raw_path", "b'/p%20q'"),
                ("query_string", "b'r=s'"),
                ("root_path", "''"),
                ("asgi", "{'version': '3.0', 'spec_version': '2.5'}"),
            ] {
                assert_eq!(site.module.show(&format!("repr(seen[-1]['{key}'])")), value, "{key}");
            }
            assert!(site.module.is("{'client', 'server'} <= set(seen[-1])"));
        }
    });
}

#[test]
fn c4_what_an_async_layer_says_is_in_the_environ() {
    run(async {
        let module = Module::new(EVALUATE);
        let service = ServiceBuilder::new()
            .map_request(|mut request: Request<hyper::body::Incoming>| {
                let scope = Scope::of(&request)
                    .with_client("192.0.2.7:4000".parse().unwrap())
                    .with_server("shop.example", 8443)
                    .with_scheme(http::uri::Scheme::HTTPS);
                request.extensions_mut().insert(scope);
                let mut environ = Environ::of(&request);
                environ.set("REMOTE_USER", "mrs. x");
                environ.set("tower.custom", b"caf\xe9".to_vec());
                request.extensions_mut().insert(environ);
                request
            })
            .layer(WsgiLayer::adapter())
            .service(module.app());
        let server = serve(service).await;
        for (expression, expected) in [
            ("e['REMOTE_USER']", "'mrs. x'"),
            ("e['tower.custom']", "'café'"),
            ("e['REMOTE_ADDR'],e['REMOTE_PORT']", "('192.0.2.7', '4000')"),
            ("e['SERVER_NAME'],e['SERVER_PORT']", "('shop.example', '8443')"),
            ("e['wsgi.url_scheme'],e.get('HTTPS')", "('https', 'on')"),
            ("e['asgi.scope']['client']", "('192.0.2.7', 4000)"),
            ("e['asgi.scope']['server']", "('shop.example', 8443)"),
            ("e['asgi.scope']['scheme']", "'https'"),
        ] {
            let mut request = server.request("GET", "/", Full::default());
            request.headers_mut().insert("x-eval", expression.parse().unwrap());
            assert_eq!(server.ask(Version::HTTP_11, request).await.text(), expected, "{expression}");
        }
    });
}

#[test]
fn c1_multiprocess_says_what_the_host_says() {
    run(async {
        let module = Module::new(EVALUATE);
        let server = serve(WsgiLayer::adapter().layer(module.app().multiprocess(true))).await;
        let mut request = server.request("GET", "/", Full::default());
        request.headers_mut().insert("x-eval", "e['wsgi.multiprocess']".parse().unwrap());
        assert_eq!(server.ask(Version::HTTP_11, request).await.text(), "True");
    });
}

#[test]
fn c1_wsgi_errors_goes_to_the_log_line_by_line() {
    run(async {
        let site = site(
            r"
            import traceback, logging
            out = []
            def app(environ, start_response):
                errors = environ['wsgi.errors']
                out.append(errors.write('errors_one\nerrors_two ä\nerrors_'))
                errors.write('thr')
                errors.write('ee\n')
                errors.writelines(['errors_four\n', 'errors_', 'five'])
                errors.flush()
                print('errors_six', 6, file=errors)
                errors.write('')
                errors.flush()
                try:
                    raise ValueError('errors_seven')
                except ValueError:
                    traceback.print_exc(file=errors)
                logging.StreamHandler(errors).emit(logging.makeLogRecord({'msg': 'errors_eight'}))
                for wrong in (b'bytes', None, 5):
                    try:
                        errors.write(wrong)
                    except TypeError:
                        out.append('TypeError')
                errors.write('errors_\udc80 nine\n')
                start_response('200 OK', [])
                return []
            ",
        )
        .await;
        assert_eq!(site.get("/").await.status, StatusCode::OK);
        let said =
            ["errors_one", "errors_two ä", "errors_three", "errors_four", "errors_five", "errors_six 6"];
        for said in said.into_iter().chain(["ValueError: errors_seven", "errors_eight"]) {
            logged(said).await;
            let log = crate::log::text();
            let line = log.lines().find(|line| line.contains(said)).unwrap();
            assert!(
                line.contains("ERROR") && line.contains("wsgi.errors: ") && line.ends_with(said),
                "{line}"
            );
        }
        logged(" nine").await;
        assert_eq!(site.module.show("out"), "[31, 'TypeError', 'TypeError', 'TypeError']");
    });
}

#[test]
fn pep3333_file_wrapper_sends_files_and_closes_them() {
    run(async {
        let site = site(
            r"
            import io, tempfile
            closed = []
            class Reader:
                def __init__(self): self.left = [b'aa', b'bb', b'c']
                def read(self, size):
                    sizes.append(size)
                    return self.left.pop(0) if self.left else b''
            class Closing(Reader):
                def close(self): closed.append('closing')
            class Bytes(io.BytesIO):
                def close(self):
                    closed.append('bytes')
                    super().close()
            sizes = []
            def real():
                file = tempfile.TemporaryFile()
                file.write(b'real' * 100_000)
                file.seek(4)
                return file
            def app(environ, start_response):
                wrap = environ['wsgi.file_wrapper']
                start_response('200 OK', [])
                kind = environ['PATH_INFO'][1:]
                if kind == 'real': return wrap(real(), 5000)
                if kind == 'bytes': return wrap(Bytes(b'x' * 20_000))
                if kind == 'reader': return wrap(Reader(), 2)
                if kind == 'closing': return wrap(Closing())
                if kind == 'zero': return wrap(Reader(), 0)
                if kind == 'keyword': return wrap(Closing(), blksize=3)
                if kind == 'text': return wrap(io.StringIO('text'))
                if kind == 'upper': return (chunk.upper() for chunk in wrap(Reader(), 2))
                if kind == 'isinstance':
                    assert isinstance(wrap(Reader()), wrap) and iter(wrap(Reader()))
                    return []
                if kind == 'unused':
                    wrap(Closing()).close()
                    return []
            ",
        )
        .await;
        assert_eq!(site.get("/real").await.text(), "real".repeat(99_999));
        assert_eq!(site.get("/bytes").await.text(), "x".repeat(20_000));
        site.becomes("closed == ['bytes']").await;
        assert_eq!(site.get("/reader").await.text(), "aabbc");
        assert_eq!(site.module.show("sizes"), "[2, 2, 2, 2]");
        assert_eq!(site.get("/closing").await.text(), "aabbc");
        site.becomes("closed == ['bytes', 'closing']").await;
        assert_eq!(site.get("/zero").await.text(), "aabbc");
        assert_eq!(site.get("/upper").await.text(), "AABBC");
        assert_eq!(site.get("/isinstance").await.text(), "");
        assert_eq!(site.get("/keyword").await.text(), "aabbc");
        assert_eq!(site.get("/text").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        site.module.show("closed.clear()");
        assert_eq!(site.get("/unused").await.text(), "");
        assert_eq!(site.module.show("closed"), "['closing']");
        let head = site.ask(Version::HTTP_11, site.request("HEAD", "/closing", Full::default())).await;
        assert_eq!(head.text(), "");
        site.becomes("closed == ['closing', 'closing']").await;
    });
}

#[test]
fn c1_requests_share_nothing_but_the_pool() {
    run(async {
        let module = Module::new(EVALUATE);
        let pool = WorkerPool::new(4);
        let server = serve(WsgiLayer::adapter().pool(pool).layer(module.app())).await;
        let mut asking = tokio::task::JoinSet::new();
        let addr = server.addr;
        for n in 0..50 {
            asking.spawn(async move {
                let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                let io = hyper_util::rt::TokioIo::new(stream);
                let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                for round in 0..20 {
                    let request = Request::get(format!("/{n}/{round}"))
                        .header("host", "a")
                        .header("x-eval", "e['PATH_INFO'],e['HTTP_X_N']")
                        .header("x-n", n)
                        .body(Full::<bytes::Bytes>::default());
                    let answer =
                        super::support::read(client.send_request(request.unwrap()).await.unwrap()).await;
                    assert_eq!(answer.text(), format!("('/{n}/{round}', '{n}')"));
                }
            });
        }
        while let Some(done) = super::support::soon(asking.join_next()).await {
            done.unwrap();
        }
    });
}
