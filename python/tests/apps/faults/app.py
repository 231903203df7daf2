"""Applications that note what they see of clients that misbehave, and that misbehave themselves as they are told."""

import asyncio
import collections
import gc
import json
import threading

notes = collections.Counter()
lock = threading.Lock()


def note(*what):
    with lock:
        notes[" ".join(map(str, what))] += 1


def answer(path, **more):
    """What the tests ask for. `/notes` forgets what it tells."""
    if path == "/ok":
        return b"ok"
    if path == "/state":
        gc.collect()
        return json.dumps({"objects": len(gc.get_objects()), **more}).encode()
    if path == "/notes":
        with lock:
            text = json.dumps(notes)
            notes.clear()
        return text.encode()
    return None


def code(text):
    """The application in a header: Python's source text in hexadecimal digits."""
    space = {"note": note, "asyncio": asyncio}
    exec(compile(bytes.fromhex(text), "case", "exec"), space)
    return space["app"]


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/run":
        return code(environ["HTTP_X_CODE"])(environ, start_response)
    here = answer(path)
    if here is not None:
        start_response("200 OK", [])
        return [here]
    if path == "/upload":
        body = environ["wsgi.input"].read()
        note("upload", body.decode("latin-1"))
        start_response("200 OK", [])
        return [b"%d" % len(body)]
    if path == "/duplex":
        start_response("200 OK", [])
        return Duplex(environ["wsgi.input"])
    if path == "/big":
        start_response("200 OK", [])
        return Big()
    note("path", environ["REQUEST_METHOD"], path)
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [])
    return [json.dumps(shown).encode()]


class Duplex:
    """Sends what it reads, piece by piece."""

    def __init__(self, body):
        note("opened")
        self.pieces = self.copy(body)

    def copy(self, body):
        try:
            while piece := body.read1(100):
                yield piece
            note("whole")
        except OSError:
            note("broken")
            raise

    def __iter__(self):
        return self.pieces

    def close(self):
        note("closed")


class Big:
    """More than the buffers of a connection hold."""

    def __init__(self):
        note("opened")

    def __iter__(self):
        for _ in range(1000):
            yield b"x" * 16384
        note("whole")

    def close(self):
        note("closed")


async def asgi(scope, receive, send):
    assert scope["type"] != "lifespan"
    path = scope["path"]
    if path == "/run":
        app = code(dict(scope["headers"])[b"x-code"].decode())
        return await app(scope, receive, send)
    if scope["type"] == "websocket":
        return await echo(scope, receive, send)
    here = answer(path, tasks=len(asyncio.all_tasks()))
    if here is not None:
        return await reply(send, here)
    if path == "/upload":
        body = await whole(receive)
        if body is not None:
            note("upload", body.decode("latin-1"))
            await reply(send, b"%d" % len(body))
        return
    if path in ("/duplex", "/big"):
        note("opened")
        try:
            await {"/duplex": duplex, "/big": big}[path](receive, send)
        finally:
            note("closed")
        return
    note("path", scope["method"], path)
    shown = {key: value for key, value in scope.items() if isinstance(value, (str, bytes))}
    shown["headers"] = [pair for pair in scope["headers"]]
    await reply(send, json.dumps(shown, default=lambda value: value.decode("latin-1")).encode())


async def reply(send, body):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


async def whole(receive):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            note("broken")
            return None
        body, more = body + message["body"], message["more_body"]
    return body


async def duplex(receive, send):
    await send({"type": "http.response.start", "status": 200})
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return note("broken")
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})
        if not more:
            return note("whole")


async def big(receive, send):
    await send({"type": "http.response.start", "status": 200})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": b"x" * 16384, "more_body": True})
    await send({"type": "http.response.body"})
    note("whole")


async def echo(scope, receive, send):
    message = await receive()
    assert message["type"] == "websocket.connect", message
    note("opened")
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return note("left", message["code"])
        text = message.get("text")
        if text is not None:
            note("text", text)
            answer = {"text": text}
        else:
            note("bytes", message["bytes"].hex())
            answer = {"bytes": message["bytes"]}
        try:
            await send({"type": "websocket.send", **answer})
        except OSError:
            # The next message says so, too.
            pass
