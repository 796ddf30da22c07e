//! Lists.

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::manager::failed::CallFailed;
use crate::manager::proxies::proxy_type;

proxy_type! {
    /// A list in a manager, with items of type `T`.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let numbers = manager.list::<u32>()?;
    /// numbers.extend(&[1, 2, 3])?;
    /// assert_eq!(numbers.pop()?, Some(3));
    /// assert_eq!(numbers.get(7)?, None);
    /// assert_eq!(numbers.snapshot()?, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ListProxy<T>
}

impl<T: Serialize> ListProxy<T> {
    /// Appends an item.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call), as are those of all methods.
    pub fn push(&self, item: &T) -> Result<(), CallFailed> {
        self.proxy.call("append", (item,))
    }

    /// Appends several items, all at once for whoever looks.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn extend(&self, items: &[T]) -> Result<(), CallFailed> {
        self.proxy.call("extend", (items,))
    }

    /// Inserts an item before the one at `index`, or at the end if there is none.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn insert(&self, index: usize, item: &T) -> Result<(), CallFailed> {
        self.proxy.call("insert", (index, item))
    }

    /// Puts an item in the place of the one at `index`; false if there is none.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn set(&self, index: usize, item: &T) -> Result<bool, CallFailed> {
        let set = self.proxy.call::<_, ()>("__setitem__", (index, item));
        Ok(unless(set, "IndexError")?.is_some())
    }

    /// Whether some item is equal to this one.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn contains(&self, item: &T) -> Result<bool, CallFailed> {
        self.proxy.call("__contains__", (item,))
    }

    /// How many items are equal to this one.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn count(&self, item: &T) -> Result<usize, CallFailed> {
        self.proxy.call("count", (item,))
    }

    /// Where the first item is that is equal to this one.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn index(&self, item: &T) -> Result<Option<usize>, CallFailed> {
        unless(self.proxy.call("index", (item,)), "ValueError")
    }
}

impl<T: DeserializeOwned> ListProxy<T> {
    /// The item at `index`, if there is one.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn get(&self, index: usize) -> Result<Option<T>, CallFailed> {
        unless(self.proxy.call("__getitem__", (index,)), "IndexError")
    }

    /// Takes the last item out.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn pop(&self) -> Result<Option<T>, CallFailed> {
        unless(self.proxy.call("pop", ()), "IndexError")
    }

    /// Takes the item at `index` out, if there is one.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn remove(&self, index: usize) -> Result<Option<T>, CallFailed> {
        unless(self.proxy.call("pop", (index,)), "IndexError")
    }

    /// A copy of the list.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn snapshot(&self) -> Result<Vec<T>, CallFailed> {
        self.proxy.call("#GETVALUE", ())
    }
}

impl<T> ListProxy<T> {
    /// How many items there are.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn len(&self) -> Result<usize, CallFailed> {
        self.proxy.call("__len__", ())
    }

    /// Whether there is no item.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn is_empty(&self) -> Result<bool, CallFailed> {
        Ok(self.len()? == 0)
    }

    /// Turns the order of the items round.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn reverse(&self) -> Result<(), CallFailed> {
        self.proxy.call("reverse", ())
    }

    /// Sorts the items, as Python compares them.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn sort(&self) -> Result<(), CallFailed> {
        self.proxy.call("sort", ())
    }

    /// Takes all items out.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn clear(&self) -> Result<(), CallFailed> {
        // Lists of Python before 3.14 have no `clear` for proxies.
        self.proxy.call::<_, IgnoredAny>("__imul__", (0,)).map(drop)
    }
}

/// `None` where the method raised an exception of this class.
pub(super) fn unless<T>(
    result: Result<T, CallFailed>,
    class: &str,
) -> Result<Option<T>, CallFailed> {
    match result {
        Err(failed) if failed.is(class) => Ok(None),
        result => result.map(Some),
    }
}
