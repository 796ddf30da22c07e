//! Arrays of numbers.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::list::unless;
use crate::manager::proxies::proxy_type;
use crate::manager::proxy::read;
use crate::pickle::{BigInt, Value};

proxy_type! {
    /// An array of numbers in a manager, of a length that does not change.
    ArrayProxy<T>
}

impl<T: DeserializeOwned> ArrayProxy<T> {
    /// The number at `index`, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call), as are those of all methods.
    pub fn get(&self, index: usize) -> Result<Option<T>, CallFailed> {
        unless(self.proxy.call("__getitem__", (index,)), "IndexError")
    }

    /// A copy of all numbers.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`CallFailed::Decode`] also for an array whose type code is not one of
    /// `bBhHiIlLqQfd`.
    pub fn snapshot(&self) -> Result<Vec<T>, CallFailed> {
        let value: Value = self.proxy.call("#GETVALUE", ())?;
        let numbers = match &value {
            Value::Object(array) => match array.arguments.as_slice() {
                [Value::Str(code), Value::Bytes(bytes)] => numbers_of(code, bytes),
                _ => None,
            },
            _ => None,
        };
        match numbers {
            Some(numbers) => numbers.into_iter().map(read).collect(),
            None => read(value),
        }
    }
}

impl<T: Serialize> ArrayProxy<T> {
    /// Puts a number in the place of the one at `index`; false if there is none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); [`CallFailed::Raised`] of the class `OverflowError` when the array's
    /// type is too small for it.
    pub fn set(&self, index: usize, number: &T) -> Result<bool, CallFailed> {
        let set = self.proxy.call::<_, ()>("__setitem__", (index, number));
        Ok(unless(set, "IndexError")?.is_some())
    }
}

impl<T> ArrayProxy<T> {
    /// How many numbers there are.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn len(&self) -> Result<usize, CallFailed> {
        self.proxy.call("__len__", ())
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn is_empty(&self) -> Result<bool, CallFailed> {
        Ok(self.len()? == 0)
    }
}

/// The numbers in an array of this type code, whose bytes are as they lie in memory on the server.
fn numbers_of(code: &str, bytes: &[u8]) -> Option<Vec<Value>> {
    Some(match code {
        "b" => split(bytes, |one| i64::from(i8::from_le_bytes(one)).into()),
        "B" => split(bytes, |one| i64::from(u8::from_le_bytes(one)).into()),
        "h" => split(bytes, |one| i64::from(i16::from_le_bytes(one)).into()),
        "H" => split(bytes, |one| i64::from(u16::from_le_bytes(one)).into()),
        "i" => split(bytes, |one| i64::from(i32::from_le_bytes(one)).into()),
        "I" => split(bytes, |one| i64::from(u32::from_le_bytes(one)).into()),
        "l" | "q" => split(bytes, |one| i64::from_le_bytes(one).into()),
        "L" | "Q" => split(bytes, |one| BigInt::from(u64::from_le_bytes(one)).into()),
        "f" => split(bytes, |one| f64::from(f32::from_le_bytes(one)).into()),
        "d" => split(bytes, |one| f64::from_le_bytes(one).into()),
        _ => return None,
    })
}

fn split<const SIZE: usize>(bytes: &[u8], number: impl Fn([u8; SIZE]) -> Value) -> Vec<Value> {
    bytes.as_chunks::<SIZE>().0.iter().map(|one| number(*one)).collect()
}
