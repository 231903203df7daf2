//! Bodies that end as they should not, and outputs that take no more.

use std::io::{self, Write};

use axum::Router;
use axum::routing::get as on_get;
use http::{Request, Response};
use tokio::sync::mpsc;
use tower_wsgi::gateway::cgi;
use tower_wsgi::{AsgiHandler, BackgroundTasks, Error, Input, Output};

use super::head::{Fed, Guard, Told};
use super::{Answer, Untouched, get, plain};
use crate::support::{Events, Gate, watched};

type Failing = Result<&'static str, &'static str>;

fn chunks(chunks: Vec<Failing>) -> impl Fn(Request<Input>) -> Response<Output> + Send + Sync + 'static {
    move |_| Response::new(Output::try_iter(chunks.clone()))
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a5_what_fails_before_the_first_byte_is_a_500() {
    for before in [vec![], vec![Ok("")]] {
        let all = before.into_iter().chain([Err("no rows"), Ok("more")]).collect();
        let (answer, served) = get(chunks(all), "/");
        assert_eq!(answer.status, "500 Internal Server Error");
        assert_eq!(answer.headers["content-type"], "text/plain");
        // What went wrong is the log's business, not the client's.
        assert_eq!(answer.text(), "Internal Server Error\n");
        let error = served.expect_err("an error");
        assert!(error.is_handler(), "{error:?}");
        assert!(cause(&error).contains("no rows"), "{error:?}");
    }
}

#[test]
fn a6_what_fails_later_is_an_error_for_the_host() {
    let (answer, served) = get(chunks(vec![Ok("one,"), Ok("two"), Err("no rows"), Ok("more")]), "/");
    assert_eq!(answer.status, "200 OK");
    assert_eq!(answer.text(), "one,two");
    let error = served.expect_err("an error");
    assert!(error.is_handler(), "{error:?}");
    assert!(cause(&error).contains("no rows"), "{error:?}");
}

#[test]
fn a6_an_async_body_that_breaks_off_is_an_error_for_the_host() {
    let (feed, body) = mpsc::unbounded_channel();
    for frame in [Ok("one"), Err("no rows")] {
        feed.send(frame.map(Into::into).map_err(Into::into)).expect("a body that listens");
    }
    let body = std::sync::Mutex::new(Some(Fed(body)));
    let handler = move |_: Request<Input>| {
        Response::new(Output::body(body.lock().expect("a lock").take().expect("the only request")))
    };
    let (answer, served) = get(handler, "/");
    assert_eq!(answer.text(), "one");
    let error = served.expect_err("an error");
    assert!(cause(&error).contains("no rows"), "{error:?}");
}

#[test]
fn a7_a_body_over_its_length_is_cut_off() {
    let handler = |_: Request<Input>| {
        Response::builder().header("content-length", "5").body(Output::iter(["hel", "lo, world", "!"]))
    };
    let (answer, served) = get(handler, "/");
    assert_eq!(answer.headers["content-length"], "5");
    assert_eq!(answer.text(), "hello");
    served.expect("no error");
}

#[test]
fn a7_a_body_short_of_its_length_is_an_error() {
    let short = |body: fn() -> Output| {
        move |_: Request<Input>| Response::builder().header("content-length", "6").body(body())
    };
    let (answer, served) = get(short(|| Output::iter(["hel", "lo"])), "/");
    // The host sees it by the length that it was given.
    assert_eq!(answer.headers["content-length"], "6");
    assert_eq!(answer.text(), "hello");
    let error = served.expect_err("an error");
    assert!(error.is_length() && error.to_string().contains("5 of 6 bytes"), "{error:?}");

    // What is known before the head makes another response.
    let (answer, served) = get(short(|| "hello".into()), "/");
    assert_eq!(answer.status, "500 Internal Server Error");
    assert!(served.expect_err("an error").is_length());
}

#[test]
fn a7_a_length_that_is_none_is_a_500() {
    let handler = |_: Request<Input>| Response::builder().header("content-length", "many").body("hello");
    let (answer, served) = get(handler, "/");
    assert_eq!(answer.status, "500 Internal Server Error");
    assert!(served.expect_err("an error").is_response());
}

#[test]
fn a11_a_panic_is_a_500() {
    let handler = |_: Request<Input>| -> Response<Output> { panic!("no luck") };
    let (answer, served) = get(handler, "/");
    assert_eq!(answer.status, "500 Internal Server Error");
    assert!(served.expect_err("an error").is_panic());
    let router = Router::<()>::new().route("/", on_get(|| async { panic!("no luck") as &'static str }));
    let (answer, served) = get(AsgiHandler::new(router), "/");
    assert_eq!(answer.status, "500 Internal Server Error");
    assert!(served.expect_err("an error").is_panic());
}

/// Gives as many chunks, and then panics.
fn panicking(chunks: usize) -> (Answer, Result<(), Error>) {
    let handler = move |_: Request<Input>| {
        let mut left = chunks;
        Response::new(Output::iter(std::iter::from_fn(move || {
            assert!(left > 0, "no luck");
            left -= 1;
            Some("one")
        })))
    };
    get(handler, "/")
}

#[test]
fn a11_a_panic_in_the_body_is_seen() {
    let (answer, served) = panicking(0);
    assert_eq!(answer.status, "500 Internal Server Error");
    served.expect_err("an error");
    let (answer, served) = panicking(1);
    assert_eq!(answer.status, "200 OK");
    assert_eq!(answer.text(), "one");
    served.expect_err("an error");
}

#[test]
fn a11_a_panic_in_the_body_is_a_panic() {
    for chunks in [0, 1] {
        let (_, served) = panicking(chunks);
        let error = served.expect_err("an error");
        assert!(error.is_panic(), "{error:?}");
    }
}

#[test]
fn a12_a_handlers_error_is_a_500_and_the_hosts_to_report() {
    let handler = |_: Request<Input>| -> io::Result<Response<String>> { Err(io::Error::other("no rows")) };
    let (answer, served) = get(handler, "/");
    assert_eq!(answer.status, "500 Internal Server Error");
    let error = served.expect_err("an error");
    assert!(error.is_handler(), "{error:?}");
    assert_eq!(cause(&error), "no rows");
}

/// An output that breaks after some writes, or at a flush.
struct Breaking {
    writes: usize,
    flushes: usize,
    kind: io::ErrorKind,
}

impl Write for Breaking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writes = self.writes.checked_sub(1).ok_or(self.kind)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes = self.flushes.checked_sub(1).ok_or(self.kind)?;
        Ok(())
    }
}

#[test]
fn a8_an_output_that_takes_no_more_stops_the_producer_and_drops_it() {
    const MANY: usize = 1_000;
    for (writes, flushes, expected) in [(0, MANY, 1), (1, MANY, 2), (3, MANY, 4), (MANY, 0, 1), (MANY, 2, 3)]
    {
        let events = Events::new();
        let (made, dropped) = (events.teller(), events.teller());
        let handler = move |_: Request<Input>| {
            let (made, dropped) = (made.clone(), dropped.clone());
            let guard = Guard(Box::new(move |()| dropped("dropped")));
            Response::new(Output::iter((0..MANY).map(move |n| {
                let _held = &guard;
                made("made");
                format!("{n}\n")
            })))
        };
        let error = watched(move || {
            let output = Breaking { writes, flushes, kind: io::ErrorKind::BrokenPipe };
            cgi::serve(&handler, plain(), Untouched, output).expect_err("an error")
        });
        assert!(error.is_disconnected(), "{error:?}");
        let mut events = events.drain();
        assert_eq!(events.pop(), Some("dropped"));
        assert_eq!(events, vec!["made"; expected], "{writes} {flushes}");
    }
}

#[tokio::test]
async fn a8_a_writing_function_hears_that_the_output_takes_no_more() {
    let events = Events::new();
    let tell = events.teller();
    let handler = move |_: Request<Input>| {
        let tell = tell.clone();
        Response::new(Output::writer(move |w| {
            let failed = loop {
                if let Err(error) = w.write_all(b"more").and_then(|()| w.flush()) {
                    break error;
                }
            };
            tell(failed.kind());
            Err(failed)
        }))
    };
    let error = watched(move || {
        let output = Breaking { writes: 3, flushes: 100, kind: io::ErrorKind::BrokenPipe };
        cgi::serve(&handler, plain(), Untouched, output).expect_err("an error")
    });
    assert!(error.is_disconnected(), "{error:?}");
    assert_eq!(events.next().await, io::ErrorKind::BrokenPipe);
}

#[test]
fn a8_a_response_without_a_body_can_fail_to_be_sent_too() {
    for writes in [0, 1] {
        let error = watched(move || {
            let output = Breaking { writes, flushes: 0, kind: io::ErrorKind::StorageFull };
            cgi::serve(&|_: Request<Input>| Response::new(()), plain(), Untouched, output)
                .expect_err("an error")
        });
        assert!(error.is_disconnected(), "{error:?}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

/// The process of a CGI program ends with `serve`: what was left to do has to be done before.
#[tokio::test]
async fn b4_the_response_is_sent_at_once_and_the_tasks_are_waited_for() {
    let events = Events::new();
    let (tell, done) = (events.teller(), events.teller());
    let gate = Gate::new();
    let waits = gate.clone();
    let router = Router::<()>::new().route(
        "/",
        on_get(|axum::Extension(background): axum::Extension<BackgroundTasks>| async move {
            background.spawn(async move {
                tokio::task::spawn_blocking(move || waits.pass()).await.expect("no panic");
                done(b"done".to_vec());
            });
            "hello"
        }),
    );
    let serving = std::thread::spawn(move || {
        let served =
            cgi::serve(&AsgiHandler::new(router), plain(), Untouched, Told(Vec::new(), tell.clone()));
        tell(b"returned".to_vec());
        served
    });
    let mut sent = events.next().await;
    while !sent.ends_with(b"hello") {
        sent.extend(events.next().await);
    }
    assert_eq!(Answer::parse(&sent).headers["content-length"], "5");
    gate.open();
    assert_eq!(events.next().await, b"done");
    assert_eq!(events.next().await, b"returned");
    watched(move || serving.join().expect("no panic").expect("no error"));
}
