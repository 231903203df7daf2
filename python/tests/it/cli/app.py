"""The application that the command-line server's tests serve."""

import functools
import json
import os
import socket
import sys


def hold(query):
    """Tells the test that the request is running, and waits for its word."""
    with socket.create_connection(("127.0.0.1", int(query))) as gate:
        gate.sendall(b"x")
        gate.recv(1)


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":
        hold(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "application/json")])
    texts = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    return [json.dumps({"pid": os.getpid(), "cwd": os.getcwd(), "prefix": sys.prefix, **texts}).encode()]


def create():
    return wsgi


@functools.wraps(wsgi)
def wrapped(*args):
    return wsgi(*args)


class Dotted:
    attribute = staticmethod(wsgi)


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    import asyncio

    loop = type(asyncio.get_running_loop())
    texts = {key: value for key, value in scope.items() if isinstance(value, (str, list, tuple)) and key != "headers"}
    body = json.dumps({"loop": f"{loop.__module__}.{loop.__qualname__}", **texts}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def refuses(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})


if os.environ.get("GOODBYE"):
    import atexit

    atexit.register(lambda: print("goodbye"))

if os.environ.get("STUCK"):
    import atexit

    atexit.register(lambda: hold(os.environ["STUCK"]))
