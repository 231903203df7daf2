//! Nothing is left behind: no thread, no task, no object.

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;

use super::support::*;
use super::websocket::connect;

#[test]
fn requests_that_are_dropped_leave_nothing() {
    run(async {
        let app = start(
            r#"
import gc, weakref
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
        kinds = [type(o).__name__ for o in gc.get_objects() if type(o).__module__ == "tower_wsgi"]
        return await reply(send, [len(marks), len(asyncio.all_tasks())])
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
        for n in 0..300 {
            match n % 3 {
                0 => {
                    let mut response = call(&app, get("/stream")).await;
                    response.body_mut().frame().await.unwrap().unwrap();
                }
                1 => drop(call(&app, get("/stream")).await),
                _ => {
                    let mut future = Box::pin(call(&app, get("/receive")));
                    let _ = std::future::poll_fn(|cx| {
                        let _ = future.as_mut().poll(cx);
                        std::task::Poll::Ready(())
                    })
                    .await;
                }
            }
        }
        // The request's own task, and the one that waits for the end.
        assert_eq!(json(call(&app, get("/left")).await).await, serde_json::json!([0, 2]));
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
        assert_eq!(threads(), 5);
        for app in apps {
            app.shutdown().await;
        }
        assert_eq!(threads(), 0);
    });
}
