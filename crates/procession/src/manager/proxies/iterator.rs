//! Iterators.

use serde::de::DeserializeOwned;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::list::unless;
use crate::manager::proxies::proxy_type;

proxy_type! {
    /// An iterator or generator in a manager, which gives items of type `T`.
    ///
    /// Each item is a call. Several proxies for one iterator share its items between them.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::manager::Manager;
    ///
    /// let server = Manager::builder().serve(|_registry| {})?;
    /// let manager = server.connect()?;
    /// let numbers = manager.dict::<u8, bool>()?;
    /// numbers.insert(&1, &true)?;
    /// numbers.insert(&2, &false)?;
    /// let keys = numbers.iter()?.collect::<Result<Vec<u8>, _>>()?;
    /// assert_eq!(keys, [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    IteratorProxy<T>
}

impl<T: DeserializeOwned> Iterator for IteratorProxy<T> {
    type Item = Result<T, CallFailed>;

    fn next(&mut self) -> Option<Self::Item> {
        unless(self.proxy.call("__next__", ()), "StopIteration").transpose()
    }
}
