"""The compatibility application in Falcon, as its documentation would have it: the synchronous one."""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote
from wsgiref.validate import validator

import falcon

streamed = {"produced": 0, "closed": 0}


class Index:
    def on_get(self, req, resp):
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = "Hello from Falcon\n"

    on_head = on_get


class Hello:
    def on_get(self, req, resp, name):
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = f"Hello, {name}"


class Json:
    def on_post(self, req, resp):
        data = req.get_media()
        resp.media = {"name": data["name"], "sum": sum(data["numbers"])}


class Form:
    def on_post(self, req, resp):
        data = req.get_media()
        resp.media = {"name": data["name"], "tags": data["tag"]}


class Upload:
    def on_post(self, req, resp):
        result = {}
        for part in req.get_media():
            if part.name == "comment":
                result["comment"] = part.text
            elif part.name == "file":
                digest, length = hashlib.sha256(), 0
                while chunk := part.stream.read(1 << 16):
                    digest.update(chunk)
                    length += len(chunk)
                result.update(filename=part.filename, length=length, sha256=digest.hexdigest())
        resp.media = result


class Stream:
    def on_get(self, req, resp):
        chunks, size = req.get_param_as_int("chunks"), req.get_param_as_int("size")
        streamed.update(produced=0, closed=0)

        def generate():
            try:
                for number in range(chunks):
                    streamed["produced"] += 1
                    yield f"chunk {number}\n".encode().ljust(size, b".")
            finally:
                streamed["closed"] += 1

        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = generate()


class Streamed:
    def on_get(self, req, resp):
        resp.media = streamed


class Session:
    # Falcon has no sessions of its own; a cookie is what it offers.
    def on_get(self, req, resp):
        visits = int(req.cookies.get("visits", "0")) + 1
        resp.set_cookie("visits", str(visits), path="/", secure=False)
        resp.media = {"visits": visits}


class Cookies:
    def on_get(self, req, resp):
        resp.set_cookie("first", "1", secure=False)
        resp.set_cookie("second", "two-words", secure=False)
        resp.media = req.cookies


class Redirect:
    # Falcon does not build URLs from routes; `prefix` is its word for everything in front of them.
    def on_get(self, req, resp):
        raise falcon.HTTPFound(req.prefix + "/hello/world")


class Url:
    def on_get(self, req, resp):
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = req.prefix + "/hello/" + quote("Jürgen & Co")


class Download:
    def on_get(self, req, resp):
        path = Path(os.environ["DOWNLOAD"])
        resp.content_type = "application/octet-stream"
        resp.set_stream(path.open("rb"), path.stat().st_size)


class Empty:
    def on_delete(self, req, resp):
        resp.status = falcon.HTTP_204


class About:
    def on_get(self, req, resp):
        resp.media = {
            "method": req.method,
            "url": req.uri,
            "query": req.get_param("q"),
            "client": req.remote_addr,
            "header": req.get_header("X-Test"),
        }


class Forbidden:
    def on_get(self, req, resp):
        raise falcon.HTTPForbidden()


class Boom:
    def on_get(self, req, resp):
        raise RuntimeError("boom")


app = falcon.App()
app.add_route("/", Index())
app.add_route("/hello/{name}", Hello())
app.add_route("/json", Json())
app.add_route("/form", Form())
app.add_route("/upload", Upload())
app.add_route("/stream", Stream())
app.add_route("/streamed", Streamed())
app.add_route("/session", Session())
app.add_route("/cookies", Cookies())
app.add_route("/redirect", Redirect())
app.add_route("/url", Url())
app.add_route("/download", Download())
app.add_route("/empty", Empty())
app.add_route("/request", About())
app.add_route("/forbidden", Forbidden())
app.add_route("/boom", Boom())
app.add_static_route("/static", Path(__file__).resolve().parent.parent / "static")

validated = validator(app)
