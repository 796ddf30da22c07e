//! Atomics of the standard library in shared memory.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{self, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::shm::{ArenaError, Shared, ShmSafe};

/// An atomic of the standard library in shared memory.
///
/// Clones, and copies sent to other processes in a message or as an argument, are the same atomic.
/// It needs no lock, and a process that is killed leaves it as one of its operations did.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use procession::memory::Atomic;
///
/// let hits: Atomic<AtomicU64> = Atomic::new(40)?;
/// hits.clone().fetch_add(2, Ordering::Relaxed);
/// assert_eq!(hits.load(Ordering::Relaxed), 42);
/// # Ok::<(), procession::shm::ArenaError>(())
/// ```
pub struct Atomic<A: AtomicWord>(Shared<A>);

/// The atomics that [`Atomic`] can hold: those of numbers, whose every bit pattern is a value.
#[expect(private_bounds, reason = "nobody else can promise what `ShmSafe` asks for")]
pub trait AtomicWord: ShmSafe {
    /// What it holds.
    type Value: Copy;

    #[doc(hidden)]
    fn set(&self, value: Self::Value);
}

macro_rules! atomic_words {
    ($($atomic:ident of $value:ty, $tag:literal;)+) => {$(
        // SAFETY: one atomic number with a fixed layout: every bit pattern is a value of it, and
        // its methods are made for others that change it at the same time.
        unsafe impl ShmSafe for atomic::$atomic {
            const TAG: u32 = u32::from_le_bytes(*$tag);
        }

        impl AtomicWord for atomic::$atomic {
            type Value = $value;

            fn set(&self, value: $value) {
                self.store(value, Ordering::SeqCst);
            }
        }
    )+};
}

atomic_words! {
    AtomicU8 of u8, b"atu1";
    AtomicI8 of i8, b"ati1";
    AtomicU16 of u16, b"atu2";
    AtomicI16 of i16, b"ati2";
    AtomicU32 of u32, b"atu4";
    AtomicI32 of i32, b"ati4";
    AtomicU64 of u64, b"atu8";
    AtomicI64 of i64, b"ati8";
    AtomicUsize of usize, b"atus";
    AtomicIsize of isize, b"atis";
}

impl<A: AtomicWord> Atomic<A> {
    /// Makes an atomic.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new(value: A::Value) -> Result<Self, ArenaError> {
        Shared::new(|atomic: &A| atomic.set(value)).map(Self)
    }
}

impl<A: AtomicWord> Deref for Atomic<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.0
    }
}

impl<A: AtomicWord> Clone for Atomic<A> {
    /// Another handle to the same atomic.
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: AtomicWord + fmt::Debug> fmt::Debug for Atomic<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Atomic").field(&**self).finish()
    }
}

impl<A: AtomicWord> Serialize for Atomic<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, A: AtomicWord> Deserialize<'de> for Atomic<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Shared::deserialize(deserializer).map(Self)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn atomic_is_not_opened_as_one_of_another_type() {
        let atomic: Atomic<atomic::AtomicU64> = Atomic::new(7).unwrap();
        let (bytes, _pins) = crate::shm::pack(|| postcard::to_allocvec(&atomic).unwrap());
        assert!(postcard::from_bytes::<Atomic<atomic::AtomicI64>>(&bytes).is_err());
        let same: Atomic<atomic::AtomicU64> = postcard::from_bytes(&bytes).unwrap();
        same.fetch_add(1, Ordering::SeqCst);
        assert_eq!(atomic.load(Ordering::SeqCst), 8);
    }
}
