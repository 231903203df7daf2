"""Long uploads and downloads, as WSGI and as ASGI: `/upload`, and `/download/NUMBER` of pieces.

An upload is read late, so that a server without bounds has time to take it all.
"""

import asyncio
import time

from raw_asgi import lifespan

PIECE = 64 * 1024
DELAY = 1.0


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("content-type", "text/plain")])
    if path == "/upload":
        return [b"%d" % upload(environ["wsgi.input"])]
    return (piece() for _ in range(pieces(path)))


def upload(body):
    time.sleep(DELAY)
    length = 0
    while got := body.read(PIECE):
        length += len(got)
    return length


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if scope["path"] == "/upload":
        await send({"type": "http.response.body", "body": b"%d" % await upload_async(receive)})
        return
    for _ in range(pieces(scope["path"])):
        await send({"type": "http.response.body", "body": piece(), "more_body": True})
    await send({"type": "http.response.body"})


async def upload_async(receive):
    await asyncio.sleep(DELAY)
    length = 0
    more = True
    while more:
        message = await receive()
        length += len(message["body"])
        more = message.get("more_body", False)
    return length


def pieces(path):
    return int(path.rsplit("/", 1)[1])


def piece():
    """A new object each time, whose memory is touched: whoever keeps it shows it."""
    return b"x" * PIECE
