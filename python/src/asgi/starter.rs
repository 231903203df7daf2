//! Starting a task so that it runs at once, up to its first pause.
//!
//! Most requests are answered before the application pauses for the first time: they cost the loop no callback then. Python has such tasks since 3.12. Before, a task asks its loop for its first step when it is made;
//! for that moment `call_soon` is taken from the loop, and the step is run here.

use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

pub(super) struct Starter {
    event_loop: Py<PyAny>,
    task: Py<PyAny>,
    /// `loop`, and `eager_start` where Python knows it.
    keywords: Py<PyDict>,
    coroutine: Py<PyType>,
    /// Makes a coroutine of another awaitable.
    wrap: Py<PyAny>,
    /// For Pythons without eager tasks.
    capture: Option<Py<Capture>>,
}

impl Starter {
    pub(super) fn new(
        py: Python<'_>,
        driver: &Bound<'_, PyModule>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let keywords = PyDict::new(py);
        keywords.set_item("loop", event_loop)?;
        let eager = py.version_info() >= (3, 12);
        if eager {
            keywords.set_item("eager_start", true)?;
        }
        let capture = if eager { None } else { Some(Py::new(py, Capture::default())?) };
        Ok(Self {
            event_loop: event_loop.clone().unbind(),
            task: py.import("asyncio")?.getattr("Task")?.unbind(),
            keywords: keywords.unbind(),
            coroutine: py.import("types")?.getattr("CoroutineType")?.cast_into::<PyType>()?.unbind(),
            wrap: driver.getattr("wrap")?.unbind(),
            capture,
        })
    }

    /// A task that has run up to its first pause, or to its end.
    pub(super) fn start<'py>(
        &self,
        py: Python<'py>,
        coroutine: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = if coroutine.get_type().is(self.coroutine.bind(py)) {
            coroutine
        } else {
            self.wrap.bind(py).call1((coroutine,))?
        };
        let event_loop = self.event_loop.bind(py);
        // An application that has its own kind of tasks gets them.
        if !event_loop.call_method0(intern!(py, "get_task_factory"))?.is_none() {
            return event_loop.call_method1(intern!(py, "create_task"), (coroutine,));
        }
        let task = self.task.bind(py);
        let Some(capture) = &self.capture else {
            return task.call((coroutine,), Some(self.keywords.bind(py)));
        };
        event_loop.setattr(intern!(py, "call_soon"), capture)?;
        let task = task.call((coroutine,), Some(self.keywords.bind(py)));
        event_loop.delattr(intern!(py, "call_soon"))?;
        let task = task?;
        let step = capture.get().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((step, context)) = step {
            let stepped = context.bind(py).call_method1(intern!(py, "run"), (step,));
            // Only what is to end the process gets out of a task, and the task knows it as well.
            if let Err(error) = stepped
                && !task.call_method0(intern!(py, "done"))?.is_truthy()?
            {
                return Err(error);
            }
        }
        Ok(task)
    }
}

/// Stands in for the loop's `call_soon`.
#[pyclass(frozen, module = "tower_wsgi")]
#[derive(Default)]
struct Capture(Mutex<Option<(Py<PyAny>, Py<PyAny>)>>);

#[pymethods]
impl Capture {
    #[pyo3(signature = (callback, *, context))]
    fn __call__(&self, callback: Py<PyAny>, context: Py<PyAny>) {
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace((callback, context));
    }
}
