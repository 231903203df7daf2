//! B1: where a service can be called from.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{self, Context, Poll};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use http::{Request, Response};
use http_body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer as _, Service, service_fn};
use tower_wsgi::{AsgiHandler, AsgiLayer, Body, SyncHandler as _, WsgiService};

use super::{Answer, DRIVER, answer, ask, driven, get, multi, poll_body, post, read};
use crate::support::{VERSIONS, serve, soon, text, watched};

/// A service that needs its runtime: for a timer, a task and sockets. It answers with the name of the task's thread.
async fn busy(_: Request<Body>) -> Answer {
    tokio::time::sleep(Duration::from_millis(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let name = thread::current().name().unwrap_or_default().to_owned();
        stream.write_all(name.as_bytes()).await
    });
    let mut name = String::new();
    TcpStream::connect(addr).await?.read_to_string(&mut name).await?;
    task.await??;
    Ok(Response::new(Body::from(name)))
}

/// The name of the thread that runs what [`busy`] spawns.
fn busy_thread() -> String {
    answer(&AsgiHandler::new(service_fn(busy)))
}

#[test]
fn b1_a_service_answers_on_a_plain_thread() {
    watched(|| {
        let router = Router::<()>::new().route("/", on_get(|| async { "Hello World!" }));
        assert_eq!(answer(&AsgiHandler::new(router)), "Hello World!");
    });
}

#[test]
fn b1_without_a_runtime_there_is_one_of_its_own() {
    watched(|| assert_eq!(busy_thread(), "tower-wsgi-runtime"));
}

#[test]
fn b1_a_test_needs_nothing_either() {
    let handler = AsgiHandler::new(service_fn(|_: Request<Body>| async {
        Ok::<_, io::Error>(Response::new(Body::from("ready")))
    }));
    assert_eq!(answer(&handler), "ready");
}

#[test]
fn b1_many_threads_share_a_handler() {
    watched(|| {
        let handler = AsgiHandler::new(service_fn(busy));
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let handler = handler.clone();
                thread::spawn(move || (0..5).all(|_| answer(&handler) == "tower-wsgi-runtime"))
            })
            .collect();
        for caller in callers {
            assert!(caller.join().expect("no panic"));
        }
    });
}

#[test]
fn b1_a_callers_runtime_of_either_flavour_is_used() {
    watched(|| {
        for runtime in driven() {
            let layer = AsgiLayer::adapter().runtime(runtime.handle.clone());
            assert_eq!(answer(&layer.layer(service_fn(busy))), DRIVER, "{}", runtime.name);
        }
    });
}

#[test]
fn b1_bodies_run_in_the_callers_runtime_too() {
    /// A body that needs its runtime for each frame.
    async fn body_of_a_task(_: Request<Body>) -> Answer {
        let mut pieces = vec!["three", "two", "one"];
        let mut task = None;
        Ok(Response::new(poll_body(move |cx| {
            if task.is_none() {
                let Some(piece) = pieces.pop() else {
                    return Poll::Ready(None);
                };
                task = Some(tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    piece
                }));
            }
            let running = task.as_mut().expect("a task");
            let piece = task::ready!(Pin::new(running).poll(cx))?;
            task = None;
            Poll::Ready(Some(Ok(Frame::data(piece.into()))))
        })))
    }

    watched(|| {
        assert_eq!(answer(&AsgiHandler::new(service_fn(body_of_a_task))), "onetwothree");
        for runtime in driven() {
            let layer = AsgiLayer::adapter().runtime(runtime.handle.clone());
            assert_eq!(answer(&layer.layer(service_fn(body_of_a_task))), "onetwothree", "{}", runtime.name);
        }
    });
}

#[test]
fn b1_an_own_runtime_wins_over_the_threads() {
    watched(|| {
        let other = multi();
        let _inside = other.enter();
        for runtime in driven() {
            let layer = AsgiLayer::adapter().runtime(runtime.handle.clone());
            assert_eq!(answer(&layer.layer(service_fn(busy))), DRIVER, "{}", runtime.name);
        }
    });
}

#[test]
fn b1_inside_handle_enter_that_runtime_is_used() {
    watched(|| {
        for runtime in driven() {
            let _inside = runtime.handle.enter();
            assert_eq!(busy_thread(), DRIVER, "{}", runtime.name);
        }
    });
}

#[test]
fn b1_a_response_can_be_read_after_its_thread_has_left_the_runtime() {
    async fn slow_body(_: Request<Body>) -> Answer {
        let mut ticks = None;
        let mut left = 2;
        Ok(Response::new(poll_body(move |cx| {
            if left == 0 {
                return Poll::Ready(None);
            }
            let ticks = ticks.get_or_insert_with(|| tokio::time::interval(Duration::from_millis(1)));
            ticks.poll_tick(cx).map(|_| {
                left -= 1;
                Some(Ok(Frame::data("tick".into())))
            })
        })))
    }

    watched(|| {
        for runtime in driven() {
            let inside = runtime.handle.enter();
            let response = AsgiHandler::new(service_fn(slow_body)).call(get()).expect("a response");
            drop(inside);
            assert_eq!(read(response).expect("a whole body"), "ticktick", "{}", runtime.name);
        }
    });
}

#[test]
fn b1_threads_of_spawn_blocking_may_block() {
    watched(|| {
        for runtime in driven() {
            let name = runtime.handle.block_on(async {
                let name = soon(tokio::task::spawn_blocking(busy_thread)).await;
                name.expect("no panic")
            });
            // tokio names the threads for blocking like the others, where it was told to.
            assert!([DRIVER, "tokio-rt-worker"].contains(&&*name), "{} on {name:?}", runtime.name);
        }
    });
}

#[test]
fn b1_a_task_inside_block_in_place_may_block() {
    watched(|| {
        let runtime = multi();
        let answer = runtime.block_on(async {
            let task = tokio::spawn(async { tokio::task::block_in_place(busy_thread) });
            (task.await.expect("no panic"), tokio::task::block_in_place(busy_thread))
        });
        assert_eq!(answer, ("tokio-rt-worker".to_owned(), "tokio-rt-worker".to_owned()));
    });
}

async fn from_a_worker() {
    let server = serve(WsgiService::new(AsgiHandler::new(service_fn(busy)))).await;
    for version in VERSIONS {
        let name = soon(text(server.ask(version, "GET", "/").await)).await;
        // The server's runtime, and not one of the crate's.
        assert_ne!(name, "tower-wsgi-runtime", "{version:?}");
        assert_ne!(name, "tower-wsgi-worker", "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_workers_of_a_wsgi_service_may_block() {
    from_a_worker().await;
}

#[tokio::test]
async fn b1_workers_in_a_current_thread_runtime_may_block() {
    from_a_worker().await;
}

#[tokio::test]
async fn b1_a_wsgi_service_can_have_its_services_in_another_runtime() {
    let [multi, current] = driven();
    for runtime in [multi, current] {
        let layer = AsgiLayer::adapter().runtime(runtime.handle.clone());
        let server = serve(WsgiService::new(layer.layer(service_fn(busy)))).await;
        assert_eq!(ask(&server).await, DRIVER, "{}", runtime.name);
    }
}

#[test]
fn b1_a_service_that_is_not_sync_is_called_on_many_threads() {
    #[derive(Clone)]
    struct Counting(Cell<u32>);

    impl Service<Request<Body>> for Counting {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            self.0.set(self.0.get() + 1);
            ready(Ok(Response::new(Body::from(self.0.get().to_string()))))
        }
    }

    watched(|| {
        let handler = AsgiHandler::new(Counting(0.into()));
        thread::scope(|scope| {
            for _ in 0..4 {
                // Each call has a clone of its own.
                scope.spawn(|| assert_eq!(answer(&handler), "1"));
            }
        });
    });
}

#[test]
fn b1_a_service_whose_future_is_not_send_is_called() {
    watched(|| {
        let service = service_fn(|_: Request<Body>| async {
            let local = Rc::new("here");
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Infallible>(Response::new(Body::from(*local)))
        });
        assert_eq!(answer(&AsgiHandler::new(service)), "here");
    });
}

#[test]
fn b1_a_runtime_without_drivers_serves_what_needs_none() {
    watched(|| {
        let bare = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let service = service_fn(|request: Request<Body>| async {
            let body = tokio::spawn(async { request.into_body() }).await?;
            Ok::<_, tokio::task::JoinError>(Response::new(body))
        });
        let handler = AsgiLayer::adapter().runtime(bare.handle().clone()).layer(service);
        let response = handler.call(post("hello")).expect("a response");
        assert_eq!(read(response).expect("a whole body"), "hello");
    });
}
