//! Why a message, or a connection, did not come about.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::channel::connection::Address;
#[cfg(feature = "tls")]
use crate::channel::connection::TlsError;
use crate::channel::connection::turn::TurnError;

/// Why a message was not sent.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// This end is for receiving only.
    ReceiveOnly,
    /// An earlier message was given up in its middle, so the peer would take this one for its rest.
    Torn,
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// This thread is in the middle of another message on this connection: a signal handler, say,
    /// that ran meanwhile. Nothing was sent.
    Reentrant,
    /// The value could not be serialized; the serializer's own words.
    Serialize(String),
    /// The system took no more bytes: `EPIPE` or `ECONNRESET` when the peer has closed or died.
    Os {
        /// What it reported.
        source: io::Error,
    },
}

/// Why no message was received.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer has closed its end or died, and everything it had sent has been received.
    EndOfStream,
    /// The stream ended within a message: the peer died while it sent.
    Truncated {
        /// How many bytes of the message were missing; unknown within a header.
        missing: Option<u64>,
    },
    /// A message is longer than allowed. Nothing more can be received: what follows is its middle.
    TooLong {
        /// Its length, in bytes; for a header that makes no sense, what it says.
        length: u64,
        /// The longest that is allowed, in bytes.
        limit: u64,
    },
    /// There is no memory for a message of this many bytes.
    OutOfMemory {
        /// Its length, in bytes.
        length: u64,
    },
    /// This end is for sending only.
    SendOnly,
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// This thread is in the middle of receiving another message from this connection.
    Reentrant,
    /// The message was received, but is no value of this type; the deserializer's own words.
    Deserialize(String),
    /// Where a descriptor was due, something else came.
    NoDescriptor,
    /// The encrypted connection broke; messages may be missing.
    #[cfg(feature = "tls")]
    Tls(TlsError),
    /// The system gave no bytes.
    Os {
        /// What it reported.
        source: io::Error,
    },
}

/// Why two processes did not come to trust each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer's answer was made with another key.
    WrongKey,
    /// The peer says that our answer was made with another key.
    Rejected,
    /// The peer wants a hash function that is not known here, or too weak a challenge.
    Unsupported {
        /// What it sent.
        message: Vec<u8>,
    },
    /// The peer does not speak this protocol.
    Protocol {
        /// What it sent.
        message: Vec<u8>,
    },
    /// The peer closed its end or died.
    Gone,
    /// There is no trust by TLS.
    #[cfg(feature = "tls")]
    Tls(TlsError),
    /// The peer was silent for too long.
    TimedOut {
        /// How long it was silent.
        after: Duration,
    },
}

/// Why there is no listener, or no connection with one.
#[derive(Debug)]
#[non_exhaustive]
pub enum EndpointError {
    /// The name is longer than the system allows for a Unix socket.
    TooLong {
        /// The address.
        address: Address,
        /// The longest name, in bytes.
        limit: usize,
    },
    /// Somebody listens there already, or a socket file of an earlier program lies there.
    InUse {
        /// The address.
        address: Address,
        /// What the system reported.
        source: io::Error,
    },
    /// Nobody listens there.
    Refused {
        /// The address.
        address: Address,
        /// What the system reported.
        source: io::Error,
    },
    /// The name of the host is not known.
    Unresolved {
        /// The name.
        host: String,
        /// What the system reported.
        source: io::Error,
    },
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
    /// This thread is in the middle of accepting another client.
    Reentrant,
    /// There is a connection, but no trust.
    Handshake(HandshakeError),
    /// Any other failure of the system.
    Os {
        /// The call that failed, such as `"bind"`.
        call: &'static str,
        /// The address.
        address: Address,
        /// What the system reported.
        source: io::Error,
    },
}

impl EndpointError {
    /// The system's number for this failure, such as `ECONNREFUSED`; `None` if it had no part.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::InUse { source, .. } | Self::Refused { source, .. } | Self::Os { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReceiveOnly => f.write_str("connection is read-only"),
            Self::Torn => f.write_str(
                "an earlier message was given up while it was sent; the connection is of no use \
                 for sending any more",
            ),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Reentrant => f.write_str(
                "this thread is in the middle of sending another message on this connection, which \
                 a signal handler has interrupted; it cannot send on it before that is done",
            ),
            Self::Serialize(why) => write!(f, "the value cannot be serialized: {why}"),
            Self::Os { .. } => f.write_str("cannot send to the other end"),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOfStream => f.write_str("the other end is closed, or its process has died"),
            Self::Truncated { missing: Some(missing) } => write!(
                f,
                "got end of file during message: the other end died or closed with {missing} \
                 bytes of it unsent"
            ),
            Self::Truncated { missing: None } => {
                f.write_str("got end of file during message: the other end died or closed in it")
            }
            Self::TooLong { length, limit } => {
                write!(f, "bad message length: {length} bytes, at most {limit} are allowed")
            }
            Self::OutOfMemory { length } => {
                write!(f, "no memory for a message of {length} bytes")
            }
            Self::SendOnly => f.write_str("connection is write-only"),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Reentrant => f.write_str(
                "this thread is in the middle of receiving another message from this connection, \
                 which a signal handler has interrupted; it cannot receive before that is done",
            ),
            Self::Deserialize(why) => write!(f, "the message cannot be deserialized: {why}"),
            Self::NoDescriptor => {
                f.write_str("the other end sent something else than a descriptor")
            }
            #[cfg(feature = "tls")]
            Self::Tls(error) => error.fmt(f),
            Self::Os { .. } => f.write_str("cannot receive from the other end"),
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKey => f.write_str("digest received was wrong: the keys differ"),
            Self::Rejected => f.write_str("digest sent was rejected: the keys differ"),
            Self::Unsupported { message } => write!(
                f,
                "unsupported message length, missing digest prefix, or unsupported digest: \
                 \"{}\"",
                message.escape_ascii()
            ),
            Self::Protocol { message } => write!(
                f,
                "the other end does not speak this protocol: it sent \"{}\"{}",
                message.escape_ascii(),
                if is_tls(message) { ", as who speaks TLS" } else { "" }
            ),
            Self::Gone => f.write_str("the other end is gone"),
            #[cfg(feature = "tls")]
            Self::Tls(error) => error.fmt(f),
            Self::TimedOut { after } => {
                write!(f, "the other end was silent for {} s", after.as_secs_f64())
            }
        }
    }
}

/// Whether this is how a message of TLS begins: an alert or a greeting.
fn is_tls(message: &[u8]) -> bool {
    matches!(message, [21 | 22, 3, ..])
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { address, limit } => {
                write!(f, "AF_UNIX path too long, more than {limit} bytes: {address}")
            }
            Self::InUse { address, .. } => write!(f, "the address {address} is in use"),
            Self::Refused { address, .. } => write!(f, "nobody listens at {address}"),
            Self::Unresolved { host, .. } => write!(f, "the host {host:?} is not known"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Interrupted => f.write_str("interrupted by a signal"),
            Self::Reentrant => f.write_str(
                "this thread is accepting from this listener already, and a signal handler has \
                 interrupted that",
            ),
            Self::Handshake(error) => error.fmt(f),
            Self::Os { call, address, .. } => write!(f, "{call} failed for {address}"),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Os { source } = self { Some(source) } else { None }
    }
}

impl std::error::Error for RecvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Os { source } = self { Some(source) } else { None }
    }
}

impl std::error::Error for HandshakeError {}

impl std::error::Error for EndpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InUse { source, .. }
            | Self::Refused { source, .. }
            | Self::Unresolved { source, .. }
            | Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<io::Error> for SendError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Os { source },
        }
    }
}

impl From<io::Error> for RecvError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::Interrupted => Self::Interrupted,
            _ => Self::Os { source },
        }
    }
}

impl From<HandshakeError> for EndpointError {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<TurnError> for SendError {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::Interrupted => Self::Interrupted,
            TurnError::Mine => Self::Reentrant,
        }
    }
}

impl From<TurnError> for RecvError {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::Interrupted => Self::Interrupted,
            TurnError::Mine => Self::Reentrant,
        }
    }
}

impl From<TurnError> for EndpointError {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::Interrupted => Self::Interrupted,
            TurnError::Mine => Self::Reentrant,
        }
    }
}
