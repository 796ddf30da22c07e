//! Shared memory: blocks of the arena, what wraps `ctypes` objects in them, and memory with a name.
//!
//! `ctypes` objects lie in blocks; Python code makes them (`sharedctypes.py`). What is here is what
//! happens at each access: the lock is taken, and a number of a plain type is read or written where
//! it lies, without `ctypes`. Whatever is not that simple goes to the `ctypes` object itself, which
//! knows all conversions and raises all exceptions.

mod array;
mod block;
mod cells;
mod guard;
mod list;
mod names;
mod synchronized;

pub(crate) use array::PySynchronizedArray;
pub(crate) use block::{PyBlock, fill};
pub(crate) use list::PyShareableList;
pub(crate) use names::{create_name, open_name, unlink_name};
pub(crate) use synchronized::{PyLockedField, PySynchronizedBase, PySynchronizedValue};
