"""What the Rust sites do, as a WSGI and as an ASGI application."""

import asyncio
import gc
from urllib.parse import parse_qs

PATTERN = bytes(range(251)) * 263


def piece(offset, length):
    start = offset % 251
    return PATTERN[start : start + length]


class Wrong(Exception):
    pass


def question(query):
    fields = {key: values[0] for key, values in parse_qs(query).items()}
    fails = fields.get("fails")
    return int(fields["bytes"]), int(fields["size"]), None if fails is None else int(fails)


def pieces(query):
    length, size, fails = question(query)
    offset = 0
    while offset < length:
        if fails is not None and offset >= fails:
            raise Wrong("as it was asked for")
        yield piece(offset, min(size, length - offset))
        offset += size
    if fails is not None:
        raise Wrong("as it was asked for")


def state(**more):
    gc.collect()
    return " ".join(f"{key}={value}" for key, value in {"objects": len(gc.get_objects()), **more}.items()).encode()


class Count:
    def __init__(self):
        self.length = 0

    def add(self, data):
        offset = 0
        while offset < len(data):
            part = data[offset : offset + 65536]
            if part != piece(self.length, len(part)):
                raise Wrong(f"other bytes than expected after {self.length}")
            self.length += len(part)
            offset += len(part)


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hello":
        body = [b"Hello World!"]
    elif path == "/state":
        body = [state()]
    elif path == "/count":
        count = Count()
        while data := environ["wsgi.input"].read(10_000):
            count.add(data)
        body = [str(count.length).encode()]
    elif path == "/download":
        body = pieces(environ["QUERY_STRING"])
    else:
        raise Wrong(path)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"].removeprefix(scope["root_path"])
    if path == "/download":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in pieces(scope["query_string"].decode()):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})
        return
    if path == "/hello":
        body = b"Hello World!"
    elif path == "/state":
        body = state(tasks=len(asyncio.all_tasks()))
    elif path == "/count":
        count, more = Count(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            count.add(message["body"])
            more = message["more_body"]
        body = str(count.length).encode()
    else:
        raise Wrong(path)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
