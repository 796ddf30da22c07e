//! A value that each process has of its own, also after a fork.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::sys::process;

/// A static of which the child of a fork gets a fresh one, made when it is first asked for.
///
/// The one of the parent is not freed in the child: a thread that the child does not have may have
/// been in the middle of it.
pub(crate) struct PerProcess<T: 'static>(AtomicPtr<Owned<T>>);

struct Owned<T> {
    process: u32,
    value: T,
}

impl<T: Default + Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of this process. If there is none yet, it is made, and `inherited` is called with
    /// the one of the process that this one was forked from, if that had one.
    pub(crate) fn get(&self, inherited: impl FnOnce(&'static T)) -> &'static T {
        let me = process::getpid();
        let seen = self.0.load(Ordering::Acquire);
        // SAFETY: null, or made below from a reference that is valid for ever; only shared
        // references to it exist.
        let old: Option<&'static Owned<T>> = unsafe { seen.as_ref() };
        if let Some(owned) = old.filter(|owned| owned.process == me) {
            return &owned.value;
        }
        let fresh = Box::into_raw(Box::new(Owned { process: me, value: T::default() }));
        let placed = self.0.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire);
        let current = match placed {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: it came from `Box::into_raw` above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                other
            }
        };
        // SAFETY: not null, as it was made here or by another thread of this process on this very
        // path; what has been placed is never freed, and only shared references to it exist.
        let current: &'static Owned<T> = unsafe { &*current };
        if let (Ok(_), Some(old)) = (placed, old) {
            inherited(&old.value);
        }
        &current.value
    }
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}
