//! The servers and their settings.

/// What an application speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    Wsgi,
    Asgi,
}

/// A server with its settings.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) serves: Interface,
    pub(crate) program: Program,
    /// Words with `{app}`, `{bridged}` (the same application through a2wsgi), `{port}`, `{venv}` and `{apps}` in them.
    pub(crate) arguments: &'static str,
}

/// What is started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// This crate's server, which chooses the port and prints it.
    Ours,
    /// A module of the virtual environment, which is told the port.
    Python,
}

const fn ours(name: &'static str, serves: Interface, arguments: &'static str) -> Contender {
    Contender { name, serves, program: Program::Ours, arguments }
}

const fn rival(name: &'static str, serves: Interface, arguments: &'static str) -> Contender {
    Contender { name, serves, program: Program::Python, arguments }
}

/// All servers, ours first.
pub(crate) const CONTENDERS: &[Contender] = &[
    ours(
        "tower-wsgi",
        Interface::Wsgi,
        "--bind 127.0.0.1:0 --venv {venv} --chdir {apps} --interface wsgi {app}",
    ),
    rival(
        "granian",
        Interface::Wsgi,
        "-m granian --interface wsgi --no-ws --log-level warning --host 127.0.0.1 --port {port} {app}",
    ),
    rival(
        "granian, 1 thread",
        Interface::Wsgi,
        "-m granian --interface wsgi --blocking-threads 1 --no-ws --log-level warning --host 127.0.0.1 --port {port} {app}",
    ),
    rival(
        "granian, 1 thread, st",
        Interface::Wsgi,
        "-m granian --interface wsgi --blocking-threads 1 --runtime-mode st --http 1 --no-ws --log-level warning \
         --host 127.0.0.1 --port {port} {app}",
    ),
    rival(
        "uvicorn + a2wsgi",
        Interface::Wsgi,
        "-m uvicorn --loop uvloop --http httptools --no-proxy-headers --log-level warning --no-access-log \
         --host 127.0.0.1 --port {port} {bridged}",
    ),
    // A worker without threads closes each connection; the load generator then makes a new one for each request.
    rival(
        "gunicorn, sync",
        Interface::Wsgi,
        "-m gunicorn --workers 1 --log-level warning --no-control-socket --bind 127.0.0.1:{port} {app}",
    ),
    rival(
        "gunicorn, 4 threads",
        Interface::Wsgi,
        "-m gunicorn --workers 1 --worker-class gthread --threads 4 --keep-alive 30 --log-level warning --no-control-socket \
         --bind 127.0.0.1:{port} {app}",
    ),
    ours(
        "tower-wsgi, uvloop",
        Interface::Asgi,
        "--bind 127.0.0.1:0 --venv {venv} --chdir {apps} --interface asgi --loop uvloop {app}",
    ),
    ours(
        "tower-wsgi, asyncio",
        Interface::Asgi,
        "--bind 127.0.0.1:0 --venv {venv} --chdir {apps} --interface asgi --loop asyncio {app}",
    ),
    rival(
        "granian, uvloop",
        Interface::Asgi,
        "-m granian --interface asgi --loop uvloop --no-ws --log-level warning --host 127.0.0.1 --port {port} {app}",
    ),
    rival(
        "granian, asyncio",
        Interface::Asgi,
        "-m granian --interface asgi --loop asyncio --no-ws --log-level warning --host 127.0.0.1 --port {port} {app}",
    ),
    rival(
        "uvicorn, uvloop",
        Interface::Asgi,
        "-m uvicorn --loop uvloop --http httptools --no-proxy-headers --log-level warning --no-access-log \
         --host 127.0.0.1 --port {port} {app}",
    ),
];
