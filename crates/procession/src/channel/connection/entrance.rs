//! What a new connection goes through before it carries messages: TLS, and inside of it the key.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::channel::connection::address::Address;
use crate::channel::connection::error::HandshakeError;
use crate::channel::connection::handshake::{Handshake, Side};
use crate::channel::connection::tls::{Cause, Tls, TlsHandshake};

/// One end's way in. Nothing of it blocks.
#[derive(Debug)]
pub(crate) struct Entrance {
    side: Side,
    key: Option<Vec<u8>>,
    stage: Stage,
    cause: Option<Cause>,
    /// Stages that were passed.
    passed: usize,
}

#[derive(Debug)]
enum Stage {
    Tls(TlsHandshake),
    /// TLS is done, and the socket is still the encrypted one.
    Secured(TlsHandshake),
    Key(Handshake),
    Done,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The peer must send something first.
    Waiting,
    /// To be continued with [`Entrance::exchange`], after which the socket is another one.
    Secured,
    /// The connection can be used.
    Done,
}

impl Entrance {
    /// Begins; `address` is where a client connects to.
    pub(crate) fn start(
        side: Side,
        tls: Option<&Tls>,
        key: Option<&[u8]>,
        address: &Address,
        socket: BorrowedFd<'_>,
    ) -> Result<Self, HandshakeError> {
        let key = key.map(<[u8]>::to_vec);
        let stage = match tls {
            Some(tls) => Stage::Tls(TlsHandshake::start(tls, address, socket)?),
            None => key_stage(side, key.as_deref(), socket)?,
        };
        Ok(Self { side, key, stage, cause: None, passed: 0 })
    }

    /// Goes as far as what has come allows.
    pub(crate) fn advance(&mut self, socket: BorrowedFd<'_>) -> Result<Progress, HandshakeError> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Tls(mut tls) => {
                let done = tls.advance(socket)?;
                self.stage = if done { Stage::Secured(tls) } else { Stage::Tls(tls) };
                Ok(if done { Progress::Secured } else { Progress::Waiting })
            }
            Stage::Secured(tls) => {
                self.stage = Stage::Secured(tls);
                Ok(Progress::Secured)
            }
            Stage::Key(mut handshake) => {
                let done = handshake.advance(socket).map_err(|error| self.explain(error))?;
                if done {
                    return Ok(Progress::Done);
                }
                self.stage = Stage::Key(handshake);
                Ok(Progress::Waiting)
            }
            Stage::Done => Ok(Progress::Done),
        }
    }

    /// Puts the plain end of a tunnel into the place of the encrypted socket, when that is due.
    pub(crate) fn exchange(&mut self, socket: &mut OwnedFd) -> Result<(), HandshakeError> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Secured(tls) => {
                self.cause = Some(tls.exchange(socket)?);
                self.passed += 1;
                self.stage = key_stage(self.side, self.key.as_deref(), socket.as_fd())?;
            }
            other => self.stage = other,
        }
        Ok(())
    }

    /// A number that is another one whenever the peer has done its next step.
    pub(crate) fn progress(&self) -> usize {
        let steps = if let Stage::Key(handshake) = &self.stage { handshake.progress() } else { 0 };
        // More than there are steps in one stage.
        self.passed * 16 + steps
    }

    /// Why the tunnel broke, if there is one and it did.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.cause.clone()
    }

    /// Does for a client that was silent for too long what can be done.
    pub(crate) fn turn_away(&self, socket: BorrowedFd<'_>) {
        if let Stage::Tls(tls) = &self.stage {
            tls.turn_away(socket);
        }
    }

    /// An end of the plain stream has its cause in the encrypted one.
    fn explain(&self, error: HandshakeError) -> HandshakeError {
        #[cfg(feature = "tls")]
        if error == HandshakeError::Gone
            && let Some(why) = self.cause.as_ref().and_then(Cause::get)
        {
            return HandshakeError::Tls(why);
        }
        error
    }
}

fn key_stage(
    side: Side,
    key: Option<&[u8]>,
    socket: BorrowedFd<'_>,
) -> Result<Stage, HandshakeError> {
    match key {
        Some(key) => Ok(Stage::Key(Handshake::start(side, key, socket)?)),
        None => Ok(Stage::Done),
    }
}
