//! `start_response` and `write`: the response's head, and who may still change it.

use http::{StatusCode, Version};
use http_body_util::{BodyExt, Full};

use super::support::{VERSIONS, logged, run, site, soon};

#[test]
fn pep3333_start_response_twice_is_an_error() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                start_response('201 Created', [])
                return [b'not reached']
            ",
        )
        .await;
        assert_eq!(site.get("/").await.status, StatusCode::INTERNAL_SERVER_ERROR);
        logged("start_response was called twice without exc_info").await;
    });
}

#[test]
fn pep3333_exc_info_before_the_first_byte_makes_a_new_head() {
    run(async {
        let site = site(
            r"
            import sys
            def fail(start_response):
                try:
                    raise ValueError('replaced_by_a_page')
                except ValueError:
                    start_response('502 Sorry', [('x-page', 'error')], sys.exc_info())
            def generator(start_response):
                start_response('200 OK', [('x-page', 'right')])
                yield b''
                fail(start_response)
                yield b'page'
            def app(environ, start_response):
                if environ['PATH_INFO'] == '/generator':
                    return generator(start_response)
                start_response('200 OK', [('x-page', 'right'), ('content-length', '1000')])
                if environ['PATH_INFO'] == '/none':
                    start_response('200 OK', [], None)
                fail(start_response)
                return [b'page']
            ",
        )
        .await;
        for path in ["/", "/generator"] {
            for version in VERSIONS {
                let answer = site.ask(version, site.request("GET", path, Full::default())).await;
                assert_eq!((answer.status, answer.text()), (StatusCode::BAD_GATEWAY, "page"), "{path}");
                let pages: Vec<_> = answer.headers.get_all("x-page").iter().collect();
                assert_eq!(pages, ["error"]);
            }
        }
        assert_eq!(site.get("/none").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    });
}

#[test]
fn pep3333_exc_info_after_the_first_byte_raises_what_it_holds() {
    run(async {
        let site = site(
            r"
            import sys
            seen = []
            def fail(start_response, status, name):
                try:
                    raise LookupError(name)
                except LookupError as original:
                    try:
                        start_response(status, [], sys.exc_info())
                    except LookupError as error:
                        seen.append(error is original)
                        raise
                    except BaseException as error:
                        seen.append(repr(error))
                        raise
            def generator(start_response, status, name):
                start_response('200 OK', [])
                yield b'begun'
                fail(start_response, status, name)
                yield b'not reached'
            def app(environ, start_response):
                if environ['PATH_INFO'] == '/write':
                    start_response('200 OK', [])(b'begun')
                    fail(start_response, '500 Too Late', 'raised_again_after_write')
                if environ['PATH_INFO'] == '/invalid':
                    return generator(start_response, 'no status', 'raised_again_with_an_invalid_head')
                return generator(start_response, '500 Too Late', 'raised_again_in_the_generator')
            ",
        )
        .await;
        let cases = [
            ("/", "raised_again_in_the_generator"),
            ("/write", "raised_again_after_write"),
            ("/invalid", "raised_again_with_an_invalid_head"),
        ];
        for (path, name) in cases {
            for version in VERSIONS {
                site.ask_broken(version, site.request("GET", path, Full::default())).await;
                site.becomes("len(seen) == 1").await;
                assert_eq!(site.module.show("seen.pop()"), "True", "{path}");
            }
            if path != "/write" {
                logged(&format!("LookupError: {name}")).await;
            }
        }
    });
}

#[test]
fn a3_write_sends_while_the_application_runs_in_order_with_what_it_returns() {
    run(async {
        let site = site(
            r"
            import threading
            gate = threading.Event()
            def app(environ, start_response):
                write = start_response('202 Accepted', [('x-early', 'yes')])
                write(b'one ')
                assert gate.wait(60)
                write(b'two ')
                write(b'')
                def rest():
                    yield b'three '
                    yield b'four'
                return {'/list': [b'three ', b'four'], '/none': []}.get(environ['PATH_INFO'], rest())
            ",
        )
        .await;
        for (path, rest) in [("/", "two three four"), ("/list", "two three four"), ("/none", "two ")] {
            for version in VERSIONS {
                site.module.show("gate.clear()");
                let request = site.request("GET", path, Full::<bytes::Bytes>::default());
                let mut response = site.send(version, request).await.unwrap();
                assert_eq!(response.status(), StatusCode::ACCEPTED);
                assert_eq!(response.headers()["x-early"], "yes");
                let first = soon(response.frame()).await.unwrap().unwrap();
                assert_eq!(first.into_data().unwrap(), "one ");
                site.module.show("gate.set()");
                assert_eq!(super::support::read(response).await.text(), rest, "{path}");
            }
        }
    });
}

#[test]
fn a6_an_error_after_write_breaks_the_transfer() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                write = start_response('200 OK', [])
                write(b'begun')
                if environ['PATH_INFO'] == '/body':
                    def body():
                        yield b'more'
                        raise ValueError('body_fails_after_write')
                    return body()
                if environ['PATH_INFO'] == '/twice':
                    start_response('200 OK', [])
                if environ['PATH_INFO'] == '/text':
                    write('text')
                raise ValueError('app_fails_after_write')
            ",
        )
        .await;
        for path in ["/", "/body", "/twice", "/text"] {
            for version in VERSIONS {
                site.ask_broken(version, site.request("GET", path, Full::default())).await;
            }
        }
    });
}

#[test]
fn a12_an_error_after_write_is_in_the_log() {
    run(async {
        let site = site(
            r"
            n = [0]
            def app(environ, start_response):
                write = start_response('200 OK', [])
                write(b'begun')
                n[0] += 1
                raise ValueError('logged_after_write_%d' % n[0])
            ",
        )
        .await;
        for n in 1..=100 {
            site.get("/").await.body.expect_err("a broken transfer");
            logged(&format!("ValueError: logged_after_write_{n}")).await;
        }
    });
}

#[test]
fn a7_write_is_kept_to_the_content_length() {
    run(async {
        let site = site(
            r"
            raised = []
            def app(environ, start_response):
                write = start_response('200 OK', [('Content-Length', environ['QUERY_STRING'])])
                try:
                    write(b'six')
                    write(b'six')
                except OSError as error:
                    raised.append(str(error))
                    raise
                return []
            ",
        )
        .await;
        assert_eq!(site.get("/?6").await.text(), "sixsix");
        site.get("/?9").await.body.expect_err("too short");
        let over = "GET /?4 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = String::from_utf8(site.raw(over).await).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!("sixs".starts_with(body), "{answer}");
    });
}

#[test]
fn a14_write_on_head_sends_no_body() {
    run(async {
        let site = site(
            r"
            done = []
            def app(environ, start_response):
                write = start_response('200 OK', [('x-a', 'b')])
                try:
                    write(b'begun')
                except OSError:
                    done.append('OSError')
                    raise
                done.append('written')
                return [b'rest']
            ",
        )
        .await;
        for version in VERSIONS {
            let answer = site.ask(version, site.request("HEAD", "/", Full::default())).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, ""));
            assert_eq!(answer.headers["x-a"], "b");
        }
        site.becomes("done == ['written'] * 2").await;
    });
}

#[test]
fn a5_the_head_may_come_in_the_generators_first_step() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                yield b''
                start_response('203 Lazy', [('x-lazy', 'yes')])
                yield b''
                if environ['PATH_INFO'] == '/empty': return
                yield b'body'
            ",
        )
        .await;
        for version in VERSIONS {
            for (path, body) in [("/", "body"), ("/empty", "")] {
                let answer = site.ask(version, site.request("GET", path, Full::default())).await;
                assert_eq!((answer.status.as_u16(), answer.text()), (203, body));
                assert_eq!(answer.headers["x-lazy"], "yes");
            }
            let answer = site.ask(version, site.request("HEAD", "/", Full::default())).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (203, ""));
        }
    });
}

#[test]
fn pep3333_no_start_response_is_a_500_that_says_so() {
    run(async {
        let site = site(
            r"
            def late(start_response):
                yield b'too early'
                start_response('200 OK', [])
            def app(environ, start_response):
                kind = environ['PATH_INFO'][1:]
                if kind == 'late': return late(start_response)
                return dict(list=[b'x'], empty=[], generator=(x for x in [b'x']), nothing=iter([]))[kind]
            ",
        )
        .await;
        for kind in ["list", "empty", "generator", "nothing", "late"] {
            for method in ["GET", "HEAD"] {
                let answer = site
                    .ask(Version::HTTP_11, site.request(method, &format!("/{kind}"), Full::default()))
                    .await;
                assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{method} {kind}");
            }
        }
        logged("the application did not call start_response").await;
    });
}

/// An application whose head is Python text in the query.
const HEADS: &str = r"
    from urllib.parse import unquote
    class Text(str): pass
    class Headers(list): pass
    def app(environ, start_response):
        status, headers = eval(unquote(environ['QUERY_STRING']))
        start_response(status, headers)
        return [b'body']
";

fn quoted(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn pep3333_status_lines_are_sent_as_they_are() {
    run(async {
        let site = site(HEADS).await;
        for (status, line) in [
            ("'200 OK'", "HTTP/1.1 200 OK"),
            ("'200'", "HTTP/1.1 200 OK"),
            ("'200 '", "HTTP/1.1 200 OK"),
            ("'200 Fine so far'", "HTTP/1.1 200 Fine so far"),
            ("'418 I am a teapot, too'", "HTTP/1.1 418 I am a teapot, too"),
            ("'599 Nobody knows'", "HTTP/1.1 599 Nobody knows"),
            ("'999 Odd'", "HTTP/1.1 999 Odd"),
            ("Text('200 OK')", "HTTP/1.1 200 OK"),
        ] {
            let request = format!(
                "GET /?{} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
                quoted(&format!("{status}, []"))
            );
            let answer = String::from_utf8(site.raw(request).await).unwrap();
            assert_eq!(answer.lines().next().unwrap().trim_end(), line.trim_end(), "{status}");
            assert!(answer.ends_with("body"));
        }
        let request = format!(
            "GET /?{} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            quoted("'200 Gr\\xfcn', []")
        );
        let answer = site.raw(request).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 Gr\xfcn\r\n"), "{}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn c3_heads_that_cannot_be_are_a_500_and_nothing_is_injected() {
    run(async {
        let site = site(HEADS).await;
        for head in [
            "'1000', []",
            "'1000 Big', []",
            "'99x', []",
            "'99', []",
            "'099 Small', []",
            "'', []",
            "'OK', []",
            "' 200 OK', []",
            "'200\\tOK', []",
            "'200OK', []",
            "'2\u{662}0 OK', []",
            "'200 \u{2713}', []",
            "'200 OK\\r\\nx-injected: yes', []",
            "'200 OK\\nx-injected: yes', []",
            "'200 OK\\x00', []",
            "b'200 OK', []",
            "200, []",
            "None, []",
            "'100 Continue', []",
            "'103 Early', []",
            "'200 OK', None",
            "'200 OK', ()",
            "'200 OK', {}",
            "'200 OK', iter([])",
            "'200 OK', [('a',)]",
            "'200 OK', [('a', 'b', 'c')]",
            "'200 OK', [['a', 'b']]",
            "'200 OK', ['ab']",
            "'200 OK', [('a', 5)]",
            "'200 OK', [('a', None)]",
            "'200 OK', [(b'a', b'b')]",
            "'200 OK', [('x-a', 'b\\r\\nx-injected: yes')]",
            "'200 OK', [('x-a', 'b\\nx-injected: yes')]",
            "'200 OK', [('x-a', 'b\\rx-injected: yes')]",
            "'200 OK', [('x-a', 'b\\x00')]",
            "'200 OK', [('x-a', '\\u2713')]",
            "'200 OK', [('x-a', '\\ud800')]",
            "'200 OK', [('x-a: b\\r\\nx-injected', 'yes')]",
            "'200 OK', [('x a', 'b')]",
            "'200 OK', [('', 'b')]",
            "'200 OK', [('x-\\xe9', 'b')]",
            "'200 OK', [('content-length', '-1')]",
            "'200 OK', [('content-length', '4'), ('content-length', '4')]",
            "'200\\ud800 OK', []",
        ] {
            for version in VERSIONS {
                let request = site.request("GET", &format!("/?{}", quoted(head)), Full::default());
                let answer = site.ask(version, request).await;
                assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{head} over {version:?}");
                assert!(!answer.headers.contains_key("x-injected"), "{head}");
                assert_eq!(answer.text(), "Internal Server Error\n", "{head}");
            }
        }
        // The server lives on.
        assert_eq!(site.get(&format!("/?{}", quoted("'200 OK', []"))).await.text(), "body");
        logged("not a valid status: '1000'").await;
        logged("not a valid header value: 'b\\nx-injected: yes'").await;
    });
}

#[test]
fn c1_headers_are_bytes_and_keep_their_order() {
    run(async {
        let site = site(HEADS).await;
        let head = "'200 OK', Headers([('Set-Cookie', 'a=1'), ('X-Latin', 'caf\\xe9 \\xff'), (Text('Set-Cookie'), Text('b=2')), \
                    ('X-Empty', ''), ('x-tab', 'a\\tb')])";
        for version in VERSIONS {
            let answer =
                site.ask(version, site.request("GET", &format!("/?{}", quoted(head)), Full::default())).await;
            assert_eq!(answer.text(), "body");
            assert_eq!(answer.headers["x-latin"].as_bytes(), b"caf\xe9 \xff");
            let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
            assert_eq!(cookies, ["a=1", "b=2"]);
            assert_eq!(answer.headers["x-empty"], "");
            assert_eq!(answer.headers["x-tab"], "a\tb");
            assert_eq!(answer.headers["content-length"], "4");
        }
    });
}

#[test]
fn c3_hop_by_hop_headers_of_an_application_are_dropped() {
    run(async {
        let site = site(HEADS).await;
        let head = "'200 OK', [('Connection', 'close, X-Secret'), ('X-Secret', '1'), ('Keep-Alive', 'x'), ('Transfer-Encoding', 'chunked'), ('Upgrade', 'h2c')]";
        for version in VERSIONS {
            let answer =
                site.ask(version, site.request("GET", &format!("/?{}", quoted(head)), Full::default())).await;
            assert_eq!(answer.text(), "body");
            for name in ["connection", "x-secret", "keep-alive", "transfer-encoding", "upgrade"] {
                assert!(!answer.headers.contains_key(name), "{name}");
            }
        }
    });
}

#[test]
fn pep3333_start_response_takes_positions_and_returns_write() {
    run(async {
        let site = site(
            r"
            out = []
            def app(environ, start_response):
                for wrong in [(), ('200 OK',), ('200 OK', [], None, 1)]:
                    try:
                        start_response(*wrong)
                    except TypeError:
                        out.append('TypeError')
                write = start_response('200 OK', [])
                out.append(callable(write))
                return []
            ",
        )
        .await;
        assert_eq!(site.get("/").await.text(), "");
        assert_eq!(site.module.show("out"), "['TypeError', 'TypeError', 'TypeError', True]");
    });
}

#[test]
fn pep3333_write_after_the_return_is_an_error() {
    run(async {
        let site = site(
            r"
            kept, raised = [], []
            def app(environ, start_response):
                kept.append(start_response('200 OK', []))
                return [b'over']
            def late():
                try:
                    kept.pop()(b'late')
                except AssertionError as error:
                    raised.append(str(error))
                return raised
            ",
        )
        .await;
        assert_eq!(site.get("/").await.text(), "over");
        assert!(site.module.show("late()").contains("write() was called after"));
    });
}
