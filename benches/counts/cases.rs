//! What is counted.

use std::convert::Infallible;
use std::iter;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};
use tower_wsgi::{AsgiLayer, Body, Input, Output, SyncHandler, Variables, WsgiLayer, WsgiService};

/// So many requests, one after the other, each answered to its end.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(u64),
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "axum, async handler",
        run: |requests| by_axum(requests, Router::new().route("/", get(|| async { HELLO }))),
    },
    Case {
        name: "axum, WsgiService",
        run: |requests| by_axum(requests, Router::new().route_service("/", WsgiService::new(hello))),
    },
    Case {
        name: "axum, WsgiLayer at the top",
        run: |requests| by_axum(requests, Router::new().layer(WsgiLayer::new(hello).at("/"))),
    },
    Case {
        name: "WsgiService",
        run: |requests| by_service(requests, WsgiService::new(hello), HELLO.as_bytes(), Body::empty),
    },
    Case {
        name: "WsgiService, all variables read",
        run: |requests| {
            let handler = |request: Request<Input>| {
                assert!(Variables::of(&request).get("REQUEST_METHOD").is_some());
                Response::new(HELLO)
            };
            by_service(requests, WsgiService::new(handler), HELLO.as_bytes(), Body::empty);
        },
    },
    Case {
        name: "WsgiService, 4 KiB in and out",
        run: |requests| {
            let echo = |request: Request<Input>| {
                Ok::<_, std::io::Error>(Response::new(request.into_body().chunk()?.unwrap_or_default()))
            };
            by_service(requests, WsgiService::new(echo), &[b'x'; 4096], || {
                Body::from(Bytes::from_static(&[b'x'; 4096]))
            });
        },
    },
    Case {
        name: "WsgiService, 8 chunks by iterator",
        run: |requests| {
            let (sender, done) = mpsc::channel();
            let chunks = move |_: Request<Input>| {
                let chunks = (0..8).map(|_| Bytes::from_static(&[b'x'; 512]));
                let sender = sender.clone();
                Response::new(Output::iter(chunks.chain(iter::from_fn(move || {
                    sender.send(()).expect("a caller");
                    None
                }))))
            };
            // How far the two sides are apart would decide how long the queue gets.
            let all_made = || done.recv().expect("a handler");
            by_service_after(requests, WsgiService::new(chunks), &[b'x'; 4096], Body::empty, all_made);
        },
    },
    Case {
        name: "block_on, async service",
        run: |requests| {
            let (runtime, service) = (runtime(), tower::service_fn(async_hello));
            for _ in 0..requests {
                let body = step(|| {
                    runtime.block_on(async {
                        let Ok(response) = service.oneshot(request(Body::empty())).await;
                        response.into_body().collect().await.expect("a body").to_bytes()
                    })
                });
                assert_eq!(body, HELLO);
            }
        },
    },
    Case {
        name: "AsgiHandler, async service",
        run: |requests| {
            let runtime = runtime();
            let handler =
                AsgiLayer::adapter().runtime(runtime.handle().clone()).layer(tower::service_fn(async_hello));
            for _ in 0..requests {
                let body = step(|| {
                    let response = handler.call(request(Input::empty())).expect("a response");
                    let mut body = response.map(Output::into_reader).into_body();
                    let chunk = body.chunk().expect("a chunk").expect("a body");
                    assert!(body.chunk().expect("an end").is_none());
                    chunk
                });
                assert_eq!(body, HELLO);
            }
        },
    },
];

const HELLO: &str = "Hello World!";

fn hello(_: Request<Input>) -> Response<&'static str> {
    Response::new(HELLO)
}

async fn async_hello(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    Ok(Response::new(Body::from(HELLO)))
}

fn request<B>(body: B) -> Request<B> {
    Request::get("/").header("host", "localhost").header("accept", "*/*").body(body).expect("a request")
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).build().expect("a runtime")
}

fn by_axum(requests: u64, router: Router) {
    by_service(requests, router, HELLO.as_bytes(), axum::body::Body::empty);
}

fn by_service<S, B, R>(requests: u64, service: S, answer: &[u8], body: impl Fn() -> B)
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    by_service_after(requests, service, answer, body, || {});
}

/// Requests from this thread, which is not one of the runtime's: nothing else runs on it. It goes on with a response once `wait` is over.
fn by_service_after<S, B, R>(
    requests: u64,
    mut service: S,
    answer: &[u8],
    body: impl Fn() -> B,
    wait: impl Fn(),
) where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    R: http_body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let runtime = runtime();
    let _inside = runtime.enter();
    let woken = Arc::new(Flag::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    for _ in 0..requests {
        let request = request(body());
        let mut answered = pin!(async {
            let Ok(response) = service.ready().await.expect("ready").call(request).await;
            response.into_body().collect().await.expect("a body").to_bytes()
        });
        let mut wait = Some(&wait);
        let got = loop {
            match step(|| answered.as_mut().poll(&mut cx)) {
                Poll::Ready(got) => break got,
                Poll::Pending => {
                    woken.wait();
                    if let Some(wait) = wait.take() {
                        wait();
                    }
                }
            }
        };
        assert_eq!(got, answer);
    }
}

/// What the caller's side of a request does between two waits. Callgrind finds it by its name.
#[inline(never)]
fn step<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// A caller that looks instead of sleeping: to be woken from sleep takes instructions, and it sleeps or not as luck has it.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Flag {
    fn wait(&self) {
        while !self.0.swap(false, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }
}
