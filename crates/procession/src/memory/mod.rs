//! Plain data that processes share: values, arrays, atomics, and memory with a name.
//!
//! | type               | what it is                                                            |
//! |--------------------|-----------------------------------------------------------------------|
//! | [`Value`]          | one value of a plain type, behind a lock                               |
//! | [`Array`]          | a slice of them, behind a lock                                         |
//! | [`Atomic`]         | one of the standard library's atomics                                  |
//! | [`SharedMemory`]   | bytes under a name that programs of other trees can open               |
//!
//! Plain types are those that implement [`bytemuck::Pod`]: numbers, arrays of them, and `repr(C)`
//! structures without padding that derive it. The compiler refuses anything else, such as a
//! pointer or a `bool`: what lies in shared memory must be a value whatever its bits are.
//!
//! All but `SharedMemory` lie in the arena of the tree. Their clones, and their copies in messages
//! and arguments, are the same memory, which goes with the last of them. New memory is zeroed.
//!
//! # When a process dies
//!
//! A process that is killed with a lock held leaves what it had written so far. The next one to
//! take the lock is told so with [`OwnerDied`], once, and decides what to make of the data.
//!
//! # Examples
//!
//! ```
//! use procession::memory::{Array, Value};
//!
//! let total = Value::new(0_u64)?;
//! let samples = Array::from_slice(&[1.5, 2.5])?;
//! total.with_lock(|total| *total += samples.len() as u64)?;
//! assert_eq!(total.get()?, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod array;
mod atomic;
mod error;
mod named;
mod value;

pub use array::{Array, ArrayGuard};
pub use atomic::{Atomic, AtomicWord};
pub use error::{LockResult, NameError, OwnerDied};
pub use named::{SharedMemory, raw};
pub use value::{Value, ValueGuard};
