//! Dictionaries.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::list::unless;
use crate::manager::proxies::{IteratorProxy, proxy_type};
use crate::manager::proxy::read;
use crate::pickle::{self, Value};

proxy_type! {
    /// A dictionary in a manager, with keys of type `K` and values of type `V`.
    ///
    /// Keys are equal as Python has it: `1`, `1.0` and `True` are one key.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let lengths = manager.dict::<String, usize>()?;
    /// lengths.insert(&"word".to_owned(), &4)?;
    /// assert_eq!(lengths.get(&"word".to_owned())?, Some(4));
    /// assert_eq!(lengths.get(&"other".to_owned())?, None);
    /// assert_eq!(lengths.snapshot()?, [("word".to_owned(), 4)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    DictProxy<K, V>
}

impl<K: Serialize, V: Serialize> DictProxy<K, V> {
    /// Stores a value, in the place of the one that the key had before.
    ///
    /// # Errors
    ///
    /// As [`Proxy::call`](crate::manager::Proxy::call), as are those of all methods.
    pub fn insert(&self, key: &K, value: &V) -> Result<(), CallFailed> {
        self.proxy.call("__setitem__", (key, value))
    }

    /// Stores several values, all at once for whoever looks.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn update<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a K, &'a V)>,
    ) -> Result<(), CallFailed>
    where
        K: 'a,
        V: 'a,
    {
        let written = |(key, value)| Ok((pickle::to_value(key)?, pickle::to_value(value)?));
        let pairs: Result<Vec<_>, pickle::Error> = pairs.into_iter().map(written).collect();
        let pairs = pairs.map_err(|source| CallFailed::Encode { source })?;
        self.proxy.call("update", (Value::Dict(pairs),))
    }
}

impl<K: Serialize, V: Serialize + DeserializeOwned> DictProxy<K, V> {
    /// Returns the value of a key, which is `default` from now on if it had none.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn setdefault(&self, key: &K, default: &V) -> Result<V, CallFailed> {
        self.proxy.call("setdefault", (key, default))
    }
}

impl<K: Serialize, V> DictProxy<K, V> {
    /// Whether the key has a value.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn contains_key(&self, key: &K) -> Result<bool, CallFailed> {
        self.proxy.call("__contains__", (key,))
    }
}

impl<K: Serialize, V: DeserializeOwned> DictProxy<K, V> {
    /// The value of a key, if it has one.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn get(&self, key: &K) -> Result<Option<V>, CallFailed> {
        unless(self.proxy.call("__getitem__", (key,)), "KeyError")
    }

    /// Takes a key and its value out, and returns the value if there was one.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn remove(&self, key: &K) -> Result<Option<V>, CallFailed> {
        unless(self.proxy.call("pop", (key,)), "KeyError")
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> DictProxy<K, V> {
    /// Takes out the key that came last, and its value.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn popitem(&self) -> Result<Option<(K, V)>, CallFailed> {
        unless(self.proxy.call("popitem", ()), "KeyError")
    }

    /// All keys and their values, in the order in which the keys came.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn items(&self) -> Result<Vec<(K, V)>, CallFailed> {
        self.proxy.call("items", ())
    }

    /// A copy of the dictionary, in the order in which the keys came; collect it into a map if that
    /// is what is needed. The same as [`items`](Self::items), as one value.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert); [`CallFailed::Decode`] if the object is no dictionary.
    pub fn snapshot(&self) -> Result<Vec<(K, V)>, CallFailed> {
        match self.proxy.call("#GETVALUE", ())? {
            Value::Dict(pairs) => {
                pairs.into_iter().map(|(key, value)| Ok((read(key)?, read(value)?))).collect()
            }
            other => read(other),
        }
    }
}

impl<K: DeserializeOwned, V> DictProxy<K, V> {
    /// All keys, in the order in which they came.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn keys(&self) -> Result<Vec<K>, CallFailed> {
        self.proxy.call("keys", ())
    }

    /// An iterator that stays in the server, and ends with an error when keys come or go meanwhile.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn iter(&self) -> Result<IteratorProxy<K>, CallFailed> {
        Ok(self.proxy.call_proxy("__iter__", ())?.into())
    }
}

impl<K, V: DeserializeOwned> DictProxy<K, V> {
    /// All values, in the order of their keys.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn values(&self) -> Result<Vec<V>, CallFailed> {
        self.proxy.call("values", ())
    }
}

impl<K, V> DictProxy<K, V> {
    /// How many keys there are.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn len(&self) -> Result<usize, CallFailed> {
        self.proxy.call("__len__", ())
    }

    /// Whether there is no key.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn is_empty(&self) -> Result<bool, CallFailed> {
        Ok(self.len()? == 0)
    }

    /// Takes all keys out.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn clear(&self) -> Result<(), CallFailed> {
        self.proxy.call("clear", ())
    }
}
