"""The WSGI applications as ASGI applications, by a2wsgi: `bridged:raw_wsgi__hello` is `raw_wsgi:hello`."""

import importlib

from a2wsgi import WSGIMiddleware


def __getattr__(name):
    module, separator, attribute = name.partition("__")
    if not module or not separator:
        raise AttributeError(name)
    return WSGIMiddleware(getattr(importlib.import_module(module), attribute))
