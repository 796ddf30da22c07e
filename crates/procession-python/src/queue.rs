//! `multiprocessing.Queue`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use procession::channel::{ByteQueue, GetError, Message, PutError};
use procession::shm::{ArenaError, Pins};
use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple, PyType};

use crate::error::EngineResult;
use crate::generic::generic_alias;
use crate::pickling::{dump, load, with_scratch};
use crate::wait::{at_once, blocking, deadline_after, truth};

/// Messages from this size on are copied with the interpreter let go of, in bytes.
const LARGE: usize = 64 << 10;

/// A queue that any process of the tree can put objects into and get them from.
#[pyclass(name = "Queue", module = "procession.queues", subclass, frozen, dict, weakref)]
pub(crate) struct PyQueue {
    /// Empty between `__new__` and `__init__` or `__setstate__`, so that a subclass is free in
    /// what its `__init__` takes.
    queue: OnceLock<ByteQueue>,
    /// Closed in this process, which says nothing about the others.
    closed: AtomicBool,
}

impl PyQueue {
    #[inline]
    fn queue(&self) -> PyResult<&ByteQueue> {
        self.queue
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("Queue.__init__() has not been called"))
    }

    /// The queue, unless it is closed.
    #[inline]
    fn open<'a>(slf: &'a Bound<'_, Self>) -> PyResult<&'a ByteQueue> {
        let this = slf.get();
        if this.closed.load(Ordering::Relaxed) {
            return Err(PyValueError::new_err(format!("Queue {slf:?} is closed")));
        }
        this.queue()
    }

    fn set(&self, queue: ByteQueue) -> PyResult<()> {
        self.queue.set(queue).map_err(|_| PyRuntimeError::new_err("the queue is in use already"))
    }
}

/// Puts bytes, first without blocking and then until `deadline`.
#[inline]
fn send(
    py: Python<'_>,
    queue: &ByteQueue,
    bytes: &[u8],
    pins: &Pins,
    deadline: impl FnOnce() -> Option<Instant>,
) -> EngineResult<()> {
    if bytes.len() < LARGE {
        match queue.put_pinned(bytes, pins, at_once()) {
            Err(PutError::Full) => {}
            result => return Ok(result?),
        }
    }
    let deadline = deadline();
    Ok(blocking(py, || queue.put_pinned(bytes, pins, deadline))??)
}

/// Gets a message, first without blocking and then until `deadline`.
#[inline]
fn receive(
    py: Python<'_>,
    queue: &ByteQueue,
    deadline: impl FnOnce() -> Option<Instant>,
) -> EngineResult<Message> {
    match queue.get(at_once()) {
        Err(GetError::Empty) => {}
        result => return Ok(result?),
    }
    let deadline = deadline();
    Ok(blocking(py, || queue.get(deadline))??)
}

/// The original's own words, with what is new here.
fn outside_tree(queue: &Bound<'_, PyQueue>) -> PyResult<PyErr> {
    Ok(PyRuntimeError::new_err(format!(
        "{} objects should only be shared between processes through inheritance, a queue or a pool",
        queue.get_type().name()?,
    )))
}

/// When a call with these arguments gives up.
fn deadline_of(block: bool, timeout: Option<f64>) -> Option<Instant> {
    if block { deadline_after(timeout) } else { at_once() }
}

#[pymethods]
impl PyQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self { queue: OnceLock::new(), closed: AtomicBool::new(false) }
    }

    #[pyo3(signature = (maxsize=0, *, ctx))]
    fn __init__(&self, maxsize: isize, ctx: &Bound<'_, PyAny>) -> EngineResult<()> {
        // The original keeps its locks there; nothing here depends on the start method.
        let _ = ctx;
        let queue = ByteQueue::new(usize::try_from(maxsize).unwrap_or(0))?;
        Ok(self.set(queue)?)
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(
        class: &Bound<'py, PyType>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        generic_alias(class, item)
    }

    fn __getstate__(slf: &Bound<'_, Self>) -> EngineResult<(u64,)> {
        match slf.get().queue()?.note() {
            Ok(handle) => Ok((handle,)),
            Err(ArenaError::OutsideTree) => Err(outside_tree(slf)?.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn __setstate__(&self, state: (u64,)) -> EngineResult<()> {
        Ok(self.set(ByteQueue::open(state.0)?)?)
    }

    /// Put an object into the queue.
    #[pyo3(signature = (obj, block=true, timeout=None))]
    fn put(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<()> {
        let queue = Self::open(slf)?;
        with_scratch(|bytes| {
            let pins = dump(obj, bytes)?.unwrap_or_default();
            send(slf.py(), queue, bytes, &pins, || deadline_of(block, timeout))
        })
    }

    /// Remove and return an object from the queue.
    #[pyo3(signature = (block=true, timeout=None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<Bound<'py, PyAny>> {
        let queue = Self::open(slf)?;
        let message = receive(slf.py(), queue, || deadline_of(block, timeout))?;
        Ok(load(slf.py(), message.as_ref())?)
    }

    /// Put an object into the queue if there is room.
    fn put_nowait(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> EngineResult<()> {
        Self::put(slf, obj, false, None)
    }

    /// Remove and return an object if there is one.
    fn get_nowait<'py>(slf: &Bound<'py, Self>) -> EngineResult<Bound<'py, PyAny>> {
        Self::get(slf, false, None)
    }

    /// Put several objects into the queue, in their order, and return how many there was room for.
    #[pyo3(signature = (objs, block=true, timeout=None))]
    fn put_many(
        slf: &Bound<'_, Self>,
        objs: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<usize> {
        let queue = Self::open(slf)?;
        let deadline = deadline_of(block, timeout);
        with_scratch(|bytes| Train::load(objs, bytes)?.put(slf.py(), queue, bytes, deadline))
    }

    /// Remove and return up to `limit` objects, at least one.
    #[pyo3(signature = (limit, block=true, timeout=None))]
    fn get_many<'py>(
        slf: &Bound<'py, Self>,
        limit: usize,
        #[pyo3(from_py_with = truth)] block: bool,
        timeout: Option<f64>,
    ) -> EngineResult<Bound<'py, PyList>> {
        let (py, queue) = (slf.py(), Self::open(slf)?);
        let deadline = deadline_of(block, timeout);
        let messages = blocking(py, || queue.get_many(limit, deadline))??;
        let objects = PyList::empty(py);
        for message in &messages {
            objects.append(load(py, message.as_ref())?)?;
        }
        Ok(objects)
    }

    /// Return how many objects are in the queue.
    fn qsize(&self) -> PyResult<usize> {
        Ok(self.queue()?.len())
    }

    /// Say whether there is nothing to get.
    fn empty(&self) -> PyResult<bool> {
        Ok(self.queue()?.is_empty())
    }

    /// Say whether there is no room to put anything.
    fn full(&self) -> PyResult<bool> {
        Ok(self.queue()?.is_full())
    }

    /// Close the queue in this process: nothing more is put or got here.
    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Do nothing: what was put is in the queue already. The queue must be closed.
    fn join_thread(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().closed.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(PyAssertionError::new_err(format!("Queue {slf:?} not closed")))
    }

    /// Do nothing: a process never waits for its queues when it ends.
    fn cancel_join_thread(&self) {}
}

/// Several objects, pickled one behind the other.
struct Train {
    /// Where each ends, and the shared objects that it names.
    cars: Vec<(usize, Option<Pins>)>,
}

impl Train {
    fn load(objects: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> PyResult<Self> {
        let mut cars = Vec::new();
        for object in objects.try_iter()? {
            let pins = dump(&object?, bytes)?.filter(|pins| !pins.is_empty());
            cars.push((bytes.len(), pins));
        }
        Ok(Self { cars })
    }

    /// The bytes of one object.
    fn car<'a>(&self, index: usize, bytes: &'a [u8]) -> &'a [u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.cars[before].0);
        &bytes[start..self.cars[index].0]
    }

    /// Puts all of them, or as many as there was room for in time, and returns how many.
    fn put(
        &self,
        py: Python<'_>,
        queue: &ByteQueue,
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> EngineResult<usize> {
        let mut done = 0;
        while done < self.cars.len() {
            match blocking(py, || self.put_some(queue, done, bytes, deadline))? {
                Ok(put) => done += put,
                Err(PutError::Full) if done > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Puts at least one, and at most as many as need no pins.
    fn put_some(
        &self,
        queue: &ByteQueue,
        first: usize,
        bytes: &[u8],
        deadline: Option<Instant>,
    ) -> Result<usize, PutError> {
        if let (_, Some(pins)) = &self.cars[first] {
            return queue.put_pinned(self.car(first, bytes), pins, deadline).map(|()| 1);
        }
        let plain = self.cars[first..].iter().take_while(|(_, pins)| pins.is_none()).count();
        let payloads = (first..first + plain).map(|index| self.car(index, bytes));
        queue.put_many(payloads, deadline)
    }
}
