//! B6: the kinds of response bodies, read by synchronous code.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::sync::mpsc as std_mpsc;
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_wsgi::{AsgiHandler, Body, BoxError, Error, Input, Next, Output, WsgiLayer};

use super::{Broken, Tell, ask, cause, chunks, fed, frames, next};
use crate::support::{serve, watched};

/// Every kind of body, of the same bytes.
fn kinds() -> Vec<(&'static str, Output)> {
    vec![
        ("text", "hello world".into()),
        ("string", "hello world".to_owned().into()),
        ("bytes", Bytes::from("hello world").into()),
        ("vec", b"hello world".to_vec().into()),
        ("chunks", Output::iter(["hello", "", " world"])),
        ("fallible chunks", Output::try_iter(["hello ", "world"].map(Ok::<_, BoxError>))),
        ("reader", Output::reader(io::Cursor::new("hello world"))),
        (
            "writer",
            Output::writer(|w| {
                write!(w, "hello ").and_then(|()| w.flush()).and_then(|()| write!(w, "world"))
            }),
        ),
        ("sending writer", Output::writer(|w| w.send("hello").and_then(|()| w.send(" world")))),
        ("async body", Output::body(chunks(["hello", " world"]))),
        ("full async body", Body::from("hello world").into()),
        ("async body of a reader", Output::body(Input::reader(io::Cursor::new("hello world")).into_body())),
    ]
}

#[test]
fn b6_every_kind_of_body_is_read_whole() {
    watched(|| {
        for (kind, output) in kinds() {
            let mut body = output.into_reader();
            assert_eq!(body.trailers(), None, "{kind}");
            let mut text = String::new();
            body.read_to_string(&mut text).expect("a body");
            assert_eq!(text, "hello world", "{kind}");
            assert_eq!(body.read(&mut [0; 8]).expect("the end"), 0, "{kind}");
            assert_eq!(body.chunk().expect("the end"), None, "{kind}");
            assert_eq!(body.trailers(), None, "{kind}");
        }
        for (kind, output) in kinds() {
            let mut body = output.into_reader();
            assert_eq!(body.read(&mut []).expect("nothing"), 0);
            let mut first = [0; 3];
            body.read_exact(&mut first).expect("three bytes");
            let rest: Vec<_> = body.split(b' ').collect::<Result<_, _>>().expect("a body");
            assert_eq!((&first, rest), (b"hel", vec![b"lo".to_vec(), b"world".to_vec()]), "{kind}");
        }
    });
}

#[test]
fn b6_empty_bodies_of_every_kind_are_at_their_end() {
    watched(|| {
        let outputs = [
            Output::empty(),
            "".into(),
            ().into(),
            Output::iter([""; 0]),
            Output::iter(["", "", ""]),
            Output::reader(io::empty()),
            Output::writer(|_| Ok(())),
            Output::writer(|w| w.flush()),
            Output::body(Body::empty()),
            Output::body(chunks([])),
            Output::default(),
        ];
        for output in outputs {
            let kind = format!("{output:?}");
            assert_eq!(output.into_reader().chunk().expect("the end"), None, "{kind}");
        }
    });
}

#[test]
fn b6_trailers_of_every_kind_come_after_the_end() {
    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("1"))])
    }

    watched(|| {
        let own =
            Output::body(frames([Ok(Frame::data("hello world".into())), Ok(Frame::trailers(trailers()))]));
        let written = Output::writer(|w| {
            w.set_trailers(trailers());
            write!(w, "hello world")
        });
        let set = kinds().into_iter().map(|(kind, output)| (kind, output.with_trailers(trailers)));
        for (kind, output) in set.chain([("own", own), ("written", written)]) {
            let mut body = output.into_reader();
            let mut text = vec![0; 11];
            body.read_exact(&mut text).expect("a body");
            assert_eq!(text, b"hello world", "{kind}");
            assert_eq!(body.chunk().expect("the end"), None, "{kind}");
            assert_eq!(body.trailers(), Some(&trailers()), "{kind}");
        }
        let mut body = Output::empty().with_trailers(trailers).into_reader();
        assert_eq!(body.chunk().expect("the end"), None);
        assert_eq!(body.trailers(), Some(&trailers()));
    });
}

#[test]
fn b6_trailers_stay_with_a_body_that_is_handed_on() {
    let trailers =
        || HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("1"))]);
    watched(move || {
        for (kind, output) in kinds() {
            let mut body = Output::from(output.with_trailers(trailers).into_reader()).into_reader();
            assert_eq!(io::copy(&mut body, &mut io::sink()).expect("a body"), 11, "{kind}");
            assert_eq!(body.trailers(), Some(&trailers()), "{kind}");
        }
    });
}

#[test]
fn b6_trailers_that_panic_are_an_error() {
    watched(|| {
        for (kind, output) in kinds() {
            let mut body = output.with_trailers(|| panic!("the trailers panic")).into_reader();
            let error = io::copy(&mut body, &mut io::sink()).expect_err("an error");
            assert!(cause::<Error>(&error).is_panic(), "{kind}: {error:?}");
        }
    });
}

/// Bodies that give `hello`, then fail with [`Broken`], each in its way.
fn failing() -> Vec<(&'static str, Output)> {
    struct Fails;
    impl io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other(Broken("failed")))
        }
    }

    vec![
        ("chunks", Output::try_iter([Ok("hello"), Err(Broken("failed")), Ok("more")])),
        ("reader", Output::reader(io::Cursor::new("hello").chain(Fails))),
        (
            "writer",
            Output::writer(|w| {
                w.send("hello")?;
                Err(io::Error::other(Broken("failed")))
            }),
        ),
        ("async body", Output::body(frames([Ok(Frame::data("hello".into())), Err(Broken("failed").into())]))),
    ]
}

#[test]
fn b6_every_kind_of_body_can_fail() {
    watched(|| {
        let trailed = failing().into_iter().map(|(kind, output)| {
            (kind, output.with_trailers(|| panic!("there are no trailers behind a failure")))
        });
        for (kind, output) in failing().into_iter().chain(trailed) {
            let mut body = output.into_reader();
            assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"hello"[..]), "{kind}");
            for _ in 0..2 {
                let error = body.chunk().expect_err("an error");
                assert_eq!(cause::<Broken>(&error), Broken("failed"), "{kind}");
            }
            assert_eq!(body.trailers(), None, "{kind}");
        }
    });
}

#[test]
fn b6_every_kind_of_body_can_panic() {
    struct Panics;
    impl io::Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("the reader panics")
        }
    }

    watched(|| {
        let outputs = [
            Output::iter(["hello"].into_iter().chain(std::iter::once_with(|| panic!("the iterator panics")))),
            Output::reader(io::Cursor::new("hello").chain(Panics)),
            Output::writer(|w| {
                w.send("hello")?;
                panic!("the writer panics")
            }),
            Output::body(frames(
                [Ok(Frame::data("hello".into()))]
                    .into_iter()
                    .chain(std::iter::once_with(|| panic!("the body panics"))),
            )),
        ];
        for output in outputs {
            let kind = format!("{output:?}");
            let mut body = output.into_reader();
            assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"hello"[..]), "{kind}");
            for _ in 0..2 {
                let error = cause::<Error>(&body.chunk().expect_err("an error"));
                assert!(error.is_panic() && error.to_string().contains("panics"), "{kind}: {error:?}");
            }
        }
    });
}

#[test]
fn b6_a_writer_whose_reader_leaves_gets_a_broken_pipe() {
    watched(|| {
        for flushing in [false, true] {
            let (sender, ended) = std_mpsc::channel();
            let (tell, dropped) = Tell::new();
            let mut body = Output::writer(move |w| {
                let _tell = tell;
                let error = loop {
                    let written =
                        w.write_all(&[b'x'; 1000]).and_then(|()| if flushing { w.flush() } else { Ok(()) });
                    if let Err(error) = written {
                        break error;
                    }
                };
                let _ = sender.send((error.kind(), w.send("more").is_err()));
                Err(error)
            })
            .into_reader();
            assert!(body.chunk().expect("a chunk").is_some());
            assert!(ended.try_recv().is_err(), "it ended before its reader left");
            drop(body);
            assert_eq!(next(&ended), (io::ErrorKind::BrokenPipe, true));
            next(&dropped);
        }
    });
}

#[test]
fn b6_a_writer_is_a_few_chunks_ahead_and_no_more() {
    watched(|| {
        let (sender, written) = std_mpsc::channel();
        let mut body = Output::writer(move |w| {
            for n in 0..100 {
                w.send(vec![b'x'; 10])?;
                let _ = sender.send(n);
            }
            Ok(())
        })
        .into_reader();
        for read in 0..100 {
            assert!(body.chunk().expect("a chunk").is_some());
            // Two in the queue, and one that was taken out of it and is here.
            let ahead = written.try_iter().last().unwrap_or(0);
            assert!(ahead <= read + 3, "{ahead} of {read}");
        }
        assert_eq!(body.chunk().expect("the end"), None);
    });
}

#[test]
fn b6_a_writer_that_only_flushes_sees_its_reader_leave() {
    let (tell, told) = std_mpsc::channel();
    let mut body = Output::writer(move |w| {
        w.send("first")?;
        let left = loop {
            if let Err(error) = io::Write::flush(w) {
                break error;
            }
            thread::yield_now();
        };
        tell.send(left.kind()).expect("the test waits");
        Err(left)
    })
    .into_reader();
    assert_eq!(body.chunk().expect("a body").expect("a chunk"), "first");
    drop(body);
    assert_eq!(next(&told), io::ErrorKind::BrokenPipe);
}

#[test]
fn b6_what_is_left_of_a_reader_goes_on_where_it_is_read() {
    struct Threads(Vec<&'static [u8]>, std_mpsc::Sender<thread::ThreadId>);
    impl io::Read for Threads {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.1.send(thread::current().id()).expect("the test waits");
            let piece = self.0.pop().unwrap_or_default();
            buf[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    let (tell, told) = std_mpsc::channel();
    let mut input = Input::reader(Threads(vec![b"three", b"two", b"one"], tell));
    input.read_exact(&mut [0]).expect("a byte");
    let mut rest = Input::from(input.into_body());
    assert_eq!(rest.chunk().expect("a body").expect("a chunk"), "ne");
    assert_eq!(io::read_to_string(rest).expect("a body"), "twothree");
    let threads: Vec<_> = told.try_iter().collect();
    assert!(threads.len() == 4 && threads.iter().all(|thread| *thread == thread::current().id()));
}

#[test]
fn b6_nothing_runs_before_the_first_read() {
    watched(|| {
        let (tell, dropped) = Tell::new();
        let held = std::sync::Arc::new(tell);
        let outputs = [
            {
                let held = held.clone();
                Output::writer(move |_| {
                    drop(held);
                    panic!("it ran")
                })
            },
            {
                let held = held.clone();
                Output::iter(std::iter::once_with(move || -> Bytes {
                    drop(held.clone());
                    panic!("it ran")
                }))
            },
            {
                let held = held.clone();
                let mut body = Some(held);
                Output::body(super::poll_body(move |_| {
                    drop(body.take());
                    panic!("it ran")
                }))
            },
        ];
        for output in outputs {
            drop(output.with_trailers(|| panic!("they ran")).into_reader());
        }
        assert!(dropped.try_recv().is_err());
        drop(held);
        // Dropped where the response was.
        assert_eq!(dropped.try_recv().expect("dropped at once").thread, thread::current().id());
    });
}

#[test]
fn b6_iterators_and_readers_run_on_the_thread_that_reads() {
    watched(|| {
        let here = thread::current().id();
        let mut body = Output::iter(std::iter::from_fn(move || {
            assert_eq!(thread::current().id(), here);
            Some("here")
        }))
        .into_reader();
        for _ in 0..3 {
            assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"here"[..]));
        }
    });
}

#[test]
fn b6_iterators_may_block_and_call_services() {
    // They run inside a read, which is no poll.
    watched(|| {
        let handler = AsgiHandler::new(service_fn(|_: Request<Body>| async {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(Response::new(Body::from("inner")))
        }));
        let body =
            Output::iter(std::iter::repeat_with(move || super::answer(&handler)).take(3)).into_reader();
        assert_eq!(io::read_to_string(body).expect("a body"), "innerinnerinner");
    });
}

#[test]
fn b6_a_reader_of_a_reader_reads_through() {
    watched(|| {
        for (kind, mut output) in kinds() {
            for _ in 0..4 {
                output = Output::reader(output.into_reader());
            }
            assert_eq!(io::read_to_string(output.into_reader()).expect("a body"), "hello world", "{kind}");
        }
        for (kind, output) in failing() {
            let mut body = Output::reader(output.into_reader()).into_reader();
            assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"hello"[..]), "{kind}");
            let error = body.chunk().expect_err("an error");
            assert_eq!(cause::<Broken>(&error), Broken("failed"), "{kind}");
        }
    });
}

#[test]
fn b6_a_body_can_be_waited_for_by_one_thread_and_then_another() {
    watched(|| {
        let (feed, body) = fed();
        let mut body = Output::body(body).into_reader();
        for n in 0..4 {
            let feed = feed.clone();
            let feeding = thread::spawn(move || feed.send("piece"));
            body = thread::spawn(move || {
                assert_eq!(body.chunk().expect("a chunk").as_deref(), Some(&b"piece"[..]), "{n}");
                body
            })
            .join()
            .expect("no panic");
            feeding.join().expect("no panic").expect("a body");
        }
        drop(feed);
        assert_eq!(body.chunk().expect("the end"), None);
    });
}

#[test]
fn a7_a_second_length_counts_what_the_first_has_left() {
    let mut body = Output::iter(["foobar"]).into_reader().with_length(5);
    assert_eq!(body.fill_buf().expect("a chunk"), b"fooba");
    let mut text = String::new();
    body.with_length(4).read_to_string(&mut text).expect("the end");
    assert_eq!(text, "foob");
}

#[tokio::test]
async fn b6_a_forwarded_response_cannot_be_read() {
    let app = |mut request: Request<Input>| -> Result<Response<String>, BoxError> {
        let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
        let mut body = next.forward(request).into_body().into_reader();
        let error = body.chunk().expect_err("an error");
        assert!(cause::<Error>(&error).is_response(), "{error:?}");
        Ok(Response::new(error.to_string()))
    };
    let service = WsgiLayer::new(app).layer(axum::Router::<()>::new());
    let server = serve(service_fn(move |request: Request<Incoming>| {
        service.clone().oneshot(request.map(axum::body::Body::new))
    }))
    .await;
    assert!(ask(&server).await.contains("forwarded"));
}
