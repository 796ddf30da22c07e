//! Fetching a descriptor from the process that shares it.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::channel::connection::address::Address;
use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::client::{Client, Connecting};
use crate::channel::connection::error::{EndpointError, HandshakeError, RecvError, SendError};
use crate::channel::connection::listener::PATIENCE;
use crate::sys::stream;

/// The byte that acknowledges a descriptor.
const ACKNOWLEDGEMENT: &[u8] = b"A";

/// Why a descriptor was not to be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum RedeemError {
    /// The process that shared it has died, or has stopped sharing.
    Gone {
        /// Where it was to be had.
        address: Address,
    },
    /// It was fetched before, or has been withdrawn.
    Withdrawn {
        /// Where it was to be had.
        address: Address,
    },
    /// The process that shared it did not answer in time.
    TimedOut {
        /// Where it was to be had.
        address: Address,
    },
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// The process that shared it could not be asked: it has another key, for example.
    Endpoint(EndpointError),
    /// Something else than one descriptor came, or no more descriptors can be open here.
    Descriptor(RecvError),
}

impl fmt::Display for RedeemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone { address } => write!(
                f,
                "the process that shared the descriptor has died or does not share it any more: \
                 nobody listens at {address}"
            ),
            Self::Withdrawn { address } => write!(
                f,
                "the descriptor is not to be had at {address}: it was fetched before, which can be \
                 done once, or the process that shared it has just died"
            ),
            Self::TimedOut { address } => write!(
                f,
                "the process that shared the descriptor did not answer at {address} within {} s",
                PATIENCE.as_secs()
            ),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Endpoint(_) => f.write_str("cannot ask for the descriptor"),
            Self::Descriptor(_) => f.write_str("cannot receive the descriptor"),
        }
    }
}

impl Error for RedeemError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Endpoint(source) => Some(source),
            Self::Descriptor(source) => Some(source),
            _ => None,
        }
    }
}

/// A descriptor that is being fetched from the process that shares it.
#[derive(Debug)]
pub struct Redeem {
    address: Address,
    request: Vec<u8>,
    connecting: Connecting,
    connection: Option<ByteConnection>,
    asked: bool,
    deadline: Option<Instant>,
}

impl Redeem {
    /// Prepares to fetch what was shared with [`share`](super::share), or by Python's
    /// `multiprocessing.resource_sharer`; `request` says what. Does not block.
    ///
    /// # Errors
    ///
    /// [`RedeemError::Endpoint`] when there is no socket to ask with.
    pub fn start(
        address: &Address,
        key: &[u8],
        request: &[u8],
        timeout: Duration,
    ) -> Result<Self, RedeemError> {
        let client = Client::new(address.clone()).key(key).timeout(timeout);
        let connecting = client.start().map_err(RedeemError::Endpoint)?;
        Ok(Self {
            address: address.clone(),
            request: request.to_owned(),
            connecting,
            connection: None,
            asked: false,
            deadline: Instant::now().checked_add(timeout),
        })
    }

    /// Blocks until the descriptor is there, which `exec` closes. To be called again after an
    /// interruption only.
    ///
    /// # Errors
    ///
    /// [`RedeemError`] has one variant for each.
    pub fn finish(&mut self) -> Result<OwnedFd, RedeemError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connecting.finish().map_err(|error| self.not_connected(error))?,
        };
        let connection = self.connection.insert(connection);
        if !self.asked {
            connection.send(&self.request).map_err(|error| not_asked(error, &self.address))?;
            self.asked = true;
        }
        match connection.poll(self.deadline) {
            Ok(true) => {}
            Ok(false) => return Err(RedeemError::TimedOut { address: self.address.clone() }),
            Err(error) => return Err(not_received(error, &self.address)),
        }
        let descriptor =
            connection.recv_descriptor().map_err(|error| not_received(error, &self.address))?;
        // Those who do not expect it have closed their end, or do so without reading it.
        let _ = stream::send_now(connection.as_fd(), ACKNOWLEDGEMENT);
        Ok(descriptor)
    }

    fn not_connected(&self, error: EndpointError) -> RedeemError {
        let address = self.address.clone();
        match error {
            EndpointError::Interrupted => RedeemError::Interrupted,
            EndpointError::Refused { .. } | EndpointError::Handshake(HandshakeError::Gone) => {
                RedeemError::Gone { address }
            }
            EndpointError::TimedOut | EndpointError::Handshake(HandshakeError::TimedOut { .. }) => {
                RedeemError::TimedOut { address }
            }
            other => RedeemError::Endpoint(other),
        }
    }
}

fn not_asked(error: SendError, address: &Address) -> RedeemError {
    match error {
        SendError::Interrupted => RedeemError::Interrupted,
        _ => RedeemError::Withdrawn { address: address.clone() },
    }
}

fn not_received(error: RecvError, address: &Address) -> RedeemError {
    match error {
        RecvError::Interrupted => RedeemError::Interrupted,
        RecvError::EndOfStream => RedeemError::Withdrawn { address: address.clone() },
        // The other end was closed before it had read all.
        RecvError::Os { source } if source.kind() == io::ErrorKind::ConnectionReset => {
            RedeemError::Withdrawn { address: address.clone() }
        }
        other => RedeemError::Descriptor(other),
    }
}
