"""The compatibility application in Flask, as its documentation would have it."""

import hashlib
import os
from wsgiref.validate import validator

from flask import (
    Flask,
    Response,
    abort,
    jsonify,
    make_response,
    redirect,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)

app = Flask(__name__, static_folder="../static")
app.config.update(SECRET_KEY="not a secret", MAX_CONTENT_LENGTH=64 << 20, PROPAGATE_EXCEPTIONS=False)
app.json.ensure_ascii = False

streamed = {"produced": 0, "closed": 0}


@app.get("/")
def index():
    return "Hello from Flask\n", {"Content-Type": "text/plain; charset=utf-8"}


@app.get("/hello/<name>")
def hello(name):
    return Response(f"Hello, {name}", mimetype="text/plain")


@app.post("/json")
def json():
    data = request.get_json()
    return jsonify(name=data["name"], sum=sum(data["numbers"]))


@app.post("/form")
def form():
    return {"name": request.form["name"], "tags": request.form.getlist("tag")}


@app.post("/upload")
def upload():
    file = request.files["file"]
    digest, length = hashlib.sha256(), 0
    while chunk := file.stream.read(1 << 16):
        digest.update(chunk)
        length += len(chunk)
    return {
        "filename": file.filename,
        "length": length,
        "sha256": digest.hexdigest(),
        "comment": request.form["comment"],
    }


@app.get("/stream")
def stream():
    chunks = int(request.args["chunks"])
    streamed.update(produced=0, closed=0)

    # The request stays in context while its response is streamed, which may be on several threads.
    @stream_with_context
    def generate():
        try:
            for number in range(chunks):
                streamed["produced"] += 1
                yield f"chunk {number}\n".encode().ljust(int(request.args["size"]), b".")
        finally:
            streamed["closed"] += 1

    return Response(generate(), mimetype="text/plain")


@app.get("/streamed")
def how_far():
    return streamed


@app.get("/session")
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"]}


@app.get("/cookies")
def cookies():
    response = make_response(dict(request.cookies))
    response.set_cookie("first", "1")
    response.set_cookie("second", "two-words")
    return response


@app.get("/redirect")
def away():
    return redirect(url_for("hello", name="world"))


@app.get("/url")
def url():
    return Response(url_for("hello", name="Jürgen & Co"), mimetype="text/plain")


@app.get("/download")
def download():
    return send_file(os.environ["DOWNLOAD"], mimetype="application/octet-stream")


@app.route("/empty", methods=["DELETE"])
def empty():
    response = make_response("", 204)
    # Flask gives it to every response, which PEP 3333's validator does not let pass for one without a body.
    del response.headers["Content-Type"]
    return response


@app.get("/request")
def about():
    return {
        "method": request.method,
        "url": request.url,
        "query": request.args["q"],
        "client": request.remote_addr,
        "header": request.headers["X-Test"],
    }


@app.get("/forbidden")
def forbidden():
    abort(403)


@app.get("/boom")
def boom():
    raise RuntimeError("boom")


validated = validator(app)
