//! More requests than there are workers, by orders of magnitude.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_of::Many;
use http::{Request, Response};
use tower::{Layer as _, Service};
use tower_wsgi::{Body, Error, Input, WorkerPool, WsgiLayer, WsgiService};

use super::on_cpu;
use crate::support::{Events, Gate, eventually, idle, soon};

/// How many requests come at once.
fn flood() -> usize {
    let asked = std::env::var("TOWER_WSGI_FLOOD").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(10_000)
}

/// Many futures, polled by one task in any order.
mod futures_of {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    pub(super) struct Many<F: Future>(pub(super) Vec<Option<Pin<Box<F>>>>);

    impl<F: Future> Many<F> {
        /// Polls all of them once; those that are ready are gone after it.
        pub(super) fn poll_all(&mut self, cx: &mut Context<'_>, mut done: impl FnMut(F::Output)) {
            for slot in &mut self.0 {
                if let Some(future) = slot
                    && let Poll::Ready(output) = future.as_mut().poll(cx)
                {
                    *slot = None;
                    done(output);
                }
            }
        }
    }
}

type Handler = Box<dyn Fn(Request<Input>) -> Response<&'static str> + Send + Sync>;

/// A service with one worker, which is busy until the gate opens.
async fn blocked(layer: WsgiLayer, pool: &WorkerPool) -> (WsgiService<Handler>, Gate, Arc<AtomicUsize>) {
    let (gate, started, ran) = (Gate::new(), Events::new(), Arc::new(AtomicUsize::new(0)));
    let (inside, tell, counter) = (gate.clone(), started.teller(), ran.clone());
    let handler: Handler = Box::new(move |_| {
        if counter.fetch_add(1, Ordering::SeqCst) == 0 {
            tell(());
            inside.pass();
        }
        Response::new("done")
    });
    let mut service = layer.pool(pool.clone()).layer(handler);
    tokio::spawn(service.call(request()));
    started.next().await;
    (service, gate, ran)
}

fn request() -> Request<Body> {
    let request = Request::builder().uri("/some/path?with=a&query=too").header("host", "example.org");
    request.header("user-agent", "flood/1.0").header("accept", "*/*").body(Body::empty()).expect("a request")
}

/// The memory of this process that is in use, in bytes, where the system tells.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(text.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

/// Has so many requests wait; returns them.
async fn queue(
    service: &mut WsgiService<Handler>,
    pool: &WorkerPool,
    count: usize,
) -> Many<tower_wsgi::ResponseFuture<Handler>> {
    let before = resident();
    let mut many = Many((0..count).map(|_| Some(Box::pin(service.call(request())))).collect());
    std::future::poll_fn(|cx| {
        many.poll_all(cx, |response| panic!("an answer: {:?}", response.expect("a response").status()));
        std::task::Poll::Ready(())
    })
    .await;
    assert_eq!(pool.stats().queued, count);
    if let (Some(before), Some(after)) = (before, resident()) {
        println!("{} bytes for each of {count} requests that wait", after.saturating_sub(before) / count);
    }
    many
}

#[tokio::test]
async fn a10_a_flood_waits_in_the_queue_and_is_answered() {
    let (count, pool) = (flood(), WorkerPool::new(1));
    let (mut service, gate, ran) = blocked(WsgiLayer::adapter().max_queued(usize::MAX), &pool).await;
    let mut many = queue(&mut service, &pool, count).await;
    gate.open();
    let mut answered = 0;
    let all = std::future::poll_fn(|cx| {
        many.poll_all(cx, |response| {
            assert_eq!(response.expect("a response").status(), 200);
            answered += 1;
        });
        if answered == count { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("an answer to each");
    assert_eq!(ran.load(Ordering::SeqCst), count + 1);
    idle(&pool).await;
}

#[tokio::test]
async fn a10_a_flood_over_the_default_bound_is_refused_at_once() {
    let (count, pool) = (flood(), WorkerPool::new(1));
    let (mut service, gate, ran) = blocked(WsgiLayer::adapter(), &pool).await;
    let waiting = queue(&mut service, &pool, 1_000).await;
    for _ in 0..count {
        let response = service.call(request()).await.expect("a response");
        assert_eq!(
            (response.status().as_u16(), response.headers()["retry-after"].as_bytes()),
            (503, &b"1"[..])
        );
        assert!(response.extensions().get::<Error>().is_some_and(Error::is_overloaded));
    }
    // What was refused is dropped, although the only worker is busy.
    eventually("nothing of them is left", || pool.stats().discards == 0).await;
    assert_eq!(pool.stats().queued, 1_000);
    drop(waiting);
    gate.open();
    idle(&pool).await;
    assert_eq!(ran.load(Ordering::SeqCst), 1, "one that was given up was run");
}

/// The order in which the clients of a flood leave.
#[derive(Clone, Copy, Debug)]
enum Order {
    First,
    Last,
    Mixed,
}

/// How long it takes until so many requests that wait are given up.
async fn cancel(count: usize, order: Order) -> Duration {
    let pool = WorkerPool::new(1);
    let (mut service, gate, ran) = blocked(WsgiLayer::adapter().max_queued(usize::MAX), &pool).await;
    let mut many = queue(&mut service, &pool, count).await.0;
    let before = on_cpu();
    match order {
        Order::First => many.into_iter().for_each(drop),
        Order::Last => many.into_iter().rev().for_each(drop),
        Order::Mixed => {
            // Each place once, far from the one before.
            let step = (count * 5 / 8) | 1;
            let step = (step..).find(|step| gcd(*step, count) == 1).expect("a step");
            (0..count).for_each(|n| drop(many[n * step % count].take()));
        }
    }
    assert_eq!(pool.stats().queued, 0, "a cancelled request leaves the queue at once");
    let took = on_cpu().saturating_sub(before);
    eventually("all were dropped", || pool.stats().discards == 0).await;
    gate.open();
    idle(&pool).await;
    assert_eq!(ran.load(Ordering::SeqCst), 1, "one that was given up was run");
    took
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[tokio::test]
async fn a8_a_flood_that_gives_up_leaves_at_once_in_any_order() {
    let count = flood();
    for order in [Order::First, Order::Last, Order::Mixed] {
        // Those from the middle of the queue are searched for in half of it at most.
        let count = if matches!(order, Order::Mixed) { count / 5 } else { count };
        let took = cancel(count, order).await;
        println!("{took:?} for {count} that give up, {order:?}");
        // To search the whole queue for each of 10,000 takes some 5 seconds in a build without optimisations. From its ends it makes no difference how long it is; from anywhere the effort grows with the square.
        let tens = u32::try_from(count / 10_000).expect("a number");
        let effort = if matches!(order, Order::Mixed) { tens.max(1).pow(2) } else { 1 };
        assert!(took < Duration::from_secs(2) * effort, "{took:?} for {count} that give up, {order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a10_a_flood_is_told_when_queue_timeout_is_over() {
    let (count, pool) = (5_000, WorkerPool::new(1));
    let layer = WsgiLayer::adapter().max_queued(usize::MAX).queue_timeout(Duration::from_secs(5));
    let (mut service, gate, ran) = blocked(layer, &pool).await;
    let mut many = queue(&mut service, &pool, count).await;
    tokio::time::advance(Duration::from_secs(6)).await;
    let mut refused = 0;
    std::future::poll_fn(|cx| {
        many.poll_all(cx, |response| {
            assert_eq!(response.expect("a response").status(), 503);
            refused += 1;
        });
        if refused == count { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert_eq!(pool.stats().queued, 0);
    gate.open();
    let soon_idle = soon(idle(&pool));
    soon_idle.await;
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}
