//! How two ends come to trust each other by TLS.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use crate::channel::connection::address::Address;
use crate::channel::connection::error::HandshakeError;
use crate::channel::connection::tls::tunnel::Wire;
use crate::channel::connection::tls::{Cause, Side, Tls, TlsError, pump};
use crate::sys::stream;

/// Bytes read at a time; more than what the other end sends of a handshake.
const AT_ONCE: usize = 16 << 10;

/// Tells a client that has sent nothing that TLS is spoken here: the alert `handshake_failure`.
const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

/// One end's part in a handshake of TLS. It never blocks: it does what it can and says when it is
/// done.
pub(crate) struct TlsHandshake {
    tls: Box<Connection>,
    /// Whether anything has come.
    heard: bool,
}

impl TlsHandshake {
    /// Begins, over a socket that is made non-blocking; `address` is where a client connects to.
    pub(crate) fn start(
        tls: &Tls,
        address: &Address,
        socket: BorrowedFd<'_>,
    ) -> Result<Self, HandshakeError> {
        stream::set_blocking(socket, false).map_err(|_| HandshakeError::Gone)?;
        let made = match &tls.side {
            Side::Server { config, .. } => {
                ServerConnection::new(config.clone()).map(Connection::Server)
            }
            Side::Client { config, .. } => {
                let name = match &tls.name {
                    Some(name) => name.clone(),
                    None => name_of(address)?,
                };
                ClientConnection::new(config.clone(), name).map(Connection::Client)
            }
        };
        let tls = Box::new(made.map_err(TlsError::from)?);
        let mut handshake = Self { tls, heard: false };
        handshake.flush(socket)?;
        Ok(handshake)
    }

    /// Goes as far as what has come allows; true when there is trust.
    pub(crate) fn advance(&mut self, socket: BorrowedFd<'_>) -> Result<bool, HandshakeError> {
        let mut buffer = [0; AT_ONCE];
        while self.tls.is_handshaking() {
            self.flush(socket)?;
            let count = match stream::receive_now(socket, &mut buffer) {
                Ok(0) if self.heard => return Err(TlsError::Cut.into()),
                Ok(0) => return Err(HandshakeError::Gone),
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(false),
                    io::ErrorKind::Interrupted => continue,
                    _ => return Err(HandshakeError::Gone),
                },
            };
            self.heard = true;
            self.take(socket, &buffer[..count])?;
        }
        Ok(true)
    }

    fn take(&mut self, socket: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), HandshakeError> {
        while !bytes.is_empty() {
            let before = bytes.len();
            self.tls.read_tls(&mut bytes).map_err(|_| HandshakeError::Gone)?;
            if let Err(error) = self.tls.process_new_packets() {
                // The other end is told why, if it is still there.
                let _ = self.flush(socket);
                return Err(TlsError::from(error).into());
            }
            if bytes.len() == before {
                return Err(TlsError::Broken { why: "it said farewell at once".into() }.into());
            }
        }
        Ok(())
    }

    fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), HandshakeError> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Wire(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The tunnel sends what is left; before that, the other end is late.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(HandshakeError::Gone),
            }
        }
        Ok(())
    }

    /// Lets the socket be carried by the thread for that, and puts the plain end into its place.
    pub(crate) fn exchange(self, socket: &mut OwnedFd) -> Result<Cause, HandshakeError> {
        let (plain, end) = stream::stream_pair().map_err(no_tunnel)?;
        stream::set_blocking(end.as_fd(), false).map_err(no_tunnel)?;
        let encrypted = std::mem::replace(socket, plain);
        pump::carry(self.tls, encrypted, end).map_err(no_tunnel)
    }

    /// Tells a client that was silent for too long what is spoken here, if it does not know.
    pub(crate) fn turn_away(&self, socket: BorrowedFd<'_>) {
        if !self.heard {
            // It may be gone.
            let _ = stream::send_now(socket, ALERT);
        }
    }
}

impl std::fmt::Debug for TlsHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsHandshake").field("heard", &self.heard).finish_non_exhaustive()
    }
}

fn no_tunnel(error: io::Error) -> HandshakeError {
    TlsError::Broken { why: format!("there is nobody to carry it: {error}") }.into()
}

/// Who must listen at an address of which nothing else was said.
fn name_of(address: &Address) -> Result<ServerName<'static>, TlsError> {
    match address {
        Address::Tcp(address) => Ok(address.ip().into()),
        other => Err(TlsError::NoName { name: other.to_string() }),
    }
}

impl From<TlsError> for HandshakeError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}
