//! A place among the arena's members, from its reservation until a child has it.

use crate::process::child::Child;
use crate::process::error::SpawnError;
use crate::shm::{Arena, ArenaError, Member};
use crate::sys::process;

/// A reserved member; given back on drop.
#[derive(Debug)]
pub(crate) struct Seat {
    arena: &'static Arena,
    member: Member,
    /// The process that reserved it, and that alone may give it back.
    owner: u32,
    free: bool,
}

impl Seat {
    /// Reserves a place for a child of this process.
    pub(crate) fn reserve() -> Result<Self, SpawnError> {
        let arena = Arena::current()?;
        let member = arena.reserve_member()?;
        Ok(Self { arena, member, owner: process::getpid(), free: true })
    }

    /// The place that `client` has reserved for a child that this process is to fork.
    pub(crate) fn reserved_by(client: u32, member: Member) -> Result<Self, SpawnError> {
        Ok(Self { arena: Arena::current()?, member, owner: client, free: true })
    }

    pub(crate) fn arena(&self) -> &'static Arena {
        self.arena
    }

    pub(crate) fn member(&self) -> Member {
        self.member
    }

    /// Notes that the child `pid` of this process has the place, and takes charge of that child.
    ///
    /// If it cannot be watched it is killed: nobody could ever tell how it ended.
    pub(crate) fn taken_by(mut self, pid: u32) -> Result<Child, SpawnError> {
        self.free = false;
        self.arena.set_pid(self.member, pid);
        Child::watch(self.arena, self.member, pid).map_err(|source| {
            process::kill_and_reap(pid);
            self.arena.bury(self.member);
            SpawnError::Os { call: "pidfd_open", source }
        })
    }

    /// Leaves the place to a child that another process has started, and has entered as `member`.
    pub(crate) fn taken(mut self) -> (&'static Arena, Member) {
        self.free = false;
        (self.arena, self.member)
    }

    /// Takes the place back from a child that another process was to start, which is dead and
    /// buried. Returns the process id of the child if it lives or has lived.
    pub(crate) fn withdraw(&mut self) -> Option<u32> {
        self.free = false;
        self.arena.withdraw_member(self.member)
    }

    /// Leaves the place to a child that notes its process id itself.
    pub(crate) fn leave(mut self) {
        self.free = false;
    }

    /// Takes the place for this process, a forked child of the one that reserved it.
    pub(crate) fn sit_down(mut self) -> Result<(), SpawnError> {
        self.free = false;
        if self.arena.become_member(self.member) {
            Ok(())
        } else {
            Err(SpawnError::Arena(ArenaError::ParentDied))
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.free && process::getpid() == self.owner {
            self.arena.cancel_member(self.member);
        }
    }
}
