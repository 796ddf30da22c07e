//! Waiting and exclusion between processes.
//!
//! Every object here is a handle to a few words of the tree's shared memory. Its clones, and its
//! copies in messages and arguments, stand for the same object; the memory goes with the last of
//! them.
//!
//! Blocking calls take a deadline: `None` waits for ever, one in the past does not wait. They
//! spin for a short time before they sleep, for as long as that pays (see `PROCESSION_SPIN_US` in
//! the guide), and no process that is killed, waiting or not, keeps the others waiting for ever.

mod barrier;
mod condition;
mod event;
pub(crate) mod event_count;
mod grip;
mod lock;
mod mutex;
mod rlock;
mod roster;
mod semaphore;
pub(crate) mod spin;
mod waiters;
mod who;

pub use crate::error::WaitError;
pub use crate::slice::on_slice;
pub use barrier::{Arrival, Barrier, BarrierError, LastComer, Place};
pub use condition::{Condition, ConditionError, ConditionLock, ConditionWaiter, Returned, Wake};
pub use event::Event;
pub use lock::{Holder, Lock, LockError, LockOutcome};
pub use mutex::{Mutex, MutexGuard, Poisoned, TryLockError};
pub use rlock::RLock;
pub use semaphore::{Semaphore, SemaphoreError};
