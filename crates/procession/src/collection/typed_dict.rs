//! The dict of typed values.

use std::borrow::Borrow;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::collection::dict::ByteDict;
use crate::collection::dict::key::{Change, Key, NewKey, StoredKey};
use crate::collection::error::CollectionError;
use crate::collection::item::{Content, Item};
use crate::shm::{Pins, pack, typed_handle};

/// A dictionary of values of type `V` under keys of type `K`, for any process of the tree.
///
/// Keys and values are serialized with serde. Two keys are the same if their serialized forms are.
/// Values may contain shared objects: queues, other dicts. The order is that of insertion: a value
/// that is replaced keeps its place, a key that was removed and put in again goes to the end.
///
/// Each call is one step for all other processes, and a process that is killed at any moment has made
/// its call or has not. For steps of several calls see [`ByteDict`], on which it is built.
///
/// # Examples
///
/// ```
/// use procession::collection::Dict;
///
/// let ages: Dict<String, u32> = Dict::new()?;
/// ages.insert("Ada", &36)?;
/// ages.extend(&[("Alan".to_owned(), 41), ("Ada".to_owned(), 37)])?;
/// assert_eq!(ages.get("Ada")?, Some(37));
/// assert_eq!(ages.keys()?, ["Ada", "Alan"]);
/// # Ok::<(), procession::collection::CollectionError>(())
/// ```
pub struct Dict<K, V> {
    bytes: ByteDict,
    keys: PhantomData<fn(K) -> K>,
    values: PhantomData<fn(V) -> V>,
}

pub(super) fn serialized<T: Serialize + ?Sized>(
    value: &T,
) -> Result<(Vec<u8>, Pins), CollectionError> {
    let (bytes, pins) = pack(|| postcard::to_allocvec(value));
    let bytes = bytes.map_err(|error| CollectionError::Serialize(error.to_string()))?;
    Ok((bytes, pins))
}

pub(super) fn stored<T: Serialize + ?Sized>(value: &T) -> Result<Item, CollectionError> {
    let (bytes, pins) = serialized(value)?;
    Ok(Item::new(&[&bytes], &pins)?)
}

pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CollectionError> {
    postcard::from_bytes(bytes).map_err(|error| CollectionError::Deserialize(error.to_string()))
}

impl<K, V> Dict<K, V> {
    /// Makes an empty dict.
    ///
    /// # Errors
    ///
    /// [`CollectionError::Arena`] when there is no shared memory for it.
    pub fn new() -> Result<Self, CollectionError> {
        Ok(Self { bytes: ByteDict::new()?, keys: PhantomData, values: PhantomData })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.bytes.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all keys, in one step.
    ///
    /// # Errors
    ///
    /// [`CollectionError::Arena`] when shared memory is damaged.
    pub fn clear(&self) -> Result<(), CollectionError> {
        Ok(self.bytes.lock().clear()?)
    }

    /// Whether two handles are of the same dict.
    pub fn is_same(&self, other: &Self) -> bool {
        self.bytes.is_same(&other.bytes)
    }

    /// Calls `f` with the bytes of a key, which name no shared object.
    fn with_key<Q: Serialize + ?Sized, R>(
        key: &Q,
        f: impl FnOnce(Key<'_>) -> R,
    ) -> Result<R, CollectionError> {
        let (bytes, _) = serialized(key)?;
        Ok(f(Key::Bytes(&bytes)))
    }
}

impl<K: Serialize, V: Serialize> Dict<K, V> {
    /// Puts a value in, in place of the one that is under the key, if there is one.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; nothing has changed then.
    pub fn insert<Q: Serialize + ?Sized>(&self, key: &Q, value: &V) -> Result<(), CollectionError>
    where
        K: Borrow<Q>,
    {
        let value = stored(value)?;
        let (bytes, pins) = serialized(key)?;
        let key = NewKey::Bytes { bytes: &bytes, label: &[], pins: &pins };
        self.bytes.lock().insert(&key, value)?;
        Ok(())
    }

    /// Puts several values in, in one step; the last one under a key counts.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; nothing has changed then.
    pub fn extend<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a (K, V)>,
    ) -> Result<(), CollectionError>
    where
        K: 'a,
        V: 'a,
    {
        let mut prepared = Vec::new();
        for (key, value) in entries {
            prepared.push((serialized(key)?, stored(value)?));
        }
        let (keys, values): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        let changes = keys.iter().zip(values).map(|((bytes, pins), value)| Change {
            key: NewKey::Bytes { bytes, label: &[], pins },
            value,
        });
        Ok(self.bytes.lock().extend(changes.collect())?)
    }
}

impl<K: Serialize, V: DeserializeOwned> Dict<K, V> {
    /// The value under a key.
    ///
    /// # Errors
    ///
    /// [`CollectionError`].
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>, CollectionError>
    where
        K: Borrow<Q>,
    {
        value_of(Self::with_key(key, |key| self.bytes.lock().get(key))??)
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    ///
    /// [`CollectionError`].
    pub fn contains_key<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool, CollectionError>
    where
        K: Borrow<Q>,
    {
        Ok(Self::with_key(key, |key| self.bytes.lock().contains(key))??)
    }

    /// Removes a key and returns its value, if it is there.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; a value that is no `V` is gone nevertheless.
    pub fn remove<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>, CollectionError>
    where
        K: Borrow<Q>,
    {
        value_of(Self::with_key(key, |key| self.bytes.lock().take(key))??)
    }
}

fn value_of<V: DeserializeOwned>(content: Option<Content>) -> Result<Option<V>, CollectionError> {
    content.map(|content| read(&content)).transpose()
}

impl<K: DeserializeOwned, V: DeserializeOwned> Dict<K, V> {
    /// All keys, in their order.
    ///
    /// # Errors
    ///
    /// [`CollectionError`].
    pub fn keys(&self) -> Result<Vec<K>, CollectionError> {
        let keys = self.bytes.lock().keys()?;
        keys.iter().map(|key| read(bytes_of(key.key()))).collect()
    }

    /// All keys with their values, as they were at one moment.
    ///
    /// # Errors
    ///
    /// [`CollectionError`].
    pub fn entries(&self) -> Result<Vec<(K, V)>, CollectionError> {
        let entries = self.bytes.lock().entries()?;
        let pair = |(key, value): &(_, Content)| Ok((typed_key(key)?, read(value)?));
        entries.iter().map(pair).collect()
    }

    /// Removes the last key and returns it with its value.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; what is of other types is gone nevertheless.
    pub fn pop(&self) -> Result<Option<(K, V)>, CollectionError> {
        let popped = self.bytes.lock().pop_last()?;
        popped.map(|(key, value)| Ok((typed_key(&key)?, read(&value)?))).transpose()
    }
}

fn typed_key<K: DeserializeOwned>(key: &StoredKey) -> Result<K, CollectionError> {
    read(bytes_of(key.key()))
}

/// A dict of typed keys has no opaque ones.
fn bytes_of(key: Key<'_>) -> &[u8] {
    match key {
        Key::Bytes(bytes) => bytes,
        Key::Opaque(_) => &[],
    }
}

typed_handle!(Dict<K, V>, bytes: ByteDict, keys, values);
