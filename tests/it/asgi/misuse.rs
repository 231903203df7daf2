//! B1: a call inside an async task is an error, at once, and does no harm.

use std::future::poll_fn;
use std::io::{self, Read as _};
use std::pin::pin;
use std::sync::mpsc as std_mpsc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, coop};
use tower::{Layer as _, Service as _, service_fn};
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, BoxError, Error, Input, Next, Output, SyncHandler, WsgiLayer, WsgiService,
};

use super::{Answer, ask, cause, current, fed, frames, get, multi, read, refusal};
use crate::support::{Server, blocking, serve, soon, watched};

/// A service that is ready only when its runtime goes on. A thread that drives the runtime would wait for it for ever.
async fn slow(_: Request<Body>) -> Answer {
    tokio::spawn(tokio::time::sleep(Duration::from_millis(1))).await?;
    Ok(Response::new(Body::from("late")))
}

/// Makes the mistake.
fn misuse() {
    let refused = refusal(AsgiHandler::new(service_fn(slow)).call(get()));
    assert!(refused.is_inside_async(), "{refused:?}");
    assert!(refused.to_string().contains("async task"), "{refused}");
}

fn runtimes() -> [Runtime; 2] {
    [current(), multi()]
}

#[test]
fn b1_a_call_inside_block_on_is_an_error() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async { misuse() });
        }
    });
}

#[test]
fn b1_a_call_inside_block_on_of_a_handle_is_an_error() {
    watched(|| {
        let runtime = multi();
        runtime.handle().block_on(async { misuse() });
    });
}

#[test]
fn b1_a_call_inside_a_task_is_an_error() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async { tokio::spawn(async { misuse() }).await.expect("no panic") });
        }
    });
}

#[test]
fn b1_a_call_inside_a_local_set_is_an_error() {
    watched(|| {
        for runtime in runtimes() {
            LocalSet::new().block_on(&runtime, async { misuse() });
            runtime.block_on(LocalSet::new().run_until(async {
                misuse();
                tokio::task::spawn_local(async { misuse() }).await.expect("no panic");
            }));
        }
    });
}

#[test]
fn b1_a_call_inside_a_task_is_an_error_with_whatever_is_set() {
    watched(|| {
        let other = multi();
        let layer = AsgiLayer::adapter().runtime(other.handle().clone()).wait_time(Duration::ZERO);
        let handler = layer.layer(service_fn(slow));
        for runtime in runtimes() {
            runtime.block_on(async {
                let refused = refusal(handler.call(get()));
                assert!(refused.is_inside_async(), "{refused:?}");
            });
        }
    });
}

#[test]
fn b1_a_service_that_is_ready_is_refused_inside_a_task_too() {
    // It would work today, and hang on the day on which the service waits for something.
    watched(|| {
        current().block_on(async {
            let ready = service_fn(|_: Request<Body>| async {
                Ok::<_, io::Error>(Response::new(Body::from("ready")))
            });
            assert!(refusal(AsgiHandler::new(ready).call(get())).is_inside_async());
        });
    });
}

#[test]
fn b1_a_call_by_a_task_with_little_budget_left_is_an_error() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async {
                for spent in [1, 64, 126, 127, 128] {
                    let task = tokio::spawn(async move {
                        for _ in 0..spent {
                            coop::consume_budget().await;
                        }
                        misuse();
                    });
                    task.await.expect("no panic");
                }
            });
        }
    });
}

#[test]
fn b1_a_call_inside_a_service_that_the_thread_polls_is_an_error() {
    watched(|| {
        let outer = AsgiHandler::new(service_fn(|_: Request<Body>| async {
            // Before and after its task was put aside.
            misuse();
            tokio::time::sleep(Duration::from_millis(1)).await;
            misuse();
            Ok::<_, io::Error>(Response::new(frames(std::iter::from_fn(|| {
                misuse();
                None
            }))))
        }));
        assert_eq!(read(outer.call(get()).expect("a response")).expect("a body"), "");
        // And the thread is as it was.
        let handler = AsgiHandler::new(service_fn(slow));
        assert_eq!(super::answer(&handler), "late");
    });
}

#[tokio::test]
async fn b1_a_call_inside_a_service_that_a_worker_polls_is_an_error() {
    let outer = AsgiHandler::new(service_fn(|request: Request<Body>| async {
        misuse();
        slow(request).await
    }));
    let server = serve(WsgiService::new(outer)).await;
    assert_eq!(ask(&server).await, "late");
}

#[test]
fn b1_after_a_refusal_a_thread_for_blocking_can_call() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async {
                misuse();
                let answer = blocking(|| super::answer(&AsgiHandler::new(service_fn(slow)))).await;
                assert_eq!(answer, "late");
            });
        }
    });
}

/// A call by a task that a worker drives itself, with a runtime that the handler made for it.
async fn driven_by_a_worker(make: fn() -> Runtime) {
    let handler = move |_: Request<Input>| {
        make().block_on(async { misuse() });
        Response::new("refused")
    };
    let server = serve(WsgiService::new(handler)).await;
    assert_eq!(ask(&server).await, "refused");
}

#[tokio::test]
async fn b1_a_call_inside_block_on_on_a_worker_is_an_error() {
    driven_by_a_worker(multi).await;
    driven_by_a_worker(current).await;
}

/// Serves a handler that has a task of the async side call its `Next`.
async fn next_in_a_task() -> Server {
    let app = |mut request: Request<Input>| -> Result<Response<Output>, BoxError> {
        let next = request.extensions_mut().remove::<Next>().ok_or("no Next")?;
        let (sender, receiver) = std_mpsc::channel();
        let task = async move {
            let _ = sender.send((next.run(get()).map(drop), next.call(get()).map(drop)));
        };
        tokio::spawn(task);
        let (run, called) = super::next(&receiver);
        for refused in [run, called] {
            let error = refused.expect_err("a refusal").downcast::<Error>().expect("an error of this crate");
            assert!(error.is_inside_async(), "{error:?}");
        }
        Ok(Response::new("refused".into()))
    };
    let inner = service_fn(|_: Request<Body>| async {
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
    });
    let mut wsgi = WsgiLayer::new(app).layer(inner);
    serve(service_fn(move |request: Request<hyper::body::Incoming>| wsgi.call(request.map(Body::new)))).await
}

#[test]
fn b1_next_inside_a_task_is_an_error() {
    // On threads of their own: a hang would hold a whole runtime.
    watched(|| {
        for runtime in runtimes() {
            let text = runtime.block_on(async { ask(&next_in_a_task().await).await });
            assert_eq!(text, "refused");
        }
    });
}

#[test]
fn b1_a_read_that_would_wait_inside_a_task_is_an_error() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async {
                let (feed, body) = fed();
                let mut reader = Output::body(body).into_reader();
                let error = reader.read(&mut [0; 8]).expect_err("a refusal");
                assert!(cause::<Error>(&error).is_inside_async(), "{error:?}");
                // What is here can be read.
                feed.send("hello").expect("a body");
                assert_eq!(reader.chunk().expect("a chunk").as_deref(), Some(&b"hello"[..]));
                assert!(cause::<Error>(&reader.chunk().expect_err("a refusal")).is_inside_async());
                // Where it may block it goes on.
                let rest = tokio::task::spawn_blocking(move || io::read_to_string(reader));
                feed.send(" world").expect("a body");
                drop(feed);
                assert_eq!(rest.await.expect("no panic").expect("the rest"), " world");
            });
        }
    });
}

#[test]
fn b1_a_read_of_a_pending_request_inside_a_task_is_an_error() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async {
                let (feed, body) = fed();
                let mut input = Input::new(body);
                let error = input.chunk().expect_err("a refusal");
                assert!(cause::<Error>(&error).is_inside_async(), "{error:?}");
                drop(feed);
                assert_eq!(input.chunk().expect("the end"), None);
            });
        }
    });
}

#[test]
fn b1_what_is_here_can_be_read_inside_a_task() {
    watched(|| {
        current().block_on(async {
            assert_eq!(read(Response::new(Output::from("full"))).expect("a body"), "full");
            assert_eq!(read(Response::new(Output::iter(["it", "er"]))).expect("a body"), "iter");
            assert_eq!(read(Response::new(super::chunks(["as", "ync"]).into())).expect("a body"), "async");
        });
    });
}

/// What a task has left of its budget, all of which is spent.
async fn budget() -> u32 {
    poll_fn(|cx| {
        let mut left = 0;
        while let Poll::Ready(one) = coop::poll_proceed(cx) {
            one.made_progress();
            left += 1;
            assert!(left < 10_000, "no budget");
        }
        Poll::Ready(left)
    })
    .await
}

#[test]
fn b1_a_refusal_costs_the_task_none_of_its_budget() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async {
                let whole = tokio::spawn(budget()).await.expect("no panic");
                let after = tokio::spawn(async {
                    (0..10).for_each(|_| misuse());
                    let (_feed, body) = fed();
                    let mut reader = Output::body(body).into_reader();
                    assert!(reader.chunk().is_err());
                    budget().await
                });
                assert_eq!(after.await.expect("no panic"), whole);
            });
        }
    });
}

#[test]
fn b1_a_task_does_as_much_in_one_go_after_a_refusal() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async {
                let task = tokio::spawn(async {
                    let (sender, mut receiver) = mpsc::unbounded_channel();
                    (0..100).for_each(|n| sender.send(n).expect("a receiver"));
                    let mut work = pin!(async {
                        misuse();
                        for n in 0..100 {
                            assert_eq!(receiver.recv().await, Some(n));
                        }
                    });
                    poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await
                });
                assert!(task.await.expect("no panic"), "it was made to yield");
            });
        }
    });
}

#[test]
fn b1_a_refusal_drops_the_request() {
    watched(|| {
        let (tell, dropped) = super::Tell::new();
        let mut request = get();
        request.extensions_mut().insert(std::sync::Arc::new(tell));
        current().block_on(async move {
            assert!(refusal(AsgiHandler::new(service_fn(slow)).call(request)).is_inside_async());
        });
        super::next(&dropped);
    });
}

#[test]
fn b1_other_tasks_go_on_after_a_refusal() {
    watched(|| {
        for runtime in runtimes() {
            runtime.block_on(async {
                let other = tokio::spawn(async { "gone on" });
                misuse();
                assert_eq!(soon(other).await.expect("no panic"), "gone on");
            });
        }
    });
}
