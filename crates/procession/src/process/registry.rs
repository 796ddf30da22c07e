//! The children that this process started and has not collected yet.
//!
//! It exists so that a child whose handles were all dropped does not stay a zombie: whoever starts
//! a process, or asks for the active ones, collects those that have ended.
//!
//! # In a forked child
//!
//! The children of the parent are siblings here, and the lock may be held by a thread that does not
//! exist here. So a forked child starts with a fresh list; the old one is emptied, which closes the
//! inherited descriptors, unless that lock is held.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::process::child::Child;
use crate::sys::fd;

type List = Mutex<Vec<Child>>;

/// The list of the root process of this image.
static FIRST: List = Mutex::new(Vec::new());

/// The list in use since the last fork; null stands for `FIRST`.
static CURRENT: AtomicPtr<List> = AtomicPtr::new(ptr::null_mut());

/// Notes a child that was just started.
pub(crate) fn add(child: Child) {
    lock().push(child);
}

/// Strikes out a child whose status was collected.
pub(crate) fn remove(child: &Child) {
    let mut children = lock();
    let place = children.iter().position(|other| other.member() == child.member());
    let struck = place.map(|place| children.swap_remove(place));
    // Closing a descriptor can wait for the system; nobody need wait for that.
    drop(children);
    drop(struck);
}

/// Collects every child that has ended, and returns the others.
pub(crate) fn collect_ended() -> Vec<Child> {
    // The list is not locked while children are looked at: that takes locks of its own.
    let mut children = lock().clone();
    if children.is_empty() {
        return children;
    }
    let sentinels: Vec<BorrowedFd<'_>> = children.iter().map(Child::sentinel).collect();
    // One system call for all; if it fails, each child is asked by itself.
    let ended = fd::poll_readable(&sentinels, Some(Instant::now()))
        .unwrap_or_else(|_| vec![true; sentinels.len()]);
    let mut ended = ended.into_iter();
    children.retain(|child| !ended.next().unwrap_or(true) || child.is_alive());
    children
}

/// Forgets the parent's children. To be called in a forked child.
pub(crate) fn forget() {
    let old = list();
    let fresh: &'static List = Box::leak(Box::new(Mutex::new(Vec::new())));
    CURRENT.store(ptr::from_ref(fresh).cast_mut(), Ordering::Release);
    if let Ok(mut children) = old.try_lock() {
        children.clear();
    }
}

fn lock() -> MutexGuard<'static, Vec<Child>> {
    // No change of the list can panic half-way.
    list().lock().unwrap_or_else(PoisonError::into_inner)
}

fn list() -> &'static List {
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: the pointer is null, or was made in `forget` from a reference to a list that is never
    // freed. Nothing but shared references to that list exist.
    unsafe { current.as_ref() }.unwrap_or(&FIRST)
}
