//! Processes: starting them, waiting for them, and what they return.
//!
//! ```
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     procession::process::init(); // first in main
//!     let handle = procession::process::spawn(square, 12)?;
//!     assert_eq!(handle.join()?, 144);
//!     Ok(())
//! }
//! ```
//!
//! [`spawn`] and [`Builder`] call functions in processes of their own. Below them, for other faces
//! of the engine, are [`Exec`] and [`take_boot`] (a program and the bytes it is given),
//! [`PreparedFork`] (a fork by whatever means), and [`Child`] (a process that was started).
//!
//! What can be relied on:
//!
//! - A child that dies, of whatever and whenever, is reported with its process id and exit status.
//! - No child stays a zombie: a status is collected by whoever waits for it, or else when the next
//!   process is started or [`active_children`] is called.
//! - A daemonic child ends when its parent ends, even if that is killed.
//! - A process that is not daemonic outlives its parent.

mod boot;
mod child;
mod daemon;
mod error;
mod exchange;
mod exec;
mod fork;
pub(crate) mod function;
mod identity;
mod join;
pub(crate) mod panics;
mod registry;
mod seat;
mod spawn;
mod status;

pub use self::boot::{Boot, take_boot};
pub use self::child::Child;
pub use self::error::{BootError, JoinError, SpawnError};
pub use self::exec::{BOOT_VARIABLE, Exec};
pub use self::fork::PreparedFork;
pub use self::identity::{CurrentProcess, current};
pub use self::join::JoinHandle;
pub use self::spawn::{Builder, StartMethod, init, spawn};
pub use self::status::ExitStatus;

use std::io;
use std::os::fd::OwnedFd;

use crate::sys::cpu;
use crate::sys::process;

/// Returns the children of this process that have not ended, and collects the others.
pub fn active_children() -> Vec<Child> {
    registry::collect_ended()
}

/// Returns the number of processors of the machine.
pub fn cpu_count() -> usize {
    cpu::machine_cpus()
}

/// Returns the number of processors that this process may use: those of its affinity mask, or fewer
/// if a control group limits it. At least 1.
pub fn available_cpus() -> usize {
    cpu::available_cpus()
}

/// Returns a descriptor that becomes readable when this very process has ended, to be handed to a
/// child that wants to know.
///
/// # Errors
///
/// What [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html) reports, such as
/// `EMFILE`.
pub fn own_sentinel() -> io::Result<OwnedFd> {
    process::pidfd_open(process::getpid())
}
