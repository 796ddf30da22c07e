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
//! [`spawn`] and [`Builder`] call functions in processes of their own, by one of three methods:
//!
//! | [`StartMethod`] | the process begins as | can be used | what it is given |
//! |---|---|---|---|
//! | `Fork` | a copy of this one | while this one has a single thread | any closure |
//! | `Spawn` | a fresh image of the executable | always | a function and its arguments |
//! | `ForkServer` | a copy of a fresh image | always | a function and its arguments |
//!
//! Below them, for other faces of the engine, are [`Exec`] and [`take_boot`] (a program and the bytes
//! it is given), [`PreparedFork`] and [`without_output`] (a fork by whatever means), [`ForkServer`] and [`Zygote`] (both sides
//! of a process that makes others), and [`Child`] (a process that was started).
//!
//! What can be relied on:
//!
//! - A child that dies, of whatever and whenever, is reported with its process id and exit status.
//! - No child stays a zombie: a status is collected by whoever waits for it, or else when the next
//!   process is started or [`active_children`] is called.
//! - A daemonic child ends when its parent ends, even if that is killed.
//! - A process that is not daemonic outlives its parent.
//! - A fork server that is killed takes nobody with it, and the next start replaces it.
//!
//! # In tests
//!
//! The main function that `cargo test` gives to a program does not call [`init`], so a process that is
//! spawned there would run all the tests again; [`spawn`] refuses with
//! [`SpawnError::NotInitialized`]. And it runs tests in threads, so forking is refused with
//! [`SpawnError::Threads`]. Tests that start processes go into a file of their own with its own `main`:
//!
//! ```toml
//! [[test]]
//! name = "processes" # tests/processes.rs
//! harness = false
//! ```
//!
//! ```
//! fn double(x: u32) -> u32 {
//!     x * 2
//! }
//!
//! fn main() {
//!     procession::init(); // first
//!     let handle = procession::spawn(double, 21).unwrap();
//!     assert_eq!(handle.join().unwrap(), 42);
//! }
//! ```

mod boot;
mod child;
pub mod command;
mod daemon;
mod error;
mod exchange;
mod exec;
mod fate;
mod fork;
mod fork_server;
pub(crate) mod function;
mod identity;
mod join;
pub(crate) mod keepsake;
mod method;
mod orders;
pub(crate) mod panics;
mod parent;
mod registry;
mod seat;
mod service;
mod setup;
mod spawn;
mod status;
mod tree;
mod zygote;

pub use self::boot::{Boot, take_boot};
pub use self::child::Child;
pub use self::error::{BootError, JoinError, SpawnError};
pub use self::exec::{BOOT_VARIABLE, Exec};
pub use self::fate::announce_exit;
pub use self::fork::{PreparedFork, without_output};
pub use self::fork_server::ForkServer;
pub use self::identity::{CurrentProcess, current};
pub use self::join::JoinHandle;
pub use self::method::{StartMethod, UnknownStartMethod};
pub use self::parent::{ParentProcess, parent};
pub use self::service::stop_fork_server;
pub use self::setup::Stdio;
pub use self::spawn::{Builder, init, spawn};
pub use self::status::ExitStatus;
pub use self::tree::{TreeError, TreeGuard, kill_process_tree};
pub use self::zygote::{Request, Zygote};

use std::io;
use std::os::fd::OwnedFd;

use crate::sys::cpu;
use crate::sys::process;

/// Returns the children of this process that have not ended, and collects the others.
///
/// A fork server is not among them; its children are.
pub fn active_children() -> Vec<Child> {
    let mut children = registry::collect_ended();
    children.retain(|child| !child.is_helper());
    children
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
