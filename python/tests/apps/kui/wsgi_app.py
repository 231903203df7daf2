"""The compatibility application in Kuí, as its documentation would have it: the synchronous one."""

import hashlib
import os
from pathlib import Path as FilePath
from urllib.parse import quote
from wsgiref.validate import validator

from kui.wsgi import (
    Body,
    HTTPException,
    HttpResponse,
    JSONResponse,
    Kui,
    Path,
    Query,
    RedirectResponse,
    StreamResponse,
    UploadFile,
    request,
)
from pydantic import BaseModel
from typing_extensions import Annotated

STATIC = FilePath(__file__).resolve().parent.parent / "static"

app = Kui()

streamed = {"produced": 0, "closed": 0}


class Numbers(BaseModel):
    name: str
    numbers: list[int]


@app.router.http.get("/")
def index():
    return "Hello from Kuí\n"


@app.router.http.get("/hello/{name}", name="hello")
def hello(name: Annotated[str, Path()]):
    # PATH_INFO has a character for each byte, and Kuí's WSGI side leaves it at that.
    return f"Hello, {name.encode('latin-1').decode()}"


@app.router.http.post("/json")
def json(data: Annotated[Numbers, Body(exclusive=True)]):
    return {"name": data.name, "sum": sum(data.numbers)}


@app.router.http.post("/form")
def form(name: Annotated[str, Body()], tag: Annotated[list[str], Body()]):
    return {"name": name, "tags": tag}


@app.router.http.post("/upload")
def upload(file: Annotated[UploadFile, Body()], comment: Annotated[str, Body()]):
    digest, length = hashlib.sha256(), 0
    while chunk := file.read(1 << 16):
        digest.update(chunk)
        length += len(chunk)
    return {"filename": file.filename, "length": length, "sha256": digest.hexdigest(), "comment": comment}


@app.router.http.get("/stream")
def stream(chunks: Annotated[int, Query()], size: Annotated[int, Query()]):
    streamed.update(produced=0, closed=0)

    def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    return StreamResponse(generate(), content_type="text/plain")


@app.router.http.get("/streamed")
def how_far():
    return streamed


@app.router.http.get("/session")
def visits():
    # Kuí has no sessions of its own; a cookie is what it offers.
    visits = int(request.cookies.get("visits", "0")) + 1
    response = JSONResponse({"visits": visits})
    response.set_cookie("visits", str(visits))
    return response


@app.router.http.get("/cookies")
def cookies():
    response = JSONResponse(dict(request.cookies))
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return response


def url_for(route, **params):
    # `request.url_for` knows nothing of SCRIPT_NAME, so an application that may be mounted says it itself.
    return quote(request["SCRIPT_NAME"] + app.router.url_for(route, params))


@app.router.http.get("/redirect")
def away():
    # Kuí's redirects are without a Content-Type, which PEP 3333's validator does not let pass.
    return RedirectResponse(url_for("hello", name="world"), headers={"content-type": "text/plain"})


@app.router.http.get("/url")
def url():
    return url_for("hello", name="Jürgen & Co")


@app.router.http.get("/download")
def download():
    return FilePath(os.environ["DOWNLOAD"])


@app.router.http.get("/static/{path:any}")
def static(path: Annotated[str, Path()]):
    file = (STATIC / path).resolve()
    if not file.is_relative_to(STATIC) or not file.is_file():
        raise HTTPException(404)
    return file


@app.router.http.delete("/empty")
def empty():
    return HttpResponse(status_code=204)


@app.router.http.get("/request")
def about(q: Annotated[str, Query()]):
    return {
        "method": request.method,
        "url": str(request.url),
        "query": q,
        "client": request.client.host,
        "header": request.headers["x-test"],
    }


@app.router.http.get("/forbidden")
def forbidden():
    raise HTTPException(403)


@app.router.http.get("/boom")
def boom():
    raise RuntimeError("boom")


validated = validator(app)
