//! What can go wrong with a pickle.

use std::fmt;

use serde::{de, ser};

use crate::pickle::MAX_DEPTH;

/// Why a value was not written as a pickle, or not read from one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no pickle, or only a part of one.
    Malformed {
        /// Where, in bytes from the beginning.
        at: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The pickle uses what needs more than the pickle to be understood.
    Unsupported {
        /// Where, in bytes from the beginning.
        at: usize,
        /// What that is.
        what: &'static str,
    },
    /// A `str` has a surrogate alone, which no text of Rust can hold. Python can replace it by
    /// `text.encode(errors='replace')`, or send `text.encode(errors='surrogateescape')` as `bytes`.
    Surrogate {
        /// Where the text is, in bytes from the beginning.
        at: usize,
    },
    /// The value contains itself.
    Recursive,
    /// The value is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// An `int` has more than 2 GiB, for which protocol 4 has no instruction.
    TooLarge,
    /// Copies of what the pickle refers to several times take more memory than
    /// [`MAX_COPIED`](crate::pickle::MAX_COPIED) allows.
    TooManyCopies,
    /// The value of the one language is none of the type in the other; in serde's words.
    Mismatch(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { at, problem } => write!(f, "not a pickle: {problem} at byte {at}"),
            Self::Unsupported { at, what } => {
                write!(f, "the pickle has {what} at byte {at}, which only Python can resolve")
            }
            Self::Surrogate { at } => write!(
                f,
                "the str at byte {at} has a surrogate alone, which no text in Rust can hold; \
                 send it as bytes"
            ),
            Self::Recursive => f.write_str("the value contains itself"),
            Self::TooDeep => write!(f, "the value is nested deeper than {MAX_DEPTH} levels"),
            Self::TooLarge => f.write_str("an int of more than 2 GiB cannot be written"),
            Self::TooManyCopies => f.write_str(
                "the pickle refers to the same things so often that copies of them would take \
                 too much memory; send them in several messages",
            ),
            Self::Mismatch(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Mismatch(message.to_string())
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Mismatch(message.to_string())
    }
}
