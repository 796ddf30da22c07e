//! Descriptors and connections inside messages and arguments.
//!
//! What is serialized is a ticket: where the process that has the descriptor can be asked for it,
//! under which number, and a secret that only the readers of the message know. See `sharer.rs`.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::connection::address::Address;
use crate::channel::connection::bytes::ByteConnection;
use crate::channel::connection::error::EndpointError;
use crate::channel::connection::listener::PATIENCE;
use crate::channel::connection::sharer::{self, Redeem, RedeemError, Secret};
use crate::channel::connection::typed::Connection;
use crate::shm;
use crate::sys::fd;

/// A descriptor that can be sent to another process of the tree: as an argument, in a queue, or
/// through a pipe.
///
/// Serializing it makes a copy that waits in this process, and deserializing it fetches that copy,
/// once; this one stays open, so drop it if the other process is to be the only one that has it.
/// The process must live until then. If it does not, or the copy was fetched before, deserializing
/// fails with the reason; it blocks for at most 20 s. A copy that nobody fetches is kept until
/// [`stop_sharing`](super::stop_sharing), or the end of the process.
///
/// [`ByteConnection`] and [`Connection`] are sent in the same way.
///
/// # Examples
///
/// ```
/// use std::fs::File;
/// use std::io::Read;
/// use std::os::fd::OwnedFd;
/// use procession::channel::connection::Fd;
///
/// fn length(fd: Fd) -> usize {
///     let mut text = String::new();
///     File::from(OwnedFd::from(fd)).read_to_string(&mut text).unwrap()
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     procession::init();
///     let file = File::open("/proc/self/status")?;
///     assert!(procession::spawn(length, Fd::from(OwnedFd::from(file)))?.join()? > 0);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Fd(OwnedFd);

impl From<OwnedFd> for Fd {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Fd> for OwnedFd {
    fn from(fd: Fd) -> Self {
        fd.0
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Takes over a descriptor that is known by its number only; `exec` closes it from now on.
///
/// For bindings to languages in which descriptors are numbers. A program in Rust has an [`OwnedFd`],
/// and needs no number. The program gives the descriptor away: nobody may use or close it any more.
/// A number that belongs to somebody else is a fault of the program that passes it, as it is in
/// those languages to call `close` once too often: descriptors get mixed up. No memory of this crate
/// depends on one, and the number is checked, so this is no `unsafe` function; standard input,
/// output and error, which all of a program shares, are taken like any other.
///
/// # Errors
///
/// `EBADF` when no such descriptor is open.
#[doc(hidden)]
pub fn adopt_number(number: RawFd) -> io::Result<OwnedFd> {
    fd::adopt_given(number)
}

thread_local! {
    /// Why a descriptor, connection or proxy was last refused on this thread: postcard keeps no text.
    static REASON: Cell<Option<String>> = const { Cell::new(None) };
}

/// The text of an error of postcard, with the reason if that was a descriptor or the like.
pub(crate) fn text_of_postcard(error: &postcard::Error) -> String {
    let custom = matches!(error, postcard::Error::SerdeSerCustom | postcard::Error::SerdeDeCustom);
    let reason = if custom { REASON.take() } else { None };
    reason.unwrap_or_else(|| error.to_string())
}

/// Notes a reason for [`text_of_postcard`], and returns it for other formats.
pub(crate) fn noted(reason: String) -> String {
    REASON.set(Some(reason.clone()));
    reason
}

/// What stands for a descriptor in a message.
#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    /// The abstract name of the socket at which the descriptor is to be had.
    name: Vec<u8>,
    number: u64,
    secret: Secret,
}

/// Why a descriptor cannot go into what is being serialized.
#[derive(Debug)]
enum Refusal {
    Outside,
    Copy(io::Error),
    Share(EndpointError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str(
                "a descriptor can be sent through queues and pipes, and as an argument of a \
                 process, and be serialized nowhere else",
            ),
            Self::Copy(error) => write!(f, "the descriptor cannot be copied: {error}"),
            Self::Share(error) => write!(f, "the descriptor cannot be shared: {error}"),
        }
    }
}

impl Ticket {
    fn for_copy_of(descriptor: BorrowedFd<'_>) -> Result<Self, Refusal> {
        if !shm::is_packing() {
            return Err(Refusal::Outside);
        }
        let copy = descriptor.try_clone_to_owned().map_err(Refusal::Copy)?;
        let (address, number, secret) =
            sharer::share_by_secret(copy, number_in).map_err(Refusal::Share)?;
        let Address::Abstract(name) = address else { return Err(Refusal::Outside) };
        Ok(Self { name, number, secret })
    }

    fn redeem(self) -> Result<OwnedFd, RedeemError> {
        let address = Address::Abstract(self.name);
        let number = self.number.to_le_bytes();
        let mut redeem = Redeem::start(&address, &self.secret, &number, PATIENCE)?;
        loop {
            match redeem.finish() {
                Err(RedeemError::Interrupted) => {}
                result => return result,
            }
        }
    }
}

/// The request of one of these.
fn number_in(request: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(request.try_into().ok()?))
}

fn text_of(error: &RedeemError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Serialize for Fd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Ticket::for_copy_of(self.as_fd())
            .map_err(|refusal| S::Error::custom(noted(refusal.to_string())))?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ticket = Ticket::deserialize(deserializer)?;
        ticket.redeem().map(Self).map_err(|error| D::Error::custom(noted(text_of(&error))))
    }
}

/// As [`Fd`]. Bytes that were received here and not read are not sent along.
impl Serialize for ByteConnection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ticket = Ticket::for_copy_of(self.as_fd())
            .map_err(|refusal| S::Error::custom(noted(refusal.to_string())))?;
        (ticket, self.receives(), self.sends()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ByteConnection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (ticket, receives, sends) = <(Ticket, bool, bool)>::deserialize(deserializer)?;
        let descriptor =
            ticket.redeem().map_err(|error| D::Error::custom(noted(text_of(&error))))?;
        Ok(Self::with(descriptor, receives, sends))
    }
}

/// As [`Fd`].
impl<S, R> Serialize for Connection<S, R> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        self.bytes().serialize(serializer)
    }
}

impl<'de, S, R> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ByteConnection::deserialize(deserializer).map(Self::from)
    }
}
