//! Tasks packed for submission.

use std::sync::Arc;

use crate::pool::frame::{Care, TASK_HEADER, TaskHeader, TaskId};
use crate::pool::job::JobRef;
use crate::shm::Pins;

/// Tasks for one function, packed one after another into one buffer.
///
/// Nothing is sent before [`RawBatch::submit`](super::raw::RawBatch::submit), so an argument that
/// does not serialize leaves no trace in the pool.
#[derive(Debug)]
pub struct Frames {
    job: JobRef,
    kind: u32,
    /// The records, each with a header that is filled in on submission.
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<usize>,
    /// The shared objects that tasks name, by the number of the task, in order.
    pins: Vec<(usize, Arc<Pins>)>,
    /// How many were submitted, counted from the front.
    submitted: usize,
}

impl Frames {
    /// Makes an empty pack for the function of `job`.
    ///
    /// `kind` means nothing to the pool and reaches [`Runner::run`](super::raw::Runner::run).
    pub fn new(job: &JobRef, kind: u32) -> Self {
        Self {
            job: job.clone(),
            kind,
            bytes: Vec::new(),
            ends: Vec::new(),
            pins: Vec::new(),
            submitted: 0,
        }
    }

    /// Adds a task with this payload.
    pub fn push(&mut self, payload: &[u8]) {
        self.begin();
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }

    /// Adds a task whose payload names shared objects, and keeps them alive.
    pub fn push_pinned(&mut self, payload: &[u8], pins: Pins) {
        self.push(payload);
        self.pin(pins);
    }

    /// Keeps shared objects alive for the task that was added last.
    ///
    /// # Panics
    ///
    /// Panics if no task was added.
    pub fn pin(&mut self, pins: Pins) {
        let last = self.ends.len().checked_sub(1).expect("pins belong to a task");
        if !pins.is_empty() {
            self.pins.push((last, Arc::new(pins)));
        }
    }

    /// Adds a task whose payload `write` appends to the buffer.
    ///
    /// # Errors
    ///
    /// Whatever `write` returns; no task was added then.
    ///
    /// # Panics
    ///
    /// Panics if `write` makes the buffer shorter than it was.
    pub fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let payload = self.begin();
        write(&mut self.bytes)?;
        assert!(self.bytes.len() >= payload, "the buffer holds other tasks");
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// How many tasks are waiting here for submission.
    pub fn len(&self) -> usize {
        self.ends.len() - self.submitted
    }

    /// Whether no task is waiting here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for a header after the last complete record, and returns where the payload begins.
    fn begin(&mut self) -> usize {
        // A `write` that failed or panicked may have left a part of a record.
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.bytes.extend_from_slice(&[0; TASK_HEADER]);
        self.bytes.len()
    }

    pub(super) fn job(&self) -> &JobRef {
        &self.job
    }

    /// Number of the first task that was not submitted.
    pub(super) fn first(&self) -> usize {
        self.submitted
    }

    /// One past the number of the last task.
    pub(super) fn end(&self) -> usize {
        self.ends.len()
    }

    /// Writes the headers of all tasks that were not submitted.
    pub(super) fn seal(&mut self, batch: u32, first_index: u32, care: Care) {
        for (place, number) in (self.submitted..self.ends.len()).enumerate() {
            let index = first_index.wrapping_add(place as u32);
            let id = Some(TaskId { batch, index });
            let header = TaskHeader { id, job: self.job.handle(), kind: self.kind, care };
            let start = self.start(number);
            self.bytes[start..start + TASK_HEADER].copy_from_slice(&header.to_bytes());
        }
    }

    pub(super) fn record(&self, number: usize) -> &[u8] {
        &self.bytes[self.start(number)..self.ends[number]]
    }

    /// The shared objects that a task names, if it names any.
    pub(super) fn pins(&self, number: usize) -> Option<&Arc<Pins>> {
        let place = self.pins.binary_search_by_key(&number, |(task, _)| *task).ok()?;
        Some(&self.pins[place].1)
    }

    /// Number of the first task from `from` on that names shared objects, or of the end.
    pub(super) fn next_pinned(&self, from: usize) -> usize {
        let place = self.pins.partition_point(|(task, _)| *task < from);
        self.pins.get(place).map_or(self.ends.len(), |(task, _)| *task)
    }

    /// Notes that `count` more tasks were submitted; forgets everything when these were all.
    pub(super) fn advance(&mut self, count: usize) {
        self.submitted += count;
        if self.is_empty() {
            self.bytes.clear();
            self.ends.clear();
            self.pins.clear();
            self.submitted = 0;
        }
    }

    fn start(&self, number: usize) -> usize {
        if number == 0 { 0 } else { self.ends[number - 1] }
    }
}
