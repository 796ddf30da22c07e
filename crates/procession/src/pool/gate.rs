//! The word by which a worker and its owner agree who decides about the task at hand.
//!
//! | value     | written by | meaning                                                        |
//! |-----------|------------|----------------------------------------------------------------|
//! | 0         | worker     | it has begun no task, or has passed the last one by, since it was cancelled |
//! | `id`      | worker     | it runs this task                                              |
//! | `!id`     | worker     | it has run this task: what comes out of it is what the worker publishes |
//! | all ones  | owner      | arrested: the worker publishes nothing more, and will be killed |
//!
//! An id never has its top bit set, so the four cannot be confused.
//!
//! # Exactly one outcome
//!
//! A worker that has run a task goes from `id` to `!id`, the owner that wants to end it from `id` to
//! all ones. Both compare and swap, so one of them fails: either the result is published and the
//! worker lives, or the owner's verdict counts and the worker dies with nothing published. A worker is
//! never killed for a task that it has left behind.
//!
//! A worker stores `id` and then looks whether the batch was revoked; the owner revokes it and then
//! looks at the gates. Both have a sequentially consistent fence in between, so either the worker passes
//! the task by, or the owner sees that it was begun.
//!
//! # When a process dies
//!
//! The worker: its claim says what it was at, and this word whether the owner had arrested it. The
//! owner, between arrest and kill: the worker ends by itself when it finds the gate closed, and with
//! its parent at the latest.

use crate::pool::frame::TaskId;
use crate::primitive::{AtomicU64, Ordering, fence};

const ARRESTED: u64 = u64::MAX;

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// No task was begun.
    New,
    Running(TaskId),
    /// It was run; the result may be on its way.
    Finished(TaskId),
    Arrested,
}

/// See the module.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Gate(AtomicU64);

impl Gate {
    /// The worker is about to run a task. It must then look whether the task is still wanted.
    pub(super) fn begin(&self, id: TaskId) {
        self.0.store(id.bits(), Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The worker has run the task. Returns whether its word counts; otherwise it has been arrested.
    pub(super) fn finish(&self, id: TaskId) -> bool {
        self.leave(id, !id.bits())
    }

    /// The worker will not run the task, which was cancelled. Returns false if it has been arrested.
    pub(super) fn pass_by(&self, id: TaskId) -> bool {
        self.leave(id, 0)
    }

    fn leave(&self, id: TaskId, then: u64) -> bool {
        self.0.compare_exchange(id.bits(), then, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The owner puts an end to the task, if it is being run. Returns whether it did; the worker must
    /// then be killed.
    pub(super) fn arrest(&self, id: TaskId) -> bool {
        self.0.compare_exchange(id.bits(), ARRESTED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(super) fn look(&self) -> Stand {
        let word = self.0.load(Ordering::SeqCst);
        if word == ARRESTED {
            return Stand::Arrested;
        }
        match word >> 63 {
            0 => TaskId::from_bits(word).map_or(Stand::New, Stand::Running),
            _ => TaskId::from_bits(!word).map_or(Stand::New, Stand::Finished),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ID: TaskId = TaskId { batch: 0x7FFF_FFFF, index: u32::MAX };
    const NEXT: TaskId = TaskId { batch: 1, index: 0 };

    fn gate() -> Gate {
        Gate(AtomicU64::new(0))
    }

    #[test]
    fn every_stand_can_be_told() {
        let gate = gate();
        assert_eq!(gate.look(), Stand::New);
        gate.begin(NEXT);
        assert_eq!(gate.look(), Stand::Running(NEXT));
        assert!(gate.finish(NEXT));
        assert_eq!(gate.look(), Stand::Finished(NEXT));
        gate.begin(NEXT);
        assert!(gate.pass_by(NEXT));
        assert_eq!(gate.look(), Stand::New);
        gate.begin(ID);
        assert!(gate.arrest(ID));
        assert_eq!(gate.look(), Stand::Arrested);
    }

    #[test]
    fn task_that_was_left_behind_cannot_be_arrested() {
        let gate = gate();
        gate.begin(ID);
        assert!(gate.finish(ID));
        assert!(!gate.arrest(ID));
        gate.begin(NEXT);
        assert!(!gate.arrest(ID), "the worker runs another one");
        assert!(gate.finish(NEXT));
    }

    #[test]
    fn arrested_worker_has_no_say() {
        let gate = gate();
        gate.begin(ID);
        assert!(gate.arrest(ID));
        assert!(!gate.finish(ID) && !gate.pass_by(ID));
        assert!(!gate.arrest(ID), "one arrest is enough");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::primitive::AtomicU32;

    const ID: TaskId = TaskId { batch: 1, index: 0 };
    const NEXT: TaskId = TaskId { batch: 2, index: 0 };

    #[test]
    fn loom_one_side_decides_about_a_task() {
        loom::model(|| {
            let gate = Arc::new(Gate(AtomicU64::new(0)));
            let worker = {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    gate.begin(ID);
                    let published = gate.finish(ID);
                    if published {
                        gate.begin(NEXT);
                        assert!(gate.finish(NEXT), "arrested for a task that it had left");
                    }
                    published
                })
            };
            let arrested = gate.arrest(ID);
            assert_ne!(worker.join().unwrap(), arrested);
        });
    }

    #[test]
    fn loom_revoked_task_is_passed_by_or_seen() {
        loom::model(|| {
            let gate = Arc::new(Gate(AtomicU64::new(0)));
            let revoked = Arc::new(AtomicU32::new(0));
            let worker = {
                let (gate, revoked) = (Arc::clone(&gate), Arc::clone(&revoked));
                thread::spawn(move || {
                    gate.begin(ID);
                    revoked.load(Ordering::SeqCst) == 0
                })
            };
            revoked.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let seen = gate.look() == Stand::Running(ID);
            let ran = worker.join().unwrap();
            assert!(seen || !ran, "a cancelled task was run unseen");
        });
    }
}
