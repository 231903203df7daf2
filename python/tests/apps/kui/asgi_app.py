"""The compatibility application in Kuí, as its documentation would have it: the asynchronous one."""

import asyncio
import hashlib
import os
from pathlib import Path as FilePath
from urllib.parse import quote

from kui.asgi import (
    Body,
    HTTPException,
    HttpResponse,
    JSONResponse,
    Kui,
    Path,
    Query,
    RedirectResponse,
    Routes,
    StreamResponse,
    UploadFile,
    request,
    websocket,
)
from pydantic import BaseModel
from typing_extensions import Annotated

STATIC = FilePath(__file__).resolve().parent.parent / "static"

# Kuí routes by `scope["path"]` as it is, which has the mount at its front: where an application is mounted, its routes say
# so themselves.
PREFIX = os.environ.get("URL_PREFIX", "")

routes = Routes()

streamed = {"produced": 0, "closed": 0}
progress = {"background": "idle"}
closed = {"code": None}
released = asyncio.Event()


class Numbers(BaseModel):
    name: str
    numbers: list[int]


@routes.http.get("/")
async def index():
    return "Hello from Kuí\n"


@routes.http.get("/hello/{name}", name="hello")
async def hello(name: Annotated[str, Path()]):
    return f"Hello, {name}"


@routes.http.post("/json")
async def json(data: Annotated[Numbers, Body(exclusive=True)]):
    return {"name": data.name, "sum": sum(data.numbers)}


@routes.http.post("/form")
async def form(name: Annotated[str, Body()], tag: Annotated[list[str], Body()]):
    return {"name": name, "tags": tag}


@routes.http.post("/upload")
async def upload(file: Annotated[UploadFile, Body()], comment: Annotated[str, Body()]):
    digest, length = hashlib.sha256(), 0
    while chunk := await file.aread(1 << 16):
        digest.update(chunk)
        length += len(chunk)
    return {"filename": file.filename, "length": length, "sha256": digest.hexdigest(), "comment": comment}


@routes.http.get("/stream")
async def stream(chunks: Annotated[int, Query()], size: Annotated[int, Query()]):
    streamed.update(produced=0, closed=0)

    async def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    return StreamResponse(generate(), content_type="text/plain")


@routes.http.get("/streamed")
async def how_far():
    return streamed


@routes.http.get("/session")
async def visits():
    # Kuí has no sessions of its own; a cookie is what it offers.
    visits = int(request.cookies.get("visits", "0")) + 1
    response = JSONResponse({"visits": visits})
    response.set_cookie("visits", str(visits))
    return response


@routes.http.get("/cookies")
async def cookies():
    response = JSONResponse(dict(request.cookies))
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return response


@routes.http.get("/redirect")
async def away():
    return RedirectResponse(app.router.url_for("hello", {"name": "world"}))


@routes.http.get("/url")
async def url():
    return quote(app.router.url_for("hello", {"name": "Jürgen & Co"}))


@routes.http.get("/download")
async def download():
    return FilePath(os.environ["DOWNLOAD"])


@routes.http.get("/static/{path:any}")
async def static(path: Annotated[str, Path()]):
    file = (STATIC / path).resolve()
    if not file.is_relative_to(STATIC) or not file.is_file():
        raise HTTPException(404)
    return file


@routes.http.delete("/empty")
async def empty():
    return HttpResponse(status_code=204)


@routes.http.get("/request")
async def about(q: Annotated[str, Query()]):
    return {
        "method": request.method,
        "url": str(request.url),
        "query": q,
        "client": request.client.host,
        "header": request.headers["x-test"],
    }


@routes.http.get("/forbidden")
async def forbidden():
    raise HTTPException(403)


@routes.http.get("/boom")
async def boom():
    raise RuntimeError("boom")


@routes.http.get("/lifespan")
async def started():
    return {"started": app.state.started}


@routes.http.get("/events")
async def events():
    released.clear()

    async def generate():
        yield {"data": "first"}
        await released.wait()
        yield {"data": "second"}

    return generate()


@routes.http.get("/release")
async def release():
    released.set()
    return {}


async def work():
    progress["background"] = "running"
    await released.wait()
    progress["background"] = "done"


@routes.http.get("/background")
async def background():
    released.clear()
    request.background_tasks.append(work)
    return {"queued": True}


@routes.http.get("/progress")
async def how_far_in_background():
    return progress


@routes.websocket("/ws")
async def echo():
    await websocket.accept("chat" if "chat" in websocket["subprotocols"] else None)
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            closed["code"] = message["code"]
            return
        if message.get("text") == "close":
            return await websocket.close(4001, "bye")
        if message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])


@routes.websocket("/ws/denied")
async def denied():
    await websocket.close()


@routes.http.get("/closed")
async def how_closed():
    return closed


async def lifespan(app):
    app.state.started = True
    yield
    with open(os.environ["SHUTDOWN_FILE"], "a") as file:
        file.write("stopped\n")


app = Kui(lifespan=lifespan)
app.router <<= PREFIX // routes if PREFIX else routes
