//! Serves Python WSGI and ASGI applications.
fn main() {}
