//! Objects of the types of a program.

use std::fmt;
use std::sync::{LockResult, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use serde::Serialize;

use crate::manager::Proxy;
use crate::manager::object::{Answer, Invocation, Raised, Served};

/// A type whose methods clients of a manager may call. The attribute
/// [`shared`](macro@crate::shared) implements it.
pub trait Shareable: Sized + Send + Sync + 'static {
    /// What clients have in its place.
    type Proxy: From<Proxy>;

    /// The name of the type.
    const NAME: &'static str;

    /// The names of the methods that clients may call.
    const METHODS: &'static [&'static str];

    /// Calls one of these methods.
    ///
    /// # Errors
    ///
    /// The exception that the client gets.
    fn call(instance: &Instance<Self>, call: &mut Invocation<'_>) -> Answer;
}

/// An object of a type of the program, as a manager serves it.
///
/// It has a [`RwLock`] around it: methods that take `&self` run at the same time, one that takes
/// `&mut self` runs alone. When such a one panics, the object may be half-changed: every later call
/// is refused with a `RuntimeError` that says so. A panic in a method that takes `&self` is an
/// error for its caller alone.
///
/// # Examples
///
/// The program that has the manager uses the object as its clients do, without being one:
///
/// ```
/// use std::sync::Arc;
///
/// use procession::manager::{Instance, Manager};
///
/// struct Votes(u64);
///
/// #[procession::shared]
/// impl Votes {
///     fn vote(&mut self) {
///         self.0 += 1;
///     }
/// }
///
/// let votes = Arc::new(Instance::new(Votes(0)));
/// let manager = Manager::builder().serve(|registry| {
///     registry.object("votes", votes.clone());
/// })?;
/// votes.write().unwrap().vote();
/// assert_eq!(votes.read().unwrap().0, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Instance<T>(RwLock<T>);

impl<T: Shareable> fmt::Debug for Instance<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instance").field(&T::NAME).finish()
    }
}

impl<T> Instance<T> {
    /// Puts a lock around a value.
    pub fn new(value: T) -> Self {
        Self(RwLock::new(value))
    }

    /// Blocks until nobody changes the object, and keeps it so.
    ///
    /// # Errors
    ///
    /// When a method panicked while it changed the object.
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.0.read()
    }

    /// Blocks until nobody uses the object, and keeps it so.
    ///
    /// # Errors
    ///
    /// When a method panicked while it changed the object.
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.0.write()
    }
}

impl<T: Shareable> Instance<T> {
    /// Carries a call out that does not change the object; `is_quick` if it takes no time.
    #[doc(hidden)]
    pub fn inspect<R>(
        &self,
        call: &Invocation<'_>,
        is_quick: bool,
        work: impl FnOnce(&T) -> R,
    ) -> Result<R, Raised> {
        if !is_quick {
            call.may_block();
        }
        let guard = match self.0.try_read() {
            Err(TryLockError::WouldBlock) => {
                call.may_block();
                self.0.read().map_err(|_| poisoned::<T>())?
            }
            Err(TryLockError::Poisoned(_)) => return Err(poisoned::<T>()),
            Ok(guard) => guard,
        };
        Ok(work(&guard))
    }

    /// Carries a call out that changes the object; `is_quick` if it takes no time.
    #[doc(hidden)]
    pub fn change<R>(
        &self,
        call: &Invocation<'_>,
        is_quick: bool,
        work: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Raised> {
        if !is_quick {
            call.may_block();
        }
        let mut guard = match self.0.try_write() {
            Err(TryLockError::WouldBlock) => {
                call.may_block();
                self.0.write().map_err(|_| poisoned::<T>())?
            }
            Err(TryLockError::Poisoned(_)) => return Err(poisoned::<T>()),
            Ok(guard) => guard,
        };
        Ok(work(&mut guard))
    }
}

/// What [`shared`](macro@crate::shared) has arguments pass through, so that an error about one points
/// at it.
#[doc(hidden)]
pub fn argument<A: Serialize>(argument: A) -> A {
    argument
}

fn poisoned<T: Shareable>() -> Raised {
    Raised::runtime_error(format!(
        "a method panicked while it changed this {}, which may be half-changed; make a new one",
        T::NAME
    ))
}

impl<T: Shareable> Served for Instance<T> {
    fn methods(&self) -> Vec<String> {
        T::METHODS.iter().map(|name| (*name).to_owned()).collect()
    }

    fn call(&self, call: &mut Invocation<'_>) -> Answer {
        T::call(self, call)
    }

    fn text(&self) -> String {
        format!("<{} of a manager in Rust>", T::NAME)
    }
}
