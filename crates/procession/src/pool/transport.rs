//! How tasks reach the workers and results the owner.
//!
//! The rest of the pool knows tasks and results as records of bytes (see [`frame`](super::frame))
//! behind two traits, one for each end. [`ArenaTransport`] and [`ArenaWorker`] carry them through
//! two queues in the arena. Another transport has to keep these promises:
//!
//! - what [`Transport::submit`] accepted is taken by one worker, in order;
//! - after the death of a worker was noticed, [`Transport::judge`] names the task it had begun and
//!   whose result will not come, and everything that the worker published can be received.

use std::fmt::Debug;
use std::io;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::channel::{ByteQueue, GetError, Message, PutError};
use crate::error::WaitError;
use crate::pool::core::lock;
use crate::pool::frame::{Care, ResultHeader, Status, TaskHeader, TaskId};
use crate::pool::frames::Frames;
use crate::pool::gate::Stand;
use crate::pool::home::Home;
use crate::pool::state::{self, Orders, PoolState, SeatState, Work};
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{Arena, ArenaError, Handle, Owner, Pins, Shared};
use crate::sync::spin::SpinBudget;
use crate::sys::cpu;

/// Tasks that are thrown away at once.
const BACKLOG_STEP: usize = 256;

/// The owner's end.
pub(super) trait Transport: Debug + Send + Sync {
    /// Hands over the tasks of `frames` from number `from` on, in order, and returns how many were
    /// accepted. An error means that none was.
    fn submit(&self, frames: &Frames, from: usize) -> Result<usize, ArenaError>;

    /// Hands over one task again.
    fn resubmit(&self, record: &[u8], pins: &Pins) -> Result<(), ArenaError>;

    /// How many tasks no worker has taken yet.
    fn backlog(&self) -> usize;

    /// Throws away the tasks that no worker has taken, and what they hold. None may be submitted
    /// after this.
    fn discard_backlog(&self);

    /// Takes in at most `most` results, as many as there are, without waiting.
    fn receive(&self, most: usize) -> Vec<Message>;

    /// Tells workers whose results found no room that some were taken in.
    fn relieve(&self);

    /// How many results there are to be received.
    fn unread(&self) -> usize;

    /// Sets how many results are worth an end of [`sleep`](Self::sleep).
    fn set_wake_at(&self, results: usize);

    /// How often [`wake`](Self::wake) was called.
    fn wakes(&self) -> u64;

    /// Blocks until enough results are there, a worker lacks room for its result, or `wake` was
    /// called since [`wakes`](Self::wakes) was `seen`.
    fn sleep(&self, seen: u64, deadline: Option<Instant>) -> Result<(), WaitError>;

    /// Ends [`sleep`](Self::sleep) in another thread.
    fn wake(&self);

    /// Gives an order, and has `workers` workers look at it.
    fn give_orders(&self, orders: Orders, workers: usize);

    /// Keeps the bytes of a function for the workers.
    fn store_job(&self, bytes: &[u8], pins: &Pins) -> Result<u64, ArenaError>;

    /// Forgets a function. No task that names it may be unfinished.
    fn drop_job(&self, job: u64);

    /// Makes what one worker needs to connect.
    fn admit(&self, seat: u32) -> Result<WorkerBoot, ArenaError>;

    /// Says what a dead worker left behind. It must have been reaped.
    fn judge(&self, worker: &WorkerBoot) -> Remains;

    /// Has workers pass by the tasks of a batch that they have not begun, until
    /// [`forget`](Self::forget). What was begun before is in a [`look`](Self::look) after this.
    fn revoke(&self, batch: u32) -> Result<(), ArenaError>;

    /// Forgets that a batch was revoked. None of its tasks may be under way.
    fn forget(&self, batch: u32);

    /// What a worker is at.
    fn look(&self, worker: &WorkerBoot) -> View;

    /// Keeps a worker from publishing the result of a task that it runs. Returns false if it does not
    /// run that task any more. The caller then kills the worker.
    fn arrest(&self, worker: &WorkerBoot, task: TaskId) -> bool;

    /// How many workers ever became ready.
    fn ready_workers(&self) -> u32;
}

/// What a dead worker left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remains {
    /// The task it had begun; done nevertheless if its result is among the results.
    pub(super) claim: Option<TaskId>,
    /// Whether it ever got as far as taking tasks.
    pub(super) was_ready: bool,
    /// Whether it was the owner that wanted its end.
    pub(super) arrested: bool,
    pub(super) work: Work,
}

/// What a worker is at.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// The task that it has taken and not answered for.
    pub(super) claim: Option<TaskId>,
    pub(super) stand: Stand,
    /// When the task at hand began, or the last one was over, in nanoseconds; 0 before the first.
    pub(super) since: u64,
    pub(super) was_ready: bool,
    pub(super) work: Work,
}

/// What a worker is to do about a task that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Run {
        /// When it began, in nanoseconds.
        began: u64,
    },
    /// It was cancelled; the owner is to be told that it will not be run.
    PassBy,
    /// This process is to end.
    Leave,
}

/// The worker's end.
pub(super) trait WorkerTransport {
    /// Says that this worker is about to take its first task.
    fn become_ready(&self);
    /// What the worker is to do.
    fn orders(&self) -> Orders;
    /// Blocks until there is a task, or a record that asks to look at the orders. The task is
    /// claimed until [`publish`](Self::publish) or [`let_go`](Self::let_go).
    fn take(&self) -> Result<Message, GetError>;
    /// The bytes of the function of the task at hand.
    fn job(&self, job: u64) -> Result<&[u8], ArenaError>;
    /// Says that the task at hand begins, and what to do about it.
    fn begin(&self, id: TaskId, care: Care) -> Begin;
    /// Says that the task at hand, which began at `began`, was run. Returns whether its result is
    /// wanted; otherwise this process is to end.
    fn finish(&self, id: TaskId, began: u64, failed: bool) -> bool;
    /// Wakes the owner.
    fn urge(&self);
    /// Hands over the result of the task at hand.
    fn publish(&self, record: &[u8], pins: &Pins) -> Result<(), ArenaError>;
    /// Gives up the claim on the task at hand without a result.
    fn let_go(&self);
    /// Asks the owner to take results in, and blocks until it did or the deadline has passed. Returns
    /// whether it did.
    fn wait_for_room(&self, deadline: Instant) -> bool;
}

/// Everything a worker process needs to find its pool.
///
/// The owner's [`Launcher`](super::raw::Launcher) passes it to the process that it starts; there it
/// is given to [`serve`](super::raw::serve). It names shared objects, so it must be serialized where
/// they may be: in a message, in a task or in the arguments of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerBoot {
    pool: Shared<PoolState>,
    seat_state: Shared<SeatState>,
    tasks: ByteQueue,
    results: ByteQueue,
    seat: u32,
    limits: Limits,
    /// The processors to run on; all of them if this is empty.
    cpus: Vec<usize>,
}

/// When a worker makes room for a fresh one. 0 is never.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Limits {
    pub(super) tasks: u64,
    /// In bytes.
    pub(super) memory: u64,
}

impl WorkerBoot {
    /// Returns the number of the worker, from 0. A replaced worker's number is used again.
    pub fn seat(&self) -> usize {
        self.seat as usize
    }

    /// Has this thread, and those that it starts, run where the pool wants this worker to be.
    ///
    /// [`serve`](super::raw::serve) does so too; this is for workers that have something to do before.
    ///
    /// # Errors
    ///
    /// What [sched_setaffinity(2)](https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html)
    /// reports. The worker cannot start then.
    pub fn prepare(&self) -> io::Result<()> {
        if self.cpus.is_empty() { Ok(()) } else { cpu::run_on(&self.cpus) }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Serializes it.
    ///
    /// # Errors
    ///
    /// Fails outside a message, a task or process arguments under construction.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        postcard::to_stdvec(self).map_err(io::Error::other)
    }

    /// Deserializes what [`to_bytes`](Self::to_bytes) gave, in the worker, while the message or the
    /// arguments that it came with are still alive.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are something else, or the pool is gone.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        postcard::from_bytes(bytes).map_err(io::Error::other)
    }

    /// Tells the owner why this worker cannot start. The worker then exits with a code other than 0.
    pub fn start_failed(&self, reason: &str) {
        let header = ResultHeader { id: None, status: Status::StartFailed, seat: self.seat };
        let record = [&header.to_bytes()[..], reason.as_bytes()].concat();
        // Without room for the reason, the exit code has to speak for itself.
        let _ = put(&self.results, &record, &Pins::default());
        self.pool.published(&self.results);
    }
}

/// Tasks and results in two queues of the arena.
#[derive(Debug)]
pub(super) struct ArenaTransport {
    pool: Shared<PoolState>,
    tasks: ByteQueue,
    results: ByteQueue,
    wakes: AtomicU64,
    spin: SpinBudget,
    home: Home,
    limits: Limits,
    /// Where the workers run, in turn; anywhere if this is empty.
    affinity: Vec<Vec<usize>>,
    /// Held while the list of revoked batches changes.
    revoking: Mutex<()>,
}

impl ArenaTransport {
    pub(super) fn new(limits: Limits, affinity: Vec<Vec<usize>>) -> Result<Self, ArenaError> {
        Ok(Self {
            limits,
            affinity,
            revoking: Mutex::new(()),
            pool: Shared::new(|_: &PoolState| {})?,
            tasks: ByteQueue::new(0)?,
            results: ByteQueue::new(0)?,
            wakes: AtomicU64::new(0),
            spin: SpinBudget::new(),
            home: Home::here(),
        })
    }

    /// Hands over the tasks from `from` on that name no shared objects, up to the first that does.
    fn submit_plain(&self, frames: &Frames, from: usize) -> Result<usize, ArenaError> {
        let until = frames.next_pinned(from);
        match self.tasks.put_many((from..until).map(|number| frames.record(number)), None) {
            Ok(accepted) => Ok(accepted),
            Err(PutError::Arena(error)) => Err(error),
            // The pool has ended, and all its tasks are lost.
            Err(PutError::Closed) => Ok(until - from),
            // A queue without a bound never waits for room; a signal is none of its business.
            Err(_) => Ok(0),
        }
    }
}

impl Transport for ArenaTransport {
    fn submit(&self, frames: &Frames, from: usize) -> Result<usize, ArenaError> {
        match frames.pins(from) {
            Some(pins) => put(&self.tasks, frames.record(from), pins).map(|()| 1),
            None => self.submit_plain(frames, from),
        }
    }

    fn resubmit(&self, record: &[u8], pins: &Pins) -> Result<(), ArenaError> {
        put(&self.tasks, record, pins)
    }

    fn backlog(&self) -> usize {
        self.tasks.len()
    }

    fn discard_backlog(&self) {
        while !self
            .tasks
            .get_many(BACKLOG_STEP, Some(Instant::now()))
            .unwrap_or_default()
            .is_empty()
        {}
    }

    fn receive(&self, most: usize) -> Vec<Message> {
        self.results.get_many(most, Some(Instant::now())).unwrap_or_default()
    }

    fn relieve(&self) {
        self.pool.relieve();
    }

    fn unread(&self) -> usize {
        self.results.len()
    }

    fn set_wake_at(&self, results: usize) {
        self.pool.set_wake_at(u32::try_from(results).unwrap_or(u32::MAX));
    }

    fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }

    fn sleep(&self, seen: u64, deadline: Option<Instant>) -> Result<(), WaitError> {
        let due = || self.wakes() != seen || self.pool.owner_is_due(&self.results);
        self.pool.owner_sleep.wait_until(&self.spin, deadline, || due().then_some(()))
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.pool.owner_sleep.notify(u32::MAX);
    }

    fn give_orders(&self, orders: Orders, workers: usize) {
        self.pool.give_orders(orders);
        match orders {
            Orders::Work => self.tasks.kick(),
            // Behind all tasks, so that who gets this has none to wait for.
            Orders::Finish => {
                let record = TaskHeader::LOOK_AROUND.to_bytes();
                for _ in 0..workers {
                    // Without room for it a worker stays until the pool is terminated.
                    let _ = put(&self.tasks, &record, &Pins::default());
                }
            }
            Orders::Stop => self.tasks.close(),
        }
    }

    fn store_job(&self, bytes: &[u8], pins: &Pins) -> Result<u64, ArenaError> {
        let arena = Arena::current()?;
        let owner = Owner::Block(self.pool.handle());
        Ok(arena.store_parcel(&[bytes], pins, owner)?.raw())
    }

    fn drop_job(&self, job: u64) {
        if !self.home.is_here() {
            return;
        }
        // After a stop, tasks count as lost while a worker may still be about to look at the job. It
        // belongs to the pool's own block, which frees it when the last process lets go of it.
        if self.pool.orders() == Orders::Stop {
            return;
        }
        if let Ok(arena) = Arena::current() {
            arena.free(Handle::from_raw(job));
        }
    }

    fn admit(&self, seat: u32) -> Result<WorkerBoot, ArenaError> {
        Ok(WorkerBoot {
            pool: self.pool.clone(),
            seat_state: Shared::new(|_: &SeatState| {})?,
            tasks: self.tasks.clone(),
            results: self.results.clone(),
            seat,
            limits: self.limits,
            cpus: match self.affinity.len() {
                0 => Vec::new(),
                sets => self.affinity[seat as usize % sets].clone(),
            },
        })
    }

    fn judge(&self, worker: &WorkerBoot) -> Remains {
        if let Err(error) = self.tasks.settle() {
            tracing::error!(%error, "what a dead worker left behind cannot be repaired");
        }
        let View { claim, stand, was_ready, work, .. } = self.look(worker);
        Remains { claim, was_ready, arrested: stand == Stand::Arrested, work }
    }

    fn revoke(&self, batch: u32) -> Result<(), ArenaError> {
        let _alone = lock(&self.revoking);
        state::revoke(&self.pool, batch)
    }

    fn forget(&self, batch: u32) {
        let _alone = lock(&self.revoking);
        state::forget(&self.pool, batch);
    }

    fn look(&self, worker: &WorkerBoot) -> View {
        let seat = &worker.seat_state;
        // The claim first: it is written before the gate.
        let claim = TaskId::from_bits(seat.claim.load());
        let stand = seat.gate.look();
        let (was_ready, work) = (seat.was_ready(), seat.work());
        View { claim, stand, since: seat.since(), was_ready, work }
    }

    fn arrest(&self, worker: &WorkerBoot, task: TaskId) -> bool {
        worker.seat_state.gate.arrest(task)
    }

    fn ready_workers(&self) -> u32 {
        self.pool.ready_workers()
    }
}

/// The worker's end of an [`ArenaTransport`].
#[derive(Debug)]
pub(super) struct ArenaWorker<'a> {
    boot: &'a WorkerBoot,
    arena: &'static Arena,
    spin: SpinBudget,
}

impl<'a> ArenaWorker<'a> {
    pub(super) fn new(boot: &'a WorkerBoot) -> Result<Self, ArenaError> {
        Ok(Self { boot, arena: Arena::current()?, spin: SpinBudget::new() })
    }
}

impl WorkerTransport for ArenaWorker<'_> {
    fn become_ready(&self) {
        self.boot.seat_state.become_ready(&self.boot.pool);
    }

    fn orders(&self) -> Orders {
        self.boot.pool.orders()
    }

    fn take(&self) -> Result<Message, GetError> {
        self.boot.tasks.get_claimed(&self.boot.seat_state.claim, None)
    }

    fn job(&self, job: u64) -> Result<&[u8], ArenaError> {
        // The owner keeps it for as long as a task that names it is claimed.
        self.arena.parcel_bytes(Handle::from_raw(job))
    }

    fn begin(&self, id: TaskId, care: Care) -> Begin {
        let seat = &self.boot.seat_state;
        let began = seat.begin(id, care.timed);
        // After the gate: see there.
        if !state::is_revoked(&self.boot.pool, id.batch) {
            Begin::Run { began }
        } else if seat.gate.pass_by(id) {
            Begin::PassBy
        } else {
            Begin::Leave
        }
    }

    fn finish(&self, id: TaskId, began: u64, failed: bool) -> bool {
        let seat = &self.boot.seat_state;
        let counts = seat.gate.finish(id);
        if counts {
            seat.count(began, failed);
        }
        counts
    }

    fn urge(&self) {
        self.boot.pool.urge();
    }

    fn publish(&self, record: &[u8], pins: &Pins) -> Result<(), ArenaError> {
        put(&self.boot.results, record, pins)?;
        self.boot.pool.published(&self.boot.results);
        self.let_go();
        Ok(())
    }

    fn let_go(&self) {
        self.boot.seat_state.claim.clear();
    }

    fn wait_for_room(&self, deadline: Instant) -> bool {
        self.boot.pool.press(&self.spin, deadline)
    }
}

/// Puts into a queue without a bound.
fn put(queue: &ByteQueue, record: &[u8], pins: &Pins) -> Result<(), ArenaError> {
    loop {
        let result = if pins.is_empty() {
            queue.put(record, None)
        } else {
            queue.put_pinned(record, pins, None)
        };
        match result {
            Ok(()) => return Ok(()),
            Err(PutError::Arena(error)) => return Err(error),
            // The pool has ended, and nobody will look.
            Err(PutError::Closed) => return Ok(()),
            // A queue without a bound is never full; a signal is none of its business.
            Err(_) => {}
        }
    }
}
