//! How the items of a map become tasks, and their outcomes values again.
//!
//! Unless it is told a size, a map measures how long items take and packs as many into a task as take
//! [`TARGET`]: long against what a task costs by itself, and short against what anybody waits for. Towards
//! the end tasks become smaller, so that no worker is left with a large one while the others have none.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::error::PoolError;
use crate::pool::frames::Frames;
use crate::pool::function;
use crate::pool::outcome::Outcome;
use crate::pool::owner::RawBatch;
use crate::pool::task::{self, TaskError};
use crate::pool::typed::{take_up_to, uninterrupted};

/// How long a task is to take.
const TARGET: Duration = Duration::from_millis(2);
/// Tasks for each worker that are under way while times are measured.
const AHEAD: usize = 3;
/// How many times larger a task may be than the one before.
const GROWTH: usize = 8;

/// Outcomes with the numbers of their tasks.
pub(super) type Outcomes = Vec<(usize, Outcome)>;

/// The items of a map on their way into tasks.
pub(super) struct Items<I: Iterator> {
    items: I,
    buffer: Vec<I::Item>,
    frames: Frames,
    /// How many tasks of how many items there are, in the order of the tasks.
    sizes: Vec<(usize, usize)>,
    tasks: usize,
}

impl<I> Items<I>
where
    I: Iterator,
    I::Item: Serialize,
{
    pub(super) fn new(items: I, frames: Frames) -> Self {
        Self { items, buffer: Vec::new(), frames, sizes: Vec::new(), tasks: 0 }
    }

    /// Packs up to `chunk` items into a task. Returns whether there were any.
    fn pack(&mut self, chunk: usize) -> Result<bool, TaskError> {
        if !take_up_to(&mut self.items, chunk, &mut self.buffer) {
            return Ok(false);
        }
        function::push_items(&mut self.frames, &self.buffer)?;
        self.tasks += 1;
        match self.sizes.last_mut() {
            Some((tasks, size)) if *size == self.buffer.len() => *tasks += 1,
            _ => self.sizes.push((1, self.buffer.len())),
        }
        Ok(true)
    }

    fn submit(&mut self, batch: &RawBatch) -> Result<(), PoolError> {
        uninterrupted(|| batch.submit(&mut self.frames))
    }

    /// How many items a task has.
    fn size_of(&self, number: usize) -> usize {
        // From the end: it is one of the latest.
        let mut start = self.tasks;
        let found = self.sizes.iter().rev().find(|(tasks, _)| {
            start -= tasks;
            number >= start
        });
        found.map_or(0, |(_, size)| *size)
    }

    /// The values of all items; if a failure ended the batch, of the items of that task alone.
    pub(super) fn values<R: DeserializeOwned>(
        &self,
        batch: &RawBatch,
        outcomes: &Outcomes,
    ) -> Vec<Result<R, TaskError>> {
        let only = batch.first_failure();
        let mut sizes = self.sizes.iter().flat_map(|(tasks, size)| (0..*tasks).map(|_| *size));
        let mut values = Vec::new();
        for (number, outcome) in outcomes {
            let items = sizes.next().unwrap_or(0);
            if only.is_none_or(|only| only == *number) {
                task::values(outcome, items, |value| values.push(value));
            }
        }
        values
    }
}

/// Runs all items, `chunk` of them in a task. Nothing is submitted before all have been packed.
pub(super) fn run_all<I>(
    batch: &RawBatch,
    items: &mut Items<I>,
    chunk: usize,
) -> Result<Outcomes, TaskError>
where
    I: Iterator,
    I::Item: Serialize,
{
    while items.pack(chunk)? {}
    items.submit(batch)?;
    uninterrupted(|| batch.wait(None))?;
    Ok(batch.take_all().into_iter().enumerate().collect())
}

/// Runs all items, in tasks of a size that is found on the way. `batch` hands outcomes out as they come.
pub(super) fn run_measured<I>(
    batch: &RawBatch,
    items: &mut Items<I>,
    workers: usize,
) -> Result<Outcomes, TaskError>
where
    I: Iterator,
    I::Item: Serialize,
{
    let result = feed(batch, items, workers);
    if result.is_err() {
        // The caller's error comes first; what cannot be called back is run in vain.
        let _ = batch.cancel(false);
    }
    let mut outcomes = result?;
    outcomes.sort_unstable_by_key(|(number, _)| *number);
    Ok(outcomes)
}

fn feed<I>(batch: &RawBatch, items: &mut Items<I>, workers: usize) -> Result<Outcomes, TaskError>
where
    I: Iterator,
    I::Item: Serialize,
{
    let window = workers.saturating_mul(AHEAD);
    let mut outcomes = Outcomes::new();
    let mut pace = Pace::new(workers);
    let mut submitted = 0;
    let mut more = true;
    loop {
        while more && submitted - outcomes.len() + items.frames.len() < window {
            more = items.pack(pace.chunk(items.items.size_hint()))?;
        }
        let packed = items.frames.len();
        match items.submit(batch) {
            Ok(()) => submitted += packed,
            // A failure has ended the batch.
            Err(PoolError::Cancelled) => more = false,
            Err(error) => return Err(error.into()),
        }
        let came = uninterrupted(|| batch.next_many(window, None))?;
        if came.is_empty() {
            return Ok(outcomes);
        }
        pace.note(came.iter().map(|(number, _)| items.size_of(*number)).sum());
        outcomes.extend(came);
    }
}

/// How many items a task is to hold.
#[derive(Debug)]
struct Pace {
    workers: usize,
    chunk: usize,
    looked: Instant,
    /// Seconds of a worker per item, smoothed; `None` before the first measurement.
    per_item: Option<f64>,
}

impl Pace {
    fn new(workers: usize) -> Self {
        Self { workers, chunk: 1, looked: Instant::now(), per_item: None }
    }

    /// Notes that so many items were done since the last time.
    fn note(&mut self, items: usize) {
        let now = Instant::now();
        let spent = now.duration_since(self.looked).as_secs_f64() * self.workers as f64;
        self.looked = now;
        self.learn(spent / items.max(1) as f64);
    }

    fn learn(&mut self, per_item: f64) {
        let smoothed = self.per_item.map_or(per_item, |before| (before + per_item) / 2.0);
        self.per_item = Some(smoothed);
        let wanted = (TARGET.as_secs_f64() / smoothed.max(1e-9)) as usize;
        self.chunk = wanted.clamp(self.chunk / 2, self.chunk * GROWTH).max(1);
    }

    /// The size of the next task, if so many items are left.
    fn chunk(&self, left: (usize, Option<usize>)) -> usize {
        match left {
            (least, Some(most)) if least == most => {
                self.chunk.min(most.div_ceil(2 * self.workers)).max(1)
            }
            _ => self.chunk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_grow_to_the_time_they_are_to_take() {
        let mut pace = Pace::new(2);
        assert_eq!(pace.chunk((0, None)), 1);
        let sizes = [(); 8].map(|()| {
            pace.learn(1e-6);
            pace.chunk((0, None))
        });
        assert!(sizes.windows(2).all(|pair| pair[1] <= pair[0] * GROWTH), "{sizes:?}");
        assert!((1990..=2000).contains(&sizes[7]), "{sizes:?}");
    }

    #[test]
    fn slow_items_come_one_by_one() {
        let mut pace = Pace::new(2);
        for _ in 0..20 {
            pace.learn(1e-6);
        }
        for _ in 0..20 {
            pace.learn(0.5);
        }
        assert_eq!(pace.chunk((0, None)), 1);
    }

    #[test]
    fn last_tasks_are_small() {
        let mut pace = Pace::new(4);
        for _ in 0..20 {
            pace.learn(1e-7);
        }
        let mut left: usize = 100_000;
        let mut sizes = Vec::new();
        while left > 0 {
            let size = pace.chunk((left, Some(left)));
            sizes.push(size);
            left -= size;
        }
        assert!(sizes[0] > 10_000 && sizes[sizes.len() - 1] == 1, "{sizes:?}");
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    }
}
