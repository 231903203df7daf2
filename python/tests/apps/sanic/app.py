"""The compatibility application in Sanic, as its documentation would have it: in its ASGI mode."""

import asyncio
import hashlib
import os
from urllib.parse import quote

from sanic import Blueprint, Sanic
from sanic.exceptions import Forbidden
from sanic.response import ResponseStream, empty, file, json, redirect, text

app = Sanic("compatibility")

# Sanic routes by the path that the client sent and knows nothing of a root path: where an application is mounted, its
# routes say so themselves.
site = Blueprint("site", url_prefix=os.environ.get("URL_PREFIX") or None)

streamed = {"produced": 0, "closed": 0}
progress = {"background": "idle"}
closed = {"code": None}


@app.before_server_start
async def startup(app):
    app.ctx.started = True
    app.ctx.released = asyncio.Event()


@app.after_server_stop
async def shutdown(app):
    with open(os.environ["SHUTDOWN_FILE"], "a") as file:
        file.write("stopped\n")


@site.get("/")
async def index(request):
    return text("Hello from Sanic\n")


@site.get("/hello/<name:str>", unquote=True)
async def hello(request, name):
    return text(f"Hello, {name}")


@site.post("/json")
async def json_in(request):
    return json({"name": request.json["name"], "sum": sum(request.json["numbers"])})


@site.post("/form")
async def form(request):
    return json({"name": request.form.get("name"), "tags": request.form.getlist("tag")})


@site.post("/upload")
async def upload(request):
    upload = request.files.get("file")
    return json(
        {
            "filename": upload.name,
            "length": len(upload.body),
            "sha256": hashlib.sha256(upload.body).hexdigest(),
            "comment": request.form.get("comment"),
        }
    )


@site.get("/stream")
async def stream(request):
    chunks, size = int(request.args.get("chunks")), int(request.args.get("size"))
    streamed.update(produced=0, closed=0)

    async def generate(response):
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                await response.write(f"chunk {number}\n".encode().ljust(size, b"."))
        finally:
            streamed["closed"] += 1

    return ResponseStream(generate, content_type="text/plain")


@site.get("/streamed")
async def how_far(request):
    return json(streamed)


@site.get("/session")
async def visits(request):
    # Sanic has no sessions of its own; a cookie is what it offers.
    visits = int(request.cookies.get("visits", "0")) + 1
    response = json({"visits": visits})
    response.add_cookie("visits", str(visits), secure=False)
    return response


@site.get("/cookies")
async def cookies(request):
    response = json({name: request.cookies.get(name) for name in request.cookies})
    response.add_cookie("first", "1", secure=False)
    response.add_cookie("second", "two-words", secure=False)
    return response


@site.get("/redirect")
async def away(request):
    return redirect(app.url_for("site.hello", name="world"))


@site.get("/url")
async def url(request):
    # Sanic puts parameters into the URL as they are.
    return text(app.url_for("site.hello", name=quote("Jürgen & Co")))


@site.get("/download")
async def download(request):
    return await file(os.environ["DOWNLOAD"], mime_type="application/octet-stream")


@site.delete("/empty")
async def nothing(request):
    return empty()


@site.get("/request")
async def about(request):
    return json(
        {
            "method": request.method,
            "url": request.url,
            "query": request.args.get("q"),
            "client": request.ip,
            "header": request.headers["X-Test"],
        }
    )


@site.get("/forbidden")
async def forbidden(request):
    raise Forbidden("Forbidden")


@site.get("/boom")
async def boom(request):
    raise RuntimeError("boom")


@site.get("/lifespan")
async def started(request):
    return json({"started": app.ctx.started})


@site.get("/events")
async def events(request):
    app.ctx.released.clear()
    response = await request.respond(content_type="text/event-stream")
    await response.send("data: first\n\n")
    await app.ctx.released.wait()
    await response.send("data: second\n\n")
    await response.eof()


@site.get("/release")
async def release(request):
    app.ctx.released.set()
    return json({})


async def work(app):
    progress["background"] = "running"
    await app.ctx.released.wait()
    progress["background"] = "done"


@site.get("/background")
async def background(request):
    app.ctx.released.clear()
    app.add_task(work)
    return json({"queued": True})


@site.get("/progress")
async def how_far_in_background(request):
    return json(progress)


@site.websocket("/ws", subprotocols=["chat"])
async def echo(request, ws):
    while (message := await ws.recv()) is not None:
        if message == "close":
            # In ASGI mode this does nothing; the connection ends with the handler, and without a code.
            return await ws.close(4001, "bye")
        await ws.send(message)
    # How Sanic's ASGI mode says that the client has gone; it does not say with which code.
    closed["code"] = "gone"


@site.get("/closed")
async def how_closed(request):
    return json(closed)


site.static("/static", os.path.join(os.path.dirname(__file__), "../static"), use_content_range=True)
app.blueprint(site)
