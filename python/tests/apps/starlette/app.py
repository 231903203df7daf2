"""The compatibility application in Starlette, as its documentation would have it."""

import asyncio
import contextlib
import gc
import hashlib
import os
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

streamed = {"produced": 0, "closed": 0}
progress = {"background": "idle"}
closed = {"code": None}
released = asyncio.Event()


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"started": True}
    with open(os.environ["SHUTDOWN_FILE"], "a") as file:
        file.write("stopped\n")


async def index(request):
    return PlainTextResponse("Hello from Starlette\n")


async def hello(request):
    return PlainTextResponse(f"Hello, {request.path_params['name']}")


async def json(request):
    data = await request.json()
    return JSONResponse({"name": data["name"], "sum": sum(data["numbers"])})


async def form(request):
    async with request.form() as form:
        return JSONResponse({"name": form["name"], "tags": form.getlist("tag")})


async def upload(request):
    async with request.form() as form:
        file = form["file"]
        digest, length = hashlib.sha256(), 0
        while chunk := await file.read(1 << 16):
            digest.update(chunk)
            length += len(chunk)
        return JSONResponse(
            {
                "filename": file.filename,
                "length": length,
                "sha256": digest.hexdigest(),
                "comment": form["comment"],
            }
        )


async def stream(request):
    chunks, size = int(request.query_params["chunks"]), int(request.query_params["size"])
    streamed.update(produced=0, closed=0)

    async def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    return StreamingResponse(generate(), media_type="text/plain")


async def how_far(request):
    # What ended the response, an exception, and the generator are in a cycle: it is closed when Python finds that.
    gc.collect()
    return JSONResponse(streamed)


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JSONResponse({"visits": request.session["visits"]})


async def cookies(request):
    response = JSONResponse(request.cookies)
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return response


async def away(request):
    return RedirectResponse(request.url_for("hello", name="world"), status_code=302)


async def url(request):
    # Starlette puts parameters into the URL as they are.
    return PlainTextResponse(str(request.url_for("hello", name=quote("Jürgen & Co"))))


async def download(request):
    return FileResponse(os.environ["DOWNLOAD"], media_type="application/octet-stream")


async def empty(request):
    return Response(status_code=204)


async def about(request):
    return JSONResponse(
        {
            "method": request.method,
            "url": str(request.url),
            "query": request.query_params["q"],
            "client": request.client.host,
            "header": request.headers["X-Test"],
        }
    )


async def forbidden(request):
    raise HTTPException(403)


async def boom(request):
    raise RuntimeError("boom")


async def started(request):
    return JSONResponse({"started": request.state.started})


async def events(request):
    released.clear()

    async def generate():
        yield "data: first\n\n"
        await released.wait()
        yield "data: second\n\n"

    return StreamingResponse(generate(), media_type="text/event-stream")


async def release(request):
    released.set()
    return JSONResponse({})


async def work():
    progress["background"] = "running"
    await released.wait()
    progress["background"] = "done"


async def background(request):
    released.clear()
    return JSONResponse({"queued": True}, background=BackgroundTask(work))


async def how_far_in_background(request):
    return JSONResponse(progress)


async def echo(websocket):
    chat = "chat" if "chat" in websocket.scope["subprotocols"] else None
    await websocket.accept(subprotocol=chat)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            if message.get("text") == "close":
                return await websocket.close(4001, "bye")
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
    except WebSocketDisconnect as disconnect:
        closed["code"] = disconnect.code


async def denied(websocket):
    await websocket.close()


async def how_closed(request):
    return JSONResponse(closed)


app = Starlette(
    routes=[
        Route("/", index),
        Route("/hello/{name}", hello, name="hello"),
        Route("/json", json, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/streamed", how_far),
        Route("/session", visits),
        Route("/cookies", cookies),
        Route("/redirect", away),
        Route("/url", url),
        Route("/download", download),
        Route("/empty", empty, methods=["DELETE"]),
        Route("/request", about),
        Route("/forbidden", forbidden),
        Route("/boom", boom),
        Route("/lifespan", started),
        Route("/events", events),
        Route("/release", release),
        Route("/background", background),
        Route("/progress", how_far_in_background),
        Route("/closed", how_closed),
        WebSocketRoute("/ws", echo),
        WebSocketRoute("/ws/denied", denied),
        Mount("/static", StaticFiles(directory=os.path.join(os.path.dirname(__file__), "../static"))),
    ],
    middleware=[Middleware(SessionMiddleware, secret_key="not a secret")],
    lifespan=lifespan,
)
