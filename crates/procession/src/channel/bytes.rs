//! The queue of byte messages that everything else sends with.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::channel::error::{GetError, PutError};
use crate::channel::message::Message;
use crate::channel::state::{ClaimWord, MOST_RECORDS, Position, QueueState};
use crate::channel::watch::{Locked, Readiness};
use crate::error::WaitError;
use crate::primitive::Ordering;
use crate::shm::{Arena, ArenaError, Handle, Pins, RobustLock, Shared, Taken, shared_handle};
use crate::sync::spin::SpinBudget;

/// How long a call that must not block waits for the short critical section of another process
/// before it gives up: it ends early unless that process was stopped in the middle.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// `put_many` publishes this many messages at a time.
const PUBLISH_EVERY: u64 = 32;

/// A queue of byte messages between the processes of a tree.
///
/// Any number of processes and threads may put and get at once. A message is in shared memory
/// when [`put`](Self::put) returns, so it outlives its sender; messages of one sender are received
/// in order. A process that is killed in the middle of a call leaves the queue as if it had not
/// made that call, or had completed it.
///
/// Handles are cheap to clone and can be sent anywhere inside the tree; the queue goes with the
/// last of them, and with it what nobody has received.
///
/// # Examples
///
/// ```
/// use procession::channel::ByteQueue;
///
/// let queue = ByteQueue::new(0)?; // no limit but memory
/// queue.put(b"hello", None)?;
/// assert_eq!(queue.get(None)?.as_ref(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ByteQueue {
    pub(super) state: Shared<QueueState>,
    /// The table of what is unfinished, none if the queue does not count.
    pub(super) tally: Handle,
    /// What this process alone has of the queue.
    pub(super) local: Arc<Local>,
}

#[derive(Debug)]
pub(super) struct Local {
    items: SpinBudget,
    room: SpinBudget,
    pub(super) done: SpinBudget,
    /// The descriptor, if anybody in this process has asked for it.
    pub(super) readiness: Mutex<Option<Arc<Readiness>>>,
}

impl ByteQueue {
    /// Makes an empty queue that holds at most `max_items` messages; 0 means as many as there is
    /// memory for.
    ///
    /// # Errors
    ///
    /// [`ArenaError`] when there is no shared memory for it.
    pub fn new(max_items: usize) -> Result<Self, ArenaError> {
        let max_items = (max_items as u64).min(MOST_RECORDS);
        Shared::new(|state: &QueueState| {
            state.settings.max_items.store(max_items, Ordering::Relaxed);
        })
        .map(Self::with)
    }

    pub(super) fn with(state: Shared<QueueState>) -> Self {
        let local = Local {
            items: SpinBudget::new(),
            room: SpinBudget::new(),
            done: SpinBudget::new(),
            readiness: Mutex::new(None),
        };
        let tally = Handle::from_raw(state.settings.tally.load(Ordering::Acquire));
        Self { state, tally, local: Arc::new(local) }
    }

    /// Puts a message in; returns when it is in shared memory.
    ///
    /// Blocks while the queue is full, until `deadline`; `None` means for ever, a time in the past
    /// not at all.
    ///
    /// # Errors
    ///
    /// [`PutError::Full`] at the deadline, [`PutError::Closed`], [`PutError::Interrupted`] when a
    /// signal handler has run while it waited, [`PutError::Arena`] when memory is at its limit.
    /// Nothing was put in then.
    pub fn put(&self, payload: &[u8], deadline: Option<Instant>) -> Result<(), PutError> {
        self.put_pinned(payload, &Pins::default(), deadline)
    }

    /// Puts a message in that names shared objects, which stay alive at least as long as it does.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn put_pinned(
        &self,
        payload: &[u8],
        pins: &Pins,
        deadline: Option<Instant>,
    ) -> Result<(), PutError> {
        self.put_parts(&[payload], pins, deadline)
    }

    /// Puts in one message that is in several parts, one behind the other, as
    /// [`put_pinned`](Self::put_pinned) does.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::channel::ByteQueue;
    /// use procession::shm::Pins;
    ///
    /// let queue = ByteQueue::new(0)?;
    /// queue.put_parts(&[b"head", b"body"], &Pins::default(), None)?;
    /// assert_eq!(queue.get(None)?.as_ref(), b"headbody");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_parts(
        &self,
        parts: &[&[u8]],
        pins: &Pins,
        deadline: Option<Instant>,
    ) -> Result<(), PutError> {
        let arena = Arena::current()?;
        let mut body = Self::body(arena, parts, pins)?;
        loop {
            {
                let _lock = self.lock_put(arena, deadline)?;
                self.check_open()?;
                if self.room_for_put() > 0 {
                    let watched = Locked::now(&self.state, arena, deadline)?;
                    let tail = self.append(arena, self.tail(), &mut body)?;
                    self.publish(arena, tail, watched);
                    break;
                }
            }
            self.wait_for_room(deadline)?;
        }
        self.state.waiting_for_items.0.notify(1);
        Ok(())
    }

    /// Puts messages in, in order and next to each other as far as room allows, and returns how
    /// many. Fewer than all means that the deadline passed, or memory was at its limit, after
    /// those.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), if not even the first one could be put in.
    pub fn put_many<'a>(
        &self,
        payloads: impl IntoIterator<Item = &'a [u8]>,
        deadline: Option<Instant>,
    ) -> Result<usize, PutError> {
        let arena = Arena::current()?;
        let mut payloads = payloads.into_iter().peekable();
        let mut put = 0;
        while payloads.peek().is_some() {
            let batch = self.put_batch(arena, &mut payloads, deadline);
            match batch {
                Ok(0) => {}
                Ok(count) => {
                    put += count;
                    self.state.waiting_for_items.0.notify(count as u32);
                    continue;
                }
                Err(error) => return if put > 0 { Ok(put) } else { Err(error) },
            }
            if let Err(error) = self.wait_for_room(deadline) {
                return if put > 0 { Ok(put) } else { Err(error.into()) };
            }
        }
        Ok(put)
    }

    /// Puts in what there is room for, up to [`PUBLISH_EVERY`].
    fn put_batch<'a>(
        &self,
        arena: &Arena,
        payloads: &mut std::iter::Peekable<impl Iterator<Item = &'a [u8]>>,
        deadline: Option<Instant>,
    ) -> Result<usize, PutError> {
        let _lock = self.lock_put(arena, deadline)?;
        self.check_open()?;
        let room = self.room_for_put().min(PUBLISH_EVERY);
        let watched = Locked::now(&self.state, arena, deadline)?;
        let mut tail = self.tail();
        let mut count = 0;
        while count < room
            && let Some(payload) = payloads.peek()
        {
            let appended = Self::body(arena, &[payload], &Pins::default())
                .and_then(|mut body| self.append(arena, tail, &mut body));
            match appended {
                Ok(behind) => tail = behind,
                Err(_) if count > 0 => break,
                Err(error) => return Err(error.into()),
            }
            payloads.next();
            count += 1;
        }
        if count > 0 {
            self.publish(arena, tail, watched);
        }
        Ok(count as usize)
    }

    /// Takes the oldest message out.
    ///
    /// Blocks while the queue is empty, until `deadline`; `None` means for ever, a time in the
    /// past not at all.
    ///
    /// # Errors
    ///
    /// [`GetError::Empty`] at the deadline, [`GetError::Closed`] when it is empty and closed,
    /// [`GetError::Interrupted`] when a signal handler has run while it waited.
    pub fn get(&self, deadline: Option<Instant>) -> Result<Message, GetError> {
        self.get_with(None, deadline)
    }

    /// Takes the oldest message out, and says so in `claim` before it is gone from the queue.
    ///
    /// The claim is the first eight bytes of the message. Whoever finds the process dead reads
    /// the claim after [`settle`](Self::settle): it names the message that the process had taken
    /// and not yet dealt with. Messages shorter than eight bytes are claimed as 0.
    pub(crate) fn get_claimed(
        &self,
        claim: &ClaimWord,
        deadline: Option<Instant>,
    ) -> Result<Message, GetError> {
        self.get_with(Some(claim), deadline)
    }

    fn get_with(
        &self,
        claim: Option<&ClaimWord>,
        deadline: Option<Instant>,
    ) -> Result<Message, GetError> {
        let arena = Arena::current()?;
        loop {
            if let Some(message) = self.take_one(arena, claim, deadline)? {
                return Ok(message);
            }
            self.wait_for_items(deadline)?;
        }
    }

    /// Takes out what is there, at most `max` messages, and blocks like [`get`](Self::get) while
    /// there is none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn get_many(
        &self,
        max: usize,
        deadline: Option<Instant>,
    ) -> Result<Vec<Message>, GetError> {
        let arena = Arena::current()?;
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            let messages = self.take_up_to(arena, max, deadline)?;
            if !messages.is_empty() {
                return Ok(messages);
            }
            self.wait_for_items(deadline)?;
        }
    }

    /// Blocks until there is something to get, and takes nothing; another consumer may be faster.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn wait_for_message(&self, deadline: Option<Instant>) -> Result<(), GetError> {
        self.wait_for_items(deadline)
    }

    /// Number of messages in the queue. Exact while nobody else puts or gets.
    pub fn len(&self) -> usize {
        // The head first: read the other way round, it could overtake the tail.
        let head = self.head();
        self.tail().since(head) as usize
    }

    /// Whether there is no message in the queue. Exact while nobody else puts or gets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a put would have to wait. Exact while nobody else puts or gets.
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// The most messages that the queue holds at a time; 0 if only memory limits it.
    pub fn max_items(&self) -> usize {
        self.state.settings.max_items.load(Ordering::Relaxed) as usize
    }

    /// Ends the queue for all processes: further puts are refused, and gets as well once it is
    /// empty. Whoever waits is woken.
    pub fn close(&self) {
        self.state.settings.closed.store(1, Ordering::SeqCst);
        if self.state.settings.watched.load(Ordering::SeqCst) != 0
            && let Ok(arena) = Arena::current()
        {
            self.align(arena);
        }
        self.state.waiting_for_items.0.notify(u32::MAX);
        self.state.waiting_for_room.0.notify(u32::MAX);
    }

    /// Whether somebody has called [`close`](Self::close).
    pub fn is_closed(&self) -> bool {
        self.state.settings.closed.load(Ordering::SeqCst) != 0
    }

    /// Lets one waiting consumer look again. A process that was woken and killed before it took
    /// the message leaves others asleep, for two seconds at most; who knows of the death helps.
    pub(crate) fn kick(&self) {
        self.state.waiting_for_items.0.notify(1);
    }

    /// Repairs what a dead consumer may have left, its claim above all.
    pub(crate) fn settle(&self) -> Result<(), ArenaError> {
        let arena = Arena::current()?;
        let taken = self.state.got.lock.lock(arena);
        let died = self.note_death(&taken, true);
        drop(taken);
        if died {
            self.sweep(arena);
        }
        Ok(())
    }

    /// Number of blocks that belong to the queue.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        Arena::current().map_or(0, |arena| arena.children_of(self.state.handle()).len())
    }
}

/// The two ends.
impl ByteQueue {
    pub(super) fn head(&self) -> Position {
        Position::unpack(self.state.got.head.load(Ordering::SeqCst))
    }

    pub(super) fn tail(&self) -> Position {
        Position::unpack(self.state.put.tail.load(Ordering::SeqCst))
    }

    fn has_items(&self) -> bool {
        !self.is_empty()
    }

    fn room(&self) -> u64 {
        self.most_items().saturating_sub(self.len() as u64)
    }

    fn most_items(&self) -> u64 {
        match self.state.settings.max_items.load(Ordering::Relaxed) {
            0 => MOST_RECORDS,
            max => max,
        }
    }

    /// At least how many messages may be put in; 0 only if it is 0. The producers' lock is held.
    fn room_for_put(&self) -> u64 {
        let put = &self.state.put;
        let seen = Position::unpack(put.seen_head.load(Ordering::Relaxed));
        let most = self.most_items();
        let room = most.saturating_sub(self.tail().since(seen));
        if room > 0 {
            return room;
        }
        let head = self.head();
        put.seen_head.store(head.pack(), Ordering::Relaxed);
        most.saturating_sub(self.tail().since(head))
    }

    /// At least how many messages can be taken out; 0 only if it is 0. The consumers' lock is
    /// held.
    pub(super) fn items_for_get(&self, head: Position) -> u64 {
        let got = &self.state.got;
        let seen = Position::unpack(got.seen_tail.load(Ordering::Acquire)).since(head);
        if seen > 0 {
            return seen;
        }
        let tail = self.tail();
        got.seen_tail.store(tail.pack(), Ordering::Release);
        tail.since(head)
    }

    fn check_open(&self) -> Result<(), PutError> {
        if self.is_closed() { Err(PutError::Closed) } else { Ok(()) }
    }

    fn wait_for_items(&self, deadline: Option<Instant>) -> Result<(), GetError> {
        let ready = || {
            // In this order: what was put in before the queue was closed is still there to get.
            let closed = self.is_closed();
            if self.has_items() { Some(Ok(())) } else { closed.then_some(Err(GetError::Closed)) }
        };
        self.state.waiting_for_items.0.wait_until(&self.local.items, deadline, ready)?
    }

    fn wait_for_room(&self, deadline: Option<Instant>) -> Result<(), WaitError> {
        let ready = || (self.room() > 0 || self.is_closed()).then_some(());
        self.state.waiting_for_room.0.wait_until(&self.local.room, deadline, ready)
    }

    pub(super) fn lock_put(
        &self,
        arena: &Arena,
        deadline: Option<Instant>,
    ) -> Result<Taken<'_>, WaitError> {
        self.lock(arena, &self.state.put.lock, false, deadline)
    }

    pub(super) fn lock_get(
        &self,
        arena: &Arena,
        deadline: Option<Instant>,
    ) -> Result<Taken<'_>, WaitError> {
        self.lock(arena, &self.state.got.lock, true, deadline)
    }

    fn lock<'a>(
        &self,
        arena: &Arena,
        lock: &'a RobustLock,
        consumer: bool,
        deadline: Option<Instant>,
    ) -> Result<Taken<'a>, WaitError> {
        loop {
            let taken = match lock.lock_now(arena) {
                Some(taken) => taken,
                None => {
                    let until = deadline.map(|at| at.max(Instant::now() + GRACE));
                    lock.lock_until(arena, until)?
                }
            };
            if !self.note_death(&taken, consumer) {
                return Ok(taken);
            }
            drop(taken);
            self.sweep(arena);
        }
    }

    /// Sees to the claim of a consumer that died with the lock, and says whether a process did.
    fn note_death(&self, taken: &Taken<'_>, consumer: bool) -> bool {
        if consumer && taken.owner_died.is_some() {
            self.repair_claim();
        }
        if taken.owner_died.is_some() {
            self.state.settings.littered.store(1, Ordering::SeqCst);
        }
        self.state.settings.littered.load(Ordering::Relaxed) != 0
    }
}

shared_handle!(
    ByteQueue, "queue", [state], |state| Ok(Self::with(state)); open, note, is_same, serde
);
