//! Python WSGI and ASGI applications as tower services.
