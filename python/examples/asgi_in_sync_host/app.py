"""An ASGI application without a framework."""

import asyncio


async def app(scope, receive, send):
    assert scope["type"] == "http", "no lifespan, no WebSocket"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if scope["path"] == "/countdown":
        for number in (3, 2, 1):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await asyncio.sleep(0.1)
        body = b"done\n"
    else:
        environ = scope["wsgi_environ"]
        body = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}\n".encode()
    await send({"type": "http.response.body", "body": body})
