//! Iterators.

use serde::de::DeserializeOwned;

use crate::manager::failed::CallFailed;
use crate::manager::proxies::list::unless;
use crate::manager::proxies::proxy_type;

proxy_type! {
    /// An iterator or generator in a manager, which gives items of type `T`.
    ///
    /// Each item is a call. Several proxies for one iterator share its items between them.
    IteratorProxy<T>
}

impl<T: DeserializeOwned> Iterator for IteratorProxy<T> {
    type Item = Result<T, CallFailed>;

    fn next(&mut self) -> Option<Self::Item> {
        unless(self.proxy.call("__next__", ()), "StopIteration").transpose()
    }
}
