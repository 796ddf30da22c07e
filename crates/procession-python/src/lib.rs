//! The native half of the Python package `procession`.
//!
//! One file per class that Python sees. Each adds to its engine type what Python needs and no
//! more: arguments taken apart, the interpreter let go of while blocked, signal handlers run,
//! and errors turned into exceptions (`error.rs`, once for all). Objects become bytes in
//! `pickling.rs` and `codec/`. No protocol and no shared state is kept here.
//!
//! A `///` comment on a class or method becomes its `__doc__`; the full text for users is in
//! `python/procession/_procession.pyi`.

mod codec;
mod collection;
mod connection;
mod cpus;
mod draft;
mod error;
mod failure;
mod fork_server;
mod forks;
mod iterate;
mod jobs;
mod late;
mod manager;
mod memory;
mod number;
mod pickler;
mod pickling;
mod pool;
mod process;
mod queue;
mod received;
mod result;
mod sync;
mod tree;
mod wait;
mod worker;

use pyo3::pymodule;

/// The engine of `procession`, for the modules of the package.
#[pymodule(gil_used = true)]
mod _procession {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::collection::{PyArenaDict, PyArenaList};
    #[pymodule_export]
    use crate::connection::{
        PyConnection, PyListener, PyTls, answer, challenge, connect, finish_tunnels, is_packing,
        pipe, redeem, share, stop_sharing, verify, wait,
    };
    #[pymodule_export]
    use crate::cpus::cpu_count;
    #[pymodule_export]
    use crate::fork_server::{PyForkServer, PyParcel, PyZygote, announce_exit};
    #[pymodule_export]
    use crate::forks::fork;
    #[pymodule_export]
    use crate::iterate::{PyIMapIterator, PyIMapUnorderedIterator};
    #[pymodule_export]
    use crate::manager::{
        PyCaller, PyManagerClient, PyManagerServer, PyServerThread, connect_manager,
    };
    #[pymodule_export]
    use crate::memory::{
        PyBlock, PyLockedField, PyShareableList, PySynchronizedArray, PySynchronizedBase,
        PySynchronizedValue, create_name, fill, open_name, unlink_name,
    };
    #[pymodule_export]
    use crate::pickling::{dumps, loads};
    #[pymodule_export]
    use crate::pool::PyPool;
    #[pymodule_export]
    use crate::process::{PyBoot, PyChild, own_sentinel, start_program, take_boot};
    #[pymodule_export]
    use crate::queue::{PyJoinableQueue, PyQueue, PyQueueReader, PyQueueWriter, PySimpleQueue};
    #[pymodule_export]
    use crate::result::{PyApplyResult, PyMapResult};
    #[pymodule_export]
    use crate::sync::{
        PyBarrier, PyBoundedSemaphore, PyCondition, PyEvent, PyLock, PyRLock, PySemLock,
        PySemaphore,
    };
    #[pymodule_export]
    use crate::tree::kill_process_tree;
    #[pymodule_export]
    use crate::worker::PyWorkerBoot;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::wait::watch_signals();
        crate::forks::watch_forks(module)
    }
}
