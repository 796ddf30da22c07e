//! Tasks whose outcomes are collected together.
//!
//! What became of each of them is in its slot (`batch/slots.rs`). Who finishes a task: a result, the death of its worker, a cancellation, a timeout, the failure of another
//! task of a batch that ends with the first failure, or the end of the pool. The first wins.
//!
//! Every task that was submitted comes back once: with a result, which may say that the worker passed
//! it by, or with the death of its worker. Until then the batch stays known, and so do its functions
//! and, if it was cancelled, the word to the workers to begin no more of it.

mod slots;

use std::fmt;
use std::iter::Peekable;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::channel::Message;
use crate::pool::batch::slots::{BatchState, Slot};
use crate::pool::error::{PoolError, TaskLost};
use crate::pool::frame::{Care, ResultHeader, Status};
use crate::pool::frames::Frames;
use crate::pool::outcome::Outcome;
use crate::process::ExitStatus;
use crate::shm::Pins;

/// In which order [`RawBatch::next`](super::raw::RawBatch::next) hands outcomes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the tasks were submitted.
    Index,
    /// As they finish.
    Finish,
}

/// How the tasks of a batch are to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskOptions {
    /// How long a task may take from when a worker begins it. Then the worker is killed with `SIGKILL`,
    /// since one that hangs may answer to nothing else, and replaced, and the task fails with
    /// [`TaskLost::TimedOut`]. A task that is run again has as long again.
    pub timeout: Option<Duration>,
    /// How many times a task is run again after the worker that ran it died; as the pool says if `None`.
    pub retries: Option<u32>,
    /// Whether the first task that fails ends the batch: those that no worker has begun are never run,
    /// what those come to that are being run is ignored, and all of them are
    /// [cancelled](TaskLost::Cancelled).
    pub fail_fast: bool,
}

/// A task that may be submitted again.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) record: Box<[u8]>,
    pub(super) pins: Option<Arc<Pins>>,
}

/// A worker that died.
#[derive(Debug)]
pub(super) struct Death {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) status: ExitStatus,
    pub(super) out_of_memory: bool,
}

/// The owner's record of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: u32,
    pub(super) timeout: Option<Duration>,
    order: Order,
    retries: u32,
    fail_fast: bool,
    state: Mutex<BatchState>,
}

/// What a thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    All,
    Any,
}

/// What became of a batch after something happened to its tasks.
#[derive(Debug)]
pub(super) struct Progress {
    /// Somebody who waits for it may go on.
    pub(super) awaited: bool,
    /// Nobody wants it, and no result is to come.
    pub(super) over: bool,
    /// To be called, as the batch is complete.
    pub(super) callbacks: Vec<Callback>,
    /// A task has just been given its outcome.
    pub(super) finished: bool,
    /// A task has failed, and the others are not wanted any more.
    pub(super) failed: bool,
    /// Workers need not pass its tasks by any more: none is left.
    pub(super) forget: bool,
}

/// What to call when a batch is complete.
pub(super) struct Callback(pub(super) Box<dyn FnOnce() + Send>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// A thread waits for a batch.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    batch: &'a Batch,
    goal: Goal,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        *self.batch.lock().watchers(self.goal) -= 1;
    }
}

/// Where the next outcome is.
#[derive(Debug)]
pub(super) enum Next {
    Outcome(usize, Outcome),
    NotYet,
    /// All were handed out.
    End,
}

impl Batch {
    /// `retries` is what the pool says.
    pub(super) fn new(id: u32, order: Order, options: TaskOptions, retries: u32) -> Self {
        let TaskOptions { timeout, retries: own, fail_fast } = options;
        let retries = own.unwrap_or(retries);
        Self { id, timeout, order, retries, fail_fast, state: Mutex::default() }
    }

    /// What workers have to see to.
    fn care(&self) -> Care {
        Care { timed: self.timeout.is_some(), urgent: self.fail_fast }
    }

    /// Makes slots for the tasks in `frames` and writes their ids into them, unless `open` says why
    /// no more tasks are taken.
    pub(super) fn extend(
        &self,
        frames: &mut Frames,
        open: impl FnOnce() -> Result<(), PoolError>,
    ) -> Result<(), PoolError> {
        let mut state = self.lock();
        // Under the lock: who ends the pool changes its phase first and then goes through the batches.
        open()?;
        if state.closed {
            return Err(PoolError::Cancelled);
        }
        if !state.jobs.iter().any(|job| job.is(frames.job())) {
            state.jobs.push(frames.job().clone());
        }
        frames.seal(self.id, state.end() as u32, self.care());
        state.slots.reserve(frames.len());
        for number in frames.first()..frames.end() {
            let kept = (self.retries > 0).then(|| {
                Arc::new(Kept {
                    record: frames.record(number).into(),
                    pins: frames.pins(number).cloned(),
                })
            });
            state.slots.push_back(Slot::Waiting { deaths: 0, kept });
        }
        state.unfinished += frames.len();
        Ok(())
    }

    /// Takes back the last `count` tasks, which were not submitted after all.
    pub(super) fn shorten(&self, count: usize) {
        let mut state = self.lock();
        for _ in 0..count {
            // The end of the pool may have finished them meanwhile.
            match state.slots.pop_back() {
                Some(Slot::Waiting { .. }) => state.unfinished -= 1,
                Some(Slot::Revoked(_)) => state.revoked -= 1,
                Some(Slot::Ready(_) | Slot::Taken) | None => {}
            }
        }
        let end = state.end();
        state.finished.retain(|index| *index < end);
        state.settle();
    }

    /// Takes the results at the front of `records` that are for this batch.
    pub(super) fn take_in(
        &self,
        records: &mut Peekable<impl Iterator<Item = (ResultHeader, Message)>>,
    ) -> Progress {
        let mut state = self.lock();
        let mine = |header: &ResultHeader| header.id.is_some_and(|id| id.batch == self.id);
        while let Some((header, record)) = records.next_if(|(header, _)| mine(header)) {
            let index = header.id.map_or(0, |id| id.index);
            if let Some(place) = state.waiting(index) {
                let outcome = Outcome::new(header.status, record);
                state.passed_by += usize::from(header.status == Status::Skipped);
                self.finish(&mut state, place, outcome);
            } else {
                state.come_back(index);
            }
        }
        state.settle();
        state.progress()
    }

    fn finish(&self, state: &mut BatchState, place: usize, outcome: Outcome) {
        if self.fail_fast && !outcome.is_done() {
            state.note_failure(place);
        }
        state.finish(place, outcome, self.order);
    }

    /// Takes no more tasks. Returns whether any has no outcome yet.
    pub(super) fn close(&self) -> bool {
        let mut state = self.lock();
        state.closed = true;
        state.unfinished > 0
    }

    /// Finishes all tasks without an outcome, although they are under way, except those with the indices
    /// in `except`; returns how many, with those that workers have passed by already. Workers were told to
    /// begin none of them.
    pub(super) fn revoke(&self, except: &[u32], lost: &TaskLost) -> (usize, Progress) {
        let mut state = self.lock();
        state.closed = true;
        state.noted = true;
        let mut count = std::mem::take(&mut state.passed_by);
        let kept: Vec<_> = except.iter().filter_map(|index| state.waiting(*index)).collect();
        for place in 0..state.slots.len() {
            if matches!(state.slots[place], Slot::Waiting { .. }) && !kept.contains(&place) {
                state.give_up(place, lost.clone(), self.order);
                count += 1;
            }
        }
        state.settle();
        (count, state.progress())
    }

    /// Finishes one task that is being run. `lost` is given its full number.
    pub(super) fn expire(&self, index: u32, lost: impl FnOnce(usize) -> TaskLost) -> Progress {
        let mut state = self.lock();
        if let Some(place) = state.waiting(index) {
            if self.fail_fast {
                state.note_failure(place);
            }
            let lost = lost(state.base as usize + place);
            state.give_up(place, lost, self.order);
        }
        state.settle();
        state.progress()
    }

    /// The task that ended the batch by its failure.
    pub(super) fn first_failure(&self) -> Option<usize> {
        self.lock().first_failure.map(|index| index as usize)
    }

    /// Deals with the death of the worker that had begun a task: returns the task if it is to be
    /// submitted again, or else finishes it.
    pub(super) fn lose(&self, index: u32, death: Death) -> (Option<Arc<Kept>>, Progress) {
        let mut state = self.lock();
        let mut again = None;
        if let Some(place) = state.waiting(index) {
            again = state.count_death(place, self.retries);
            if again.is_none() {
                let died = state.died(place, death);
                self.finish(&mut state, place, Outcome::Lost(TaskLost::WorkerDied(died)));
            }
        } else {
            state.come_back(index);
        }
        state.settle();
        (again, state.progress())
    }

    /// Finishes one task that could not be submitted again.
    pub(super) fn refuse(&self, index: u32, reason: String) -> Progress {
        let mut state = self.lock();
        if let Some(place) = state.waiting(index) {
            self.finish(&mut state, place, Outcome::Lost(TaskLost::Refused(reason)));
        }
        state.settle();
        state.progress()
    }

    /// Finishes every task that has no outcome yet.
    pub(super) fn lose_all(&self, lost: &TaskLost) -> Progress {
        let mut state = self.lock();
        for place in 0..state.slots.len() {
            match state.slots[place] {
                Slot::Waiting { .. } => {
                    state.finish(place, Outcome::Lost(lost.clone()), self.order);
                }
                Slot::Revoked(_) => state.recover(place),
                Slot::Ready(_) | Slot::Taken => {}
            }
        }
        state.settle();
        state.progress()
    }

    /// Adds something to call when the batch is complete, as it may be already.
    pub(super) fn add_callback(&self, callback: Callback) -> Progress {
        let mut state = self.lock();
        state.callbacks.push(callback);
        state.progress()
    }

    /// Says that nobody will ask for outcomes any more. Returns whether no result is to come.
    pub(super) fn abandon(&self) -> bool {
        let mut state = self.lock();
        state.abandoned = true;
        for slot in &mut state.slots {
            match slot {
                Slot::Ready(_) => *slot = Slot::Taken,
                Slot::Revoked(lost) => *lost = None,
                Slot::Waiting { .. } | Slot::Taken => {}
            }
        }
        state.finished.clear();
        state.trim();
        state.is_back()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().end() as usize
    }

    pub(super) fn unfinished(&self) -> usize {
        self.lock().unfinished
    }

    pub(super) fn take(&self, index: usize) -> Option<Outcome> {
        let mut state = self.lock();
        let place = usize::try_from((index as u64).checked_sub(state.base)?).ok()?;
        let outcome = state.take(place);
        state.trim();
        outcome
    }

    pub(super) fn take_all(&self) -> Vec<Outcome> {
        let mut state = self.lock();
        state.finished.clear();
        let mut outcomes = Vec::with_capacity(state.slots.len());
        for place in 0..state.slots.len() {
            outcomes.extend(state.take(place));
        }
        state.trim();
        outcomes
    }

    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        let next = match self.order {
            Order::Index => state.next_by_index(),
            Order::Finish => state.next_finished(),
        };
        state.trim();
        next
    }

    /// Counts a thread in that waits while another takes in the results, until it drops what it gets.
    pub(super) fn watch(&self, goal: Goal) -> Watch<'_> {
        *self.lock().watchers(goal) += 1;
        Watch { batch: self, goal }
    }

    fn lock(&self) -> MutexGuard<'_, BatchState> {
        // No code under this lock leaves the state half-changed if it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
