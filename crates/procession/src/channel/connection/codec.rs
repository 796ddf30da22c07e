//! How values become bytes.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::connection::descriptor::text_of_postcard;
use crate::pickle;

/// How a [`Connection`](super::Connection) writes its values, and reads those of the other end.
///
/// A program may have its own, for peers that speak another language.
///
/// # Examples
///
/// Pickles behind a byte that says of which version of the program they are:
///
/// ```
/// use procession::channel::connection::{Codec, Connection, byte_pipe};
/// use procession::pickle;
/// use serde::{Serialize, de::DeserializeOwned};
///
/// enum Versioned {}
///
/// impl Codec for Versioned {
///     type Error = pickle::Error;
///
///     fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, pickle::Error> {
///         Ok([vec![1], pickle::to_vec(value)?].concat())
///     }
///
///     fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, pickle::Error> {
///         let pickle = bytes.strip_prefix(&[1]);
///         pickle::from_slice(pickle.ok_or(pickle::Error::Mismatch("another version".into()))?)
///     }
/// }
///
/// let (here, there) = byte_pipe()?;
/// let here = Connection::<&str, (), Versioned>::from(here);
/// here.send(&"hello")?;
/// assert_eq!(there.recv()?[0], 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Codec {
    /// What is wrong with a value or with bytes. Its text gets into
    /// [`SendError::Serialize`](super::SendError::Serialize) and
    /// [`RecvError::Deserialize`](super::RecvError::Deserialize).
    type Error: fmt::Display;

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// If the value cannot be written.
    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Self::Error>;

    /// Reads a value. The bytes may come from anywhere.
    ///
    /// # Errors
    ///
    /// If the bytes are no such value.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Self::Error>;
}

/// The codec for programs in Rust with the same types: postcard, which is short and fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Postcard {}

/// The codec for programs in Python: their `send` and `recv`. See [`pickle`] for what
/// becomes of which value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pickle {}

/// Why [`Postcard`] could not write or read a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostcardError(String);

impl fmt::Display for PostcardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PostcardError {}

impl From<postcard::Error> for PostcardError {
    fn from(error: postcard::Error) -> Self {
        Self(text_of_postcard(&error))
    }
}

impl Codec for Postcard {
    type Error = PostcardError;

    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, PostcardError> {
        Ok(postcard::to_allocvec(value)?)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PostcardError> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

impl Codec for Pickle {
    type Error = pickle::Error;

    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, pickle::Error> {
        pickle::to_vec(value)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, pickle::Error> {
        pickle::from_slice(bytes)
    }
}
