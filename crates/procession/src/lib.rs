//! Programs made of many processes: start them, share memory and messages with them, hand them
//! work, and know what became of each.
//!
//! | module          | what it gives                                                        |
//! |-----------------|----------------------------------------------------------------------|
//! | [`process`]     | child processes by fork, spawn and fork server, and their results    |
//! | [`mod@command`] | external programs, as processes like any others                      |
//! | [`pool`]        | pools of worker processes: `map`, `imap`, `submit`, timeouts         |
//! | [`channel`]     | queues between any processes of a tree; pipes, listeners and clients |
//! | [`manager`]     | a server of objects for many processes, and clients of it            |
//! | [`memory`]      | plain data that processes share: values, arrays, named memory        |
//! | [`pickle`]      | what Python programs send each other, written and read without Python |
//! | [`sync`]        | locks, conditions, events, barriers between any processes of a tree  |
//! | [`shm`]         | the shared memory beneath all of these                               |
//!
//! The processes of a tree share one arena of memory that has no name in the system and goes
//! with the last of them. A queue, a lock or a pool is a handle to an object there; it can be
//! sent to any process of the tree, as an argument or inside a message.
//!
//! Any process may be killed at any moment. The others go on, or get an error that names the dead
//! one; nothing hangs and nothing is left behind.
//!
//! # Examples
//!
//! ```no_run
//! use procession::pool::Pool;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     procession::init(); // a worker process goes its own way here
//!     let pool = Pool::new(4)?;
//!     let squares = pool.map(|number: u64| number * number, 0..10)?;
//!     assert_eq!(squares[9], 81);
//!     Ok(())
//! }
//! ```
//!
//! Linux only, for now.

mod error;
mod primitive;
mod slice;
mod sys;

pub mod channel;
pub mod manager;
pub mod memory;
pub mod pickle;
pub mod pool;
pub mod process;
pub mod shm;
pub mod sync;

pub use error::WaitError;
pub use process::command::{self, command};
pub use process::{Builder, JoinHandle, StartMethod, Stdio, init, parent, spawn};

#[cfg(doctest)]
mod guide;
