//! Nothing is left behind: no thread, no task, no object.

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;

use super::support::*;
use super::websocket::connect;

/// A request that is dropped at one point or another.
async fn drop_one(app: &tower_wsgi_python::PyAsgi, n: usize) {
    match n % 3 {
        0 => {
            let mut response = call(app, get("/stream")).await;
            response.body_mut().frame().await.unwrap().unwrap();
        }
        1 => drop(call(app, get("/stream")).await),
        _ => {
            let mut future = Box::pin(call(app, get("/receive")));
            std::future::poll_fn(|cx| {
                let _ = future.as_mut().poll(cx);
                std::task::Poll::Ready(())
            })
            .await;
        }
    }
}

#[test]
fn requests_that_are_dropped_leave_nothing() {
    run(async {
        let app = start(
            r#"
import gc, sys, weakref
class Mark: pass
marks = weakref.WeakSet()
@http_only
async def app(scope, receive, send):
    if scope["path"] == "/left":
        for _ in range(100):
            gc.collect()
            if not marks and len(asyncio.all_tasks()) == 2:
                break
            await asyncio.sleep(0.01)
        return await reply(send, [len(marks), len(asyncio.all_tasks()), sys.getallocatedblocks()])
    mark = Mark()
    marks.add(mark)
    if scope["path"] == "/receive":
        while (await receive())["type"] != "http.disconnect":
            pass
    await send({"type": "http.response.start", "status": 200})
    while True:
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
"#,
        );
        // The first rounds fill caches, and other tests share the interpreter. An object that each request left behind would show in every round.
        let mut grown = Vec::new();
        let mut last = 0;
        while grown.last().is_none_or(|grown| *grown >= 250) {
            assert!(grown.len() < 50, "{grown:?} blocks more in each round");
            for n in 0..300 {
                drop_one(&app, n).await;
            }
            let left = json(call(&app, get("/left")).await).await;
            // The request's own task, and the one that waits for the end.
            assert_eq!((&left[0], &left[1]), (&0.into(), &2.into()));
            let blocks = left[2].as_i64().unwrap();
            grown.push(blocks - last);
            last = blocks;
        }
        app.shutdown().await;
    });
}

#[test]
fn websockets_that_are_dropped_leave_nothing() {
    run(async {
        let app = start(
            r#"
import gc, weakref
class Mark: pass
marks = weakref.WeakSet()
@http_only
async def app(scope, receive, send):
    if scope["type"] == "http":
        for _ in range(100):
            gc.collect()
            if not marks and len(asyncio.all_tasks()) == 2:
                break
            await asyncio.sleep(0.01)
        return await reply(send, [len(marks), len(asyncio.all_tasks())])
    mark = Mark()
    marks.add(mark)
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})
"#,
        );
        let address = serve(app.clone()).await;
        for n in 0..50 {
            let (mut socket, _) = connect(address, "/").await;
            socket.send("hello".into()).await.unwrap();
            if n % 2 == 0 {
                assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "hello");
            }
        }
        assert_eq!(json(call(&app, get("/")).await).await, serde_json::json!([0, 2]));
        app.shutdown().await;
    });
}

#[test]
fn an_application_that_ends_leaves_no_thread() {
    fn threads() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with("leak-free"))
            .count()
    }
    run(async {
        let mut apps = Vec::new();
        for _ in 0..5 {
            let app = start(
                r#"
async def app(scope, receive, send):
    await receive()
    open("/proc/thread-self/comm", "w").write("leak-free")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"#,
            );
            apps.push(app);
        }
        // A directory of threads may leave some out while others end.
        while threads() != 5 {
            tokio::task::yield_now().await;
        }
        for app in apps {
            app.shutdown().await;
        }
        assert_eq!(threads(), 0);
    });
}
