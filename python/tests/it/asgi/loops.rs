//! What applications expect of the loop that they run on.

use tower_wsgi_python::{EventLoop, PyAsgi};

use super::support::*;

fn loops(code: &str) -> Vec<PyAsgi> {
    let code = code.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let code = format!("import sys\n@http_only\nasync def app(scope, receive, send):\n{code}");
    // uvloop where it is installed.
    [EventLoop::Asyncio, EventLoop::Auto].map(|kind| PyAsgi::on(load(&code), kind).unwrap()).into()
}

async fn holds(code: &str) {
    for app in loops(code) {
        let response = call(&app, get("/")).await;
        let status = response.status();
        assert_eq!((status.as_u16(), &*text(response).await), (200, "true"), "{code}");
        app.shutdown().await;
    }
}

#[test]
fn there_is_a_current_task_from_the_start() {
    run(holds("await reply(send, asyncio.current_task() in asyncio.all_tasks())"));
}

#[test]
fn timeouts_and_task_groups_work_before_the_first_pause() {
    run(holds(
        r#"
if sys.version_info < (3, 11):
    return await reply(send, True)
try:
    async with asyncio.timeout(0.01):
        await asyncio.sleep(3600)
except TimeoutError:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, n)) for n in range(3)]
    await reply(send, [task.result() for task in tasks] == [0, 1, 2])
"#,
    ));
}

#[test]
fn a_context_is_a_requests_own() {
    run(async {
        let code = r#"
import contextvars
user = contextvars.ContextVar("user")
@http_only
async def app(scope, receive, send):
    before = user.get(None)
    user.set(scope["path"])
    if scope["query_string"]:
        await asyncio.sleep(0.001)
    async def child():
        return user.get()
    await reply(send, [before, user.get() == await asyncio.create_task(child()) == scope["path"]])
"#;
        let app = start(code);
        for path in ["/a", "/b?pause", "/c", "/d"] {
            assert_eq!(json(call(&app, get(path)).await).await, serde_json::json!([null, true]));
        }
    });
}

#[test]
fn threads_and_subprocesses_work() {
    run(holds(
        r#"
import threading
loop = asyncio.get_running_loop()
here, there = threading.get_ident(), await loop.run_in_executor(None, threading.get_ident)
process = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=asyncio.subprocess.PIPE)
out, _ = await process.communicate()
await reply(send, here != there and out == b"hi\n" and process.returncode == 0)
"#,
    ));
}

#[test]
fn call_soon_is_the_loops_own() {
    run(holds(
        r#"
loop = asyncio.get_running_loop()
called = asyncio.Event()
loop.call_soon(called.set)
await called.wait()
await reply(send, "call_soon" not in vars(loop) if hasattr(loop, "__dict__") else True)
"#,
    ));
}

#[test]
fn an_application_may_have_a_task_factory() {
    run(holds(
        r#"
loop = asyncio.get_running_loop()
if loop.get_task_factory() is None:
    made = []
    def factory(loop, coroutine, **more):
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **more)
    loop.set_task_factory(factory)
await reply(send, True)
"#,
    ));
}

#[test]
fn receive_and_send_can_be_tasks() {
    run(holds(
        r#"
message = await asyncio.create_task(receive())
await asyncio.create_task(send({"type": "http.response.start", "status": 200}))
body = {"type": "http.response.body", "body": b"true"}
await asyncio.gather(asyncio.create_task(send(body)), asyncio.sleep(0))
"#,
    ));
}

#[test]
fn an_unknown_loop_is_an_error() {
    // It is there or it is not; either way nothing hangs.
    match PyAsgi::on(load("async def app(*a): pass"), EventLoop::Uvloop) {
        Ok(app) => run(app.shutdown()),
        Err(error) => assert!(error.is_startup() && error.to_string().contains("uvloop"), "{error}"),
    }
}
