//! One client, as the server sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::channel::connection::frame::Header;
use crate::manager::inflow;
use crate::sys::fd;

/// A client of a server: the number of its connection, which no other ever has.
///
/// In the form of this crate that is a process; in Python's own, a thread of one, or a single
/// request.
pub type ClientId = u64;

/// In which form a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Form {
    /// Its first request has not come yet.
    Open,
    /// Python's own: one request after the other.
    Plain,
    /// That of this crate.
    Ours,
}

/// The server's end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: ClientId,
    socket: OwnedFd,
    form: AtomicU8,
    /// Whether the client has said that it is about to end.
    leaving: AtomicBool,
    sending: Mutex<()>,
}

impl Peer {
    pub(super) fn new(id: ClientId, socket: OwnedFd) -> Self {
        let form = AtomicU8::new(Form::Open as u8);
        let leaving = AtomicBool::new(false);
        Self { id, socket, form, leaving, sending: Mutex::new(()) }
    }

    pub(super) fn form(&self) -> Form {
        match self.form.load(Ordering::Relaxed) {
            form if form == Form::Ours as u8 => Form::Ours,
            form if form == Form::Plain as u8 => Form::Plain,
            _ => Form::Open,
        }
    }

    pub(super) fn set_form(&self, form: Form) {
        self.form.store(form as u8, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The socket, which another one takes the place of when the client has come to be trusted.
    pub(super) fn socket_mut(&mut self) -> &mut OwnedFd {
        &mut self.socket
    }

    /// Sends a message of two parts; `blocked` is called before that blocks.
    pub(super) fn send(&self, head: &[u8], body: &[u8], blocked: impl FnOnce()) -> io::Result<()> {
        let head = [Header::of(head.len() + body.len()).bytes(), head].concat();
        let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        inflow::send(self.socket.as_fd(), [&head, body], blocked)
    }

    /// Whether the client has closed the connection or died, known here before its socket comes to
    /// be looked at.
    pub(super) fn has_hung_up(&self) -> bool {
        fd::has_hung_up(self.socket.as_fd())
    }

    /// Ends the connection, also where a forked process has a copy of it.
    pub(super) fn shut_down(&self) {
        fd::shut_down(self.socket.as_fd());
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
