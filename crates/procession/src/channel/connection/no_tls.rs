//! What stands for TLS where it was not built in: nobody has any.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::channel::connection::address::Address;
use crate::channel::connection::error::HandshakeError;

#[derive(Debug, Clone)]
pub(crate) enum Tls {}

#[derive(Debug)]
pub(crate) enum TlsHandshake {}

#[derive(Debug, Clone)]
pub(crate) enum Cause {}

impl TlsHandshake {
    pub(crate) fn start(
        tls: &Tls,
        _address: &Address,
        _socket: BorrowedFd<'_>,
    ) -> Result<Self, HandshakeError> {
        match *tls {}
    }

    pub(crate) fn advance(&mut self, _socket: BorrowedFd<'_>) -> Result<bool, HandshakeError> {
        match *self {}
    }

    pub(crate) fn exchange(self, _socket: &mut OwnedFd) -> Result<Cause, HandshakeError> {
        match self {}
    }

    pub(crate) fn turn_away(&self, _socket: BorrowedFd<'_>) {
        match *self {}
    }
}

/// There is no thread to be ended for a fork.
#[derive(Debug)]
pub(super) struct PausedPump;

pub(super) fn pause() -> PausedPump {
    PausedPump
}

pub(super) fn forget() {}

pub(crate) fn finish_at_end() {}
