"""WSGI applications without a framework."""

HELLO = b"Hello World!"


def hello(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(HELLO)))])
    return [HELLO]


def echo(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("content-type", "application/octet-stream"), ("content-length", str(len(body)))])
    return [body]
