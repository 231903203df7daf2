//! `wsgi.input`: the request's body as a Python file.

use std::io::{self, BufRead};
use std::mem;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use pyo3::exceptions::{PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView, PySlice};
use tower_wsgi::Input;

/// The body. Several threads of the application may read it; each read gets what is next.
#[pyclass(frozen, module = "tower_wsgi")]
pub(super) struct WsgiInput {
    state: Mutex<State>,
}

struct State {
    /// `None` when the response is over.
    input: Option<Input>,
    /// What was read by a read that failed: a later one gets it, if the failure was only a timeout.
    held: Bytes,
    /// What the last read failed with, for the response that the failure makes, and the address of the exception that Python got for it. A reference would close a cycle that Python's
    /// collector cannot see.
    failure: Option<(io::Error, usize)>,
}

/// Where a read ends before its size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Newline,
    End,
    /// What is here, if anything is.
    Pause,
}

impl WsgiInput {
    pub(super) fn new(input: Input) -> Self {
        Self { state: Mutex::new(State { input: Some(input), held: Bytes::new(), failure: None }) }
    }

    /// Gives up the body, unless another thread of the application is in the middle of a read: that ends with the response.
    pub(super) fn release(&self) {
        let released =
            self.state.try_lock().map(|mut state| (state.input.take(), mem::take(&mut state.held)));
        drop(released);
    }

    /// What a read failed with, if `error` is that failure, passed on by the application.
    pub(super) fn take_failure(&self, py: Python<'_>, error: &PyErr) -> Option<io::Error> {
        let address = error.value(py).as_ptr().addr();
        let mut state = self.state.try_lock().ok()?;
        state.failure.take_if(|(_, raised)| *raised == address).map(|(failure, _)| failure)
    }

    /// Reads at most `size` bytes, detached if that could mean to wait: for the client, or for another thread's read.
    fn gather(&self, py: Python<'_>, size: usize, until: Until) -> PyResult<Vec<u8>> {
        let gathered = match self.state.try_lock() {
            Ok(mut state) if state.is_complete() => state.gather(size, until),
            other => {
                drop(other);
                py.detach(|| self.state.lock().unwrap_or_else(PoisonError::into_inner).gather(size, until))
            }
        };
        gathered.map_err(|failure| {
            let error = PyErr::from(io::Error::new(failure.kind(), failure.to_string()));
            let address = error.value(py).as_ptr().addr();
            if let Ok(mut state) = self.state.try_lock() {
                state.failure = Some((failure, address));
            }
            error
        })
    }
}

impl State {
    /// Whether no read waits.
    fn is_complete(&self) -> bool {
        self.input.as_ref().is_none_or(Input::is_complete)
    }

    fn gather(&mut self, size: usize, until: Until) -> io::Result<Vec<u8>> {
        let Some(input) = &mut self.input else {
            return Err(io::Error::other("the request is over, and its body is closed"));
        };
        let mut data = Vec::new();
        while data.len() < size {
            let here = match self.held.is_empty() {
                false => &self.held[..],
                true => match input.fill_buf() {
                    Ok(here) => here,
                    Err(error) => {
                        self.held = data.into();
                        return Err(error);
                    }
                },
            };
            let here = &here[..here.len().min(size - data.len())];
            let newline = match until {
                Until::Newline => here.iter().position(|byte| *byte == b'\n'),
                Until::End | Until::Pause => None,
            };
            let taken = newline.map_or(here.len(), |at| at + 1);
            data.extend_from_slice(&here[..taken]);
            match self.held.is_empty() {
                false => self.held.advance(taken),
                true => input.consume(taken),
            }
            if taken == 0 || newline.is_some() || until == Until::Pause {
                break;
            }
        }
        Ok(data)
    }
}

/// The size that a method was called with: none, or a negative one, means all.
fn limit(size: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    let Some(size) = size.filter(|size| !size.is_none()) else {
        return Ok(usize::MAX);
    };
    let size: i64 = size.extract().map_err(|_| PyTypeError::new_err("a size must be an integer or None"))?;
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}

#[pymethods]
impl WsgiInput {
    /// `size` bytes, fewer only at the end. All of them without a size, or with a negative one.
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyBytes>> {
        let data = self.gather(py, limit(size)?, Until::End)?;
        Ok(PyBytes::new(py, &data))
    }

    /// At most `size` bytes, as many as are here; waits only for the first one.
    #[pyo3(signature = (size = None, /))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyBytes>> {
        let data = self.gather(py, limit(size)?, Until::Pause)?;
        Ok(PyBytes::new(py, &data))
    }

    /// The next line with its end, or at most `size` bytes of it.
    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(
        &self,
        py: Python<'py>,
        size: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let data = self.gather(py, limit(size)?, Until::Newline)?;
        Ok(PyBytes::new(py, &data))
    }

    /// Lines until they have `hint` bytes together; all of them without a hint, or with 0.
    #[pyo3(signature = (hint = None, /))]
    fn readlines<'py>(
        &self,
        py: Python<'py>,
        hint: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let hint = match limit(hint)? {
            0 => usize::MAX,
            hint => hint,
        };
        let lines = PyList::empty(py);
        let mut length = 0;
        while length < hint {
            let line = self.gather(py, usize::MAX, Until::Newline)?;
            if line.is_empty() {
                break;
            }
            length += line.len();
            lines.append(PyBytes::new(py, &line))?;
        }
        Ok(lines)
    }

    /// Fills a writable buffer, with less only at the end; the number of bytes.
    fn readinto(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
        let view = PyMemoryView::from(buffer)?.call_method1("cast", ("B",))?;
        // Before anything is taken that would be lost.
        if view.getattr("readonly")?.is_truthy()? {
            return Err(PyTypeError::new_err("readinto() takes a writable buffer"));
        }
        let data = self.gather(py, view.len()?, Until::End)?;
        let end = isize::try_from(data.len()).map_err(|_| PyTypeError::new_err("the buffer is too long"))?;
        view.set_item(PySlice::new(py, 0, end, 1), PyBytes::new(py, &data))?;
        Ok(data.len())
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.readline(py, None)?;
        if line.as_bytes().is_empty() { Err(PyStopIteration::new_err(())) } else { Ok(line) }
    }

    fn readable(&self) -> bool {
        true
    }

    fn writable(&self) -> bool {
        false
    }

    fn seekable(&self) -> bool {
        false
    }

    /// Whether the response is over. `io.BufferedReader` and `io.TextIOWrapper` ask it of what they wrap.
    #[getter]
    fn closed(&self) -> bool {
        self.state.try_lock().is_ok_and(|state| state.input.is_none())
    }

    /// Does nothing: the body is the server's. What wraps it calls this at its own end.
    fn close(&self) {}
}
