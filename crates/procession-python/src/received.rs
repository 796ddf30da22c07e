//! Shared memory that came with a message, as the buffer protocol shows it, and long `bytes`.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::ffi::c_int;
use std::ptr;

use procession::shm::{Block, prefer_large_pages};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// From this size on the C library takes memory from the system each time, in bytes.
const FRESH: usize = 32 << 20;

/// The `bytes` with this content.
pub(crate) fn bytes_of<'py>(py: Python<'py>, content: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if content.len() < FRESH {
        return Ok(PyBytes::new(py, content));
    }
    let len = content.len() as ffi::Py_ssize_t;
    // SAFETY: the interpreter is held; without a source the content is left open.
    let raw = unsafe { ffi::PyBytes_FromStringAndSize(ptr::null(), len) };
    // SAFETY: a new reference that is this function's own, or null with an exception set.
    let bytes = unsafe { Bound::from_owned_ptr_or_err(py, raw) }?.cast_into::<PyBytes>()?;
    // SAFETY: `bytes` is of the type that is asked for.
    let target = unsafe { ffi::PyBytes_AsString(bytes.as_ptr()) }.cast::<u8>();
    prefer_large_pages(target.addr(), content.len());
    // SAFETY: the target has as many bytes, is new, and nobody else has it yet.
    unsafe { ptr::copy_nonoverlapping(content.as_ptr(), target, content.len()) };
    Ok(bytes)
}

/// The bytes of an array, or of another object with a buffer, where the sender put them. They go
/// with the last of those who look at them.
#[pyclass(name = "ReceivedBuffer", module = "procession._procession", frozen)]
pub(crate) struct ReceivedBuffer(pub(crate) Block);

#[pymethods]
impl ReceivedBuffer {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// # Safety
    ///
    /// `view` is where the interpreter, which calls this, wants to have the buffer described.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let block = &slf.get().0;
        let address = std::ptr::with_exposed_provenance_mut(block.address());
        let len = block.len() as ffi::Py_ssize_t;
        let writable = 0;
        // SAFETY:
        // - `view` is the caller's, and the interpreter is held, as `slf` shows.
        // - Inside: address and length are those of the block, which are below `isize::MAX`.
        // - Alive: the view holds `slf`, that holds the block, and a block stays where it is until
        //   its last handle is dropped. A forked child has the view, `slf` and a reference to the
        //   block of its own.
        // - Shared: nothing in Rust refers to the bytes of a block, which are reached by atomics
        //   alone; in C they are memory that others may write, as that of any shared mapping.
        let result =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, len, writable, flags) };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
