//! `ArenaDict` and `ArenaList`: a dict and a list that any process of the tree uses.
//!
//! `dict` and `list` have a class each, `keys` says when two keys are the same. The lock of the
//! engine's container is never held while Python code runs: what needs both is done on a copy, and
//! written only if the container is still as it was when it was copied.

mod dict;
mod keys;
mod list;
mod slices;

use std::cell::RefCell;

use procession::WaitError;
use procession::collection::{ByteDict, ByteList, Content, DictGuard, Item, ListGuard};
use procession::shm::ArenaError;
use pyo3::prelude::*;

pub(crate) use dict::PyArenaDict;
pub(crate) use list::PyArenaList;

use crate::draft::with_draft;
use crate::error::EngineResult;
use crate::late::packed;
use crate::pickling::{dump_draft, load_untouched};

/// A container of the engine.
trait Container: Sync {
    type Guard<'a>
    where
        Self: 'a;

    fn try_lock(&self) -> Option<Self::Guard<'_>>;
    fn wait_for_lock(&self) -> Result<Self::Guard<'_>, WaitError>;
}

impl Container for ByteDict {
    type Guard<'a> = DictGuard<'a>;

    fn try_lock(&self) -> Option<DictGuard<'_>> {
        self.try_lock()
    }

    fn wait_for_lock(&self) -> Result<DictGuard<'_>, WaitError> {
        self.lock_until(None)
    }
}

impl Container for ByteList {
    type Guard<'a> = ListGuard<'a>;

    fn try_lock(&self) -> Option<ListGuard<'_>> {
        self.try_lock()
    }

    fn wait_for_lock(&self) -> Result<ListGuard<'_>, WaitError> {
        self.lock_until(None)
    }
}

/// Calls `f` with the container locked; the interpreter is let go of while it waits for the lock,
/// and signal handlers run (PEP 475).
#[inline]
fn locked<C: Container, R: Send>(
    py: Python<'_>,
    container: &C,
    f: impl FnOnce(C::Guard<'_>) -> R + Send,
) -> PyResult<R> {
    match container.try_lock() {
        Some(guard) => Ok(f(guard)),
        None => locked_later(py, container, f),
    }
}

#[cold]
fn locked_later<C: Container, R: Send>(
    py: Python<'_>,
    container: &C,
    mut f: impl FnOnce(C::Guard<'_>) -> R + Send,
) -> PyResult<R> {
    loop {
        // What is done with the lock held is done before the interpreter is asked for again.
        let done = py.detach(move || match container.wait_for_lock() {
            Ok(guard) => Ok(f(guard)),
            Err(_) => Err(f),
        });
        f = match done {
            Ok(result) => return Ok(result),
            Err(f) => f,
        };
        py.check_signals()?;
    }
}

/// The value in shared memory, pickled.
#[inline]
fn store(value: &Bound<'_, PyAny>) -> EngineResult<Item> {
    with_draft(|draft| {
        let pins = dump_draft(value, draft, true)?.unwrap_or_default();
        Ok(draft.with_parts(|parts| Item::new(parts, &pins))?)
    })
}

/// A copy of the value: its buffers, too, are the caller's own.
#[inline]
fn load<'py>(py: Python<'py>, content: &Content) -> EngineResult<Bound<'py, PyAny>> {
    load_untouched(py, content)
}

/// How the process that unpickles a container comes by it: its class opens it by its number.
fn reduced<'py>(
    container: &Bound<'py, PyAny>,
    noted: Result<u64, ArenaError>,
) -> EngineResult<(Bound<'py, PyAny>, (u64,))> {
    let handle = packed(container, noted)?;
    Ok((container.get_type().getattr("_open")?, (handle,)))
}

thread_local! {
    /// The containers whose `repr` this thread is making.
    static SHOWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// What `repr` says of a container: `within` for one that is in itself.
fn repr_of(
    id: u64,
    within: &str,
    copy: impl FnOnce() -> EngineResult<String>,
) -> EngineResult<String> {
    struct Shown;
    impl Drop for Shown {
        fn drop(&mut self) {
            SHOWN.with_borrow_mut(Vec::pop);
        }
    }
    if SHOWN.with_borrow(|shown| shown.contains(&id)) {
        return Ok(within.to_owned());
    }
    SHOWN.with_borrow_mut(|shown| shown.push(id));
    let _shown = Shown;
    copy()
}
