//! Pickles: what Python programs send each other, written and read without Python.
//!
//! [`to_vec`] and [`from_slice`] work on any type that has serde's traits; [`Value`] stands for
//! whatever Python sent. The codec `Pickle` of connections is made of them.
//!
//! | file     | what is in it                                                                |
//! |----------|------------------------------------------------------------------------------|
//! | `value`  | values of Python, and instances of its classes                               |
//! | `ser`    | values of Rust to values of Python                                           |
//! | `de`     | values of Python to values of Rust                                           |
//! | `encode` | values to bytes, always protocol 4, which every Python from 3.4 on reads     |
//! | `decode` | bytes to a graph: runs the instructions of a pickle, protocols 0 to 5        |
//! | `input`  | the bytes of a pickle from its first to its last                             |
//! | `graph`  | a graph to a value: resolves shared references                               |
//! | `plain`  | recognizes plain values that older protocols write as calls                  |
//! | `op`     | the instructions                                                             |
//!
//! # What becomes of what
//!
//! | Rust                              | Python                                              |
//! |-----------------------------------|-----------------------------------------------------|
//! | `bool`, integers, floats          | `bool`, `int`, `float`                              |
//! | `char`, `str`                     | `str`                                               |
//! | `()`, unit structs, `Option::None`| `None`                                              |
//! | `Option::Some(x)`, newtypes       | what is in them                                     |
//! | `Vec` and other sequences         | `list`                                              |
//! | bytes, by `serde_bytes` or [`Value::Bytes`] | `bytes`                                   |
//! | tuples, tuple structs             | `tuple`                                             |
//! | maps                              | `dict`                                              |
//! | structs                           | `dict`, its keys the names of the fields            |
//! | `Enum::Unit`                      | `'Unit'`                                            |
//! | `Enum::Newtype(x)`                | `('Newtype', x)`                                    |
//! | `Enum::Tuple(x, y)`               | `('Tuple', x, y)`                                   |
//! | `Enum::Struct { x, y }`           | `('Struct', {'x': x, 'y': y})`                      |
//!
//! In the other direction more is accepted: a `list`, `tuple`, `set`, `frozenset` or `deque` for any
//! sequence, `bytes` and `bytearray` for each other and for sequences of `u8`, an `int` for a
//! float, and for a map or a struct also an `OrderedDict`, a `defaultdict` and an instance whose
//! state is a `dict`, such as that of a dataclass. A surrogate alone in a `str` is an error: no
//! `str` of Rust can hold it.
//!
//! # What a stranger can do with a pickle
//!
//! In Python, loading a pickle calls functions that the pickle names. Here nothing is looked up,
//! nothing is called: a class is two strings, an instance is a [`Value::Object`] that says how Python
//! would make it. Malformed input is an error. What is read takes memory in proportion to the
//! input: lengths are checked against what is there, nesting against [`MAX_DEPTH`], and the copies
//! that stand for shared references against [`MAX_COPIED`]. A value that contains itself is refused.
//!
//! # Examples
//!
//! ```
//! use procession::pickle;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! enum Shape {
//!     Point,
//!     Circle { radius: f64 },
//! }
//!
//! let shapes = vec![Shape::Point, Shape::Circle { radius: 2.0 }];
//! let bytes = pickle::to_vec(&shapes)?; // ['Point', ('Circle', {'radius': 2.0})]
//! assert_eq!(pickle::from_slice::<Vec<Shape>>(&bytes)?, shapes);
//! # Ok::<(), pickle::Error>(())
//! ```

mod de;
mod decode;
mod encode;
mod error;
mod graph;
mod input;
mod op;
mod plain;
mod ser;
#[cfg(all(test, not(loom)))]
mod tests;
mod value;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::Error;
pub use num_bigint::BigInt;
pub use value::{Construct, Global, Object, Value};

/// How deep a value may be nested: deeper ones are neither written nor read.
pub const MAX_DEPTH: usize = 256;

/// Bytes of memory that may go into copies, in one value, of what a pickle has once and refers to
/// several times; and [`COPIED_FOR_EACH_BYTE`] more for each byte of the pickle.
pub const MAX_COPIED: usize = 64 << 20;

/// See [`MAX_COPIED`]. Enough for a short text that is referred to in two bytes.
pub const COPIED_FOR_EACH_BYTE: usize = 64;

/// Writes a value as a pickle of protocol 4.
///
/// Equal values give equal bytes, unless they hold hash maps or hash sets.
///
/// # Errors
///
/// [`Error::TooDeep`]; [`Error::Mismatch`] if the value's own `Serialize` fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    to_value(value)?.to_pickle()
}

/// Reads a value from a pickle of any protocol; the pickle must be all there is in `bytes`.
///
/// # Errors
///
/// [`Error::Mismatch`] when the pickle is fine but no `T`; else as [`Value::from_pickle`].
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    from_value(Value::from_pickle(bytes)?)
}

/// Turns a value of Rust into one of Python.
///
/// # Errors
///
/// [`Error::Mismatch`] if the value's own `Serialize` fails.
///
/// # Examples
///
/// ```
/// use procession::pickle::{Value, to_value};
///
/// let value = to_value(&("pi", 3.25))?;
/// assert_eq!(value, Value::Tuple(vec!["pi".into(), 3.25.into()]));
/// # Ok::<(), procession::pickle::Error>(())
/// ```
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Error> {
    value.serialize(ser::ToValue)
}

/// Turns a value of Python into one of Rust.
///
/// # Errors
///
/// [`Error::Mismatch`] when it is no `T`.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(value)
}
