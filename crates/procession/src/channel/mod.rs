//! Messages between the processes of a tree.
//!
//! [`connection`] has streams of messages between any two processes, also of different trees.
//!
//! [`Queue`] carries values, [`ByteQueue`] bytes. Both are handles to the same kind of object in
//! the arena; `state` describes it word by word. `bytes` has what users call, `put` and `take` what
//! happens at the two ends, `sweep` what is done after a death.

mod bytes;
pub mod connection;
mod error;
mod message;
mod put;
mod state;
mod sweep;
mod take;
#[cfg(all(test, not(loom)))]
mod tests;
mod typed;

pub use bytes::ByteQueue;
pub use error::{GetError, PutError};
pub use message::Message;
pub(crate) use state::ClaimWord;
pub use typed::Queue;
