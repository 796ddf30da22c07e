//! Tasks whose outcomes are collected together.
//!
//! | slot      | meaning                                          | becomes                     |
//! |-----------|--------------------------------------------------|-----------------------------|
//! | `Waiting` | submitted, no outcome yet                        | `Ready`; `Taken` if nobody wants it |
//! | `Ready`   | has its outcome                                  | `Taken`                     |
//! | `Taken`   | the outcome was handed out, or nobody wants it   |                             |
//!
//! Slots at the front that are `Taken` go away, so a long stream of tasks does not pile up. Who
//! finishes a task: a result, the death of its worker, or the end of the pool. The first wins.

use std::collections::VecDeque;
use std::fmt;
use std::iter::Peekable;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::channel::Message;
use crate::pool::error::{TaskLost, WorkerDied};
use crate::pool::frame::ResultHeader;
use crate::pool::frames::Frames;
use crate::pool::job::JobRef;
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
}

#[derive(Debug)]
enum Slot {
    /// How many workers died of it, and what to submit again after the next death.
    Waiting {
        deaths: u32,
        kept: Option<Arc<Kept>>,
    },
    Ready(Outcome),
    Taken,
}

/// The owner's record of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: u32,
    order: Order,
    state: Mutex<BatchState>,
}

#[derive(Debug, Default)]
struct BatchState {
    slots: VecDeque<Slot>,
    /// Index of the task in the first slot.
    base: u64,
    unfinished: usize,
    /// For [`Order::Index`]: index of the task to hand out next.
    next: u64,
    /// For [`Order::Finish`]: indices of those that have finished.
    finished: VecDeque<u64>,
    /// The functions of its tasks, kept while any task is unfinished.
    jobs: Vec<JobRef>,
    /// Nobody will ask for outcomes.
    abandoned: bool,
    /// Threads that wait until all tasks have finished, and until any has, while another takes in
    /// the results.
    waiting_for_all: usize,
    waiting_for_any: usize,
    /// What to call once all tasks have finished.
    callbacks: Vec<Callback>,
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
    pub(super) fn new(id: u32, order: Order) -> Self {
        Self { id, order, state: Mutex::default() }
    }

    /// Makes slots for the tasks in `frames` and writes their ids into them, unless `open` says why
    /// no more tasks are taken.
    pub(super) fn extend<E>(
        &self,
        frames: &mut Frames,
        retries: u32,
        open: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = self.lock();
        // Under the lock: who ends the pool changes its phase first and then goes through the batches.
        open()?;
        if !state.jobs.iter().any(|job| job.is(frames.job())) {
            state.jobs.push(frames.job().clone());
        }
        frames.seal(self.id, state.end() as u32);
        state.slots.reserve(frames.len());
        for number in frames.first()..frames.end() {
            let kept = (retries > 0).then(|| {
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
            if let Some(Slot::Waiting { .. }) = state.slots.pop_back() {
                state.unfinished -= 1;
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
                state.finish(place, outcome, self.order);
            }
        }
        state.settle();
        state.progress()
    }

    /// Deals with the death of the worker that had begun a task: returns the task if it is to be
    /// submitted again, or else finishes it.
    pub(super) fn lose(
        &self,
        index: u32,
        death: Death,
        retries: u32,
    ) -> (Option<Arc<Kept>>, Progress) {
        let mut state = self.lock();
        let mut again = None;
        if let Some(place) = state.waiting(index) {
            again = state.count_death(place, retries);
            if again.is_none() {
                let died = state.died(place, death);
                state.finish(place, Outcome::Lost(TaskLost::WorkerDied(died)), self.order);
            }
        }
        state.settle();
        (again, state.progress())
    }

    /// Finishes one task that could not be submitted again.
    pub(super) fn refuse(&self, index: u32, reason: String) -> Progress {
        let mut state = self.lock();
        if let Some(place) = state.waiting(index) {
            state.finish(place, Outcome::Lost(TaskLost::Refused(reason)), self.order);
        }
        state.settle();
        state.progress()
    }

    /// Finishes every task that has no outcome yet.
    pub(super) fn lose_all(&self, lost: &TaskLost) -> Progress {
        let mut state = self.lock();
        for place in 0..state.slots.len() {
            if matches!(state.slots[place], Slot::Waiting { .. }) {
                state.finish(place, Outcome::Lost(lost.clone()), self.order);
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
            if matches!(slot, Slot::Ready(_)) {
                *slot = Slot::Taken;
            }
        }
        state.finished.clear();
        state.trim();
        state.unfinished == 0
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

impl BatchState {
    /// Index of the task that will be submitted next.
    fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// Place of a task that has no outcome yet, from the 32 bits of its index in a record.
    fn waiting(&self, index: u32) -> Option<usize> {
        let place = index.wrapping_sub(self.base as u32) as usize;
        matches!(self.slots.get(place), Some(Slot::Waiting { .. })).then_some(place)
    }

    fn finish(&mut self, place: usize, outcome: Outcome, order: Order) {
        self.unfinished -= 1;
        if self.abandoned {
            self.slots[place] = Slot::Taken;
            return;
        }
        self.slots[place] = Slot::Ready(outcome);
        if order == Order::Finish {
            self.finished.push_back(self.base + place as u64);
        }
    }

    /// Counts a death of the worker that ran the task. Returns the task if it may be tried again.
    fn count_death(&mut self, place: usize, retries: u32) -> Option<Arc<Kept>> {
        let Slot::Waiting { deaths, kept } = &mut self.slots[place] else { return None };
        *deaths += 1;
        if *deaths <= retries && !self.abandoned { kept.clone() } else { None }
    }

    fn died(&self, place: usize, death: Death) -> WorkerDied {
        let attempts = match &self.slots[place] {
            Slot::Waiting { deaths, .. } => *deaths,
            Slot::Ready(_) | Slot::Taken => 1,
        };
        let Death { pid, name, status } = death;
        WorkerDied { pid, name, status, task: self.base as usize + place, attempts }
    }

    /// Lets go of what is not needed once all tasks have finished, and of taken slots.
    fn settle(&mut self) {
        if self.unfinished == 0 {
            self.jobs.clear();
        }
        self.trim();
    }

    fn trim(&mut self) {
        while let Some(Slot::Taken) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }

    fn progress(&mut self) -> Progress {
        let all = self.unfinished == 0;
        Progress {
            awaited: self.waiting_for_any > 0 || (all && self.waiting_for_all > 0),
            over: all && self.abandoned,
            callbacks: if all { std::mem::take(&mut self.callbacks) } else { Vec::new() },
        }
    }

    fn take(&mut self, place: usize) -> Option<Outcome> {
        let slot = self.slots.get_mut(place)?;
        if !matches!(slot, Slot::Ready(_)) {
            return None;
        }
        match std::mem::replace(slot, Slot::Taken) {
            Slot::Ready(outcome) => Some(outcome),
            Slot::Waiting { .. } | Slot::Taken => None,
        }
    }

    fn next_by_index(&mut self) -> Next {
        while self.next < self.end() {
            let index = self.next;
            let Some(place) = index.checked_sub(self.base) else {
                self.next = self.base;
                continue;
            };
            match self.slots[place as usize] {
                Slot::Waiting { .. } => return Next::NotYet,
                Slot::Taken | Slot::Ready(_) => self.next += 1,
            }
            if let Some(outcome) = self.take(place as usize) {
                return Next::Outcome(index as usize, outcome);
            }
        }
        Next::End
    }

    fn next_finished(&mut self) -> Next {
        while let Some(index) = self.finished.pop_front() {
            let Some(place) = index.checked_sub(self.base) else { continue };
            if let Some(outcome) = self.take(place as usize) {
                return Next::Outcome(index as usize, outcome);
            }
        }
        if self.unfinished == 0 { Next::End } else { Next::NotYet }
    }

    fn watchers(&mut self, goal: Goal) -> &mut usize {
        match goal {
            Goal::All => &mut self.waiting_for_all,
            Goal::Any => &mut self.waiting_for_any,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::ByteQueue;
    use crate::pool::frame::{Status, TaskId};
    use crate::pool::job;
    use crate::pool::transport::{ArenaTransport, Transport};

    fn frames(tasks: usize) -> Frames {
        let transport: Arc<dyn Transport> = Arc::new(ArenaTransport::new().unwrap());
        let job = job::store_pinned(&transport, b"", &Pins::default()).unwrap();
        let mut frames = Frames::new(&job, 0);
        (0..tasks).for_each(|_| frames.push(b"task"));
        frames
    }

    /// A batch whose first task has this index.
    fn batch(order: Order, base: u64, tasks: usize, retries: u32) -> Batch {
        let batch = Batch::new(3, order);
        batch.lock().base = base;
        batch.lock().next = base;
        batch.extend(&mut frames(tasks), retries, || Ok::<_, ()>(())).unwrap();
        batch
    }

    /// Gives the batch the results of the tasks with these indices.
    fn take_in(batch: &Batch, indices: &[u32]) -> Progress {
        let queue = ByteQueue::new(0).unwrap();
        let headers = indices.iter().map(|index| {
            let id = Some(TaskId { batch: 3, index: *index });
            ResultHeader { id, status: Status::Done, seat: 0 }
        });
        let headers: Vec<_> = headers.collect();
        headers.iter().for_each(|header| queue.put(&header.to_bytes(), None).unwrap());
        let records = headers.iter().map(|header| (*header, queue.get(None).unwrap()));
        batch.take_in(&mut records.peekable())
    }

    fn death() -> Death {
        Death { pid: 1, name: "one".to_owned(), status: ExitStatus::Code(1) }
    }

    fn next(batch: &Batch) -> Option<usize> {
        match batch.next() {
            Next::Outcome(index, _) => Some(index),
            Next::NotYet | Next::End => None,
        }
    }

    #[test]
    fn indices_go_on_beyond_32_bits() {
        let base = u64::from(u32::MAX) - 1;
        let batch = batch(Order::Index, base, 4, 0);
        take_in(&batch, &[1, 0, u32::MAX, u32::MAX - 1]);
        let seen: Vec<usize> = std::iter::from_fn(|| next(&batch)).collect();
        assert_eq!(seen, (0..4).map(|n| base as usize + n).collect::<Vec<_>>());
        assert!(matches!(batch.next(), Next::End));
    }

    #[test]
    fn second_result_of_a_task_is_ignored() {
        let batch = batch(Order::Finish, 0, 2, 0);
        take_in(&batch, &[0, 0, 0]);
        assert_eq!(batch.unfinished(), 1);
        assert_eq!((next(&batch), next(&batch)), (Some(0), None));
        take_in(&batch, &[0, 1, 7]);
        assert_eq!((next(&batch), next(&batch)), (Some(1), None));
    }

    #[test]
    fn death_after_the_result_changes_nothing() {
        let batch = batch(Order::Finish, 0, 1, 5);
        take_in(&batch, &[0]);
        let (again, _) = batch.lose(0, death(), 5);
        assert!(again.is_none(), "the task would be done twice");
        assert!(matches!(batch.take(0), Some(Outcome::Done(_))));
    }

    #[test]
    fn task_is_given_back_until_its_retries_are_used_up() {
        let batch = batch(Order::Finish, 0, 1, 2);
        for _ in 0..2 {
            let (again, _) = batch.lose(0, death(), 2);
            assert!(again.is_some_and(|kept| kept.record.ends_with(b"task")));
            assert_eq!(batch.unfinished(), 1);
        }
        assert!(batch.lose(0, death(), 2).0.is_none());
        match batch.take(0) {
            Some(Outcome::Lost(TaskLost::WorkerDied(died))) => assert_eq!(died.attempts, 3),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tasks_that_were_not_submitted_are_taken_back() {
        let batch = batch(Order::Finish, 0, 5, 0);
        take_in(&batch, &[1]);
        batch.shorten(3);
        assert_eq!((batch.len(), batch.unfinished()), (2, 1));
        assert_eq!(next(&batch), Some(1));
        batch.shorten(0);
        take_in(&batch, &[0, 3]);
        assert_eq!((next(&batch), next(&batch)), (Some(0), None));
    }

    #[test]
    fn abandoned_batch_is_over_with_its_last_result() {
        let batch = batch(Order::Finish, 0, 3, 0);
        take_in(&batch, &[2]);
        assert!(!batch.abandon());
        assert!(!take_in(&batch, &[0]).over);
        assert!(take_in(&batch, &[1]).over);
        assert!(batch.lock().slots.is_empty(), "outcomes that nobody wants were kept");
    }

    proptest! {
        #[test]
        fn every_outcome_is_handed_out_once(
            indices in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle(),
            steps in prop::collection::vec(1..5_usize, 40),
            by_index: bool,
        ) {
            let order = if by_index { Order::Index } else { Order::Finish };
            let batch = batch(order, 0, 40, 0);
            let mut seen = Vec::new();
            let mut rest = &indices[..];
            for step in steps {
                let (now, later) = rest.split_at(step.min(rest.len()));
                rest = later;
                take_in(&batch, now);
                seen.extend(next(&batch));
            }
            seen.extend(std::iter::from_fn(|| next(&batch)));
            let expected: Vec<usize> = match order {
                Order::Index => (0..40).collect(),
                Order::Finish => indices.iter().map(|index| *index as usize).collect(),
            };
            prop_assert_eq!(seen, expected);
            prop_assert!(batch.lock().slots.is_empty(), "slots pile up");
        }
    }
}
