//! The list of typed values.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::collection::error::CollectionError;
use crate::collection::item::Content;
use crate::collection::list::{ByteList, Element};
use crate::collection::typed_dict::{read, stored};
use crate::shm::typed_handle;

/// A list of values of type `T`, for any process of the tree.
///
/// Values are serialized with serde, and may contain shared objects: queues, other lists. Each call
/// is one step for all other processes, and a process that is killed at any moment has made its call
/// or has not. For steps of several calls see [`ByteList`], on which it is built.
///
/// # Examples
///
/// ```
/// use procession::collection::List;
///
/// let list: List<u32> = List::new()?;
/// list.extend(&[1, 2])?;
/// list.insert(1, &7)?;
/// assert_eq!(list.to_vec()?, [1, 7, 2]);
/// assert_eq!(list.pop()?, Some(2));
/// # Ok::<(), procession::collection::CollectionError>(())
/// ```
pub struct List<T> {
    bytes: ByteList,
    values: PhantomData<fn(T) -> T>,
}

impl<T> List<T> {
    /// Makes an empty list.
    ///
    /// # Errors
    ///
    /// [`CollectionError::Arena`] when there is no shared memory for it.
    pub fn new() -> Result<Self, CollectionError> {
        Ok(Self { bytes: ByteList::new()?, values: PhantomData })
    }

    /// Number of elements.
    ///
    /// # Errors
    ///
    /// [`CollectionError::Arena`] when shared memory is damaged.
    pub fn len(&self) -> Result<usize, CollectionError> {
        Ok(self.bytes.lock().len()?)
    }

    /// Whether there are none.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool, CollectionError> {
        Ok(self.len()? == 0)
    }

    /// Removes all elements, in one step.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn clear(&self) -> Result<(), CollectionError> {
        Ok(self.bytes.lock().clear()?)
    }

    /// Whether two handles are of the same list.
    pub fn is_same(&self, other: &Self) -> bool {
        self.bytes.is_same(&other.bytes)
    }
}

impl<T: Serialize> List<T> {
    /// Adds an element behind the last.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; nothing has changed then.
    pub fn push(&self, value: &T) -> Result<(), CollectionError> {
        let value = stored(value)?;
        Ok(self.bytes.lock().extend(vec![value])?)
    }

    /// Adds elements behind the last, in one step.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; nothing has changed then.
    pub fn extend<'a>(&self, values: impl IntoIterator<Item = &'a T>) -> Result<(), CollectionError>
    where
        T: 'a,
    {
        let values: Vec<_> = values.into_iter().map(stored).collect::<Result<_, _>>()?;
        Ok(self.bytes.lock().extend(values)?)
    }

    /// Replaces the element at a position; false, and nothing happens, if there is none.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; nothing has changed then.
    pub fn set(&self, position: usize, value: &T) -> Result<bool, CollectionError> {
        let value = stored(value)?;
        Ok(self.bytes.lock().set(position, value)?)
    }

    /// Adds an element in front of the one at a position, or behind the last if there is none.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; nothing has changed then.
    pub fn insert(&self, position: usize, value: &T) -> Result<(), CollectionError> {
        let value = stored(value)?;
        let mut list = self.bytes.lock();
        let len = list.len()?;
        let mut elements: Vec<_> = (0..len).map(Element::Kept).collect();
        elements.insert(position.min(len), Element::New(value));
        Ok(list.rearrange(elements)?)
    }
}

impl<T: DeserializeOwned> List<T> {
    /// The element at a position, `None` behind the last.
    ///
    /// # Errors
    ///
    /// [`CollectionError`].
    pub fn get(&self, position: usize) -> Result<Option<T>, CollectionError> {
        value_of(self.bytes.lock().get(position)?)
    }

    /// Removes the element at a position and returns it, `None` behind the last.
    ///
    /// # Errors
    ///
    /// [`CollectionError`]; a value that is no `T` is gone nevertheless.
    pub fn remove(&self, position: usize) -> Result<Option<T>, CollectionError> {
        value_of(self.bytes.lock().take(position)?)
    }

    /// Removes the last element and returns it.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn pop(&self) -> Result<Option<T>, CollectionError> {
        let mut list = self.bytes.lock();
        let Some(last) = list.len()?.checked_sub(1) else { return Ok(None) };
        let content = list.take(last)?;
        drop(list);
        value_of(content)
    }

    /// All elements, as they were at one moment.
    ///
    /// # Errors
    ///
    /// [`CollectionError`].
    pub fn to_vec(&self) -> Result<Vec<T>, CollectionError> {
        let values = self.bytes.lock().values()?;
        values.iter().map(|content| read(content)).collect()
    }
}

fn value_of<T: DeserializeOwned>(content: Option<Content>) -> Result<Option<T>, CollectionError> {
    content.map(|content| read(&content)).transpose()
}

typed_handle!(List<T>, bytes: ByteList, values);
