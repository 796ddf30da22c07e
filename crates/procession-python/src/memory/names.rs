//! Memory with a name, for `SharedMemory`.

use std::ffi::OsString;
use std::os::fd::IntoRawFd;

use procession::memory::raw;
use pyo3::prelude::*;

use crate::error::EngineResult;

/// Make zeroed memory under a name that is free, and return a descriptor for it.
///
/// With `track` the process tree unlinks the name in the end.
#[pyfunction]
pub(crate) fn create_name(name: OsString, size: u64, mode: u32, track: bool) -> EngineResult<i32> {
    Ok(raw::create(&name, size, mode, track)?.into_raw_fd())
}

/// Open what is under a name, as `shm_open` does, and return a descriptor for it.
#[pyfunction]
pub(crate) fn open_name(name: OsString, flags: i32, mode: u32) -> EngineResult<i32> {
    Ok(raw::open(&name, flags, mode)?.into_raw_fd())
}

/// Take a name away. Who has the memory keeps it.
#[pyfunction]
pub(crate) fn unlink_name(name: OsString) -> EngineResult<()> {
    Ok(raw::unlink(&name)?)
}
