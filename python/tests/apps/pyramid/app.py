"""The compatibility application in Pyramid, as its documentation would have it."""

import hashlib
import os
from wsgiref.validate import validator

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPForbidden, HTTPFound, HTTPNoContent
from pyramid.response import FileResponse, Response
from pyramid.session import SignedCookieSessionFactory
from pyramid.view import view_config

streamed = {"produced": 0, "closed": 0}


@view_config(route_name="index", request_method=("GET", "HEAD"))
def index(request):
    return Response("Hello from Pyramid\n", content_type="text/plain")


@view_config(route_name="hello")
def hello(request):
    return Response(f"Hello, {request.matchdict['name']}", content_type="text/plain")


@view_config(route_name="json", request_method="POST", renderer="json")
def json(request):
    data = request.json_body
    return {"name": data["name"], "sum": sum(data["numbers"])}


@view_config(route_name="form", request_method="POST", renderer="json")
def form(request):
    return {"name": request.POST["name"], "tags": request.POST.getall("tag")}


@view_config(route_name="upload", request_method="POST", renderer="json")
def upload(request):
    upload = request.POST["file"]
    digest, length = hashlib.sha256(), 0
    while chunk := upload.file.read(1 << 16):
        digest.update(chunk)
        length += len(chunk)
    return {
        "filename": upload.filename,
        "length": length,
        "sha256": digest.hexdigest(),
        "comment": request.POST["comment"],
    }


@view_config(route_name="stream")
def stream(request):
    chunks, size = int(request.params["chunks"]), int(request.params["size"])
    streamed.update(produced=0, closed=0)

    def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    return Response(app_iter=generate(), content_type="text/plain")


@view_config(route_name="streamed", renderer="json")
def how_far(request):
    return streamed


@view_config(route_name="session", renderer="json")
def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return {"visits": request.session["visits"]}


@view_config(route_name="cookies", renderer="json")
def cookies(request):
    request.response.set_cookie("first", "1")
    request.response.set_cookie("second", "two-words")
    return dict(request.cookies)


@view_config(route_name="redirect")
def away(request):
    return HTTPFound(location=request.route_url("hello", name="world"))


@view_config(route_name="url")
def url(request):
    return Response(request.route_path("hello", name="Jürgen & Co"), content_type="text/plain")


@view_config(route_name="download")
def download(request):
    return FileResponse(os.environ["DOWNLOAD"], request=request, content_type="application/octet-stream")


@view_config(route_name="empty", request_method="DELETE")
def empty(request):
    return HTTPNoContent()


@view_config(route_name="request", renderer="json")
def about(request):
    return {
        "method": request.method,
        "url": request.url,
        "query": request.params["q"],
        "client": request.client_addr,
        "header": request.headers["X-Test"],
    }


@view_config(route_name="forbidden")
def forbidden(request):
    raise HTTPForbidden()


@view_config(route_name="boom")
def boom(request):
    raise RuntimeError("boom")


def main():
    with Configurator() as config:
        config.set_session_factory(SignedCookieSessionFactory("not a secret"))
        config.add_route("index", "/")
        config.add_route("hello", "/hello/{name}")
        for name in (
            "json form upload stream streamed session cookies redirect url download empty request forbidden boom"
        ).split():
            config.add_route(name, f"/{name}")
        config.add_static_view("static", os.path.join(os.path.dirname(__file__), "../static"))
        config.scan(__name__)
        return config.make_wsgi_app()


app = main()
validated = validator(app)
