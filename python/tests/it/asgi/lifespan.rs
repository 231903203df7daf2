//! The application's start and end.

use pyo3::prelude::*;
use tower_wsgi_python::PyAsgi;

use super::support::*;

fn refused(code: &str) -> String {
    let error = PyAsgi::new(load(code)).unwrap_err();
    assert!(error.is_startup());
    error.to_string()
}

#[test]
fn a_startup_that_fails_is_an_error() {
    let message = refused(
        r#"
async def app(scope, receive, send):
    assert (await receive()) == {"type": "lifespan.startup"}
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"#,
    );
    assert!(message.ends_with("failed: no database"), "{message}");
    let message = refused(
        r#"
async def app(scope, receive, send):
    await receive()
    await asyncio.sleep(0)
    raise ValueError("no cache")
"#,
    );
    assert!(message.contains("Traceback") && message.ends_with("ValueError: no cache"), "{message}");
}

#[test]
fn an_application_without_a_lifespan_starts() {
    run(async {
        for code in [
            "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n    await reply(send, 1)",
            "async def app(scope, receive, send):\n    if scope['type'] == 'http':\n        await reply(send, 1)",
            // It takes everything for a request.
            "async def app(scope, receive, send):\n    await receive()\n    await reply(send, 1)",
            "async def app(scope, receive, send):\n    await reply(send, 1)",
        ] {
            let app = start(code);
            assert_eq!(json(call(&app, get("/")).await).await, 1, "{code}");
            app.shutdown().await;
        }
    });
}

const LIFESPAN: &str = r#"
log, started, closing = [], asyncio.Event(), asyncio.Event()
async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/wait":
            log.append("waits")
            started.set()
            await closing.wait()
            await asyncio.sleep(0)
            log.append("waited")
        elif scope["path"] == "/close":
            closing.set()
        else:
            await started.wait()
        return await reply(send, scope["state"]["name"])
    assert scope["asgi"]["version"] == "3.0"
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["name"] = "stateful"
    async def forever():
        try:
            await asyncio.sleep(3600)
        finally:
            log.append("cancelled")
    async def generate():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            log.append("generator closed")
    task = asyncio.create_task(forever())
    generator = generate()
    await generator.__anext__()
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    log.append("shutdown")
    await send({"type": "lifespan.shutdown.complete"})
    log.append("returned")
    app.log = log
    app.generator = generator
"#;

fn log_of(app: &Py<PyAny>) -> Vec<String> {
    Python::attach(|py| app.getattr(py, "log").unwrap().extract(py).unwrap())
}

#[test]
fn shutdown_waits_for_requests_and_ends_everything_in_order() {
    run(async {
        let loaded = load(LIFESPAN);
        let name = loaded.name().to_owned();
        let app = PyAsgi::new(loaded).unwrap();
        let callable = module_app(&name);
        let other = app.clone();
        let waiting = tokio::spawn(async move { json(call(&other, get("/wait")).await).await });
        // Answered once the other one waits.
        assert_eq!(json(call(&app, get("/")).await).await, "stateful");
        let held = call(&app, get("/close"));
        let (one, two) = (app.clone(), app.clone());
        let (_, (), ()) = tokio::join!(held, one.shutdown(), two.shutdown());
        assert_eq!(waiting.await.unwrap(), "stateful");
        let response = call(&app, get("/")).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        app.shutdown().await;
        let expected = ["waits", "waited", "shutdown", "returned", "cancelled", "generator closed"];
        assert_eq!(log_of(&callable), expected);
    });
}

#[test]
fn a_shutdown_that_fails_is_still_an_end() {
    run(async {
        for end in [
            "raise ValueError('late')",
            "await send({'type': 'lifespan.shutdown.failed', 'message': 'x'})",
            "return",
        ] {
            let app = start(&format!(
                "async def app(scope, receive, send):\n    await receive()\n    await send({{'type': 'lifespan.startup.complete'}})\n    await receive()\n    {end}"
            ));
            app.shutdown().await;
        }
    });
}

/// Waits until Python's `app.ended` is set, by a thread that does not hold the interpreter.
fn wait_for_end(app: &Py<PyAny>) {
    Python::attach(|py| {
        let ended = app.getattr(py, "ended").unwrap();
        assert!(ended.call_method1(py, "wait", (20,)).unwrap().is_truthy(py).unwrap(), "it ends");
    });
}

#[test]
fn an_application_whose_last_clone_is_dropped_ends() {
    run(async {
        let loaded = load(
            r#"
import threading
async def app(scope, receive, send):
    if scope["type"] == "http":
        return await reply(send, 1)
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    app.ended.set()
app.ended = threading.Event()
"#,
        );
        let callable = module_app(loaded.name());
        let app = PyAsgi::new(loaded).unwrap();
        let clone = app.clone();
        drop(app);
        assert_eq!(json(call(&clone, get("/")).await).await, 1);
        drop(clone);
        tokio::task::spawn_blocking(move || wait_for_end(&callable)).await.unwrap();
    });
}

fn module_app(name: &str) -> Py<PyAny> {
    Python::attach(|py| {
        let modules = py.import("sys").unwrap().getattr("modules").unwrap();
        modules.get_item(name).unwrap().getattr("app").unwrap().unbind()
    })
}
