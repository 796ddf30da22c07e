//! One value of a plain type.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use serde::{Deserialize, Deserializer};

use crate::memory::error::{LockResult, OwnerDied};
use crate::shm::{ArenaError, Guarded, GuardedBytes, typed_handle};

/// A value of a plain type in shared memory, behind a lock.
///
/// Clones, and copies sent to other processes in a message or as an argument, are the same value.
/// The lock is not recursive: taking it while this thread holds it blocks for ever.
///
/// # Examples
///
/// ```
/// use procession::memory::Value;
///
/// let point = Value::new([0.0_f64; 2])?;
/// point.with_lock(|[x, y]| {
///     *x += 1.0;
///     *y -= 1.0;
/// })?;
/// assert_eq!(point.get()?, [1.0, -1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Value<T> {
    bytes: Guarded,
    values: PhantomData<fn(T) -> T>,
}

impl<T: Pod> Value<T> {
    const PLACEABLE: () = assert!(align_of::<T>() <= 64, "aligned to more than shared memory is");

    /// Makes a value whose bytes are all zero.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn zeroed() -> Result<Self, ArenaError> {
        const { Self::PLACEABLE };
        Ok(Self { bytes: Guarded::new(size_of::<T>())?, values: PhantomData })
    }

    /// Makes a value.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new(value: T) -> Result<Self, ArenaError> {
        let made = Self::zeroed()?;
        made.set(value);
        Ok(made)
    }

    /// Takes the lock and gives access to the value until the guard is dropped.
    ///
    /// Blocks while another thread or process holds the lock; a signal does not end the wait. The
    /// death of the holder is noticed within about 200 ms.
    ///
    /// # Errors
    ///
    /// [`OwnerDied`] with the guard inside when the holder was killed.
    pub fn lock(&self) -> LockResult<ValueGuard<'_, T>> {
        ValueGuard::of(self.bytes.lock())
    }

    /// Takes the lock if nobody holds it; `None` if somebody does, living or dead.
    pub fn try_lock(&self) -> Option<LockResult<ValueGuard<'_, T>>> {
        self.bytes.try_lock().map(ValueGuard::of)
    }

    /// Calls `change` with the lock held; blocks like [`lock`](Self::lock).
    ///
    /// # Errors
    ///
    /// [`OwnerDied`] when the holder was killed. `change` was not called then, and nobody is told
    /// again.
    pub fn with_lock<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R, OwnerDied<()>> {
        match self.lock() {
            Ok(mut guard) => Ok(change(&mut guard)),
            Err(died) => Err(OwnerDied::new((), died.owner())),
        }
    }

    /// Returns the value; blocks like [`lock`](Self::lock).
    ///
    /// # Errors
    ///
    /// [`OwnerDied`] with the value inside when the holder was killed.
    pub fn get(&self) -> LockResult<T> {
        match self.lock() {
            Ok(guard) => Ok(*guard),
            Err(died) => {
                let owner = died.owner();
                Err(OwnerDied::new(*died.into_inner(), owner))
            }
        }
    }

    /// Replaces the value; blocks like [`lock`](Self::lock). What a killed holder left is gone then.
    pub fn set(&self, value: T) {
        *self.lock().unwrap_or_else(OwnerDied::into_inner) = value;
    }
}

typed_handle!(Value<T>, bytes, values);

impl<'de, T: Pod> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const { Self::PLACEABLE };
        let bytes = Guarded::deserialize(deserializer)?;
        if bytes.len() != size_of::<T>() {
            return Err(serde::de::Error::invalid_length(bytes.len(), &"a value of this type"));
        }
        Ok(Self { bytes, values: PhantomData })
    }
}

/// Access to the value of a [`Value`]; lets go of the lock when it is dropped.
pub struct ValueGuard<'a, T> {
    bytes: GuardedBytes<'a>,
    value: PhantomData<&'a mut T>,
}

impl<'a, T> ValueGuard<'a, T> {
    fn of(bytes: GuardedBytes<'a>) -> LockResult<Self> {
        let owner_died = bytes.owner_died();
        let guard = Self { bytes, value: PhantomData };
        match owner_died {
            None => Ok(guard),
            Some(owner) => Err(OwnerDied::new(guard, owner)),
        }
    }
}

impl<T: Pod> Deref for ValueGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        bytemuck::from_bytes(&self.bytes)
    }
}

impl<T: Pod> DerefMut for ValueGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        bytemuck::from_bytes_mut(&mut self.bytes)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ValueGuard").field(&**self).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn new_value_is_zero_or_what_it_was_given() {
        assert_eq!(Value::<[u16; 3]>::zeroed().unwrap().get().unwrap(), [0; 3]);
        assert_eq!(Value::new(-2.5_f32).unwrap().get().unwrap(), -2.5);
        assert_eq!(Value::new([0_u8; 0]).unwrap().get().unwrap(), []);
    }

    #[test]
    fn clones_are_one_value() {
        let value = Value::new(1_i64).unwrap();
        value.clone().set(2);
        assert_eq!(value.get().unwrap(), 2);
    }

    #[test]
    fn held_value_is_not_to_be_had() {
        let value = Value::new(1_u8).unwrap();
        let guard = value.lock().unwrap();
        assert!(value.try_lock().is_none());
        drop(guard);
        assert_eq!(*value.try_lock().unwrap().unwrap(), 1);
    }

    #[test]
    fn panic_with_the_lock_held_releases_it() {
        let value = Value::new(0_u32).unwrap();
        let panicking = std::panic::AssertUnwindSafe(|| {
            let _: Result<(), _> = value.with_lock(|number| {
                *number = 1;
                panic!("in the middle");
            });
        });
        std::panic::catch_unwind(panicking).unwrap_err();
        assert_eq!(value.get().unwrap(), 1);
    }

    #[test]
    fn threads_exclude_each_other() {
        const ROUNDS: u64 = 5_000;
        let value = Value::new(0_u64).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..ROUNDS).for_each(|_| *value.lock().unwrap() += 1));
            }
        });
        assert_eq!(value.get().unwrap(), 4 * ROUNDS);
    }

    #[test]
    fn value_of_another_size_is_refused() {
        let value = Value::new(1_u32).unwrap();
        let (bytes, _pins) = crate::shm::pack(|| postcard::to_allocvec(&value).unwrap());
        assert!(postcard::from_bytes::<Value<u64>>(&bytes).is_err());
        let same: Value<u32> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(same.get().unwrap(), 1);
    }

    #[test]
    fn value_is_serialized_only_where_something_keeps_it_alive() {
        let value = Value::new(1_u32).unwrap();
        assert!(postcard::to_allocvec(&value).is_err());
    }
}
