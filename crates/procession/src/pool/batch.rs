//! Tasks whose outcomes are collected together.
//!
//! | slot      | meaning                                          | becomes                     |
//! |-----------|--------------------------------------------------|-----------------------------|
//! | `Waiting` | submitted, no outcome yet                        | `Ready` or `Revoked`; `Taken` if nobody wants it |
//! | `Revoked` | has its outcome without the workers, but one of them may have the task | as `Ready` or `Taken` when the task is back |
//! | `Ready`   | has its outcome                                  | `Taken`                     |
//! | `Taken`   | the outcome was handed out, or nobody wants it   |                             |
//!
//! Slots at the front that are `Taken` go away, so a long stream of tasks does not pile up. Who
//! finishes a task: a result, the death of its worker, a cancellation, a timeout, the failure of another
//! task of a batch that ends with the first failure, or the end of the pool. The first wins.
//!
//! Every task that was submitted comes back once: with a result, which may say that the worker passed
//! it by, or with the death of its worker. Until then the batch stays known, and so do its functions
//! and, if it was cancelled, the word to the workers to begin no more of it.

use std::collections::VecDeque;
use std::fmt;
use std::iter::Peekable;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::channel::Message;
use crate::pool::error::{PoolError, TaskLost, WorkerDied};
use crate::pool::frame::{Care, ResultHeader, Status};
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

#[derive(Debug)]
enum Slot {
    /// How many workers died of it, and what to submit again after the next death.
    Waiting {
        deaths: u32,
        kept: Option<Arc<Kept>>,
    },
    /// The outcome, until it is handed out.
    Revoked(Option<TaskLost>),
    Ready(Outcome),
    Taken,
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

#[derive(Debug, Default)]
struct BatchState {
    slots: VecDeque<Slot>,
    /// Index of the task in the first slot.
    base: u64,
    /// How many slots are `Waiting`, and how many `Revoked`.
    unfinished: usize,
    revoked: usize,
    /// It was cancelled, and takes no more tasks.
    closed: bool,
    /// Workers were told to begin none of its tasks.
    noted: bool,
    /// Tasks that workers have passed by since, before they were finished here.
    passed_by: usize,
    /// Index of the first task that failed, if that is of interest, and whether it is news.
    first_failure: Option<u64>,
    failed_now: bool,
    /// Whether that a task has its outcome is news.
    finished_now: bool,
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
        self.finished_now = true;
        if self.abandoned {
            self.slots[place] = Slot::Taken;
            return;
        }
        self.slots[place] = Slot::Ready(outcome);
        if order == Order::Finish {
            self.finished.push_back(self.base + place as u64);
        }
    }

    /// Whether no worker has or may yet take a task of it.
    fn is_back(&self) -> bool {
        self.unfinished + self.revoked == 0
    }

    fn note_failure(&mut self, place: usize) {
        if self.first_failure.is_none() {
            self.first_failure = Some(self.base + place as u64);
            self.failed_now = true;
        }
    }

    /// Finishes a task that is under way.
    fn give_up(&mut self, place: usize, lost: TaskLost, order: Order) {
        self.unfinished -= 1;
        self.revoked += 1;
        self.slots[place] = Slot::Revoked((!self.abandoned).then_some(lost));
        if order == Order::Finish && !self.abandoned {
            self.finished.push_back(self.base + place as u64);
        }
    }

    /// Takes a task back that has its outcome, and is under way no more.
    fn come_back(&mut self, index: u32) {
        let place = index.wrapping_sub(self.base as u32) as usize;
        if let Some(Slot::Revoked(_)) = self.slots.get(place) {
            self.recover(place);
        }
    }

    fn recover(&mut self, place: usize) {
        if let Slot::Revoked(lost) = &mut self.slots[place] {
            self.revoked -= 1;
            self.slots[place] = match lost.take() {
                Some(lost) => Slot::Ready(Outcome::Lost(lost)),
                None => Slot::Taken,
            };
        }
    }

    /// Counts a death of the worker that ran the task. Returns the task if it may be tried again.
    fn count_death(&mut self, place: usize, retries: u32) -> Option<Arc<Kept>> {
        let Slot::Waiting { deaths, kept } = &mut self.slots[place] else { return None };
        *deaths += 1;
        let wanted = !self.abandoned && !self.noted;
        if *deaths <= retries && wanted { kept.clone() } else { None }
    }

    fn died(&self, place: usize, death: Death) -> WorkerDied {
        let attempts = match &self.slots[place] {
            Slot::Waiting { deaths, .. } => *deaths,
            Slot::Revoked(_) | Slot::Ready(_) | Slot::Taken => 1,
        };
        let Death { pid, name, status, out_of_memory } = death;
        let task = self.base as usize + place;
        WorkerDied { pid, name, status, task, attempts, out_of_memory }
    }

    /// Lets go of what is not needed once all tasks are back, and of taken slots.
    fn settle(&mut self) {
        if self.is_back() {
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
            over: self.is_back() && self.abandoned,
            callbacks: if all { std::mem::take(&mut self.callbacks) } else { Vec::new() },
            finished: std::mem::take(&mut self.finished_now),
            failed: std::mem::take(&mut self.failed_now),
            forget: self.is_back() && std::mem::take(&mut self.noted),
        }
    }

    fn take(&mut self, place: usize) -> Option<Outcome> {
        let slot = self.slots.get_mut(place)?;
        if let Slot::Revoked(lost) = slot {
            return lost.take().map(Outcome::Lost);
        }
        if !matches!(slot, Slot::Ready(_)) {
            return None;
        }
        match std::mem::replace(slot, Slot::Taken) {
            Slot::Ready(outcome) => Some(outcome),
            Slot::Waiting { .. } | Slot::Revoked(_) | Slot::Taken => None,
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
                Slot::Revoked(_) | Slot::Taken | Slot::Ready(_) => self.next += 1,
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
    use crate::pool::frame::TaskId;
    use crate::pool::job;
    use crate::pool::transport::{ArenaTransport, Limits, Transport};

    fn frames(tasks: usize) -> Frames {
        let transport: Arc<dyn Transport> =
            Arc::new(ArenaTransport::new(Limits::default(), Vec::new()).unwrap());
        let job = job::store_pinned(&transport, b"", &Pins::default()).unwrap();
        let mut frames = Frames::new(&job, 0);
        (0..tasks).for_each(|_| frames.push(b"task"));
        frames
    }

    /// A batch whose first task has this index.
    fn batch(order: Order, base: u64, tasks: usize, retries: u32) -> Batch {
        batch_with(order, base, tasks, TaskOptions { retries: Some(retries), ..Default::default() })
    }

    fn batch_with(order: Order, base: u64, tasks: usize, options: TaskOptions) -> Batch {
        let batch = Batch::new(3, order, options, 0);
        batch.lock().base = base;
        batch.lock().next = base;
        batch.extend(&mut frames(tasks), || Ok(())).unwrap();
        batch
    }

    /// Gives the batch the results of the tasks with these indices.
    fn take_in(batch: &Batch, indices: &[u32]) -> Progress {
        take_in_with(batch, indices, Status::Done)
    }

    fn take_in_with(batch: &Batch, indices: &[u32], status: Status) -> Progress {
        let queue = ByteQueue::new(0).unwrap();
        let headers = indices.iter().map(|index| {
            let id = Some(TaskId { batch: 3, index: *index });
            ResultHeader { id, status, seat: 0 }
        });
        let headers: Vec<_> = headers.collect();
        headers.iter().for_each(|header| queue.put(&header.to_bytes(), None).unwrap());
        let records = headers.iter().map(|header| (*header, queue.get(None).unwrap()));
        batch.take_in(&mut records.peekable())
    }

    fn death() -> Death {
        Death { pid: 1, name: "one".to_owned(), status: ExitStatus::Code(1), out_of_memory: false }
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
        let (again, _) = batch.lose(0, death());
        assert!(again.is_none(), "the task would be done twice");
        assert!(matches!(batch.take(0), Some(Outcome::Done(_))));
    }

    #[test]
    fn task_is_given_back_until_its_retries_are_used_up() {
        let batch = batch(Order::Finish, 0, 1, 2);
        for _ in 0..2 {
            let (again, _) = batch.lose(0, death());
            assert!(again.is_some_and(|kept| kept.record.ends_with(b"task")));
            assert_eq!(batch.unfinished(), 1);
        }
        assert!(batch.lose(0, death()).0.is_none());
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

    #[test]
    fn revoked_tasks_have_their_outcome_and_keep_the_batch_until_they_are_back() {
        for order in [Order::Index, Order::Finish] {
            let batch = batch(order, 0, 4, 3);
            take_in(&batch, &[1]);
            assert!(batch.close());
            let (count, progress) = batch.revoke(&[2], &TaskLost::Cancelled);
            assert_eq!((count, batch.unfinished()), (2, 1));
            assert!(!progress.forget);
            take_in(&batch, &[2]);
            assert_eq!(batch.unfinished(), 0);
            let mut seen: Vec<usize> = std::iter::from_fn(|| next(&batch)).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3], "{order:?}");
            // One is passed by, the worker of the other dies.
            assert!(!take_in_with(&batch, &[3], Status::Skipped).forget);
            let (again, progress) = batch.lose(0, death());
            assert!(again.is_none() && progress.forget, "a cancelled task must not be run again");
            assert!(batch.lock().slots.is_empty() && batch.lock().jobs.is_empty());
            let refused = batch.extend(&mut frames(1), || Ok(()));
            assert!(matches!(refused, Err(PoolError::Cancelled)));
        }
    }

    #[test]
    fn first_failure_is_told_once() {
        let options = TaskOptions { fail_fast: true, ..Default::default() };
        let batch = batch_with(Order::Index, 0, 4, options);
        assert!(!take_in(&batch, &[1]).failed);
        assert!(take_in_with(&batch, &[3], Status::Failed).failed);
        assert!(!take_in_with(&batch, &[2], Status::Failed).failed);
        assert_eq!(batch.first_failure(), Some(3));
        let (count, _) = batch.revoke(&[], &TaskLost::Cancelled);
        assert_eq!((count, batch.unfinished()), (1, 0));
    }

    #[test]
    fn abandoned_batch_with_revoked_tasks_is_over_when_they_are_back() {
        let batch = batch(Order::Finish, 0, 2, 0);
        assert!(!batch.abandon());
        assert!(!batch.revoke(&[], &TaskLost::Cancelled).1.over);
        assert!(!take_in_with(&batch, &[1], Status::Skipped).over);
        let last = take_in_with(&batch, &[0], Status::Skipped);
        assert!(last.over && last.forget);
    }

    #[test]
    fn end_of_the_pool_brings_revoked_tasks_back() {
        let batch = batch(Order::Index, 0, 2, 0);
        batch.expire(0, |_| TaskLost::Cancelled);
        batch.lose_all(&TaskLost::Terminated);
        assert!(matches!(batch.take(0), Some(Outcome::Lost(TaskLost::Cancelled))));
        assert!(matches!(batch.take(1), Some(Outcome::Lost(TaskLost::Terminated))));
        assert!(batch.lock().slots.is_empty());
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
