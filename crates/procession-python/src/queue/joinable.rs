//! `multiprocessing.JoinableQueue`.

use procession::channel::{JoinableByteQueue, TasksError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::error::EngineResult;
use crate::late::Late;
use crate::queue::plain::PyQueue;
use crate::queue::{original, uninitialized};
use crate::wait::{blocking, deadline_after};

/// A queue that knows when all objects that were put into it have been dealt with.
#[pyclass(
    name = "JoinableQueue", module = "procession._procession", extends = PyQueue, subclass, frozen
)]
pub(crate) struct PyJoinableQueue {
    /// Empty as long as that of the base is.
    queue: Late<JoinableByteQueue>,
}

impl PyJoinableQueue {
    fn set(slf: &Bound<'_, Self>, queue: JoinableByteQueue) -> EngineResult<()> {
        slf.as_super().get().set((*queue).clone())?;
        Ok(slf.get().queue.fill(queue, "the queue")?)
    }
}

#[pymethods]
impl PyJoinableQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyAny>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(PyQueue::empty_shell()).add_subclass(Self { queue: Late::empty() })
    }

    #[pyo3(signature = (maxsize=0, *, ctx))]
    fn __init__(slf: &Bound<'_, Self>, maxsize: isize, ctx: &Bound<'_, PyAny>) -> EngineResult<()> {
        let _ = ctx;
        Self::set(slf, JoinableByteQueue::new(usize::try_from(maxsize).unwrap_or(0))?)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyAny>) -> EngineResult<()> {
        match state.extract::<(u64,)>() {
            Ok((handle,)) => Self::set(slf, JoinableByteQueue::open(handle)?),
            Err(_) => Ok(original(slf.as_any(), "__setstate__", (state,)).map(drop)?),
        }
    }

    /// Say that an object that was got has been dealt with.
    fn task_done(slf: &Bound<'_, Self>) -> EngineResult<()> {
        match slf.get().queue.get() {
            Some(queue) => Ok(queue.task_done()?),
            None => Ok(original(slf.as_any(), "task_done", ()).map(drop)?),
        }
    }

    /// Wait until all objects that were put have been dealt with.
    fn join(slf: &Bound<'_, Self>) -> EngineResult<()> {
        let Some(queue) = slf.get().queue.get() else {
            return Ok(original(slf.as_any(), "join", ()).map(drop)?);
        };
        Ok(blocking(slf.py(), || queue.join(None))??)
    }

    /// Does what `join` does for so many seconds at most; False if that was not long enough.
    fn _join_within(slf: &Bound<'_, Self>, seconds: f64) -> EngineResult<bool> {
        let queue = slf.get().queue.get().ok_or_else(uninitialized)?;
        let deadline = deadline_after(Some(seconds));
        match blocking(slf.py(), || queue.join(deadline))? {
            Ok(()) => Ok(true),
            Err(TasksError::TimedOut) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Return how many objects were put and have not been dealt with.
    fn _unfinished(&self) -> EngineResult<usize> {
        Ok(self.queue.get().ok_or_else(uninitialized)?.unfinished())
    }
}
