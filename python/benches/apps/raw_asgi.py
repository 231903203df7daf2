"""ASGI applications without a framework."""

HELLO = b"Hello World!"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HELLO))],
}
BODY = {"type": "http.response.body", "body": HELLO}


async def lifespan(receive, send):
    """Without it a server would log that the application knows no lifespan."""
    while True:
        phase = (await receive())["type"]
        await send({"type": phase + ".complete"})
        if phase == "lifespan.shutdown":
            return


async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send(START)
    await send(BODY)


async def receiving(scope, receive, send):
    """What nearly every framework does: look at the body before the answer."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(BODY)
