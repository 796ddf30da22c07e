//! What comes of the tasks of a batch, whatever happens in whichever order.

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
