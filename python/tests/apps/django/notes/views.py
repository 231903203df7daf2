"""The compatibility application in Django, as its documentation would have it: one project for both entry points."""

import asyncio
import hashlib
import json
import os

from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from .models import Note

streamed = {"produced": 0, "closed": 0}
released = asyncio.Event()


@require_safe
def index(request):
    return HttpResponse("Hello from Django\n", content_type="text/plain; charset=utf-8")


@require_GET
def hello(request, name):
    return HttpResponse(f"Hello, {name}", content_type="text/plain; charset=utf-8")


@csrf_exempt
@require_POST
def json_in(request):
    data = json.loads(request.body)
    return JsonResponse({"name": data["name"], "sum": sum(data["numbers"])})


@csrf_exempt
@require_POST
def form(request):
    return JsonResponse({"name": request.POST["name"], "tags": request.POST.getlist("tag")})


@csrf_exempt
@require_POST
def upload(request):
    file = request.FILES["file"]
    digest, length = hashlib.sha256(), 0
    for chunk in file.chunks():
        digest.update(chunk)
        length += len(chunk)
    return JsonResponse(
        {
            "filename": file.name,
            "length": length,
            "sha256": digest.hexdigest(),
            "comment": request.POST["comment"],
        }
    )


@require_GET
def stream(request):
    chunks, size = int(request.GET["chunks"]), int(request.GET["size"])
    streamed.update(produced=0, closed=0)

    def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    async def generate_async():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(size, b".")
        finally:
            streamed["closed"] += 1

    # Each of Django's two handlers streams its own kind of iterator; the other's it reads to its end first, with a warning.
    content = generate_async() if isinstance(request, ASGIRequest) else generate()
    return StreamingHttpResponse(content, content_type="text/plain")


@require_GET
def how_far(request):
    return JsonResponse(streamed)


@require_GET
def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


@require_GET
def cookies(request):
    response = JsonResponse(request.COOKIES)
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return response


@require_GET
def away(request):
    return redirect("hello", name="world")


@require_GET
def url(request):
    return HttpResponse(reverse("hello", args=["Jürgen & Co"]), content_type="text/plain")


@require_GET
def download(request):
    return FileResponse(open(os.environ["DOWNLOAD"], "rb"), content_type="application/octet-stream")


@csrf_exempt
@require_http_methods(["DELETE"])
def empty(request):
    response = HttpResponse(status=204)
    # Django gives it to every response, which PEP 3333's validator does not let pass for one without a body.
    del response["Content-Type"]
    return response


@require_GET
def about(request):
    return JsonResponse(
        {
            "method": request.method,
            "url": request.build_absolute_uri(),
            "query": request.GET["q"],
            "client": request.META["REMOTE_ADDR"],
            "header": request.headers["X-Test"],
        }
    )


@require_GET
def forbidden(request):
    raise PermissionDenied


@require_GET
def boom(request):
    raise RuntimeError("boom")


@csrf_exempt
@require_http_methods(["GET", "POST"])
def notes(request):
    if request.method == "POST":
        Note.objects.create(title=request.POST["title"])
    return JsonResponse({"titles": list(Note.objects.order_by("id").values_list("title", flat=True))})


@require_GET
async def events(request):
    released.clear()

    async def generate():
        yield b"data: first\n\n"
        await released.wait()
        yield b"data: second\n\n"

    return StreamingHttpResponse(generate(), content_type="text/event-stream")


@require_GET
async def release(request):
    released.set()
    return JsonResponse({})
