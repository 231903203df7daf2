"""The compatibility application in FastAPI, as its documentation would have it."""

import asyncio
import contextlib
import gc
import hashlib
import os
from typing import Annotated
from urllib.parse import quote

from fastapi import (
    BackgroundTasks,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Request,
    Response,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

streamed = {"produced": 0, "closed": 0}
progress = {"background": "idle"}
closed = {"code": None}
released = asyncio.Event()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    yield {"started": True}
    with open(os.environ["SHUTDOWN_FILE"], "a") as file:
        file.write("stopped\n")


app = FastAPI(lifespan=lifespan)
app.add_middleware(SessionMiddleware, secret_key="not a secret")
app.mount("/static", StaticFiles(directory=os.path.join(os.path.dirname(__file__), "../static")))


class Numbers(BaseModel):
    name: str
    numbers: list[int]


@app.get("/", response_class=PlainTextResponse)
async def index():
    return "Hello from FastAPI\n"


@app.get("/hello/{name}", response_class=PlainTextResponse)
async def hello(name: str):
    return f"Hello, {name}"


@app.post("/json")
async def json(data: Numbers):
    return {"name": data.name, "sum": sum(data.numbers)}


@app.post("/form")
async def form(name: Annotated[str, Form()], tag: Annotated[list[str], Form()]):
    return {"name": name, "tags": tag}


# A plain function: FastAPI runs it on a thread of its own pool.
@app.post("/upload")
def upload(file: UploadFile, comment: Annotated[str, Form()]):
    digest, length = hashlib.sha256(), 0
    while chunk := file.file.read(1 << 16):
        digest.update(chunk)
        length += len(chunk)
    return {"filename": file.filename, "length": length, "sha256": digest.hexdigest(), "comment": comment}


@app.get("/stream")
async def stream(chunks: int, size: int):
    streamed.update(produced=0, closed=0)

    async def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    return StreamingResponse(generate(), media_type="text/plain")


@app.get("/streamed")
async def how_far():
    # What ended the response, an exception, and the generator are in a cycle: it is closed when Python finds that.
    gc.collect()
    return streamed


@app.get("/session")
async def visits(request: Request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return {"visits": request.session["visits"]}


@app.get("/cookies")
async def cookies(request: Request, response: Response):
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return request.cookies


@app.get("/redirect")
async def away(request: Request):
    return RedirectResponse(request.url_for("hello", name="world"), status_code=302)


@app.get("/url", response_class=PlainTextResponse)
async def url(request: Request):
    # FastAPI puts parameters into the URL as they are.
    return str(request.url_for("hello", name=quote("Jürgen & Co")))


@app.get("/download")
async def download():
    return FileResponse(os.environ["DOWNLOAD"], media_type="application/octet-stream")


@app.delete("/empty", status_code=204)
async def empty():
    return None


@app.get("/request")
async def about(request: Request, q: str, x_test: Annotated[str, Header()]):
    return {
        "method": request.method,
        "url": str(request.url),
        "query": q,
        "client": request.client.host,
        "header": x_test,
    }


@app.get("/forbidden")
async def forbidden():
    raise HTTPException(403)


@app.get("/boom")
async def boom():
    raise RuntimeError("boom")


@app.get("/lifespan")
async def started(request: Request):
    return {"started": request.state.started}


@app.get("/events")
async def events():
    released.clear()

    async def generate():
        yield "data: first\n\n"
        await released.wait()
        yield "data: second\n\n"

    return StreamingResponse(generate(), media_type="text/event-stream")


@app.get("/release")
async def release():
    released.set()
    return {}


async def work():
    progress["background"] = "running"
    await released.wait()
    progress["background"] = "done"


@app.get("/background")
async def background(tasks: BackgroundTasks):
    released.clear()
    tasks.add_task(work)
    return {"queued": True}


@app.get("/progress")
async def how_far_in_background():
    return progress


@app.websocket("/ws")
async def echo(websocket: WebSocket):
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


@app.websocket("/ws/denied")
async def denied(websocket: WebSocket):
    await websocket.close()


@app.get("/closed")
async def how_closed():
    return closed
