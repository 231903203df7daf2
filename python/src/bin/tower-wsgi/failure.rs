//! Why the program ends with another exit code than 0.

use std::fmt;

use tower_wsgi_python::Error;

use crate::args::Args;

pub(crate) const OTHER: u8 = 1;
pub(crate) const IMPORT: u8 = 3;
const STARTUP: u8 = 4;
const INTERPRETER: u8 = 5;
const BIND: u8 = 6;

/// An exit code, and what is to be said first: nothing, if a child has said it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }

    pub(crate) fn silent(code: u8) -> Self {
        Self { code, message: None }
    }

    /// Something that should not happen, while doing `what`.
    pub(crate) fn other(what: &str, error: impl fmt::Display) -> Self {
        Self::new(OTHER, format!("{what}: {error}"))
    }

    pub(crate) fn bind(args: &Args, error: impl fmt::Display) -> Self {
        Self::new(BIND, format!("cannot listen on {}: {error}", args.bind))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            error if error.is_import() => IMPORT,
            error if error.is_startup() => STARTUP,
            error if error.is_interpreter() => INTERPRETER,
            _ => OTHER,
        };
        Self::new(code, error.to_string())
    }
}
