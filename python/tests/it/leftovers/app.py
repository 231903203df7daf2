"""What clients leave, and what is left of that."""

import asyncio
import gc
import json
import time


def state(**more):
    gc.collect()
    return json.dumps({"objects": len(gc.get_objects()), **more}).encode()


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/state":
        body = [state()]
    elif path == "/echo":
        body = iter(lambda: environ["wsgi.input"].read(1000), b"")
    else:
        body = slowly()
    start_response("200 OK", [])
    return body


def slowly():
    for _ in range(20):
        yield b"x" * 1000
        time.sleep(0.0005)


async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        return await websocket(receive, send)
    assert scope["type"] == "http"
    body = b""
    if scope["path"] == "/state":
        body = state(tasks=len(asyncio.all_tasks()))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/echo":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": True})
    elif scope["path"] == "/slow":
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            await asyncio.sleep(0.0005)
    await send({"type": "http.response.body", "body": body})


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})
