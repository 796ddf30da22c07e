//! Starting a child as a fresh image of a program.
//!
//! The child inherits the arena's descriptor and one environment variable, [`BOOT_VARIABLE`], that
//! says which descriptor that is, which member the child is, where in the arena its payload lies,
//! who its parent is, and whether it is to die with it. All else travels in the payload.
//!
//! # When a process dies
//!
//! - The parent before it has started the child: member, payload and references were reserved by it
//!   and go with it.
//! - The child, at any time: the parent collects and buries it. The payload is the child's block.
//! - The parent after it has started the child: the child goes on, or ends if it is daemonic.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use rustix::io::{Errno, fcntl_getfd};

use crate::process::boot::{Line, Ticket};
use crate::process::child::Child;
use crate::process::error::SpawnError;
use crate::process::registry;
use crate::process::seat::Seat;
use crate::shm::{Handle, Owner, Parcel};
use crate::sys::process;

/// The environment variable that tells an image that it is a child, until
/// [`take_boot`](crate::process::take_boot) removes it.
///
/// A copy of the environment made before that still has it, and must remove it too.
pub const BOOT_VARIABLE: &str = "PROCESSION_CHILD";

/// A program to be started as a child of this process.
///
/// The program must call [`take_boot`](crate::process::take_boot) early on; programs in Rust do so
/// through [`init`](crate::process::init).
pub struct Exec {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    inherit: Vec<RawFd>,
    placed: Vec<(Arc<OwnedFd>, RawFd)>,
    payload: Parcel,
    daemon: bool,
}

impl Exec {
    /// A program by its path, without arguments, with the environment of this process.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: env::vars_os().collect(),
            inherit: Vec::new(),
            placed: Vec::new(),
            payload: Parcel::default(),
            daemon: false,
        }
    }

    /// Sets the arguments; the first is by custom the name of the program.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Replaces the whole environment.
    pub fn envs<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        env: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.env = env.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self
    }

    /// Sets one environment variable.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(key.into(), value.into());
        self
    }

    /// Leaves out one environment variable.
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.env.remove(key.as_ref());
        self
    }

    /// Sets the descriptors that the child gets, under the same numbers.
    ///
    /// All others that are marked close-on-exec are closed in it. They must stay open until
    /// [`start`](Self::start) has returned.
    pub fn inherit(mut self, descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        self.inherit = descriptors.into_iter().collect();
        self
    }

    /// Sets what the child gets as standard input (0), output (1) or error (2).
    pub(crate) fn place(mut self, descriptor: Arc<OwnedFd>, place: RawFd) -> Self {
        self.placed.push((descriptor, place));
        self
    }

    /// Sets what the child finds in [`Boot::payload`](crate::process::Boot::payload).
    pub fn payload(mut self, payload: Parcel) -> Self {
        self.payload = payload;
        self
    }

    /// Says whether the child is to end when this process ends, however that ends.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Starts the program.
    ///
    /// Returns as soon as the system has loaded it; whether the program gets as far as taking its
    /// payload is not known then.
    ///
    /// # Errors
    ///
    /// - [`SpawnError::NotInitialized`] in an image that is a child itself and has not noticed.
    /// - [`SpawnError::ZeroByte`] when a text holds a zero byte.
    /// - [`SpawnError::Arena`] when there is no room for the child or its payload.
    /// - [`SpawnError::Os`] when the program cannot be started, or a descriptor to be inherited is not
    ///   open.
    pub fn start(self) -> Result<Child, SpawnError> {
        self.start_with(None)
    }

    /// Starts the program as a fork server.
    pub(crate) fn start_fork_server(
        mut self,
        socket: BorrowedFd<'_>,
        board: Handle,
    ) -> Result<Child, SpawnError> {
        let socket = socket.as_raw_fd();
        self.inherit.push(socket);
        self.start_with(Some(Line { socket, board }))
    }

    fn start_with(mut self, line: Option<Line<RawFd>>) -> Result<Child, SpawnError> {
        refuse_unless_booted()?;
        registry::collect_ended();
        let inherited = open_descriptors(&self.inherit)?;
        let seat = Seat::reserve()?;
        let arena = seat.arena();
        let (bytes, pins) = (self.payload.bytes(), self.payload.pins());
        let payload = arena.store_parcel(&[bytes], pins, Owner::Member(seat.member()))?;
        let ticket = Ticket {
            arena: arena.fd().as_raw_fd(),
            member: seat.member(),
            payload,
            parent: process::getpid(),
            daemon: self.daemon,
            line,
        };
        self.env.insert(BOOT_VARIABLE.into(), ticket.to_string().into());
        let pid = self.spawn(arena.fd(), inherited)?;
        seat.taken_by(pid)
    }

    fn spawn(
        self,
        arena: BorrowedFd<'_>,
        inherited: Vec<BorrowedFd<'_>>,
    ) -> Result<u32, SpawnError> {
        let program = c_string(self.program)?;
        let args = self.args.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        let env = self
            .env
            .into_iter()
            .map(|(mut key, value)| {
                key.push("=");
                key.push(value);
                c_string(key)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut descriptors = inherited;
        descriptors.push(arena);
        let placed: Vec<_> = self.placed.iter().map(|(fd, place)| (fd.as_fd(), *place)).collect();
        process::spawn(&program, &args, &env, &descriptors, &placed)
            .map_err(|source| SpawnError::Os { call: "posix_spawn", source })
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold secrets.
        f.debug_struct("Exec")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("inherit", &self.inherit)
            .field("daemon", &self.daemon)
            .finish_non_exhaustive()
    }
}

/// Refuses to start processes in an image that is a child and does not know it: it is running the
/// whole program once more, and would start children without end.
pub(crate) fn refuse_unless_booted() -> Result<(), SpawnError> {
    match env::var_os(BOOT_VARIABLE) {
        Some(_) => Err(SpawnError::NotInitialized),
        None => Ok(()),
    }
}

fn c_string(text: OsString) -> Result<CString, SpawnError> {
    CString::new(text.into_vec()).map_err(|error| {
        let end = error.nul_position();
        let text = String::from_utf8_lossy(&error.into_vec()[..end]).into_owned();
        SpawnError::ZeroByte { text }
    })
}

/// Checks that the descriptors are open.
pub(crate) fn open_descriptors<'a>(raw: &[RawFd]) -> Result<Vec<BorrowedFd<'a>>, SpawnError> {
    let check = |descriptor: &RawFd| {
        let closed = || SpawnError::Os { call: "fcntl", source: Errno::BADF.into() };
        if *descriptor < 0 {
            return Err(closed());
        }
        // SAFETY:
        // - It is not -1.
        // - It need not be open for what is done with it: it is named to the kernel, to look at its
        //   flags and to duplicate it in the child. A number that is not open is refused by both.
        let descriptor = unsafe { BorrowedFd::borrow_raw(*descriptor) };
        fcntl_getfd(descriptor).map_err(|_| closed())?;
        Ok(descriptor)
    };
    raw.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_descriptor_is_refused() {
        let error = open_descriptors(&[-1]).unwrap_err();
        assert!(matches!(error, SpawnError::Os { call: "fcntl", .. }));
        assert!(open_descriptors(&[1_000_000]).is_err());
    }

    #[test]
    fn text_with_zero_byte_is_refused() {
        let error = c_string("ab\0cd".into()).unwrap_err();
        assert!(matches!(error, SpawnError::ZeroByte { text } if text == "ab"));
    }
}
