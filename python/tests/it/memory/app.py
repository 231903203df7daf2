"""Long bodies. An upload is read, and a download made, as fast as the other side allows; both tell how far they are."""

import asyncio
import threading

PIECE = b"x" * (64 * 1024)

made = 0
go = threading.Event()


def wsgi(environ, start_response):
    global made
    path, body = environ["PATH_INFO"], [b""]
    if path == "/upload":
        go.wait()
        read = 0
        while piece := environ["wsgi.input"].read(len(PIECE)):
            read += len(piece)
        body = [str(read).encode()]
    elif path == "/download":
        body = pieces(int(environ["QUERY_STRING"]))
    elif path == "/made":
        body = [str(made).encode()]
    elif path == "/go":
        go.set()
    start_response("200 OK", [])
    return body


def pieces(count):
    global made
    for _ in range(count):
        made += 1
        yield PIECE


async def asgi(scope, receive, send):
    global made
    assert scope["type"] == "http"
    path, body = scope["path"], b""
    if path == "/upload":
        while not go.is_set():
            await asyncio.sleep(0.001)
        read, more = 0, True
        while more:
            message = await receive()
            read += len(message["body"])
            more = message["more_body"]
        body = str(read).encode()
    elif path == "/made":
        body = str(made).encode()
    elif path == "/go":
        go.set()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/download":
        for _ in range(int(scope["query_string"])):
            made += 1
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": body})
