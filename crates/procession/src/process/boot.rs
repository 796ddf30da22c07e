//! Becoming the child that a fresh image was started as.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::env;
use std::fmt;
use std::os::fd::RawFd;

use crate::process::daemon;
use crate::process::error::BootError;
use crate::process::exec::BOOT_VARIABLE;
use crate::shm::{Arena, Handle, Member};
use crate::sys::fd;

/// What the parent writes into [`BOOT_VARIABLE`]: five numbers with commas between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The arena's descriptor.
    pub(crate) arena: RawFd,
    /// The child.
    pub(crate) member: Member,
    /// The block with the payload.
    pub(crate) payload: Handle,
    /// Process id of the parent.
    pub(crate) parent: u32,
    /// Whether the child is to end when the parent does.
    pub(crate) daemon: bool,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arena, member, payload, parent, daemon } = *self;
        let (member, payload) = (member.raw(), payload.raw());
        write!(f, "{arena},{member},{payload},{parent},{}", u8::from(daemon))
    }
}

impl Ticket {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(',');
        let ticket = Self {
            // The first three are standard input, output and error.
            arena: fields.next()?.parse().ok().filter(|number| *number > 2)?,
            member: Member::from_raw(fields.next()?.parse().ok()?)?,
            payload: Handle::from_raw(fields.next()?.parse().ok()?),
            parent: fields.next()?.parse().ok()?,
            daemon: match fields.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
        };
        fields.next().is_none().then_some(ticket)
    }
}

/// What a fresh image was given by the process that started it.
///
/// The payload is given back to the arena on drop.
#[derive(Debug)]
pub struct Boot {
    arena: &'static Arena,
    payload: Handle,
    bytes: &'static [u8],
    parent: u32,
    daemon: bool,
}

impl Boot {
    /// Returns the bytes that the parent gave to [`Exec::payload`](crate::process::Exec::payload).
    ///
    /// Shared objects that they name are alive as long as this value is; take hold of them before it
    /// is dropped.
    pub fn payload(&self) -> &[u8] {
        self.bytes
    }

    /// Returns the process id of the parent.
    pub fn parent_pid(&self) -> u32 {
        self.parent
    }

    /// Says whether this process ends when its parent does.
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.arena.free(self.payload);
    }
}

/// Makes this process the child it was started as, if it was started by
/// [`Exec`](crate::process::Exec), and returns what it was given.
///
/// To be called before anything else that uses this crate, and before other threads are started. It
/// removes [`BOOT_VARIABLE`], so that it returns `None` if called again, and in processes that this
/// one starts by other means.
///
/// # Errors
///
/// - [`BootError::Malformed`] when the variable has no meaning.
/// - [`BootError::Arena`] when the arena cannot be used: another version of this crate made it.
/// - [`BootError::Payload`] when the payload is gone.
/// - [`BootError::Os`] when the descriptor of the arena is not open, or the system does not offer to
///   tell of the parent's death.
pub fn take_boot() -> Result<Option<Boot>, BootError> {
    let Some(value) = env::var_os(BOOT_VARIABLE) else { return Ok(None) };
    // SAFETY: other threads may be reading the environment only if the caller started some, against
    // the advice above. Even then nothing dangles: the variable came with the image and is only
    // removed, which shifts pointers within the array of the environment and frees nothing.
    unsafe { env::remove_var(BOOT_VARIABLE) };
    let malformed = || BootError::Malformed { value: value.to_string_lossy().into_owned() };
    let ticket = value.to_str().and_then(Ticket::parse).ok_or_else(malformed)?;
    become_child(ticket).map(Some)
}

fn become_child(ticket: Ticket) -> Result<Boot, BootError> {
    if ticket.daemon {
        daemon::die_with(ticket.parent)
            .map_err(|source| BootError::Os { call: "prctl", source })?;
    }
    // SAFETY: the parent named this descriptor as the one that this process gets for the arena, and
    // the variable is read once, so that nobody else owns it.
    let descriptor = unsafe { fd::adopt(ticket.arena) }
        .map_err(|source| BootError::Os { call: "fcntl", source })?;
    let arena = Arena::attach(descriptor, ticket.member).map_err(BootError::Arena)?;
    let bytes = arena.parcel_bytes(ticket.payload).map_err(|_| BootError::Payload)?;
    let Ticket { payload, parent, daemon, .. } = ticket;
    Ok(Boot { arena, payload, bytes, parent, daemon })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            arena: 7,
            member: Member::from_raw(0x1003).unwrap(),
            payload: Handle::from_raw(u64::MAX - 5),
            parent: 4711,
            daemon: true,
        }
    }

    #[test]
    fn ticket_survives_the_environment() {
        assert_eq!(Ticket::parse(&ticket().to_string()), Some(ticket()));
    }

    #[test]
    fn damaged_tickets_are_refused() {
        let good = ticket().to_string();
        for end in 0..good.len() {
            // Cut inside the numbers it may still be a ticket; it must never be the same one.
            assert_ne!(Ticket::parse(&good[..end]), Some(ticket()));
        }
        for bad in
            ["", "a", "7,4099,1,1", "7,4099,1,1,2", "7,4099,1,1,0,0", "2,4099,1,1,0", "7,0,1,1,0"]
        {
            assert_eq!(Ticket::parse(bad), None, "{bad:?} is no ticket");
        }
    }
}
