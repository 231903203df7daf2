"""The compatibility application in Quart, as its documentation would have it."""

import asyncio
import hashlib
import os

from quart import (
    Quart,
    Response,
    abort,
    jsonify,
    make_response,
    redirect,
    request,
    send_file,
    session,
    url_for,
    websocket,
)

app = Quart(__name__, static_folder="../static")
app.secret_key = "not a secret"
app.config.update(MAX_CONTENT_LENGTH=64 << 20, PROPAGATE_EXCEPTIONS=False)

streamed = {"produced": 0, "closed": 0}
progress = {"background": "idle"}
closed = {"code": None}
released = asyncio.Event()


@app.before_serving
async def startup():
    app.started = True


@app.after_serving
async def shutdown():
    with open(os.environ["SHUTDOWN_FILE"], "a") as file:
        file.write("stopped\n")


@app.get("/")
async def index():
    return "Hello from Quart\n", {"Content-Type": "text/plain; charset=utf-8"}


@app.get("/hello/<name>")
async def hello(name):
    return Response(f"Hello, {name}", mimetype="text/plain")


@app.post("/json")
async def json():
    data = await request.get_json()
    return jsonify(name=data["name"], sum=sum(data["numbers"]))


@app.post("/form")
async def form():
    form = await request.form
    return {"name": form["name"], "tags": form.getlist("tag")}


@app.post("/upload")
async def upload():
    file = (await request.files)["file"]
    comment = (await request.form)["comment"]
    digest, length = hashlib.sha256(), 0
    while chunk := file.read(1 << 16):
        digest.update(chunk)
        length += len(chunk)
    return {"filename": file.filename, "length": length, "sha256": digest.hexdigest(), "comment": comment}


@app.get("/stream")
async def stream():
    chunks, size = int(request.args["chunks"]), int(request.args["size"])
    streamed.update(produced=0, closed=0)

    async def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    return Response(generate(), mimetype="text/plain")


@app.get("/streamed")
async def how_far():
    return streamed


@app.get("/session")
async def visits():
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"]}


@app.get("/cookies")
async def cookies():
    response = await make_response(dict(request.cookies))
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return response


@app.get("/redirect")
async def away():
    return redirect(url_for("hello", name="world"))


@app.get("/url")
async def url():
    return Response(url_for("hello", name="Jürgen & Co"), mimetype="text/plain")


@app.get("/download")
async def download():
    return await send_file(os.environ["DOWNLOAD"], mimetype="application/octet-stream")


@app.route("/empty", methods=["DELETE"])
async def empty():
    return "", 204


@app.get("/request")
async def about():
    return {
        "method": request.method,
        "url": request.url,
        "query": request.args["q"],
        "client": request.remote_addr,
        "header": request.headers["X-Test"],
    }


@app.get("/forbidden")
async def forbidden():
    abort(403)


@app.get("/boom")
async def boom():
    raise RuntimeError("boom")


@app.get("/lifespan")
async def started():
    return {"started": app.started}


@app.get("/events")
async def events():
    released.clear()

    async def generate():
        yield b"data: first\n\n"
        await released.wait()
        yield b"data: second\n\n"

    response = await make_response(generate(), {"Content-Type": "text/event-stream"})
    response.timeout = None
    return response


@app.get("/release")
async def release():
    released.set()
    return {}


async def work():
    progress["background"] = "running"
    await released.wait()
    progress["background"] = "done"


@app.get("/background")
async def background():
    released.clear()
    app.add_background_task(work)
    return {"queued": True}


@app.get("/progress")
async def how_far_in_background():
    return progress


@app.websocket("/ws")
async def echo():
    chat = "chat" if "chat" in websocket.requested_subprotocols else None
    await websocket.accept(subprotocol=chat)
    try:
        while True:
            message = await websocket.receive()
            if message == "close":
                return await websocket.close(4001, "bye")
            await websocket.send(message)
    except asyncio.CancelledError:
        # How Quart says that the client has gone; it does not say with which code.
        closed["code"] = "gone"
        raise


@app.websocket("/ws/denied")
async def denied():
    abort(403)


@app.get("/closed")
async def how_closed():
    return closed
