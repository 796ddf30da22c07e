//! The tasks of a batch, a slot each.
//!
//! | slot      | meaning                                          | becomes                     |
//! |-----------|--------------------------------------------------|-----------------------------|
//! | `Waiting` | submitted, no outcome yet                        | `Ready` or `Revoked`; `Taken` if nobody wants it |
//! | `Revoked` | has its outcome without the workers, but one of them may have the task | as `Ready` or `Taken` when the task is back |
//! | `Ready`   | has its outcome                                  | `Taken`                     |
//! | `Taken`   | the outcome was handed out, or nobody wants it   |                             |
//!
//! Slots at the front that are `Taken` go away, so a long stream of tasks does not pile up.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::pool::batch::{Callback, Death, Goal, Kept, Next, Order, Progress};
use crate::pool::error::{TaskLost, WorkerDied};
use crate::pool::job::JobRef;
use crate::pool::outcome::Outcome;

#[derive(Debug)]
pub(super) enum Slot {
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

#[derive(Debug, Default)]
pub(super) struct BatchState {
    pub(super) slots: VecDeque<Slot>,
    /// Index of the task in the first slot.
    pub(super) base: u64,
    /// How many slots are `Waiting`, and how many `Revoked`.
    pub(super) unfinished: usize,
    pub(super) revoked: usize,
    /// It was cancelled, and takes no more tasks.
    pub(super) closed: bool,
    /// Workers were told to begin none of its tasks.
    pub(super) noted: bool,
    /// Tasks that workers have passed by since, before they were finished here.
    pub(super) passed_by: usize,
    /// Index of the first task that failed, if that is of interest, and whether it is news.
    pub(super) first_failure: Option<u64>,
    failed_now: bool,
    /// Whether that a task has its outcome is news.
    finished_now: bool,
    /// For [`Order::Index`]: index of the task to hand out next.
    pub(super) next: u64,
    /// For [`Order::Finish`]: indices of those that have finished.
    pub(super) finished: VecDeque<u64>,
    /// The functions of its tasks, kept while any task is unfinished.
    pub(super) jobs: Vec<JobRef>,
    /// Nobody will ask for outcomes.
    pub(super) abandoned: bool,
    /// Threads that wait until all tasks have finished, and until any has, while another takes in
    /// the results.
    waiting_for_all: usize,
    waiting_for_any: usize,
    /// What to call once all tasks have finished.
    pub(super) callbacks: Vec<Callback>,
}

impl BatchState {
    /// Index of the task that will be submitted next.
    pub(super) fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// Place of a task that has no outcome yet, from the 32 bits of its index in a record.
    pub(super) fn waiting(&self, index: u32) -> Option<usize> {
        let place = index.wrapping_sub(self.base as u32) as usize;
        matches!(self.slots.get(place), Some(Slot::Waiting { .. })).then_some(place)
    }

    pub(super) fn finish(&mut self, place: usize, outcome: Outcome, order: Order) {
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
    pub(super) fn is_back(&self) -> bool {
        self.unfinished + self.revoked == 0
    }

    pub(super) fn note_failure(&mut self, place: usize) {
        if self.first_failure.is_none() {
            self.first_failure = Some(self.base + place as u64);
            self.failed_now = true;
        }
    }

    /// Finishes a task that is under way.
    pub(super) fn give_up(&mut self, place: usize, lost: TaskLost, order: Order) {
        self.unfinished -= 1;
        self.revoked += 1;
        self.slots[place] = Slot::Revoked((!self.abandoned).then_some(lost));
        if order == Order::Finish && !self.abandoned {
            self.finished.push_back(self.base + place as u64);
        }
    }

    /// Takes a task back that has its outcome, and is under way no more.
    pub(super) fn come_back(&mut self, index: u32) {
        let place = index.wrapping_sub(self.base as u32) as usize;
        if let Some(Slot::Revoked(_)) = self.slots.get(place) {
            self.recover(place);
        }
    }

    pub(super) fn recover(&mut self, place: usize) {
        if let Slot::Revoked(lost) = &mut self.slots[place] {
            self.revoked -= 1;
            self.slots[place] = match lost.take() {
                Some(lost) => Slot::Ready(Outcome::Lost(lost)),
                None => Slot::Taken,
            };
        }
    }

    /// Counts a death of the worker that ran the task. Returns the task if it may be tried again.
    pub(super) fn count_death(&mut self, place: usize, retries: u32) -> Option<Arc<Kept>> {
        let Slot::Waiting { deaths, kept } = &mut self.slots[place] else { return None };
        *deaths += 1;
        let wanted = !self.abandoned && !self.noted;
        if *deaths <= retries && wanted { kept.clone() } else { None }
    }

    pub(super) fn died(&self, place: usize, death: Death) -> WorkerDied {
        let attempts = match &self.slots[place] {
            Slot::Waiting { deaths, .. } => *deaths,
            Slot::Revoked(_) | Slot::Ready(_) | Slot::Taken => 1,
        };
        let Death { pid, name, status, out_of_memory } = death;
        let task = self.base as usize + place;
        WorkerDied { pid, name, status, task, attempts, out_of_memory }
    }

    /// Lets go of what is not needed once all tasks are back, and of taken slots.
    pub(super) fn settle(&mut self) {
        if self.is_back() {
            self.jobs.clear();
        }
        self.trim();
    }

    pub(super) fn trim(&mut self) {
        while let Some(Slot::Taken) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }

    pub(super) fn progress(&mut self) -> Progress {
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

    pub(super) fn take(&mut self, place: usize) -> Option<Outcome> {
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

    pub(super) fn next_by_index(&mut self) -> Next {
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

    pub(super) fn next_finished(&mut self) -> Next {
        while let Some(index) = self.finished.pop_front() {
            let Some(place) = index.checked_sub(self.base) else { continue };
            if let Some(outcome) = self.take(place as usize) {
                return Next::Outcome(index as usize, outcome);
            }
        }
        if self.unfinished == 0 { Next::End } else { Next::NotYet }
    }

    pub(super) fn watchers(&mut self, goal: Goal) -> &mut usize {
        match goal {
            Goal::All => &mut self.waiting_for_all,
            Goal::Any => &mut self.waiting_for_any,
        }
    }
}
