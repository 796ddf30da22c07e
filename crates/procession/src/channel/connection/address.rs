//! Where a listener is.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::channel::connection::error::EndpointError;
use crate::sys::stream::Place;

/// The longest name of a Unix socket, in bytes.
const LONGEST_NAME: usize = 107;

/// Where a listener is: at a TCP port, or under a name on this machine.
///
/// # Examples
///
/// ```
/// use procession::channel::connection::Address;
///
/// let by_name = Address::tcp("localhost", 0)?;
/// assert_eq!(by_name, Address::Tcp("127.0.0.1:0".parse()?));
/// assert_eq!(Address::unix("/run/example").to_string(), "/run/example");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A TCP port; port 0 lets the system choose one.
    Tcp(SocketAddr),
    /// A file of the kind socket.
    Unix(PathBuf),
    /// A name that is no file, and is gone with its listener. Written without its zero byte.
    Abstract(Vec<u8>),
    /// The end of a client, which has no address of its own.
    Unnamed,
}

impl Address {
    /// The address of a port of a host; an IPv4 address if it has one. An empty name stands for
    /// all addresses of this machine. Blocks while the host is looked up.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Unresolved`].
    pub fn tcp(host: &str, port: u16) -> Result<Self, EndpointError> {
        let unresolved = |source| EndpointError::Unresolved { host: host.to_owned(), source };
        let host_name = if host.is_empty() { "0.0.0.0" } else { host };
        let found: Vec<_> = (host_name, port).to_socket_addrs().map_err(unresolved)?.collect();
        let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
        first.map(|address| Self::Tcp(*address)).ok_or_else(|| {
            unresolved(io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
        })
    }

    /// The address of a socket file.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::Unix(path.as_ref().to_owned())
    }

    pub(super) fn place(&self) -> Result<Place, EndpointError> {
        let fitting = |name: &[u8], limit| {
            if name.len() > limit {
                return Err(EndpointError::TooLong { address: self.clone(), limit });
            }
            Ok(name.to_vec())
        };
        Ok(match self {
            Self::Tcp(address) => Place::Tcp(*address),
            Self::Unix(path) => Place::File(fitting(path.as_os_str().as_bytes(), LONGEST_NAME)?),
            Self::Abstract(name) => Place::Abstract(fitting(name, LONGEST_NAME)?),
            Self::Unnamed => Place::Unnamed,
        })
    }

    /// Says what went wrong with this address.
    pub(super) fn failed(&self, call: &'static str, source: io::Error) -> EndpointError {
        let address = self.clone();
        match source.kind() {
            io::ErrorKind::Interrupted => EndpointError::Interrupted,
            io::ErrorKind::AddrInUse => EndpointError::InUse { address, source },
            io::ErrorKind::ConnectionRefused => EndpointError::Refused { address, source },
            _ => EndpointError::Os { call, address, source },
        }
    }
}

impl From<Place> for Address {
    fn from(place: Place) -> Self {
        match place {
            Place::Tcp(address) => Self::Tcp(address),
            Place::File(path) => Self::Unix(std::ffi::OsString::from_vec(path).into()),
            Place::Abstract(name) => Self::Abstract(name),
            Place::Unnamed => Self::Unnamed,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", OsStr::from_bytes(name).display()),
            Self::Unnamed => f.write_str("a socket without a name"),
        }
    }
}
