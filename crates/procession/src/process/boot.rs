//! Becoming the child that a fresh image was started as.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::daemon;
use crate::process::error::BootError;
use crate::process::exec::BOOT_VARIABLE;
use crate::shm::{Arena, Handle, Member};
use crate::sys::fd;

/// What a fork server needs to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<Socket> {
    /// Where orders come in.
    pub(crate) socket: Socket,
    /// The board of fates.
    pub(crate) board: Handle,
}

/// What the parent writes into [`BOOT_VARIABLE`]: five numbers with commas between them, and two more
/// for a fork server.
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
    /// Set for a fork server.
    pub(crate) line: Option<Line<RawFd>>,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arena, member, payload, parent, daemon, line } = *self;
        let (member, payload) = (member.raw(), payload.raw());
        write!(f, "{arena},{member},{payload},{parent},{}", u8::from(daemon))?;
        match line {
            Some(Line { socket, board }) => write!(f, ",{socket},{}", board.raw()),
            None => Ok(()),
        }
    }
}

impl Ticket {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(',');
        let ticket = Self {
            arena: descriptor(fields.next()?)?,
            member: Member::from_raw(fields.next()?.parse().ok()?)?,
            payload: Handle::from_raw(fields.next()?.parse().ok()?),
            parent: fields.next()?.parse().ok()?,
            daemon: match fields.next()? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
            line: match fields.next() {
                Some(socket) => Some(Line {
                    socket: descriptor(socket)?,
                    board: Handle::from_raw(fields.next()?.parse().ok()?),
                }),
                None => None,
            },
        };
        fields.next().is_none().then_some(ticket)
    }
}

/// The first three are standard input, output and error.
fn descriptor(text: &str) -> Option<RawFd> {
    text.parse().ok().filter(|number| *number > libc::STDERR_FILENO)
}

/// What a process was given by the one that started it: a fresh image, or a child of a fork server.
///
/// The payload is given back to the arena on drop.
#[derive(Debug)]
pub struct Boot {
    arena: &'static Arena,
    payload: Handle,
    bytes: &'static [u8],
    parent: u32,
    daemon: bool,
    /// Until it is taken, if this is a fork server.
    line: Mutex<Option<Line<OwnedFd>>>,
}

impl Boot {
    /// What a child of a fork server is given: this process is a member of the arena already.
    pub(crate) fn of_fork(payload: Handle, parent: u32, daemon: bool) -> Result<Self, BootError> {
        let arena = Arena::current().map_err(BootError::Arena)?;
        let bytes = arena.parcel_bytes(payload).map_err(|_| BootError::Payload)?;
        Ok(Self { arena, payload, bytes, parent, daemon, line: Mutex::new(None) })
    }

    /// Returns the bytes that the parent gave to [`Exec::payload`](crate::process::Exec::payload), or
    /// to [`ForkServer::spawn`](crate::process::ForkServer::spawn).
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

    /// Says whether this process was started to be a fork server, and has not become one yet: see
    /// [`Zygote::from_boot`](crate::process::Zygote::from_boot).
    pub fn is_fork_server(&self) -> bool {
        self.lock_line().is_some()
    }

    /// Takes what makes this process a fork server.
    pub(crate) fn take_line(&self) -> Option<Line<OwnedFd>> {
        self.lock_line().take()
    }

    fn lock_line(&self) -> MutexGuard<'_, Option<Line<OwnedFd>>> {
        // Nothing panics under it.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
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
    let descriptor = unsafe { fd::adopt(ticket.arena) }.map_err(not_open)?;
    let line = ticket.line.map(adopt_line).transpose()?;
    let arena = Arena::attach(descriptor, ticket.member).map_err(BootError::Arena)?;
    let bytes = arena.parcel_bytes(ticket.payload).map_err(|_| BootError::Payload)?;
    let Ticket { payload, parent, daemon, .. } = ticket;
    Ok(Boot { arena, payload, bytes, parent, daemon, line: Mutex::new(line) })
}

fn adopt_line(line: Line<RawFd>) -> Result<Line<OwnedFd>, BootError> {
    // SAFETY: as for the arena's descriptor; this one was made for this process.
    let socket = unsafe { fd::adopt(line.socket) }.map_err(not_open)?;
    Ok(Line { socket, board: line.board })
}

fn not_open(source: io::Error) -> BootError {
    BootError::Os { call: "fcntl", source }
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
            line: None,
        }
    }

    fn ticket_of_fork_server() -> Ticket {
        Ticket { line: Some(Line { socket: 8, board: Handle::from_raw(99) }), ..ticket() }
    }

    #[test]
    fn ticket_survives_the_environment() {
        for ticket in [ticket(), ticket_of_fork_server()] {
            assert_eq!(Ticket::parse(&ticket.to_string()), Some(ticket));
        }
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
                .into_iter()
                .chain(["7,4099,1,1,0,8", "7,4099,1,1,0,2,1", "7,4099,1,1,0,8,1,1"])
        {
            assert_eq!(Ticket::parse(bad), None, "{bad:?} is no ticket");
        }
    }
}
