"""The compatibility application in Falcon, as its documentation would have it: the asynchronous one."""

import asyncio
import hashlib
import os
from pathlib import Path
from urllib.parse import quote

import aiofiles
import falcon
import falcon.asgi
from falcon.asgi import SSEvent

# Falcon routes by `scope["path"]` as it is, which has the mount at its front, and knows `root_path` by name only: where an
# application is mounted, its routes say so themselves.
PREFIX = os.environ.get("URL_PREFIX", "")

streamed = {"produced": 0, "closed": 0}
progress = {"background": "idle"}
closed = {"code": None}
released = asyncio.Event()


class Index:
    async def on_get(self, req, resp):
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = "Hello from Falcon\n"

    on_head = on_get


class Hello:
    async def on_get(self, req, resp, name):
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = f"Hello, {name}"


class Json:
    async def on_post(self, req, resp):
        data = await req.get_media()
        resp.media = {"name": data["name"], "sum": sum(data["numbers"])}


class Form:
    async def on_post(self, req, resp):
        data = await req.get_media()
        resp.media = {"name": data["name"], "tags": data["tag"]}


class Upload:
    async def on_post(self, req, resp):
        result = {}
        async for part in await req.get_media():
            if part.name == "comment":
                result["comment"] = await part.text
            elif part.name == "file":
                digest, length = hashlib.sha256(), 0
                while chunk := await part.stream.read(1 << 16):
                    digest.update(chunk)
                    length += len(chunk)
                result.update(filename=part.filename, length=length, sha256=digest.hexdigest())
        resp.media = result


class Stream:
    async def on_get(self, req, resp):
        chunks, size = req.get_param_as_int("chunks"), req.get_param_as_int("size")
        streamed.update(produced=0, closed=0)

        async def generate():
            try:
                for number in range(chunks):
                    streamed["produced"] += 1
                    yield f"chunk {number}\n".encode().ljust(size, b".")
            finally:
                streamed["closed"] += 1

        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = generate()


class Streamed:
    async def on_get(self, req, resp):
        resp.media = streamed


class Session:
    # Falcon has no sessions of its own; a cookie is what it offers.
    async def on_get(self, req, resp):
        visits = int(req.cookies.get("visits", "0")) + 1
        resp.set_cookie("visits", str(visits), path="/", secure=False)
        resp.media = {"visits": visits}


class Cookies:
    async def on_get(self, req, resp):
        resp.set_cookie("first", "1", secure=False)
        resp.set_cookie("second", "two-words", secure=False)
        resp.media = req.cookies


class Redirect:
    # Falcon does not build URLs from routes.
    async def on_get(self, req, resp):
        raise falcon.HTTPFound(PREFIX + "/hello/world")


class Url:
    async def on_get(self, req, resp):
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = PREFIX + "/hello/" + quote("Jürgen & Co")


class Download:
    async def on_get(self, req, resp):
        path = Path(os.environ["DOWNLOAD"])
        resp.content_type = "application/octet-stream"
        resp.set_stream(await aiofiles.open(path, "rb"), path.stat().st_size)


class Empty:
    async def on_delete(self, req, resp):
        resp.status = falcon.HTTP_204


class About:
    async def on_get(self, req, resp):
        resp.media = {
            "method": req.method,
            "url": req.uri,
            "query": req.get_param("q"),
            "client": req.remote_addr,
            "header": req.get_header("X-Test"),
        }


class Forbidden:
    async def on_get(self, req, resp):
        raise falcon.HTTPForbidden()


class Boom:
    async def on_get(self, req, resp):
        raise RuntimeError("boom")


class Started:
    async def on_get(self, req, resp):
        resp.media = {"started": lifespan.started}


class Events:
    async def on_get(self, req, resp):
        released.clear()

        async def generate():
            yield SSEvent(text="first")
            await released.wait()
            yield SSEvent(text="second")

        resp.sse = generate()


class Release:
    async def on_get(self, req, resp):
        released.set()
        resp.media = {}


class Background:
    async def on_get(self, req, resp):
        released.clear()
        resp.schedule(self.work)
        resp.media = {"queued": True}

    async def work(self):
        progress["background"] = "running"
        await released.wait()
        progress["background"] = "done"


class Progress:
    async def on_get(self, req, resp):
        resp.media = progress


class Echo:
    async def on_websocket(self, req, ws):
        await ws.accept(subprotocol="chat" if "chat" in ws.subprotocols else None)
        try:
            while True:
                # `receive_text` and `receive_data` each refuse what the other takes, so a client says which comes next.
                text = await ws.receive_text()
                if text == "close":
                    return await ws.close(4001, "bye")
                await ws.send_text(text)
                if text == "bytes":
                    await ws.send_data(await ws.receive_data())
        except falcon.WebSocketDisconnected as disconnected:
            closed["code"] = disconnected.code


class Denied:
    async def on_websocket(self, req, ws):
        await ws.close()


class Closed:
    async def on_get(self, req, resp):
        resp.media = closed


class Lifespan:
    started = False

    async def process_startup(self, scope, event):
        self.started = True

    async def process_shutdown(self, scope, event):
        with open(os.environ["SHUTDOWN_FILE"], "a") as file:
            file.write("stopped\n")


lifespan = Lifespan()
app = falcon.asgi.App(middleware=lifespan)
app.add_route(PREFIX + "/", Index())
app.add_route(PREFIX + "/hello/{name}", Hello())
app.add_route(PREFIX + "/json", Json())
app.add_route(PREFIX + "/form", Form())
app.add_route(PREFIX + "/upload", Upload())
app.add_route(PREFIX + "/stream", Stream())
app.add_route(PREFIX + "/streamed", Streamed())
app.add_route(PREFIX + "/session", Session())
app.add_route(PREFIX + "/cookies", Cookies())
app.add_route(PREFIX + "/redirect", Redirect())
app.add_route(PREFIX + "/url", Url())
app.add_route(PREFIX + "/download", Download())
app.add_route(PREFIX + "/empty", Empty())
app.add_route(PREFIX + "/request", About())
app.add_route(PREFIX + "/forbidden", Forbidden())
app.add_route(PREFIX + "/boom", Boom())
app.add_route(PREFIX + "/lifespan", Started())
app.add_route(PREFIX + "/events", Events())
app.add_route(PREFIX + "/release", Release())
app.add_route(PREFIX + "/background", Background())
app.add_route(PREFIX + "/progress", Progress())
app.add_route(PREFIX + "/ws", Echo())
app.add_route(PREFIX + "/ws/denied", Denied())
app.add_route(PREFIX + "/closed", Closed())
app.add_static_route(PREFIX + "/static", Path(__file__).resolve().parent.parent / "static")
