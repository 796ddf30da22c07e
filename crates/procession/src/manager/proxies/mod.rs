//! Proxies for the kinds of objects that every manager has, with methods of their own.
//!
//! [`RemoteManager`](crate::manager::RemoteManager) makes such objects; for one that the manager has
//! registered under a name of its own, turn the [`Proxy`] into what it is:
//! `let tasks: QueueProxy<Task> = manager.proxy("get_task_queue")?.into();`
//!
//! All values are copies: what is changed in one is to be stored again. Times are measured where the
//! server runs. Calls fail as [`Proxy::call`] says; where a method says nothing else, it blocks until
//! the server has answered, and a signal does not end that.
//!
//! # When a process dies
//!
//! A server of this crate or its Python package releases the locks of a client that was killed, and
//! ends its waiting calls; one of Python's standard library does not notice. When the server dies,
//! every call fails at once.

use std::time::Duration;

use crate::manager::proxy::Proxy;

mod array;
mod barrier;
mod condition;
mod dict;
mod event;
mod iterator;
mod list;
mod lock;
mod namespace;
mod queue;
mod semaphore;

pub use array::ArrayProxy;
pub use barrier::{BarrierProxy, Broken};
pub use condition::{ConditionGuard, ConditionProxy};
pub use dict::DictProxy;
pub use event::EventProxy;
pub use iterator::IteratorProxy;
pub use list::ListProxy;
pub use lock::{LockGuard, LockProxy, RLockGuard, RLockProxy};
pub use namespace::{NamespaceProxy, ValueProxy};
pub use queue::{Empty, Full, JoinableQueueProxy, QueueProxy};
pub use semaphore::SemaphoreProxy;

/// The longest time that Python waits for, in seconds.
const LONGEST: f64 = 9e9;

/// A time as Python has it.
fn seconds(timeout: Duration) -> f64 {
    timeout.as_secs_f64().min(LONGEST)
}

/// Defines a proxy with methods of its own. `T` and so on are the types of what is in the object.
macro_rules! proxy_type {
    ($(#[$doc:meta])* $name:ident $(<$($type:ident),+>)?) => {
        $(#[$doc])*
        pub struct $name $(<$($type),+>)? {
            proxy: $crate::manager::Proxy,
            $(types: std::marker::PhantomData<fn() -> ($($type,)+)>,)?
        }

        impl $(<$($type),+>)? $name $(<$($type),+>)? {
            /// The proxy beneath, for methods that have no name here.
            pub fn proxy(&self) -> &$crate::manager::Proxy {
                &self.proxy
            }
        }

        impl $(<$($type),+>)? From<$crate::manager::Proxy> for $name $(<$($type),+>)? {
            fn from(proxy: $crate::manager::Proxy) -> Self {
                Self {
                    proxy,
                    $(types: std::marker::PhantomData::<fn() -> ($($type,)+)>,)?
                }
            }
        }

        impl $(<$($type),+>)? From<$name $(<$($type),+>)?> for $crate::manager::Proxy {
            fn from(proxy: $name $(<$($type),+>)?) -> Self {
                proxy.proxy
            }
        }

        impl $(<$($type),+>)? Clone for $name $(<$($type),+>)? {
            fn clone(&self) -> Self {
                self.proxy.clone().into()
            }
        }

        impl $(<$($type),+>)? std::fmt::Debug for $name $(<$($type),+>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.proxy).finish()
            }
        }

        /// As [`Proxy`](crate::manager::Proxy).
        impl $(<$($type),+>)? serde::Serialize for $name $(<$($type),+>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.proxy.serialize(serializer)
            }
        }

        /// As [`Proxy`](crate::manager::Proxy). That the object is of this kind is not checked:
        /// the methods of another one fail when they are called.
        impl<'de $($(, $type)+)?> serde::Deserialize<'de> for $name $(<$($type),+>)? {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::manager::Proxy::deserialize(from).map(Self::from)
            }
        }
    };
}
use proxy_type;

/// Calls a method of an object that is being let go of, where nobody can be told of a failure.
fn call_quietly(proxy: &Proxy, method: &str) {
    if let Err(failed) = proxy.call::<_, ()>(method, ()) {
        tracing::debug!("{method} of a {} failed: {failed}", proxy.typeid());
    }
}
