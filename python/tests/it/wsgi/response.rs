//! What the application returns: how it goes to the client, and what becomes of it where it fails or nobody wants it.

use std::io::{Read, Write};

use http::{StatusCode, Version};
use http_body_util::{BodyExt, Full};

use tower::Layer;
use tower_wsgi::WsgiLayer;

use super::support::{Module, VERSIONS, blocking, logged, read, run, serve, site, site_with, soon};

#[test]
fn a5_an_iterator_that_fails_before_its_first_byte_is_a_500_with_a_traceback_in_the_log() {
    run(async {
        let site = site(
            r"
            closed = []
            class Body:
                def __init__(self, chunks): self.chunks = chunks
                def __iter__(self): return self
                def __next__(self):
                    if self.chunks: return self.chunks.pop()
                    raise ValueError('fails before its first byte')
                def close(self): closed.append(1)
            def app(environ, start_response):
                start_response('200 OK', [('x-mine', 'yes')])
                return Body([b'', b''] if environ['PATH_INFO'] == '/empty' else [])
            ",
        )
        .await;
        for (index, path) in ["/", "/empty"].into_iter().enumerate() {
            let answer = site.get(path).await;
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(answer.text(), "Internal Server Error\n");
            assert!(!answer.headers.contains_key("x-mine"));
            site.becomes(&format!("len(closed) == {}", index + 1)).await;
        }
        logged("ValueError: fails before its first byte").await;
        assert!(
            crate::log::text().contains("Traceback (most recent call last)")
                && crate::log::text().contains("in __next__")
        );
    });
}

#[test]
fn what_fails_is_in_the_log_with_its_method_and_its_whole_path() {
    run(async {
        let module = Module::new(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                if environ['PATH_INFO'] == '/text': return ['text']
                return chunks(environ['PATH_INFO'] == '/late')
            def chunks(late):
                if late: yield b'begun'
                raise ValueError('one of many')
            ",
        );
        let app = axum::Router::new().layer(WsgiLayer::new(module.app()).at("/site%20one"));
        let server = serve(app).await;
        assert_eq!(server.get("/site%20one/text?query").await.status, 500);
        logged("source=GET /site%20one/text failed\nTypeError: a WSGI application must return an iterable of bytes, not of str").await;
        assert_eq!(server.post("/site%20one/early", "").await.status, 500);
        logged("source=POST /site%20one/early failed\nTraceback (most recent call last):\n").await;
        let late = server.request("GET", "/site%20one/late", Full::default());
        server.ask_broken(Version::HTTP_11, late).await;
        logged("source=GET /site%20one/late failed\nTraceback (most recent call last):\n").await;
    });
}

#[test]
fn a_clone_is_the_same_application_and_keeps_its_settings() {
    run(async {
        let module = Module::new(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                return [str(environ['wsgi.multiprocess']).encode()]
            ",
        );
        let app = module.app();
        let many = app.clone().multiprocess(true);
        for (app, says) in [(app.clone(), "False"), (many.clone(), "True"), (app, "False")] {
            let server = serve(WsgiLayer::adapter().layer(app)).await;
            assert_eq!(server.get("/").await.text(), says);
        }
    });
}

#[test]
fn a12_what_an_application_raises_is_a_500_and_its_traceback_is_in_the_log() {
    run(async {
        let site = site(
            r"
            import sys
            def cause():
                raise KeyError('the_cause_of_it')
            def app(environ, start_response):
                if environ['PATH_INFO'] == '/exit':
                    sys.exit('an_exit_of_the_application')
                if environ['PATH_INFO'] == '/keyboard':
                    raise KeyboardInterrupt('a_keyboard_of_the_application')
                try:
                    cause()
                except KeyError as error:
                    raise RuntimeError('raised_by_the_application ä') from error
            ",
        )
        .await;
        for version in VERSIONS {
            let answer = site.ask(version, site.request("GET", "/", Full::default())).await;
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(!answer.text().contains("raised_by"), "it is not told to the client");
        }
        logged("RuntimeError: raised_by_the_application ä").await;
        logged("KeyError: 'the_cause_of_it'").await;
        // What ends a program ends no server.
        assert_eq!(site.get("/exit").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        logged("an_exit_of_the_application").await;
        assert_eq!(site.get("/keyboard").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        logged("a_keyboard_of_the_application").await;
    });
}

#[test]
fn a6_an_iterator_that_fails_after_its_first_byte_breaks_the_transfer() {
    run(async {
        let site = site(
            r"
            closed = []
            def app(environ, start_response):
                start_response('200 OK', [])
                def body():
                    try:
                        yield b'half '
                        raise ValueError('fails_after_its_first_byte')
                    finally:
                        closed.append(1)
                return body()
            ",
        )
        .await;
        for (index, version) in VERSIONS.into_iter().enumerate() {
            let got = site.ask_broken(version, site.request("GET", "/", Full::default())).await;
            assert!(got.is_empty() || got == "half ", "{got:?}");
            site.becomes(&format!("len(closed) == {}", index + 1)).await;
        }
        logged("ValueError: fails_after_its_first_byte").await;
        let raw = site.raw("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(!raw.ends_with(b"0\r\n\r\n"), "a clean end: {}", String::from_utf8_lossy(&raw));
    });
}

/// A generator of many chunks that counts them, and tells its end.
const COUNTING: &str = r"
    made, ended, closed = [0], [], []
    class Body:
        def __init__(self): self.chunks = self.generate()
        def generate(self):
            try:
                for _ in range(99_999):
                    made[0] += 1
                    yield b'x' * 1000
                ended.append('whole')
            except GeneratorExit:
                ended.append('exit')
                raise
        def __iter__(self): return self.chunks
        def close(self):
            closed.append(1)
            self.chunks.close()
    def app(environ, start_response):
        if environ['PATH_INFO'] == '/hello':
            start_response('200 OK', [])
            return [b'hello']
        start_response('200 OK', [])
        if environ['PATH_INFO'] == '/generator':
            return Body().generate()
        return Body()
";

#[test]
fn a3_a_slow_reader_has_no_more_than_the_queue_ahead() {
    run(async {
        let site = site(COUNTING).await;
        let request = site.request("GET", "/", Full::<bytes::Bytes>::default());
        // HTTP/2's window is 64 KiB or so of these; what is in the sockets' buffers is not hyper's.
        let response = site.send(Version::HTTP_2, request).await.unwrap();
        site.becomes("made[0] > 10").await;
        site.idle().await;
        let made: usize = site.module.show("made[0]").parse().unwrap();
        assert!(made < 5_000, "{made} chunks of 1,000 bytes");
        // Nothing goes on in the meantime.
        site.get("/hello").await;
        let again: usize = site.module.show("made[0]").parse().unwrap();
        assert!(again < 5_000, "{again}");
        drop(response);
        site.becomes("closed").await;
    });
}

#[test]
fn a4_stalled_downloads_hold_no_worker() {
    run(async {
        let site = site_with(COUNTING, 2, |layer| layer.max_queued(1000)).await;
        let mut stalled = Vec::new();
        for _ in 0..20 {
            let request = site.request("GET", "/generator", Full::<bytes::Bytes>::default());
            stalled.push(site.send(Version::HTTP_11, request).await.unwrap());
        }
        assert_eq!(site.get("/hello").await.text(), "hello");
        site.idle().await;
        drop(stalled);
        site.becomes("ended == ['exit'] * 20").await;
    });
}

#[test]
fn a8_a_client_that_leaves_in_mid_download_closes_the_generator_once() {
    run(async {
        let site = site_with(COUNTING, 1, |layer| layer).await;
        for (index, (version, path)) in [
            (Version::HTTP_11, "/"),
            (Version::HTTP_2, "/"),
            (Version::HTTP_11, "/generator"),
            (Version::HTTP_2, "/generator"),
        ]
        .into_iter()
        .enumerate()
        {
            let request = site.request("GET", path, Full::<bytes::Bytes>::default());
            let mut response = site.send(version, request).await.unwrap();
            soon(response.frame()).await.unwrap().unwrap();
            drop(response);
            site.becomes(&format!("len(ended) == {}", index + 1)).await;
            site.idle().await;
            assert_eq!(site.get("/hello").await.text(), "hello");
        }
        assert_eq!(site.module.show("ended"), "['exit', 'exit', 'exit', 'exit']");
        assert_eq!(site.module.show("closed"), "[1, 1]");
    });
}

#[test]
fn a9_close_is_called_once_for_whatever_has_one() {
    run(async {
        let site = site(
            r"
            closed = []
            class Close:
                def close(self): closed.append(type(self).__name__)
            class OfList(Close, list): pass
            class OfTuple(Close, tuple): pass
            class OfBytesList(OfList): pass
            class Iterator(Close):
                n = 2
                def __iter__(self): return self
                def __next__(self):
                    self.n -= 1
                    if self.n < 0: raise StopIteration
                    return b'a'
            class Iterable(Close):
                def __iter__(self): return iter([b'a', b'a'])
            class Items(Close):
                def __getitem__(self, at): return [b'a', b'a'][at]
            class Late(Close):
                def __iter__(self):
                    assert not closed
                    yield b'a'
                    assert not closed
                    yield b'a'
            class NotIterable(Close): pass
            class WrongChunk(Close):
                def __iter__(self): return iter(['text'])
            class Single(OfList): pass
            class Empty(OfList): pass
            class FailingClose:
                def __iter__(self): return iter([b'a', b'a'])
                def close(self):
                    closed.append(type(self).__name__)
                    raise ValueError('close_itself_failed')
            makers = dict(OfList=lambda: OfList([b'a', b'a']), OfTuple=lambda: OfTuple((b'a', b'a')), Iterator=Iterator,
                Iterable=Iterable, Items=Items, Late=Late, NotIterable=NotIterable, WrongChunk=WrongChunk,
                FailingClose=FailingClose)
            def app(environ, start_response):
                if environ['PATH_INFO'] != '/NoHead':
                    start_response('200 OK', [])
                return makers.get(environ['PATH_INFO'][1:], Iterable)()
            ",
        )
        .await;
        for (name, is_right) in [
            ("OfList", true),
            ("OfTuple", true),
            ("Iterator", true),
            ("Iterable", true),
            ("Items", true),
            ("Late", true),
            ("NotIterable", false),
            ("WrongChunk", false),
            ("FailingClose", true),
        ] {
            for version in VERSIONS {
                let answer =
                    site.ask(version, site.request("GET", &format!("/{name}"), Full::default())).await;
                match is_right {
                    true => assert_eq!(answer.text(), "aa", "{name}"),
                    false => assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{name}"),
                }
                site.becomes("closed").await;
                site.idle().await;
                assert_eq!(site.module.show("(closed, closed.clear())[0] and closed"), "[]");
                assert_eq!(site.module.show("len(closed)"), "0");
            }
            // HEAD, and a response that the application never began.
            let answer =
                site.ask(Version::HTTP_11, site.request("HEAD", &format!("/{name}"), Full::default())).await;
            assert!(answer.text().is_empty());
            site.becomes("closed").await;
            site.idle().await;
            assert_eq!(
                site.module.show(&format!("closed == ['{name}']")),
                "True",
                "{}",
                site.module.show("closed")
            );
            site.module.show("closed.clear()");
        }
        let answer = site.get("/NoHead").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        site.becomes("closed == ['Iterable']").await;
        logged("ValueError: close_itself_failed").await;
    });
}

#[test]
fn a14_a_body_that_nobody_wants_is_not_begun_but_closed() {
    run(async {
        let site = site(
            r"
            begun, closed = [], []
            class Body:
                def __iter__(self):
                    begun.append(1)
                    yield b'x'
                def close(self): closed.append(1)
            def app(environ, start_response):
                start_response(environ['QUERY_STRING'] or '200 OK', [('Content-Length', '1')])
                return Body()
            ",
        )
        .await;
        for version in VERSIONS {
            let answer = site.ask(version, site.request("HEAD", "/", Full::default())).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, ""));
            assert_eq!(answer.headers["content-length"], "1");
        }
        site.becomes("len(closed) == 2").await;
        assert_eq!(site.module.show("begun"), "[]");
        for status in ["204", "304"] {
            let answer = site.get(&format!("/?{status}")).await;
            assert_eq!((answer.status.as_str(), answer.text()), (status, ""));
        }
        site.becomes("len(closed) == 4").await;
    });
}

#[test]
fn a7_content_length_is_kept() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [('Content-Length', environ['QUERY_STRING'])])
                if environ['PATH_INFO'] == '/list': return [b'six', b'six']
                if environ['PATH_INFO'] == '/one': return [b'sixsix']
                if environ['PATH_INFO'] == '/write':
                    return []
                return (chunk for chunk in [b'six', b'six'])
            ",
        )
        .await;
        for path in ["/list", "/one", "/generator"] {
            let over = format!(
                "GET {path}?3 HTTP/1.1\r\nhost: a\r\n\r\nGET {path}?6 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            );
            let answer = String::from_utf8(site.raw(over).await).unwrap();
            let (first, second) = answer.split_once("\r\n\r\n").unwrap();
            assert!(first.to_lowercase().contains("content-length: 3"), "{answer}");
            // The connection goes on with the next response, or ends: nothing of the excess is in between.
            assert!(
                second == "six" || second.starts_with("sixHTTP/1.1 200 OK") && second.ends_with("sixsix"),
                "{path}: {answer}"
            );
            for version in VERSIONS {
                let request = site.request("GET", &format!("{path}?9"), Full::default());
                if path == "/generator" {
                    site.ask_broken(version, request).await;
                } else {
                    let status = site.ask(version, request).await.status;
                    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path} {version:?}");
                }
            }
        }
        logged("Content-Length").await;
        assert_eq!(site.get("/list?x").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(site.get("/list?6").await.text(), "sixsix");
    });
}

#[test]
fn a5_an_empty_list_is_an_empty_body() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                return {'/list': [], '/tuple': (), '/bytes': [b''], '/many': [b'', b''], '/iter': iter([])}[environ['PATH_INFO']]
            ",
        )
        .await;
        for path in ["/list", "/tuple", "/bytes", "/many", "/iter"] {
            for version in VERSIONS {
                let answer = site.ask(version, site.request("GET", path, Full::default())).await;
                assert_eq!((answer.status, answer.text()), (StatusCode::OK, ""), "{path}");
                if path != "/iter" && version == Version::HTTP_11 {
                    assert_eq!(answer.headers["content-length"], "0", "{path}");
                }
            }
        }
    });
}

#[test]
fn pep3333_what_is_no_bytes_is_a_500_that_says_so() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                kind = environ['PATH_INFO'][1:]
                return dict(text=['text'], bytearray=[bytearray(b'x')], memory=[memoryview(b'x')], none=[None], str='text',
                    number=5, nothing=None, generator=(x for x in [1]), later=(x for x in [b'x', 'y']), bytes=b'ab')[kind]
            ",
        )
        .await;
        for kind in ["text", "bytearray", "memory", "none", "str", "number", "nothing", "generator", "bytes"]
        {
            let answer = site.get(&format!("/{kind}")).await;
            assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{kind}");
        }
        site.get("/later").await.body.expect_err("a broken transfer");
        for kind in ["str", "bytearray", "memoryview", "NoneType", "int"] {
            logged(&format!("must return an iterable of bytes, not of {kind}")).await;
        }
    });
}

#[test]
fn a3_chunks_of_any_size_arrive_in_order() {
    run(async {
        let site = site(
            r"
            def body():
                for n in [0, 1, 32767, 32768, 32769, 100_000, 0, 3, 1_000_000, 1]:
                    yield bytes([n % 251]) * n
            whole = b''.join(body())
            def app(environ, start_response):
                start_response('200 OK', [])
                return {'/generator': body, '/list': lambda: list(body()), '/tuple': lambda: tuple(body()),
                    '/one': lambda: [whole]}[environ['PATH_INFO']]()
            ",
        )
        .await;
        let whole: Vec<u8> = [0usize, 1, 32767, 32768, 32769, 100_000, 0, 3, 1_000_000, 1]
            .into_iter()
            .flat_map(|n| std::iter::repeat_n((n % 251) as u8, n))
            .collect();
        for path in ["/generator", "/list", "/tuple", "/one"] {
            for version in VERSIONS {
                let answer = site.ask(version, site.request("GET", path, Full::default())).await;
                assert!(answer.body.expect("whole") == whole, "{path} over {version:?}");
            }
        }
    });
}

#[test]
fn a10_a_flood_is_bounded() {
    run(async {
        let site = site_with(
            r"
            import threading
            gate = threading.Event()
            def app(environ, start_response):
                gate.wait(60)
                start_response('200 OK', [])
                return [b'served']
            ",
            3,
            |layer| layer.max_queued(20),
        )
        .await;
        let addr = site.addr;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..500 {
            asking.spawn(async move {
                let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                let io = hyper_util::rt::TokioIo::new(stream);
                let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                let request =
                    http::Request::get("/").header("host", "a").body(Full::<bytes::Bytes>::default());
                read(client.send_request(request.unwrap()).await.unwrap()).await
            });
        }
        let mut refused = 0;
        while refused < 477 {
            let answer = soon(asking.join_next()).await.unwrap().unwrap();
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers.contains_key("retry-after"));
            refused += 1;
        }
        assert!(site.pool.stats().threads <= 3);
        site.module.show("gate.set()");
        while let Some(answer) = soon(asking.join_next()).await {
            assert_eq!(answer.unwrap().text(), "served");
        }
    });
}

#[test]
fn a8_the_application_can_ask_whether_the_client_is_gone() {
    run(async {
        let site = site(
            r"
            import time
            asked, seen = [], []
            def app(environ, start_response):
                gone = environ['tower_wsgi.client_disconnected']
                asked.append(gone())
                while not gone():
                    time.sleep(0.001)
                seen.append(gone())
                start_response('200 OK', [])
                return []
            ",
        )
        .await;
        for version in VERSIONS {
            let request = site.request("GET", "/", Full::<bytes::Bytes>::default());
            let mut sending = Box::pin(site.send(version, request));
            tokio::select! {
                _ = &mut sending => panic!("it waits for the client to leave"),
                () = site.becomes("asked") => {}
            }
            drop(sending);
            site.becomes("seen == [True] and asked == [False]").await;
            site.module.show("(asked.clear(), seen.clear())");
        }
    });
}

#[test]
fn a8_write_of_a_client_that_is_gone_raises_oserror() {
    run(async {
        let site = site(
            r"
            raised = []
            def app(environ, start_response):
                write = start_response('200 OK', [])
                try:
                    while True:
                        write(b'x' * 10_000)
                except OSError as error:
                    raised.append(type(error).__name__)
                return []
            ",
        )
        .await;
        let mut stream = site.connect();
        blocking(move || {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 1000]).unwrap();
        })
        .await;
        site.becomes("raised == ['BrokenPipeError']").await;
        site.idle().await;
    });
}
