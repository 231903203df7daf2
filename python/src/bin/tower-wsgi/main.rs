//! Serves Python WSGI and ASGI applications.
use tower_wsgi_python::{Import, run_exit_handlers};
fn main() {
    let mut i = Import::new(std::env::args().nth(1).expect("target"));
    if let Some(v) = std::env::args().nth(2) {
        i = i.venv(v);
    }
    match i.load() {
        Ok(a) => println!("{a:?} {:?}", a.interface()),
        Err(e) => println!("ERR {e}"),
    }
    run_exit_handlers();
}
