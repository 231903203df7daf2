//! `wsgi.input`: the request's body as the application reads it.

use std::io::Write;

use bytes::Bytes;
use http::{StatusCode, Version};

use super::support::{VERSIONS, blocking, eventually, pushed, read, resident, run, site, site_with, soon};

/// An application that answers with what `EXPRESSION` makes of its input.
const EVALUATE: &str = r"
    import io
    def app(environ, start_response):
        start_response('200 OK', [])
        i = environ['wsgi.input']
        return [repr(eval(environ['QUERY_STRING'].replace('%20', ' '), dict(i=i, io=io))).encode()]
";

#[test]
fn a1_every_way_to_read_gives_what_a_file_gives() {
    run(async {
        let site = site(EVALUATE).await;
        let cases = [
            ("hello world\n", "i.readline(5)", "b'hello'"),
            ("hello world\nx", "i.readline(5),i.readline(),i.readline()", "(b'hello', b' world\\n', b'x')"),
            ("l1\nl2\nl3\n", "i.readlines(2)", "[b'l1\\n']"),
            ("l1\nl2\nl3\n", "i.readlines(3)", "[b'l1\\n']"),
            ("l1\nl2\nl3\n", "i.readlines(4)", "[b'l1\\n', b'l2\\n']"),
            ("l1\nl2\nl3\n", "i.readlines(0)", "[b'l1\\n', b'l2\\n', b'l3\\n']"),
            ("l1\nl2\nl3\n", "i.readlines(-1)", "[b'l1\\n', b'l2\\n', b'l3\\n']"),
            ("l1\nl2\nl3\n", "i.readlines(None)", "[b'l1\\n', b'l2\\n', b'l3\\n']"),
            ("a\nb", "i.readlines()", "[b'a\\n', b'b']"),
            ("", "i.readlines()", "[]"),
            ("", "i.readline(),i.read(),i.read(5),list(i)", "(b'', b'', b'', [])"),
            ("abcdef", "i.read(2),i.read()", "(b'ab', b'cdef')"),
            ("abcdef", "i.read(2),i.readline(),i.read()", "(b'ab', b'cdef', b'')"),
            ("a\nb\n\nc", "list(i)", "[b'a\\n', b'b\\n', b'\\n', b'c']"),
            ("", "list(i)", "[]"),
            ("abc", "i.read(-1)", "b'abc'"),
            ("abc", "i.read(None)", "b'abc'"),
            ("abc", "i.read(-7),i.read(-1)", "(b'abc', b'')"),
            ("abc", "i.read(0),i.readline(0),i.read(1)", "(b'', b'', b'a')"),
            ("abc", "i.read(1000)", "b'abc'"),
            ("abc", "i.readline(-1)", "b'abc'"),
            ("abc", "i.readline(None)", "b'abc'"),
            ("abc", "i.read1(),i.read1()", "(b'abc', b'')"),
            ("abc", "i.read1(2),i.read1(-1)", "(b'ab', b'c')"),
            ("abc", "(lambda%20b:%20(i.readinto(b),bytes(b)))(bytearray(2))", "(2, b'ab')"),
            ("abc", "(lambda%20b:%20(i.readinto(b),bytes(b)))(bytearray(5))", "(3, b'abc\\x00\\x00')"),
            ("abc", "i.readinto(bytearray(0))", "0"),
            ("a\r\nb", "io.TextIOWrapper(i).read()", "'a\\nb'"),
            ("a\nb", "io.TextIOWrapper(io.BufferedReader(i)).readlines()", "['a\\n', 'b']"),
            ("abcdef", "io.BufferedReader(i,2).read()", "b'abcdef'"),
            ("abcdef", "io.BufferedReader(i).peek(3)[:3]", "b'abc'"),
            ("ab", "i.readable(),i.writable(),i.seekable(),i.closed", "(True, False, False, False)"),
            ("ab", "i.close(),i.read()", "(None, b'ab')"),
            ("a\nb", "next(i),i.read()", "(b'a\\n', b'b')"),
            ("a\nb", "iter(i)%20is%20i", "True"),
        ];
        for version in VERSIONS {
            for (body, expression, expected) in cases {
                let request = site.request("POST", &format!("/?{expression}"), body.to_owned().into());
                let answer = site.ask(version, request).await;
                assert_eq!(answer.text(), expected, "{expression} of {body:?} over {version:?}");
            }
        }
    });
}

#[test]
fn a1_wrong_sizes_are_type_errors_and_nothing_is_lost() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                i, out = environ['wsgi.input'], []
                for wrong in ('3', 1.5, b'', object()):
                    for method in (i.read, i.readline, i.readlines, i.read1):
                        try:
                            method(wrong)
                        except TypeError:
                            out.append('T')
                for wrong in (b'read-only', 'text', 3):
                    try:
                        i.readinto(wrong)
                    except (TypeError, BufferError):
                        out.append('t')
                return [''.join(out).encode(), b' ', i.read()]
            ",
        )
        .await;
        assert_eq!(site.post("/", "all of it").await.text(), "TTTTTTTTTTTTTTTTttt all of it");
    });
}

#[test]
fn a1_a_huge_size_is_no_allocation() {
    run(async {
        let site = site(EVALUATE).await;
        let path = "/?i.read(2**62),i.read(2**63-1)";
        assert_eq!(site.post(path, "abc").await.text(), "(b'abc', b'')");
        // As for `io.BytesIO`, a size may be no bigger than the machine's word.
        assert_eq!(site.post("/?i.read(2**80)", "abc").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    });
}

#[test]
fn a1_an_upload_without_a_length_arrives_and_says_that_it_ends() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                assert 'CONTENT_LENGTH' not in environ
                assert environ['wsgi.input_terminated'] is True
                return [environ['wsgi.input'].read()]
            ",
        )
        .await;
        for version in VERSIONS {
            let (sender, body) = pushed();
            let request = site.request("POST", "/", body);
            let sending = tokio::spawn(async move {
                for chunk in ["one ", "two ", "three"] {
                    sender.send(Bytes::from_static(chunk.as_bytes())).await.unwrap();
                }
            });
            let answer = read(site.send(version, request).await.unwrap()).await;
            soon(sending).await.unwrap();
            assert_eq!(answer.text(), "one two three", "{version:?}");
        }
    });
}

#[test]
fn a1_lines_come_as_they_arrive() {
    run(async {
        let site = site(
            r"
            lines = []
            def app(environ, start_response):
                start_response('200 OK', [])
                for line in environ['wsgi.input']:
                    lines.append(line)
                return [b'%d' % len(lines)]
            ",
        )
        .await;
        let (sender, body) = pushed();
        let request = site.request("POST", "/", body);
        let client = async {
            sender.send("one\ntw".into()).await.unwrap();
            site.becomes(r"lines == [b'one\n']").await;
            sender.send("o\nthree".into()).await.unwrap();
            site.becomes(r"lines == [b'one\n', b'two\n']").await;
            drop(sender);
        };
        let (response, ()) = tokio::join!(site.send(Version::HTTP_11, request), client);
        assert_eq!(read(response.unwrap()).await.text(), "3");
    });
}

#[test]
fn a1_read1_waits_only_for_the_first_byte() {
    run(async {
        let site = site(
            r"
            parts = []
            def app(environ, start_response):
                start_response('200 OK', [])
                while part := environ['wsgi.input'].read1(100):
                    parts.append(part)
                return []
            ",
        )
        .await;
        let (sender, body) = pushed();
        let request = site.request("POST", "/", body);
        let client = async {
            sender.send("abc".into()).await.unwrap();
            site.becomes("parts == [b'abc']").await;
            sender.send("de".into()).await.unwrap();
            site.becomes("parts == [b'abc', b'de']").await;
            drop(sender);
        };
        let (response, ()) = tokio::join!(site.send(Version::HTTP_11, request), client);
        assert_eq!(read(response.unwrap()).await.text(), "");
    });
}

/// Where the request is cut, and how it declares its length.
const CUT: [(&str, &[u8]); 3] = [
    (
        "declared, with some of it here",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\nsome of it",
    ),
    ("in chunks", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n9\r\npart"),
    ("between chunks", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n"),
];

#[test]
fn a2_a_client_that_vanishes_in_mid_upload_raises_and_stores_nothing() {
    run(async {
        for reader in ["read()", "read(300000)", "readline()", "readlines()", "__class__ and list(i)"] {
            let source = r"
            raised, stored = [], []
            def app(environ, start_response):
                start_response('200 OK', [])
                i = environ['wsgi.input']
                try:
                    stored.append(i.READER)
                except OSError as error:
                    raised.append(error)
                return []
            ";
            let site = site_with(&source.replace("READER", reader), 10, |layer| layer.prefetch(1)).await;
            for (index, (how, cut)) in CUT.into_iter().enumerate() {
                let mut stream = site.connect();
                blocking(move || stream.write_all(cut).unwrap()).await;
                site.becomes(&format!("len(raised) == {}", index + 1)).await;
                assert_eq!(site.module.show("stored"), "[]", "{reader}: {how}");
            }
            assert_eq!(site.module.show("{isinstance(e, OSError) for e in raised}"), "{True}");
            site.idle().await;
        }
    });
}

#[test]
fn a2_an_uncaught_read_error_is_the_clients_fault_and_not_in_the_log() {
    run(async {
        let site = site_with(
            r"
            calls = []
            def app(environ, start_response):
                calls.append(1)
                def vanished_in_mid_upload():
                    environ['wsgi.input'].read()
                vanished_in_mid_upload()
            ",
            10,
            |layer| layer.prefetch(1),
        )
        .await;
        let mut stream = site.connect();
        let answer = blocking(move || {
            stream.write_all(CUT[1].1).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
            answer
        })
        .await;
        site.becomes("calls").await;
        site.idle().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(!crate::log::text().contains("vanished_in_mid_upload"));
    });
}

#[test]
fn a2_a_reader_of_a_silent_client_gets_a_timeout_and_can_go_on() {
    run(async {
        let site = site_with(
            r"
            raised, out = [], []
            def app(environ, start_response):
                i = environ['wsgi.input']
                try:
                    out.append(i.read())
                except TimeoutError:
                    raised.append(1)
                    out.append(i.read())
                start_response('200 OK', [])
                return out
            ",
            10,
            |layer| layer.read_timeout(std::time::Duration::from_millis(100)),
        )
        .await;
        let (sender, body) = pushed();
        let request = site.request("POST", "/", body);
        let client = async {
            sender.send("first ".into()).await.unwrap();
            site.becomes("raised").await;
            sender.send("second".into()).await.unwrap();
            drop(sender);
        };
        let (response, ()) = tokio::join!(site.send(Version::HTTP_11, request), client);
        assert_eq!(read(response.unwrap()).await.text(), "first second");
    });
}

#[test]
fn a1_a_big_upload_takes_little_memory() {
    const SIZE: usize = 256 << 20;
    const NAME: &str = "wsgi::input::a1_a_big_upload_takes_little_memory";
    // What other tests take in the meantime is not this one's.
    if !super::support::is_alone(NAME) {
        super::support::alone(NAME, |_| {});
        return;
    }
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                total = 0
                while block := environ['wsgi.input'].read(65536):
                    total += len(block)
                return [b'%d' % total]
            ",
        )
        .await;
        assert_eq!(site.post("/", vec![b'x'; 1 << 20]).await.text(), (1 << 20).to_string());
        let (sender, body) = pushed();
        let request = site.request("POST", "/", body);
        let before = resident();
        let sending = tokio::spawn(async move {
            let chunk = Bytes::from(vec![b'x'; 1 << 16]);
            let mut most = 0;
            for _ in 0..SIZE / chunk.len() {
                sender.send(chunk.clone()).await.unwrap();
                most = most.max(resident());
            }
            most
        });
        let answer = read(site.send(Version::HTTP_11, request).await.unwrap()).await;
        assert_eq!(answer.text(), SIZE.to_string());
        let most = soon(sending).await.unwrap();
        assert!(most < before + (32 << 10), "{before} KiB before, {most} KiB in between");
    });
}

#[test]
fn a1_a_reader_that_waits_keeps_nobody_from_running() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                start_response('200 OK', [])
                return [environ['wsgi.input'].read()]
            ",
        )
        .await;
        let mut bodies = Vec::new();
        let mut waiting = Vec::new();
        for _ in 0..9 {
            let (sender, body) = pushed();
            let request = site.request("POST", "/", body);
            sender.send("be".into()).await.unwrap();
            bodies.push(sender);
            let addr = site.addr;
            waiting.push(tokio::spawn(async move {
                let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                let io = hyper_util::rt::TokioIo::new(stream);
                let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                read(client.send_request(request).await.unwrap()).await
            }));
        }
        eventually("nine wait for their clients", || site.pool.stats().busy == 9).await;
        assert_eq!(site.post("/", "the tenth").await.text(), "the tenth");
        for (sender, waiting) in bodies.into_iter().zip(waiting) {
            sender.send("gin".into()).await.unwrap();
            drop(sender);
            assert_eq!(soon(waiting).await.unwrap().text(), "begin");
        }
    });
}

#[test]
fn a1_threads_of_an_application_share_its_input() {
    run(async {
        let site = site(
            r"
            import threading
            def app(environ, start_response):
                start_response('200 OK', [])
                i, parts = environ['wsgi.input'], []
                def work():
                    while part := i.read(7):
                        parts.append(part)
                threads = [threading.Thread(target=work) for _ in range(4)]
                for t in threads: t.start()
                for t in threads: t.join()
                return [b'%d' % sum(map(len, parts))]
            ",
        )
        .await;
        assert_eq!(site.post("/", vec![b'x'; 300_000]).await.text(), "300000");
    });
}

#[test]
fn a1_expect_continue_is_answered_when_the_application_reads() {
    run(async {
        let site = site(
            r"
            def app(environ, start_response):
                if environ['PATH_INFO'] == '/refused':
                    start_response('413 Too Big', [])
                    return [b'no']
                start_response('200 OK', [])
                return [environ['wsgi.input'].read()]
            ",
        )
        .await;
        let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
        let refused = head.replace("POST /", "POST /refused");
        let answer = String::from_utf8(site.raw(refused).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 Too Big\r\n"), "{answer}");
        let mut stream = site.connect();
        let answer = blocking(move || {
            use std::io::{BufRead, BufReader, Read};
            stream.write_all(head.as_bytes()).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut interim = String::new();
            reader.read_line(&mut interim).unwrap();
            assert_eq!(interim, "HTTP/1.1 100 Continue\r\n");
            stream.write_all(b"body").unwrap();
            let mut answer = String::new();
            reader.read_to_string(&mut answer).unwrap();
            answer
        })
        .await;
        assert!(answer.contains("HTTP/1.1 200 OK") && answer.ends_with("body"), "{answer}");
    });
}
