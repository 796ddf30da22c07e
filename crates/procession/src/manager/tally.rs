//! What a client refers to.
//!
//! The threads of a process may have any number of references to an object; the server is told of
//! the first and of the last.

use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: HashMap<u64, Count>,
    /// Objects, and how many references the server is to take back.
    given_up: Vec<(u64, u64)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    /// References in this process.
    here: u64,
    /// Those that the server counts for this process.
    there: u64,
}

impl Tally {
    /// Notes a reference that the server has counted already.
    pub(super) fn adopt(&mut self, object: u64) {
        let count = self.counts.entry(object).or_default();
        count.here += 1;
        count.there += 1;
    }

    /// Notes one more reference; false if the server must be told first.
    pub(super) fn add(&mut self, object: u64) -> bool {
        let known = self.counts.get_mut(&object);
        if let Some(count) = known {
            count.here += 1;
            return true;
        }
        false
    }

    /// Takes a reference back.
    pub(super) fn remove(&mut self, object: u64) {
        let Some(count) = self.counts.get_mut(&object) else { return };
        count.here -= 1;
        if count.here == 0 {
            let there = count.there;
            self.counts.remove(&object);
            self.given_up.push((object, there));
        }
    }

    /// Whether the server is to be told about references given up.
    pub(super) fn has_given_up(&self) -> bool {
        !self.given_up.is_empty()
    }

    /// What the server is to be told about references given up.
    pub(super) fn take_given_up(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.given_up)
    }

    /// All objects that this process refers to, and how often.
    pub(super) fn all(&self) -> Vec<(u64, u64)> {
        self.counts.iter().map(|(object, count)| (*object, count.here)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_told_of_the_last_reference_and_of_all_that_it_counted() {
        let mut tally = Tally::default();
        assert!(!tally.add(5), "the server does not know yet");
        tally.adopt(5);
        tally.adopt(5);
        assert!(tally.add(5));
        tally.remove(5);
        tally.remove(5);
        assert_eq!(tally.take_given_up(), []);
        assert_eq!(tally.all(), [(5, 1)]);
        tally.remove(5);
        assert_eq!(tally.take_given_up(), [(5, 2)]);
        tally.remove(5);
        assert_eq!(tally.take_given_up(), []);
    }
}
