//! Python WSGI and ASGI applications as tower services.

mod asgi;
mod error;
mod import;
mod interpreter;
mod text;
mod wsgi;

pub use asgi::{EventLoop, PyAsgi, PyAsgiFuture, PyAsgiLayer, PyAsgiStack, PyAsgiStackFuture};
pub use error::Error;
pub use import::{Import, Interface, PyApp};
pub use interpreter::run_exit_handlers;
pub use wsgi::PyWsgi;
