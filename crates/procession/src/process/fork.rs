//! Starting a child as a copy of this process.
//!
//! # Steps
//!
//! | step | who | what | if it dies right after |
//! |------|-----|------|------------------------|
//! | 1 | parent | reserves a member for the child and copies its own references to it | the references go with the parent: the reservation is the parent's |
//! | 2 | parent | forks | as 1, and the child goes on by itself |
//! | 3 | child | becomes the member | the parent collects the child and buries the member |
//! | 4 | parent | notes the child's process id, opens its pidfd | the child goes on |
//!
//! The child may be killed before step 3; the process id from step 4 tells everybody that it is dead.
//!
//! A fork server does steps 1 and 2 for a member that its client has reserved; see `zygote.rs`.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use crate::channel::connection;
use crate::process::child::{Child, pause};
use crate::process::daemon;
use crate::process::error::SpawnError;
use crate::process::exec::refuse_unless_booted;
use crate::process::registry;
use crate::process::seat::Seat;
use crate::process::service;
use crate::sys::{fd, process};

/// How often a process that seems to have several threads is looked at.
const LOOKS: u32 = 20;

/// A fork that is about to happen.
///
/// The caller forks by whatever means it must (an interpreter has its own), and then calls exactly
/// one of [`in_parent`](Self::in_parent), [`in_child`](Self::in_child) and, if nothing was forked,
/// [`abandon`](Self::abandon), which is also what dropping does.
#[derive(Debug)]
#[must_use = "a prepared fork holds a place for the child"]
pub struct PreparedFork {
    seat: Seat,
    parent: u32,
    /// The pidfd of the process that ordered the fork, if that is not this one.
    client: Option<Arc<OwnedFd>>,
}

/// Calls `flush` while what it writes to `descriptor` goes nowhere, and returns its result.
///
/// For a child just after a fork, whose output streams hold what other threads of the parent had
/// printed and not yet written: the parent writes that, and the child must not do it once more.
///
/// # Errors
///
/// `flush` is not called if nothing is open there, or no two descriptors more can be opened.
pub fn without_output<T>(descriptor: RawFd, flush: impl FnOnce() -> T) -> io::Result<T> {
    fd::with_null_at(descriptor, flush)
}

/// Which process this is after a fork.
#[derive(Debug)]
pub(crate) enum Side {
    /// The one that forked.
    Parent { pid: u32, prepared: PreparedFork },
    /// The new one, which has become what was prepared.
    Child,
}

impl PreparedFork {
    /// Reserves a place for the child and gives it references to all shared objects of this process.
    ///
    /// # Errors
    ///
    /// - [`SpawnError::NotInitialized`] in a spawned child that has not become one yet.
    /// - [`SpawnError::Arena`] when there is no room for another process.
    pub fn prepare() -> Result<Self, SpawnError> {
        refuse_unless_booted()?;
        registry::collect_ended();
        let seat = Seat::reserve()?;
        seat.arena().copy_references_to(seat.member())?;
        Ok(Self { seat, parent: process::getpid(), client: None })
    }

    /// Gives the child that `client` has reserved `seat` for references to all shared objects of this
    /// process.
    pub(crate) fn for_client(seat: Seat, client: &Arc<OwnedFd>) -> Result<Self, SpawnError> {
        seat.arena().copy_references_to(seat.member())?;
        Ok(Self { seat, parent: process::getpid(), client: Some(client.clone()) })
    }

    /// Takes charge of the child. To be called in the parent.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Os`] when no descriptor can be opened for it. The child is killed then.
    pub fn in_parent(self, pid: u32) -> Result<Child, SpawnError> {
        self.seat.taken_by(pid)
    }

    /// Lets go of a child that others wait for. To be called in the parent, when its process id is
    /// not known.
    pub fn in_parent_unwatched(self) {
        self.seat.leave();
    }

    /// Makes this process the child that was prepared. To be called in the child, before anything
    /// else that uses this crate.
    ///
    /// A daemonic child ends when its parent ends, however that ends; the child of a fork server when
    /// the client of that ends.
    ///
    /// # Errors
    ///
    /// - [`SpawnError::Arena`] when the parent has died already, and what it meant to hand over is gone.
    /// - [`SpawnError::Os`] when the system does not offer to tell of the parent's death.
    pub fn in_child(self, daemon: bool) -> Result<(), SpawnError> {
        // First, as what is forgotten holds objects of the arena, for a member that must be known.
        let seated = self.seat.sit_down();
        registry::forget();
        service::forget();
        connection::forget_shared();
        seated?;
        daemon::live_on();
        let result = match &self.client {
            _ if !daemon => Ok(()),
            Some(client) => daemon::die_with_client(self.parent, client),
            None => daemon::die_with(self.parent),
        };
        result.map_err(|source| SpawnError::Os { call: "prctl or timer_create", source })
    }

    /// Gives the place back. To be called when nothing was forked.
    pub fn abandon(self) {
        drop(self);
    }

    /// Forks, and does what is to be done in the child.
    ///
    /// The child must not return into the code of its parent.
    pub(crate) fn fork(self, daemon: bool) -> Result<Side, SpawnError> {
        // Whoever wants a descriptor waits until it goes on, here in the parent.
        let _paused = connection::pause_sharing();
        refuse_threads()?;
        // SAFETY: this is the only thread, so that no lock is held by one that the child lacks: the
        // child may do all that the parent may.
        match unsafe { process::fork() } {
            Ok(process::Fork::Parent { pid }) => Ok(Side::Parent { pid, prepared: self }),
            Ok(process::Fork::Child) => {
                // An error here must not travel up into the parent's code.
                if self.in_child(daemon).is_err() {
                    process::exit_now(1);
                }
                Ok(Side::Child)
            }
            Err(source) => Err(SpawnError::Os { call: "fork", source }),
        }
    }
}

/// Refuses if this process has other threads.
///
/// A thread that was joined a moment ago may still be listed by the system, hence the second looks.
fn refuse_threads() -> Result<(), SpawnError> {
    let mut looks = 0;
    loop {
        let count = process::thread_count()
            .map_err(|source| SpawnError::Os { call: "readdir /proc/self/task", source })?;
        if count <= 1 {
            return Ok(());
        }
        looks += 1;
        if looks == LOOKS {
            return Err(SpawnError::Threads { count });
        }
        pause();
    }
}
