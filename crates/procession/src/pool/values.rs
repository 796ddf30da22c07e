//! The values of a pool as they come.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::batch::Order;
use crate::pool::error::PoolError;
use crate::pool::frames::Frames;
use crate::pool::function;
use crate::pool::owner::RawBatch;
use crate::pool::task::{self, TaskError};
use crate::pool::typed::{take_up_to, uninterrupted};

/// An iterator over the values of [`Pool::imap`](super::Pool::imap) or
/// [`Pool::imap_unordered`](super::Pool::imap_unordered).
///
/// An item without a value is an error in its place, and the iterator goes on. If the pool takes no more
/// tasks, that is one error, and the iterator ends with the values that are still to come. Dropping it
/// cancels the tasks that no worker has begun.
pub struct Values<I: Iterator, R> {
    batch: RawBatch,
    order: Order,
    frames: Frames,
    /// `None` when it has ended.
    items: Option<I>,
    buffer: Vec<I::Item>,
    chunk: usize,
    /// The most tasks to hold whose values were not taken.
    window: usize,
    /// How many tasks were submitted and not taken in.
    under_way: usize,
    /// Number and items of the one task that may hold fewer than `chunk`: the last.
    last: Option<(usize, usize)>,
    /// For each task that was not submitted because an item does not serialize: its place among the
    /// others, how many items it has, and why.
    unsent: VecDeque<(usize, usize, String)>,
    ready: VecDeque<Result<R, TaskError>>,
}

impl<I: Iterator, R> Values<I, R> {
    pub(super) fn new(
        batch: RawBatch,
        order: Order,
        frames: Frames,
        items: I,
        chunk: usize,
        window: usize,
    ) -> Self {
        Self {
            batch,
            order,
            frames,
            items: Some(items),
            buffer: Vec::new(),
            chunk,
            window,
            under_way: 0,
            last: None,
            unsent: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }
}

impl<I, R> Values<I, R>
where
    I: Iterator,
    I::Item: Serialize,
    R: DeserializeOwned,
{
    /// Submits further items if a good part of the window is free.
    fn refill(&mut self) -> Result<(), PoolError> {
        let held = self.under_way + self.ready.len().div_ceil(self.chunk);
        // One at a time would wake workers for one task at a time.
        if self.items.is_none() || held > self.window - self.window.div_ceil(4) {
            return Ok(());
        }
        while held + self.frames.len() < self.window {
            let Some(items) = &mut self.items else { break };
            if take_up_to(items, self.chunk, &mut self.buffer) {
                self.push();
            }
            if self.buffer.len() < self.chunk {
                self.items = None;
            }
        }
        let count = self.frames.len();
        let submitted = uninterrupted(|| self.batch.submit(&mut self.frames));
        self.under_way += count - self.frames.len();
        match submitted {
            // A task has failed, and those that were to follow are not wanted.
            Err(PoolError::Cancelled) => {
                self.items = None;
                Ok(())
            }
            result => result,
        }
    }

    /// Adds a task with the items in the buffer.
    fn push(&mut self) {
        let number = self.batch.len() + self.frames.len();
        let items = self.buffer.len();
        match function::push_items(&mut self.frames, &self.buffer) {
            Ok(()) => self.last = Some((number, items)),
            Err(error) => self.unsent.push_back((number, items, error.to_string())),
        }
    }

    /// Has the errors ready of the items that were not submitted and come before the task `number`.
    fn tell_unsent(&mut self, number: usize) {
        while self.unsent.front().is_some_and(|(place, ..)| *place <= number) {
            let Some((_, items, reason)) = self.unsent.pop_front() else { return };
            let error = || Err(TaskError::Encode { reason: reason.clone() });
            self.ready.extend((0..items).map(|_| error()));
        }
    }

    /// Blocks until values are there; false if there are none to come.
    fn take_in(&mut self) -> Result<bool, PoolError> {
        let outcomes = uninterrupted(|| self.batch.next_many(self.window, None))?;
        if self.order == Order::Finish || outcomes.is_empty() {
            self.tell_unsent(usize::MAX);
        }
        for (number, outcome) in &outcomes {
            self.tell_unsent(*number);
            let items = match self.last {
                Some((last, items)) if last == *number => items,
                _ => self.chunk,
            };
            task::values(outcome, items, |value| self.ready.push_back(value));
        }
        self.under_way -= outcomes.len();
        Ok(!self.ready.is_empty())
    }
}

impl<I, R> Iterator for Values<I, R>
where
    I: Iterator,
    I::Item: Serialize,
    R: DeserializeOwned,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Err(error) = self.refill() {
                // A pool that takes no more tasks takes none later either.
                self.items = None;
                return Some(Err(error.into()));
            }
            if let Some(value) = self.ready.pop_front() {
                return Some(value);
            }
            match self.take_in() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

impl<I, R> FusedIterator for Values<I, R>
where
    I: Iterator,
    I::Item: Serialize,
    R: DeserializeOwned,
{
}

impl<I: Iterator, R> Drop for Values<I, R> {
    fn drop(&mut self) {
        // What cannot be called back is run in vain.
        let _ = self.batch.cancel(false);
    }
}

impl<I: Iterator, R> fmt::Debug for Values<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}
