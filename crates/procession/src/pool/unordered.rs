//! The values of a pool as they come.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::error::PoolError;
use crate::pool::frames::Frames;
use crate::pool::function::{self, ITEMS};
use crate::pool::job::JobRef;
use crate::pool::owner::RawBatch;
use crate::pool::task::{self, TaskError};
use crate::pool::typed::{take_up_to, uninterrupted};

/// An iterator over the values of [`Pool::imap_unordered`](super::Pool::imap_unordered), each as soon as
/// it is there.
///
/// An item without a value is an error in its place, and the iterator goes on. If the pool takes no more
/// tasks, that is one error, and the iterator ends with the values that are still to come.
pub struct Unordered<I: Iterator, R> {
    batch: RawBatch,
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
    ready: VecDeque<Result<R, TaskError>>,
}

impl<I: Iterator, R> Unordered<I, R> {
    pub(super) fn new(batch: RawBatch, job: JobRef, items: I, chunk: usize, window: usize) -> Self {
        Self {
            batch,
            frames: Frames::new(&job, ITEMS),
            items: Some(items),
            buffer: Vec::new(),
            chunk,
            window,
            under_way: 0,
            last: None,
            ready: VecDeque::new(),
        }
    }
}

impl<I, R> Unordered<I, R>
where
    I: Iterator,
    I::Item: Serialize,
    R: DeserializeOwned,
{
    /// Submits further items if a good part of the window is free.
    fn refill(&mut self) -> Result<(), TaskError> {
        let held = self.under_way + self.ready.len().div_ceil(self.chunk);
        // One at a time would wake workers for one task at a time.
        if self.items.is_none() || held > self.window - self.window.div_ceil(4) {
            return Ok(());
        }
        let mut result = Ok(());
        while held + self.frames.len() < self.window && result.is_ok() {
            let Some(items) = &mut self.items else { break };
            if take_up_to(items, self.chunk, &mut self.buffer) {
                result = self.push();
            }
            if self.buffer.len() < self.chunk {
                self.items = None;
            }
        }
        let count = self.frames.len();
        let submitted = uninterrupted(|| self.batch.submit(&mut self.frames));
        self.under_way += count - self.frames.len();
        submitted?;
        result
    }

    /// Adds a task with the items in the buffer.
    fn push(&mut self) -> Result<(), TaskError> {
        let number = self.batch.len() + self.frames.len();
        function::push_items(&mut self.frames, &self.buffer)?;
        self.last = Some((number, self.buffer.len()));
        Ok(())
    }

    /// Blocks until values are there; false if there are none to come.
    fn take_in(&mut self) -> Result<bool, PoolError> {
        let outcomes = uninterrupted(|| self.batch.next_many(self.window, None))?;
        for (number, outcome) in &outcomes {
            let items = match self.last {
                Some((last, items)) if last == *number => items,
                _ => self.chunk,
            };
            task::values(outcome, items, |value| self.ready.push_back(value));
        }
        self.under_way -= outcomes.len();
        Ok(!outcomes.is_empty())
    }
}

impl<I, R> Iterator for Unordered<I, R>
where
    I: Iterator,
    I::Item: Serialize,
    R: DeserializeOwned,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Err(error) = self.refill() {
                // An item that does not serialize fails alone; a pool that takes no more tasks takes none
                // later either.
                if let TaskError::Pool(_) = error {
                    self.items = None;
                }
                return Some(Err(error));
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

impl<I, R> FusedIterator for Unordered<I, R>
where
    I: Iterator,
    I::Item: Serialize,
    R: DeserializeOwned,
{
}

impl<I: Iterator, R> fmt::Debug for Unordered<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unordered").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}
