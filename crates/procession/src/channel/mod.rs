//! Messages between the processes of a tree.
//!
//! [`connection`] has streams of messages between any two processes, also of different trees.
//!
//! [`Queue`] carries values, [`ByteQueue`] bytes. Both are handles to the same kind of object in
//! the arena; `state` describes it word by word. `bytes` has what users call, `put` and `take` what
//! happens at the two ends, `sweep` what is done after a death. `watch` has descriptors for event
//! loops, `tally` counts what is unfinished in a [`JoinableQueue`].

mod bytes;
pub mod connection;
mod error;
mod joinable;
mod message;
mod put;
mod state;
mod sweep;
mod take;
mod tally;
#[cfg(all(test, not(loom)))]
mod tests;
mod typed;
mod watch;

pub use bytes::ByteQueue;
pub use error::{GetError, PutError, TaskDoneError, TasksError};
pub use joinable::{JoinableByteQueue, JoinableQueue};
pub use message::Message;
pub(crate) use state::ClaimWord;
pub use typed::Queue;
pub use watch::Readiness;
