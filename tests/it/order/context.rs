//! What goes with a request beside it: the `tracing` span, the runtime's handle and task-locals, through every side of a stack.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Handle, Id};
use tower::util::BoxCloneService;
use tower::{Service as _, ServiceBuilder, service_fn};
use tower_http::trace::TraceLayer;
use tower_wsgi::{
    AsgiHandler, AsgiLayer, Body, BoxError, Input, Output, SyncHandler, WorkerPool, WsgiLayer, WsgiService,
    sync_fn,
};
use tracing::{Span, dispatcher, info_span};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan as _;

use crate::support::{Events, VERSIONS, collect, serve, soon, text, watched};

/// The names of the current span and those around it, the innermost first. An event would have the first one as its parent.
fn spans() -> Vec<&'static str> {
    let Some(current) = Span::current().id() else {
        return Vec::new();
    };
    dispatcher::get_default(|dispatch| {
        let registry: &Registry = dispatch.downcast_ref().expect("a registry");
        let span = registry.span(&current).expect("a span");
        span.scope().map(|span| span.name()).collect()
    })
}

/// What a layer tells of its surroundings.
type Told<T> = (&'static str, T);

/// A stack of five sides, with a span on each; or, without spans, to see what is left behind on the workers.
async fn traced(with_spans: bool, pool: WorkerPool, events: &Events<Told<Vec<&'static str>>>) {
    let span = move |name: &'static str| match (with_spans, name) {
        (false, _) => Span::none(),
        (_, "a") => info_span!("a"),
        (_, "b") => info_span!("b"),
        (_, "c") => info_span!("c"),
        _ => info_span!("d"),
    };
    let [a, b, c, d] = [(); 4].map(|()| events.teller());
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http().make_span_with(move |_: &Request<_>| span("a")))
        .map_request(move |request: Request<hyper::body::Incoming>| {
            a(("a", spans()));
            request
        })
        .layer(WsgiLayer::adapter().pool(pool.clone()))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            b(("before b", spans()));
            let response = span("b").in_scope(|| next.call(request))?;
            b(("after b", spans()));
            Ok::<_, BoxError>(response)
        }))
        .layer(AsgiLayer::adapter())
        .layer(TraceLayer::new_for_http().make_span_with(move |_: &Request<_>| span("c")))
        .map_request(move |request: Request<Body>| {
            c(("c", spans()));
            request
        })
        .layer(WsgiLayer::adapter().pool(pool))
        .service(move |_: Request<Input>| {
            d(("before d", spans()));
            span("d").in_scope(|| d(("d", spans())));
            let body = d.clone();
            let chunks = ["chunk"].into_iter().inspect(move |_| body(("body", spans())));
            Response::new(Output::iter(chunks))
        });
    let server = serve(service).await;
    assert_eq!(text(server.get("/").await).await, "chunk");
}

async fn spans_nest() {
    collect();
    let pool = WorkerPool::new(2);
    for _ in 0..3 {
        let events = Events::new();
        traced(true, pool.clone(), &events).await;
        let expected: [Told<&[&str]>; 7] = [
            ("a", &["a"]),
            ("before b", &["a"]),
            ("c", &["c", "b", "a"]),
            ("before d", &["c", "b", "a"]),
            ("d", &["d", "c", "b", "a"]),
            // A body belongs to the request that it answers, not to what its handler had entered.
            ("body", &["c", "b", "a"]),
            ("after b", &["a"]),
        ];
        let told = events.drain();
        let told: Vec<Told<&[&str]>> = told.iter().map(|(name, spans)| (*name, spans.as_slice())).collect();
        // The first chunk is made before the head goes out, so that all of it has an order.
        assert_eq!(told, expected);

        let events = Events::new();
        traced(false, pool.clone(), &events).await;
        let told = events.drain();
        assert_eq!(told.len(), 7);
        assert!(told.iter().all(|(_, spans)| spans.is_empty()), "{told:?}");
    }
}

#[tokio::test]
async fn c4_spans_nest_as_the_layers_do() {
    spans_nest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_spans_nest_as_the_layers_do_on_many_threads() {
    spans_nest().await;
}

#[test]
fn c4_a_hosts_span_is_around_all_that_is_inside() {
    watched(|| {
        collect();
        let events = Events::new();
        let (inside, again) = (events.teller(), events.teller());
        let service = ServiceBuilder::new()
            .map_request(move |request: Request<Body>| {
                inside(("async", spans()));
                request
            })
            .service(WsgiService::new(move |_: Request<Input>| {
                again(("sync", spans()));
                Response::new(())
            }));
        let handler = AsgiHandler::new(service);
        info_span!("host").in_scope(|| handler.call(Request::new(Input::empty()))).expect("a response");
        assert_eq!(events.drain(), [("async", vec!["host"]), ("sync", vec!["host"])]);
    });
}

/// A stack of five sides that tells the runtime of each.
fn in_runtimes(
    layer: AsgiLayer,
    events: &Events<Told<Id>>,
) -> BoxCloneService<Request<Body>, Response<Body>, Infallible> {
    let [a, b, c, d, e] = [(); 5].map(|()| events.teller());
    let id = || Handle::current().id();
    let service = ServiceBuilder::new()
        .map_request(move |request: Request<Body>| {
            a(("a", id()));
            request
        })
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            let response = next.call(request);
            b(("b", id()));
            response
        }))
        .layer(layer)
        .map_request(move |request: Request<Body>| {
            c(("c", id()));
            request
        })
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            let response = next.call(request);
            d(("d", id()));
            response
        }))
        .layer(AsgiLayer::adapter())
        .service(service_fn(move |_: Request<Body>| {
            let e = e.clone();
            async move {
                // It is there to be used: a task and a timer of the runtime's.
                tokio::spawn(tokio::time::sleep(std::time::Duration::from_nanos(1))).await?;
                e(("e", id()));
                Ok::<_, BoxError>(Response::new(Body::empty()))
            }
        }));
    BoxCloneService::new(service)
}

#[tokio::test]
async fn c4_the_runtime_is_the_same_on_every_side() {
    let events = Events::new();
    let mut service = in_runtimes(AsgiLayer::adapter(), &events);
    let response = soon(service.call(Request::new(Body::empty()))).await.expect("a response");
    assert_eq!(response.status(), 200);
    let here = Handle::current().id();
    assert_eq!(events.drain(), ["a", "c", "e", "d", "b"].map(|name| (name, here)));
}

#[test]
fn c4_a_runtime_that_was_set_is_there_from_its_layer_inwards() {
    watched(|| {
        let outer = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let inner = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let events = Events::new();
        let mut service = in_runtimes(AsgiLayer::adapter().runtime(inner.handle().clone()), &events);
        let response = async { soon(service.call(Request::new(Body::empty()))).await };
        let response = outer.block_on(response).expect("a response");
        assert_eq!(response.status(), 200);
        let (out, inside) = (outer.handle().id(), inner.handle().id());
        let expected = [("a", out), ("c", inside), ("e", inside), ("d", inside), ("b", out)];
        assert_eq!(events.drain(), expected);
    });
}

#[test]
fn c4_a_host_without_a_runtime_gets_one_for_all_that_is_inside() {
    watched(|| {
        let events = Events::new();
        let handler = AsgiHandler::new(in_runtimes(AsgiLayer::adapter(), &events));
        let response = handler.call(Request::new(Input::empty())).expect("a response");
        assert_eq!(response.status(), 200);
        assert!(Handle::try_current().is_err(), "it stays inside");
        let told = events.drain();
        let own = told[0].1;
        assert_eq!(told, ["a", "c", "e", "d", "b"].map(|name| (name, own)));
    });
}

tokio::task_local! { static USER: String; }

fn user() -> String {
    USER.try_with(String::clone).unwrap_or_else(|_| "nobody".into())
}

fn with_user(layer: WsgiLayer) -> WsgiLayer {
    layer.context(|| {
        let user = user();
        move |run: &mut dyn FnMut()| USER.sync_scope(user.clone(), run)
    })
}

/// Who the user is on each side, with a hook on the outer crossing and, or not, on the inner one.
async fn users(inner: WsgiLayer) -> Vec<Told<String>> {
    let events = Events::new();
    let [b, c, d, e] = [(); 4].map(|()| events.teller());
    let mut service = ServiceBuilder::new()
        .layer(with_user(WsgiLayer::adapter()))
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            b(("b", user()));
            next.call(request)
        }))
        .layer(AsgiLayer::adapter())
        .map_request(move |request: Request<Body>| {
            c(("c", user()));
            request
        })
        .layer(inner)
        .layer(sync_fn(move |request: Request<Input>, next: &dyn SyncHandler| {
            d(("d", user()));
            next.call(request)
        }))
        .layer(AsgiLayer::adapter())
        .service(service_fn(move |_: Request<Body>| {
            let e = e.clone();
            async move {
                tokio::task::yield_now().await;
                e(("e", user()));
                Ok::<_, BoxError>(Response::new(Body::empty()))
            }
        }));
    let response = USER.scope("alice".into(), service.call(Request::new(Body::empty())));
    soon(response).await.expect("a response").into_body().collect().await.expect("a body");
    events.drain()
}

#[tokio::test]
async fn c4_a_task_local_that_the_hook_carries_is_seen_on_every_side_inside() {
    let alice = "alice".to_owned();
    let told = users(with_user(WsgiLayer::adapter())).await;
    assert_eq!(told, ["b", "c", "d", "e"].map(|name| (name, alice.clone())));
}

#[tokio::test]
async fn c4_a_task_local_ends_at_a_crossing_without_the_hook() {
    let told = users(WsgiLayer::adapter()).await;
    let (alice, nobody) = ("alice".to_owned(), "nobody".to_owned());
    // The async service between them is polled by the worker, inside the hook; the next crossing is to another worker.
    assert_eq!(told, [("b", alice.clone()), ("c", alice), ("d", nobody.clone()), ("e", nobody)]);
}

#[test]
fn c4_a_thread_local_of_a_plain_host_is_seen_by_the_service_that_it_polls() {
    thread_local! { static TENANT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) }; }

    watched(|| {
        TENANT.set(7);
        let service = service_fn(|_: Request<Body>| async {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(Response::new(Body::from(TENANT.get().to_string())))
        });
        let response = AsgiHandler::new(service).call(Request::new(Input::empty())).expect("a response");
        assert_eq!(std::io::read_to_string(response.into_body().into_reader()).expect("a body"), "7");
    });
}

#[tokio::test]
async fn c4_a_request_span_of_http_is_the_outermost_over_both_versions() {
    collect();
    let service = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(WsgiLayer::adapter().workers(1))
        .layer(sync_fn(|request: Request<Input>, next: &dyn SyncHandler| {
            let response = info_span!("sync").in_scope(|| next.call(request))?;
            Ok::<_, BoxError>(response)
        }))
        .layer(AsgiLayer::adapter())
        .service(axum::Router::new().fallback(|| async { spans().join(" ") }));
    let server = serve(service).await;
    for version in VERSIONS {
        assert_eq!(text(server.ask(version, "GET", "/").await).await, "sync request", "{version:?}");
    }
}
