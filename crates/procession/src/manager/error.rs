//! Why a call was not answered.

use std::fmt;
use std::io;

use crate::channel::connection::Address;

/// Why a call of a [`Client`](super::Client) was not answered.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The server closed the connection or died. Whether the call was carried out is not known.
    ServerGone {
        /// Where the server was.
        address: Address,
        /// Its process id.
        pid: u32,
        /// What the system reported; `None` for the end of the stream.
        source: Option<io::Error>,
    },
    /// The server sent what no server sends.
    Protocol {
        /// Where the server is.
        address: Address,
        /// Its process id.
        pid: u32,
    },
    /// A signal handler ran in this thread; call again to go on.
    Interrupted,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerGone { address, pid, .. } => write!(
                f,
                "the manager at {address} (process {pid}) has closed the connection or died"
            ),
            Self::Protocol { address, pid } => {
                write!(f, "the manager at {address} (process {pid}) sent what is no reply")
            }
            Self::Interrupted => f.write_str("interrupted by a signal"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ServerGone { source: Some(source), .. } => Some(source),
            _ => None,
        }
    }
}
