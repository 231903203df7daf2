"""The life of an event loop: the application's lifespan, its requests, and the end of both."""

import asyncio


class Unsupported(Exception):
    """The application does not know the lifespan protocol."""


class Failed(Exception):
    """The application said that it failed."""


class Lifespan:
    """The lifespan protocol, from the server's side."""

    def __init__(self, app, state):
        self.app = app
        self.state = state
        self.inbox = asyncio.Queue()
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        self.began = False
        self.foreign = False
        self.failure = None
        self.task = None

    async def receive(self):
        message = await self.inbox.get()
        self.began = True
        return message

    async def send(self, message):
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self.started.is_set():
            self.started.set()
        elif kind == "lifespan.startup.failed" and not self.started.is_set():
            self.failure = message.get("message", "")
            self.started.set()
        elif kind == "lifespan.shutdown.complete" and self.started.is_set():
            self.stopped.set()
        elif kind == "lifespan.shutdown.failed" and self.started.is_set():
            self.failure = message.get("message", "")
            self.stopped.set()
        else:
            self.foreign = self.foreign or not kind.startswith("lifespan.")
            raise RuntimeError(f"unexpected message {kind!r}")

    async def startup(self):
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        self.inbox.put_nowait({"type": "lifespan.startup"})
        self.task = asyncio.ensure_future(call(self.app, scope, self.receive, self.send))
        await self.until(self.started)
        if self.failure is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            raise Failed(self.failure)
        if self.started.is_set():
            return
        error = self.task.exception() if not self.task.cancelled() else None
        self.task = None
        if error is not None and self.began and not self.foreign:
            raise error
        raise Unsupported

    async def shutdown(self):
        if self.task is None or self.task.done():
            return
        self.inbox.put_nowait({"type": "lifespan.shutdown"})
        await self.until(self.stopped)
        if self.failure is not None:
            raise Failed(self.failure)
        # It may have something to do after its last message.
        await asyncio.wait([self.task])
        if not self.task.cancelled() and self.task.exception() is not None:
            raise self.task.exception()

    async def until(self, event):
        """Waits for an event, or for the application's end."""
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait([waiter, self.task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()


async def call(app, *args):
    return await app(*args)


async def live(app, state, running, host):
    """Starts the application, lets `host` have its requests until it says so, and ends it."""
    lifespan = Lifespan(app, state)
    try:
        await lifespan.startup()
    except Unsupported:
        pass
    except BaseException as error:
        if isinstance(error, Failed):
            host.refused(str(error), None)
        else:
            host.refused("", error)
        return
    closing = asyncio.get_running_loop().create_future()
    host.started(closing)
    await closing
    while running:
        await asyncio.wait(list(running))
    try:
        await lifespan.shutdown()
    except BaseException as error:
        host.report("the application's lifespan shutdown failed", error)


def run(loop, app, state, running, host):
    """Runs until the application's life is over, and closes the loop."""
    asyncio.set_event_loop(loop)
    try:
        forever(loop, live(app, state, running, host), host)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            forever(loop, settle(left), host)
        forever(loop, loop.shutdown_asyncgens(), host)
        forever(loop, loop.shutdown_default_executor(), host)
    finally:
        host.ended()
        asyncio.set_event_loop(None)
        loop.close()


async def settle(tasks):
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {
                    "message": "a task failed when it was cancelled at the application's end",
                    "exception": task.exception(),
                    "task": task,
                }
            )


def forever(loop, coroutine, host):
    """Like `run_until_complete`, but not for `sys.exit()` in some task."""
    task = loop.create_task(coroutine)
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            host.report("the application wants to exit, which is its host's business", error)
    if not task.cancelled() and task.exception() is not None:
        host.report("the event loop's end failed", task.exception())


def make_loop(kind):
    """A loop of a kind: "auto", "asyncio" or "uvloop"."""
    if kind != "asyncio":
        try:
            import uvloop

            # A class of Python's, so that instances have attributes.
            return type("Loop", (uvloop.Loop,), {})()
        except ImportError:
            if kind == "uvloop":
                raise
    return asyncio.new_event_loop()


async def wrap(awaitable):
    """A coroutine for what is none, but can be awaited."""
    return await awaitable
