//! The objects of a manager by number.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::manager::object::Served;

/// An object, and what clients know about it.
pub(super) struct Entry {
    pub(super) number: u64,
    /// Its name in the registry.
    pub(super) kind: String,
    pub(super) object: Arc<dyn Served>,
    pub(super) methods: Vec<String>,
    /// Whether its methods say by themselves that they may block, and its end takes no time.
    pub(super) is_builtin: bool,
}

impl Entry {
    /// How clients call it.
    pub(super) fn ident(&self) -> String {
        format!("{:x}", self.number)
    }
}

/// The number that an ident stands for.
pub(super) fn number_of(ident: &str) -> Option<u64> {
    u64::from_str_radix(ident, 16).ok()
}

/// All objects of a manager.
#[derive(Default)]
pub(super) struct Table {
    /// Objects that clients refer to.
    live: HashMap<u64, Arc<Entry>>,
    /// Objects that no client refers to, but perhaps another object.
    held: HashMap<u64, Weak<Entry>>,
    /// Objects that there are as long as there is the manager.
    lasting: HashMap<u64, Arc<Entry>>,
    /// As many entries of `held` are looked through when there are more.
    sweep_at: usize,
}

impl Table {
    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        self.live.insert(entry.number, entry);
    }

    /// Keeps an object for good.
    pub(super) fn keep(&mut self, entry: Arc<Entry>) {
        self.lasting.insert(entry.number, entry);
    }

    pub(super) fn find(&self, number: u64) -> Option<Arc<Entry>> {
        let held = || self.held.get(&number).and_then(Weak::upgrade);
        self.live.get(&number).or_else(|| self.lasting.get(&number)).cloned().or_else(held)
    }

    /// Makes an object that no client refers to one that some may refer to again.
    pub(super) fn restore(&mut self, number: u64) -> bool {
        let Some(entry) = self.find(number) else { return false };
        self.held.remove(&number);
        self.live.insert(number, entry);
        true
    }

    /// Lets go of an object that no client refers to any more.
    pub(super) fn release(&mut self, number: u64) -> Option<Arc<Entry>> {
        let entry = self.live.remove(&number)?;
        if Arc::strong_count(&entry) > 1 && !self.lasting.contains_key(&number) {
            self.held.insert(number, Arc::downgrade(&entry));
            if self.held.len() > self.sweep_at {
                self.held.retain(|_, entry| entry.strong_count() > 0);
                self.sweep_at = 2 * self.held.len() + 64;
            }
        }
        Some(entry)
    }

    /// All that there is.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let held = self.held.values().filter_map(Weak::upgrade);
        let lasting = self.lasting.values().filter(|entry| !self.live.contains_key(&entry.number));
        self.live.values().chain(lasting).cloned().chain(held).collect()
    }
}
