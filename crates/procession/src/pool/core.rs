//! What the owner of a pool knows, shared by the pool object, its batches and its thread.
//!
//! | lock      | held while                                   | may be taken under       |
//! |-----------|----------------------------------------------|--------------------------|
//! | `drain`   | results are received and handed to batches   | `sentences`              |
//! | `batches` | a batch is looked up, added or removed       | `drain`                  |
//! | a batch's | its slots change                             | `drain`                  |
//! | `sentences` | a worker is arrested and its task given an outcome | nothing                  |
//! | `phase` and the other small ones | one field is read or written | all the others         |
//!
//! No lock is held while a thread sleeps, while a worker is launched or while a callback runs.
//!
//! # Judging the dead
//!
//! The pool's thread takes in all results before it looks at the claim of a dead worker, under the
//! `drain` lock. What the worker had published is then with its batch, so a claimed task without an
//! outcome was begun and not finished: it fails, or is submitted once more.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::channel::Message;
use crate::error::WaitError;
use crate::pool::batch::{Batch, Callback, Death, Goal, Kept, Order, Progress, TaskOptions};
use crate::pool::error::{Breakage, PoolError, TaskLost};
use crate::pool::frame::{RESULT_HEADER, ResultHeader, TaskId};
use crate::pool::frames::Frames;
use crate::pool::home::Home;
use crate::pool::job::JobCache;
use crate::pool::post::Post;
use crate::pool::state::Orders;
use crate::pool::stats::Tally;
use crate::pool::transport::Transport;
use crate::pool::turn::Turn;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{ArenaError, Pins};
use crate::sys::{clock, fd};

/// The most results to take in at once, and the most that pile up before a waiting owner is woken.
const MOST_AT_ONCE: usize = 1024;

/// Numbers of batches are counted modulo one more than this.
const MOST_BATCHES: u32 = u32::MAX >> 1;

/// How long to wait for room in the arena before trying again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// How far a pool has come.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Phase {
    /// It takes tasks.
    Running,
    /// It finishes the tasks that it has.
    Closed,
    /// Its workers are gone, or about to be.
    Terminated,
    /// As terminated, because no worker can start.
    Broken(Arc<Breakage>),
}

#[derive(Debug, Default)]
struct Table {
    batches: HashMap<u32, Arc<Batch>>,
    last_id: u32,
}

/// What the owner knows.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) home: Home,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) workers: usize,
    pub(super) jobs: Mutex<JobCache>,
    /// The workers that live.
    pub(super) posts: Mutex<Vec<Arc<Post>>>,
    pub(super) restarts: AtomicU64,
    pub(super) tally: Tally,
    /// Held from the arrest of a worker until its task has its outcome.
    pub(super) sentences: Mutex<()>,
    /// How many batches with a timeout there are, and how often one was given tasks.
    timed: AtomicU32,
    timed_ever: AtomicU64,
    /// Until when the pool's thread looks at no timeouts, in nanoseconds.
    unwatched_until: AtomicU64,
    retries: u32,
    phase: Mutex<Phase>,
    table: Mutex<Table>,
    drain: Mutex<()>,
    /// How many results were taken in.
    results: AtomicU64,
    turn: Turn,
    /// Wakes the pool's thread from its sleep on descriptors.
    control: OwnedFd,
    /// Whether it sleeps on descriptors, or is about to, as 0 or 1.
    polling: AtomicU32,
    /// How often it was called for.
    summons: AtomicU64,
    /// What workers said about why they cannot start, by seat.
    start_failures: Mutex<HashMap<u32, String>>,
    /// How many callbacks wait for their batch.
    armed: AtomicU32,
    /// The batch of the last of them.
    armed_last: Mutex<Weak<Batch>>,
    callbacks: Mutex<Vec<Callback>>,
    /// Whether all tasks of an ended pool have an outcome, as 0 or 1.
    swept: AtomicU32,
    /// Whether the pool's thread is done, as 0 or 1.
    finished: AtomicU32,
}

impl Core {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        workers: usize,
        retries: u32,
    ) -> Result<Self, PoolError> {
        let control = fd::eventfd().map_err(|source| PoolError::Os { call: "eventfd", source })?;
        Ok(Self {
            home: Home::here(),
            transport,
            workers,
            jobs: Mutex::default(),
            posts: Mutex::default(),
            restarts: AtomicU64::new(0),
            tally: Tally::new(),
            sentences: Mutex::default(),
            timed: AtomicU32::new(0),
            timed_ever: AtomicU64::new(0),
            unwatched_until: AtomicU64::new(0),
            retries,
            phase: Mutex::new(Phase::Running),
            table: Mutex::default(),
            drain: Mutex::default(),
            results: AtomicU64::new(0),
            turn: Turn::new(),
            control,
            polling: AtomicU32::new(0),
            summons: AtomicU64::new(0),
            start_failures: Mutex::default(),
            armed: AtomicU32::new(0),
            armed_last: Mutex::default(),
            callbacks: Mutex::default(),
            swept: AtomicU32::new(0),
            finished: AtomicU32::new(0),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        lock(&self.phase).clone()
    }

    /// Says why no task is taken any more, if that is so.
    pub(super) fn check_open(&self) -> Result<(), PoolError> {
        match &*lock(&self.phase) {
            Phase::Running => Ok(()),
            Phase::Closed | Phase::Terminated => Err(PoolError::Closed),
            Phase::Broken(breakage) => Err(PoolError::Broken(Arc::clone(breakage))),
        }
    }

    /// Takes no more tasks. Does nothing if that is so already.
    pub(super) fn close(&self) {
        {
            let mut phase = lock(&self.phase);
            if !matches!(*phase, Phase::Running) {
                return;
            }
            *phase = Phase::Closed;
        }
        self.transport.give_orders(Orders::Finish, self.workers);
        self.wake_supervisor();
    }

    /// Ends the pool: every unfinished task is lost. Does nothing if that is so already.
    pub(super) fn end(&self, phase: Phase) {
        let lost = match &phase {
            Phase::Broken(breakage) => TaskLost::Broken(Arc::clone(breakage)),
            _ => TaskLost::Terminated,
        };
        {
            let mut current = lock(&self.phase);
            if matches!(*current, Phase::Terminated | Phase::Broken(_)) {
                return;
            }
            *current = phase;
        }
        self.transport.give_orders(Orders::Stop, self.workers);
        // What was done before counts.
        self.drain();
        self.lose_all(&lost);
        self.swept.store(1, Ordering::SeqCst);
        self.wake_supervisor();
    }

    /// Whether all tasks of an ended pool have an outcome.
    pub(super) fn is_swept(&self) -> bool {
        self.swept.load(Ordering::SeqCst) != 0
    }

    fn lose_all(&self, lost: &TaskLost) {
        let batches: Vec<_> = lock(&self.table).batches.values().cloned().collect();
        for batch in batches {
            let progress = batch.lose_all(lost);
            self.follow_up(&batch, progress);
        }
        self.wake_waiters();
    }

    /// How many tasks have no outcome yet.
    pub(super) fn pending(&self) -> usize {
        lock(&self.table).batches.values().map(|batch| batch.unfinished()).sum()
    }

    pub(super) fn add_batch(&self, order: Order, options: TaskOptions) -> Arc<Batch> {
        let timed = options.timeout.is_some();
        if timed {
            self.timed.fetch_add(1, Ordering::SeqCst);
        }
        let mut table = lock(&self.table);
        loop {
            table.last_id = table.last_id.wrapping_add(1) & MOST_BATCHES;
            let id = table.last_id;
            // 0 is no batch, and a batch may have lived while all other numbers were used up.
            if id != 0 && !table.batches.contains_key(&id) {
                let batch = Arc::new(Batch::new(id, order, options, self.retries));
                table.batches.insert(id, Arc::clone(&batch));
                return batch;
            }
        }
    }

    fn remove_batch(&self, id: u32) {
        let removed = lock(&self.table).batches.remove(&id);
        if removed.is_some_and(|batch| batch.timeout.is_some()) {
            self.timed.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The shortest timeout of a batch that has unfinished tasks.
    pub(super) fn shortest_timeout(&self) -> Option<Duration> {
        if self.timed.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let table = lock(&self.table);
        let timed = table.batches.values().filter_map(|batch| Some((batch, batch.timeout?)));
        timed.filter(|(batch, _)| batch.unfinished() > 0).map(|(_, timeout)| timeout).min()
    }

    /// How often a batch with a timeout was given tasks.
    pub(super) fn timed_ever(&self) -> u64 {
        self.timed_ever.load(Ordering::SeqCst)
    }

    /// The pool's thread looks at no timeouts until then, unless it is woken.
    pub(super) fn set_unwatched_until(&self, until: Option<Instant>) {
        let pause = until.map(|until| until.saturating_duration_since(Instant::now()));
        let until = pause.map_or(u64::MAX, |pause| clock::now().saturating_add(clock::span(pause)));
        self.unwatched_until.store(until, Ordering::SeqCst);
    }

    /// Has the pool's thread watch a batch, whose tasks may take so long.
    fn watch(&self, timeout: Duration) {
        // For the pool's thread, which looks at this after it has said how long it will not look.
        self.timed_ever.fetch_add(1, Ordering::SeqCst);
        let first_due = clock::now().saturating_add(clock::span(timeout));
        if first_due < self.unwatched_until.load(Ordering::SeqCst) {
            self.wake_supervisor();
        }
    }

    /// Throws away the outcomes of a batch, also those to come.
    pub(super) fn abandon(&self, batch: &Batch) {
        if batch.abandon() {
            self.remove_batch(batch.id);
        }
    }

    /// Hands the tasks of `frames` to the workers.
    pub(super) fn submit(&self, batch: &Batch, frames: &mut Frames) -> Result<(), PoolError> {
        if frames.is_empty() {
            return self.check_open();
        }
        batch.extend(frames, || self.check_open())?;
        if let Some(timeout) = batch.timeout {
            self.watch(timeout);
        }
        while !frames.is_empty() {
            let result = self.transport.submit(frames, frames.first());
            match result.map_err(|error| self.make_room(error, frames.len())) {
                Ok(accepted) => frames.advance(accepted),
                Err(Ok(())) => {}
                Err(Err(error)) => {
                    batch.shorten(frames.len());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Waits for room in the arena, if tasks other than the `unsent` ones are under way and may yet give
    /// some.
    ///
    /// Room that one task leaves is not filled again at once: a worker may need it for its result. So
    /// half of the tasks in the queue are to be taken first.
    fn make_room(&self, error: ArenaError, unsent: usize) -> Result<(), PoolError> {
        let may_help = matches!(error, ArenaError::OutOfMemory { .. });
        let few_enough = self.transport.backlog() / 2;
        loop {
            self.check_open()?;
            if !may_help || self.pending() <= unsent {
                return Err(error.into());
            }
            let deadline = Some(Instant::now() + ROOM_PAUSE);
            let waited = self.wait_for(deadline, None, || None::<()>, || 1);
            if let Err(WaitError::Interrupted) = waited {
                return Err(PoolError::Interrupted);
            }
            if self.transport.backlog() <= few_enough {
                return Ok(());
            }
        }
    }

    /// Takes in the results that are there.
    pub(super) fn drain(&self) {
        // Also when there is nothing to take in: somebody may have received and not handed on yet.
        let guard = lock(&self.drain);
        if self.drain_under(&guard) {
            // The leader sleeps until there are more results than are left now.
            self.transport.wake();
        }
    }

    /// Takes in the results that are there, and tells followers. Returns whether there were any.
    fn drain_under(&self, _guard: &MutexGuard<'_, ()>) -> bool {
        let mut left = self.transport.unread();
        let any = left > 0;
        let mut awaited = false;
        while left > 0 {
            let records = self.transport.receive(left.min(MOST_AT_ONCE));
            if records.is_empty() {
                break;
            }
            left = left.saturating_sub(records.len());
            self.results.fetch_add(records.len() as u64, Ordering::Relaxed);
            awaited |= self.hand_on(records);
        }
        self.transport.relieve();
        if awaited {
            self.turn.wake_followers();
        }
        any
    }

    /// How many results were taken in so far.
    pub(super) fn results(&self) -> u64 {
        self.results.load(Ordering::Relaxed)
    }

    /// Hands results to their batches. Returns whether a follower waits for one of them.
    fn hand_on(&self, records: Vec<Message>) -> bool {
        let mut awaited = false;
        let mut records = records.into_iter().filter_map(read).peekable();
        while let Some((header, _)) = records.peek() {
            let Some(id) = header.id else {
                self.note_start_failure(records.next());
                continue;
            };
            // Results of a batch that is gone are of no interest.
            let Some(batch) = self.batch(id) else {
                records.next();
                continue;
            };
            let progress = batch.take_in(&mut records);
            awaited |= self.follow_up(&batch, progress);
        }
        awaited
    }

    /// Does what progress of a batch calls for. Returns whether a follower waits for it.
    pub(super) fn follow_up(&self, batch: &Batch, progress: Progress) -> bool {
        if progress.failed {
            self.give_up_batch(batch);
        }
        if progress.forget {
            self.transport.forget(batch.id);
        }
        if progress.over {
            self.remove_batch(batch.id);
        }
        if !progress.callbacks.is_empty() {
            let count = progress.callbacks.len() as u32;
            lock(&self.callbacks).extend(progress.callbacks);
            // After that: the pool's thread does not leave while one is still to come.
            self.armed.fetch_sub(count, Ordering::SeqCst);
            self.wake_supervisor();
        }
        progress.awaited
    }

    pub(super) fn batch(&self, id: TaskId) -> Option<Arc<Batch>> {
        lock(&self.table).batches.get(&id.batch).cloned()
    }

    fn note_start_failure(&self, record: Option<(ResultHeader, Message)>) {
        if let Some((header, record)) = record {
            let text = String::from_utf8_lossy(&record.as_ref()[RESULT_HEADER..]).into_owned();
            lock(&self.start_failures).insert(header.seat, text);
        }
    }

    /// What the worker in `seat`, which has died, said about why it cannot start.
    pub(super) fn take_start_failure(&self, seat: usize) -> Option<String> {
        lock(&self.start_failures).remove(&(seat as u32))
    }

    /// Settles the account of a dead worker that had begun the task `claim`.
    pub(super) fn settle_death(&self, claim: Option<TaskId>, death: Death) {
        // Who has arrested it is done with its task after this.
        drop(lock(&self.sentences));
        let guard = lock(&self.drain);
        if self.drain_under(&guard) {
            self.transport.wake();
        }
        let Some((id, batch)) = claim.and_then(|id| Some((id, self.batch(id)?))) else { return };
        let (again, mut progress) = batch.lose(id.index, death);
        let counter = if again.is_some() { &self.tally.retries } else { &self.tally.lost };
        if again.is_some() || progress.finished {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(error) = again.and_then(|kept| self.resubmit(&kept).err()) {
            progress = batch.refuse(id.index, format!("could not be submitted again: {error}"));
        }
        self.follow_up(&batch, progress);
        drop(guard);
        self.wake_waiters();
    }

    fn resubmit(&self, kept: &Kept) -> Result<(), ArenaError> {
        let none = Pins::default();
        self.transport.resubmit(&kept.record, kept.pins.as_deref().unwrap_or(&none))
    }

    /// Blocks until `look` gives a value, while results are taken in.
    ///
    /// `look` must look at something that changes under the lock of `watched` when that batch makes
    /// progress towards the goal, or before [`wake_waiters`](Self::wake_waiters). `needs` says how
    /// many results it takes at least.
    pub(super) fn wait_for<R>(
        &self,
        deadline: Option<Instant>,
        watched: Option<(&Batch, Goal)>,
        mut look: impl FnMut() -> Option<R>,
        needs: impl Fn() -> usize,
    ) -> Result<R, WaitError> {
        loop {
            self.drain();
            if let Some(value) = look() {
                return Ok(value);
            }
            if let Some(_lead) = self.turn.try_lead() {
                return self.lead(deadline, look, needs);
            }
            if let Some(value) = self.follow(deadline, watched, &mut look)? {
                return Ok(value);
            }
        }
    }

    fn lead<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Option<R>,
        needs: impl Fn() -> usize,
    ) -> Result<R, WaitError> {
        loop {
            let seen = self.transport.wakes();
            self.drain_under(&lock(&self.drain));
            if let Some(value) = look() {
                return Ok(value);
            }
            self.transport.set_wake_at(needs().clamp(1, MOST_AT_ONCE));
            if self.turn.has_followers() {
                self.transport.set_wake_at(1);
            }
            self.transport.sleep(seen, deadline)?;
        }
    }

    fn follow<R>(
        &self,
        deadline: Option<Instant>,
        watched: Option<(&Batch, Goal)>,
        look: &mut impl FnMut() -> Option<R>,
    ) -> Result<Option<R>, WaitError> {
        let follow = self.turn.follow();
        let _watch = watched.map(|(batch, goal)| batch.watch(goal));
        self.transport.set_wake_at(1);
        if self.transport.unread() > 0 {
            // The leader may be asleep until there are more.
            self.transport.wake();
        }
        follow.sleep(deadline, look)
    }

    /// Lets every waiting thread look again.
    pub(super) fn wake_waiters(&self) {
        self.transport.wake();
        self.turn.wake_followers();
    }

    /// Has the pool's thread look around, wherever it sleeps.
    pub(super) fn wake_supervisor(&self) {
        self.summons.fetch_add(1, Ordering::SeqCst);
        if self.polling.load(Ordering::SeqCst) != 0 {
            // The one way to fail is a counter that is full, and then the thread is woken anyway.
            let _ = fd::eventfd_signal(self.control.as_fd());
        } else {
            self.transport.wake();
        }
    }

    /// How often the pool's thread was called for.
    pub(super) fn summons(&self) -> u64 {
        self.summons.load(Ordering::SeqCst)
    }

    /// The pool's thread is about to sleep on descriptors, or has done so.
    pub(super) fn set_polling(&self, polling: bool) {
        self.polling.store(u32::from(polling), Ordering::SeqCst);
    }

    /// The pool's thread, which is to call callbacks, takes results in until it is called for, `deadline`
    /// has passed, or another thread takes them in. Returns whether it is the one that waits for results.
    pub(super) fn lead_for_callbacks(&self, summons: u64, deadline: Option<Instant>) -> bool {
        let Some(_lead) = self.turn.try_lead() else { return false };
        let look = || (self.summons() != summons || self.has_callbacks()).then_some(());
        // Interrupted or too late: the caller looks around either way.
        let _ = self.lead(deadline, look, || self.awaited_by_callbacks());
        true
    }

    fn has_callbacks(&self) -> bool {
        !lock(&self.callbacks).is_empty()
    }

    /// How many results the next callback takes at least.
    fn awaited_by_callbacks(&self) -> usize {
        match self.armed.load(Ordering::SeqCst) {
            1 => lock(&self.armed_last).upgrade().map_or(1, |batch| batch.unfinished()),
            _ => 1,
        }
    }

    pub(super) fn control(&self) -> &OwnedFd {
        &self.control
    }

    /// Has `callback` called on the pool's thread when the batch is complete; here, if that thread is
    /// done.
    pub(super) fn arm(&self, batch: &Arc<Batch>, callback: Callback) {
        *lock(&self.armed_last) = Arc::downgrade(batch);
        let armed_before = self.armed.fetch_add(1, Ordering::SeqCst);
        let progress = batch.add_callback(callback);
        self.follow_up(batch, progress);
        if self.is_finished() {
            self.run_callbacks();
        }
        if armed_before == 0 || self.polling.load(Ordering::SeqCst) != 0 {
            self.wake_supervisor();
        } else {
            // It takes results in already, and from now on each is worth a look.
            self.transport.set_wake_at(1);
            if self.transport.unread() > 0 {
                self.transport.wake();
            }
        }
    }

    /// Whether a callback waits for results that nobody may be taking in.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst) != 0
    }

    /// Calls the callbacks whose batch is complete.
    pub(super) fn run_callbacks(&self) {
        let callbacks = std::mem::take(&mut *lock(&self.callbacks));
        for callback in callbacks {
            // A panic was printed; it must not take the workers with it.
            let _ = panic::catch_unwind(AssertUnwindSafe(callback.0));
        }
    }

    pub(super) fn finish(&self) {
        self.finished.store(1, Ordering::SeqCst);
        self.wake_waiters();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst) != 0
    }

    /// Blocks until the pool's thread is done.
    pub(super) fn wait_finished(&self, deadline: Option<Instant>) -> Result<(), WaitError> {
        let look = || self.is_finished().then_some(());
        self.wait_for(deadline, None, look, || MOST_AT_ONCE)
    }
}

/// Reads the header of a result.
fn read(record: Message) -> Option<(ResultHeader, Message)> {
    let header = ResultHeader::split(record.as_ref()).map(|(header, _)| header);
    if header.is_none() {
        tracing::error!("a worker sent a record that is no result");
    }
    Some((header?, record))
}

/// Takes a lock. No code under one of these leaves its data half-changed if it panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
