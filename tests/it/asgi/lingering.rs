//! B4: background tasks of a CGI program, which ends after its response; and whose code runs when they end.

use std::convert::Infallible;
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use axum::{Extension, Router};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::mpsc;
use tower::{Layer as _, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, BackgroundTasks, Body, Error, Input, SyncHandler, Variables, gateway::cgi,
};

use super::{Broken, answer, current, drive, get};
use crate::support::watched;

/// Long enough that a host who does not wait for a task is gone before the task is done.
const MOMENT: Duration = Duration::from_millis(20);

fn tasks_of(request: &Request<Body>) -> BackgroundTasks {
    request.extensions().get().cloned().expect("background tasks")
}

fn variables(method: &'static str) -> Variables {
    [("REQUEST_METHOD", method), ("PATH_INFO", "/")].into_iter().collect()
}

/// What a response is before it has its task.
type Make = fn() -> Result<Response<Body>, Broken>;

fn hello() -> Result<Response<Body>, Broken> {
    Ok(Response::new(Body::from("hello")))
}

/// Serves a request whose service starts a task and answers with `make`'s. The task has to be done when that returns.
fn serve_with_task(method: &'static str, make: Make, output: &mut dyn io::Write) -> Result<(), Error> {
    let done = Arc::new(AtomicBool::new(false));
    let told = done.clone();
    let handler = AsgiHandler::new(service_fn(move |request: Request<Body>| {
        let told = told.clone();
        async move {
            tasks_of(&request).spawn(async move {
                tokio::time::sleep(MOMENT).await;
                told.store(true, Ordering::SeqCst);
            });
            make()
        }
    }));
    let served = cgi::serve(&handler, variables(method), io::empty(), output);
    assert!(done.load(Ordering::SeqCst), "the program ends before the task: {served:?}");
    served
}

/// The head and the body that [`serve_with_task`] writes.
fn written(method: &'static str, make: Make) -> (String, String, Result<(), Error>) {
    let mut output = Vec::new();
    let served = serve_with_task(method, make, &mut output);
    let text = String::from_utf8(output).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned(), served)
}

#[test]
fn b4_a_program_ends_after_the_tasks_of_a_response_with_a_body() {
    watched(|| {
        let (head, body, served) = written("GET", hello);
        served.expect("a response");
        assert!(head.starts_with("Status: 200 "), "{head}");
        assert_eq!(body, "hello");
    });
}

#[test]
fn b4_a_program_ends_after_the_tasks_of_a_response_to_head() {
    watched(|| {
        let (head, body, served) = written("HEAD", hello);
        served.expect("a response");
        assert!(head.contains("content-length: 5"), "{head}");
        assert_eq!(body, "");
    });
}

#[test]
fn b4_a_program_ends_after_the_tasks_of_a_response_without_a_body() {
    fn no_content(body: Body) -> Result<Response<Body>, Broken> {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    watched(|| {
        for make in [|| no_content(Body::empty()), || no_content(Body::from("hello"))] {
            let (head, body, served) = written("GET", make);
            served.expect("a response");
            assert!(head.starts_with("Status: 204 "), "{head}");
            assert_eq!(body, "");
        }
    });
}

#[test]
fn b4_a_program_ends_after_the_tasks_of_a_service_that_fails() {
    watched(|| {
        let (head, _, served) = written("GET", || Err(Broken("the service fails")));
        assert!(head.starts_with("Status: 500 "), "{head}");
        assert!(served.expect_err("an error").is_handler());
    });
}

#[test]
fn b4_a_program_ends_after_the_tasks_of_a_body_over_its_length() {
    watched(|| {
        let (_, body, served) = written("GET", || {
            let mut response = hello()?;
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
            Ok(response)
        });
        served.expect("a response");
        assert_eq!(body, "hel");
    });
}

#[test]
fn b4_a_program_ends_after_the_tasks_of_a_head_that_cannot_be_sent() {
    watched(|| {
        let (head, _, served) = written("GET", || {
            let mut response = hello()?;
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("three"));
            Ok(response)
        });
        assert!(head.starts_with("Status: 500 "), "{head}");
        assert!(served.expect_err("an error").is_response());
    });
}

#[test]
fn b4_a_program_ends_after_the_tasks_of_a_host_that_left() {
    struct Gone;
    impl io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    watched(|| {
        for method in ["GET", "HEAD"] {
            let served = serve_with_task(method, hello, &mut Gone);
            assert!(served.expect_err("an error").is_disconnected(), "{method}");
        }
    });
}

#[test]
fn a14_no_content_with_a_task_has_no_type() {
    watched(|| {
        let handler = |Extension(tasks): Extension<BackgroundTasks>| async move {
            tasks.spawn(async {});
            StatusCode::NO_CONTENT
        };
        let router = Router::<()>::new().route("/", axum::routing::get(handler));
        let mut output = Vec::new();
        cgi::serve(&AsgiHandler::new(router), variables("GET"), io::empty(), &mut output)
            .expect("a response");
        let text = String::from_utf8(output).expect("text").to_ascii_lowercase();
        assert!(text.starts_with("status: 204 "), "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        for header in [CONTENT_TYPE, CONTENT_LENGTH] {
            assert!(!text.contains(header.as_str()), "{text}");
        }
    });
}

#[test]
fn a14_a_head_request_that_is_none_gets_no_body() {
    watched(|| {
        let handler = |_: Request<Input>| -> Response<&'static str> { panic!("called without a request") };
        for method in [Method::HEAD, Method::GET] {
            let variables = [("REQUEST_METHOD", method.as_str()), ("CONTENT_LENGTH", "five")];
            let variables = variables.map(|(name, value)| (name, value.to_owned()));
            let mut output = Vec::new();
            let served = cgi::serve(&handler, Variables::from_iter(variables), io::empty(), &mut output);
            assert!(served.expect_err("an error").is_request());
            let text = String::from_utf8(output).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("Status: 400 "), "{head}");
            assert_eq!(body.is_empty(), method == Method::HEAD, "{method}: {body}");
        }
    });
}

/// What a task panics with. It uses the tasks once more when it is dropped.
struct Payload {
    tasks: BackgroundTasks,
    dropped: std_mpsc::Sender<()>,
}

impl Drop for Payload {
    fn drop(&mut self) {
        let dropped = self.dropped.clone();
        let _ = format!("{:?}", self.tasks);
        self.tasks.spawn(async move {
            // The test may be over.
            let _ = dropped.send(());
        });
    }
}

#[test]
fn b4_what_a_task_panicked_with_may_use_the_tasks_when_it_is_dropped() {
    /// More than are looked through in one go.
    const PANICS: usize = 100;

    watched(|| {
        let (dropped, drops) = std_mpsc::channel();
        let handler = AsgiHandler::new(service_fn(move |request: Request<Body>| {
            let dropped = dropped.clone();
            async move {
                let tasks = tasks_of(&request);
                for _ in 0..PANICS {
                    let (ended, mut end) = mpsc::channel::<()>(1);
                    let payload = Payload { tasks: tasks.clone(), dropped: dropped.clone() };
                    tasks.spawn(async move {
                        let _ended = ended;
                        resume_unwind(Box::new(payload));
                    });
                    assert!(end.recv().await.is_none());
                }
                Ok::<_, Infallible>(Response::new(Body::from("hello")))
            }
        }));
        assert_eq!(answer(&handler), "hello");
        for _ in 0..PANICS {
            super::next(&drops);
        }
    });
}

#[test]
fn b4_what_a_runtime_that_is_gone_drops_may_use_the_tasks() {
    struct Look(BackgroundTasks, std_mpsc::Sender<()>);
    impl Drop for Look {
        fn drop(&mut self) {
            let _ = format!("{:?}", self.0);
            self.0.spawn(async {});
            let _ = self.1.send(());
        }
    }

    watched(|| {
        let runtime = current();
        let handle = runtime.handle().clone();
        drop(runtime);
        let (dropped, drops) = std_mpsc::channel();
        let handler =
            AsgiLayer::adapter().runtime(handle).layer(service_fn(move |request: Request<Body>| {
                let tasks = tasks_of(&request);
                let look = Look(tasks.clone(), dropped.clone());
                tasks.spawn(async move { drop(look) });
                async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
            }));
        assert_eq!(answer(&handler), "hello");
        super::next(&drops);
        assert!(handler.call(get()).is_ok());
    });
}

#[test]
fn b4_tasks_that_have_ended_are_let_go_of() {
    const TASKS: usize = 10_000;
    /// Far more than are kept, far less than there are.
    const KEPT: usize = 100;

    /// What is left of a task until it is let go of.
    struct Left(Arc<AtomicUsize>);
    impl Drop for Left {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    watched(|| {
        // On one thread tasks end one after the other.
        let runtime = drive("current-thread", current());
        let left = Arc::new(AtomicUsize::new(0));
        let counted = left.clone();
        let layer = AsgiLayer::adapter().runtime(runtime.handle.clone());
        let handler = layer.layer(service_fn(move |request: Request<Body>| {
            let left = counted.clone();
            async move {
                let tasks = tasks_of(&request);
                let (ended, mut end) = mpsc::unbounded_channel();
                let mut most = 0;
                for _ in 0..TASKS {
                    let (ended, own) = (ended.clone(), left.clone());
                    tasks.spawn(async move {
                        own.fetch_add(1, Ordering::SeqCst);
                        let _ = ended.send(());
                        resume_unwind(Box::new(Left(own)));
                    });
                    end.recv().await.expect("a task");
                    most = most.max(left.load(Ordering::SeqCst));
                }
                Ok::<_, Infallible>(Response::new(Body::from(most.to_string())))
            }
        }));
        let most: usize = answer(&handler).parse().expect("a number");
        assert!(most <= KEPT, "{most} tasks that had ended were kept");
        assert_eq!(left.load(Ordering::SeqCst), 0);
    });
}
