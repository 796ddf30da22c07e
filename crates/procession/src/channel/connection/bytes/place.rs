//! Where an end of a stream has stopped reading.

use crate::channel::connection::frame;
use crate::primitive::{AtomicU64, Ordering};

/// Where in the stream the next byte is. Written by the thread whose turn it is to receive, so
/// that a call which a signal has cut short goes on where it stopped.
#[derive(Debug)]
pub(super) struct Place {
    /// The part of a header that was read: eight bytes, then four and how many there are.
    head: [AtomicU64; 2],
    /// Bytes left of a message that was given up.
    given_up: AtomicU64,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { head: [AtomicU64::new(0), AtomicU64::new(0)], given_up: AtomicU64::new(0) }
    }

    pub(super) fn head(&self) -> ([u8; frame::LONG], usize) {
        let [first, second] = [0, 1].map(|at: usize| self.head[at].load(Ordering::Relaxed));
        let mut bytes = [0; frame::LONG];
        bytes[..8].copy_from_slice(&first.to_ne_bytes());
        bytes[8..].copy_from_slice(&(second as u32).to_ne_bytes());
        (bytes, (second >> 32) as usize)
    }

    pub(super) fn set_head(&self, bytes: &[u8; frame::LONG], len: usize) {
        let (first, second) = bytes.split_at(8);
        let first = first.try_into().map_or(0, u64::from_ne_bytes);
        let second = second.try_into().map_or(0, u32::from_ne_bytes);
        self.head[0].store(first, Ordering::Relaxed);
        self.head[1].store((len as u64) << 32 | u64::from(second), Ordering::Relaxed);
    }

    pub(super) fn forget_head(&self) {
        self.head[1].store(0, Ordering::Relaxed);
    }

    pub(super) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(super) fn give_up(&self, left: u64) {
        self.given_up.store(left, Ordering::Relaxed);
    }
}
