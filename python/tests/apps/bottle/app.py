"""The compatibility application in Bottle, as its documentation would have it."""

import hashlib
import os
from urllib.parse import quote
from wsgiref.validate import validator

from bottle import Bottle, HTTPResponse, abort, redirect, request, response, static_file

app = Bottle()

SECRET = "not a secret"
STATIC = os.path.join(os.path.dirname(__file__), "../static")

streamed = {"produced": 0, "closed": 0}


@app.get("/")
def index():
    response.content_type = "text/plain; charset=utf-8"
    return "Hello from Bottle\n"


@app.get("/hello/<name>", name="hello")
def hello(name):
    response.content_type = "text/plain; charset=utf-8"
    return f"Hello, {name}"


@app.post("/json")
def json():
    data = request.json
    return {"name": data["name"], "sum": sum(data["numbers"])}


@app.post("/form")
def form():
    return {"name": request.forms.name, "tags": request.forms.getall("tag")}


@app.post("/upload")
def upload():
    upload = request.files.get("file")
    digest, length = hashlib.sha256(), 0
    while chunk := upload.file.read(1 << 16):
        digest.update(chunk)
        length += len(chunk)
    return {
        "filename": upload.filename,
        "length": length,
        "sha256": digest.hexdigest(),
        "comment": request.forms.comment,
    }


@app.get("/stream")
def stream():
    chunks, size = int(request.query.chunks), int(request.query.size)
    streamed.update(produced=0, closed=0)
    response.content_type = "text/plain"
    try:
        for number in range(chunks):
            streamed["produced"] += 1
            yield f"chunk {number}\n".encode().ljust(size, b".")
    finally:
        streamed["closed"] += 1


@app.get("/streamed")
def how_far():
    return streamed


@app.get("/session")
def visits():
    # Bottle has no sessions of its own; a signed cookie is its documented way.
    visits = request.get_cookie("visits", 0, secret=SECRET) + 1
    response.set_cookie("visits", visits, secret=SECRET, path="/")
    return {"visits": visits}


@app.get("/cookies")
def cookies():
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return dict(request.cookies)


@app.get("/redirect")
def away():
    redirect(app.get_url("hello", name="world"))


@app.get("/url")
def url():
    # Bottle puts parameters into the URL as they are.
    response.content_type = "text/plain; charset=utf-8"
    return app.get_url("hello", name=quote("Jürgen & Co"))


@app.get("/download")
def download():
    directory, name = os.path.split(os.environ["DOWNLOAD"])
    return static_file(name, root=directory, mimetype="application/octet-stream")


@app.get("/static/<path:path>")
def static(path):
    return static_file(path, root=STATIC)


@app.delete("/empty")
def empty():
    return HTTPResponse(status=204)


@app.get("/request")
def about():
    return {
        "method": request.method,
        "url": request.url,
        "query": request.query.q,
        "client": request.remote_addr,
        "header": request.get_header("X-Test"),
    }


@app.get("/forbidden")
def forbidden():
    abort(403)


@app.get("/boom")
def boom():
    raise RuntimeError("boom")


validated = validator(app)
