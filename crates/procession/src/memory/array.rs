//! A slice of values of a plain type.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use serde::{Deserialize, Deserializer};

use crate::memory::error::{LockResult, OwnerDied};
use crate::shm::{ArenaError, Guarded, GuardedBytes, typed_handle};

/// Values of a plain type next to each other in shared memory, behind one lock.
///
/// The length stays as it was made. Clones, and copies sent to other processes in a message or as
/// an argument, are the same array. The lock is not recursive: taking it while this thread holds
/// it blocks for ever.
///
/// # Examples
///
/// ```
/// use procession::memory::Array;
///
/// let squares: Array<u64> = Array::new(4)?;
/// squares.with_lock(|slots| {
///     for (number, slot) in (0..).zip(slots) {
///         *slot = number * number;
///     }
/// })?;
/// assert_eq!(squares.with_lock(|slots| slots.to_vec())?, [0, 1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Array<T> {
    bytes: Guarded,
    values: PhantomData<fn(T) -> T>,
}

impl<T: Pod> Array<T> {
    const PLACEABLE: () = {
        assert!(align_of::<T>() <= 64, "aligned to more than shared memory is");
        assert!(size_of::<T>() > 0, "an array of nothing");
    };

    /// Makes an array of `len` values whose bytes are all zero.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new(len: usize) -> Result<Self, ArenaError> {
        const { Self::PLACEABLE };
        let size = len.saturating_mul(size_of::<T>());
        Ok(Self { bytes: Guarded::new(size)?, values: PhantomData })
    }

    /// Makes an array of copies of these values.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn from_slice(values: &[T]) -> Result<Self, ArenaError> {
        let made = Self::new(values.len())?;
        made.lock().unwrap_or_else(OwnerDied::into_inner).copy_from_slice(values);
        Ok(made)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.bytes.len() / size_of::<T>()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the lock and gives access to the values until the guard is dropped.
    ///
    /// Blocks while another thread or process holds the lock; a signal does not end the wait. The
    /// death of the holder is noticed within about 200 ms.
    ///
    /// # Errors
    ///
    /// [`OwnerDied`] with the guard inside when the holder was killed.
    pub fn lock(&self) -> LockResult<ArrayGuard<'_, T>> {
        ArrayGuard::of(self.bytes.lock())
    }

    /// Takes the lock if nobody holds it; `None` if somebody does, living or dead.
    pub fn try_lock(&self) -> Option<LockResult<ArrayGuard<'_, T>>> {
        self.bytes.try_lock().map(ArrayGuard::of)
    }

    /// Calls `change` with the lock held; blocks like [`lock`](Self::lock).
    ///
    /// # Errors
    ///
    /// [`OwnerDied`] when the holder was killed. `change` was not called then, and nobody is told
    /// again.
    pub fn with_lock<R>(&self, change: impl FnOnce(&mut [T]) -> R) -> Result<R, OwnerDied<()>> {
        match self.lock() {
            Ok(mut guard) => Ok(change(&mut guard)),
            Err(died) => Err(OwnerDied::new((), died.owner())),
        }
    }
}

typed_handle!(Array<T>, bytes, values);

impl<'de, T: Pod> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const { Self::PLACEABLE };
        let bytes = Guarded::deserialize(deserializer)?;
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(serde::de::Error::invalid_length(bytes.len(), &"values of this type"));
        }
        Ok(Self { bytes, values: PhantomData })
    }
}

/// Access to the values of an [`Array`]; lets go of the lock when it is dropped.
pub struct ArrayGuard<'a, T> {
    bytes: GuardedBytes<'a>,
    values: PhantomData<&'a mut [T]>,
}

impl<'a, T> ArrayGuard<'a, T> {
    fn of(bytes: GuardedBytes<'a>) -> LockResult<Self> {
        let owner_died = bytes.owner_died();
        let guard = Self { bytes, values: PhantomData };
        match owner_died {
            None => Ok(guard),
            Some(owner) => Err(OwnerDied::new(guard, owner)),
        }
    }
}

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.bytes)
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.bytes)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArrayGuard").field(&&**self).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn array_is_zeroed_or_what_it_was_given() {
        assert_eq!(*Array::<u64>::new(3).unwrap().lock().unwrap(), [0; 3]);
        assert_eq!(*Array::from_slice(&[1.5, -2.0]).unwrap().lock().unwrap(), [1.5, -2.0]);
        assert!(Array::<u16>::new(0).unwrap().is_empty());
    }

    #[test]
    fn large_array_keeps_its_values() {
        let numbers: Vec<u32> = (0..100_000).collect();
        let array = Array::from_slice(&numbers).unwrap();
        assert_eq!(array.len(), numbers.len());
        array.clone().with_lock(|slots| slots.reverse()).unwrap();
        assert!(array.lock().unwrap().iter().copied().eq((0..100_000).rev()));
    }

    #[test]
    fn array_that_does_not_fit_is_refused() {
        for len in [usize::MAX, usize::MAX / 8, 1 << 50] {
            assert!(matches!(Array::<u64>::new(len), Err(ArenaError::OutOfMemory { .. })), "{len}");
        }
    }

    #[test]
    fn array_of_values_that_do_not_divide_it_is_refused() {
        let array = Array::<u32>::new(3).unwrap();
        let (bytes, _pins) = crate::shm::pack(|| postcard::to_allocvec(&array).unwrap());
        assert!(postcard::from_bytes::<Array<u64>>(&bytes).is_err());
        assert_eq!(postcard::from_bytes::<Array<u16>>(&bytes).unwrap().len(), 6);
    }
}
