//! Replies on their way to the threads that wait for them.
//!
//! One of the waiting threads reads from the socket, for all of them: there is no thread for it.
//! When it has its own reply it passes the reading on.
//!
//! Each waiting thread has a word: 0 while it waits, 1 when its reply is there, 2 when the reading
//! is free, 3 when no reply will come.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::manager::eager::Eager;
use crate::manager::inflow::{Inflow, Message};
use crate::manager::wire;
use crate::primitive::{AtomicU32, FutexError, Ordering, futex};
use crate::slice::{must_leave, poll_in_slices, slice_end};
use crate::sys::fd;

const WAITING: u32 = 0;
const ANSWERED: u32 = 1;
const READING_FREE: u32 = 2;
const ENDED: u32 = 3;

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum NoReply {
    /// A signal handler ran in this thread.
    Interrupted,
    /// The stream has ended.
    Ended(Option<io::Error>),
    /// What came was no reply.
    Nonsense,
}

/// A call that waits for its reply.
#[derive(Debug)]
pub(super) struct Slot {
    number: u64,
    word: AtomicU32,
    reply: Mutex<Option<Message>>,
}

impl Slot {
    fn set(&self, word: u32) {
        self.word.store(word, Ordering::Release);
        futex::wake(&self.word, 1);
    }
}

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Of the thread that reads.
    inflow: Mutex<Inflow>,
    eager: Eager,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a thread reads from the socket.
    reading: bool,
    ended: bool,
    next: u64,
    slots: HashMap<u64, Arc<Slot>>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            inflow: Mutex::new(Inflow::new(u64::MAX)),
            eager: Eager::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for the reply to a call, and gives the call a number.
    pub(super) fn expect(&self) -> (u64, Arc<Slot>) {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let word = AtomicU32::new(if state.ended { ENDED } else { WAITING });
        let slot = Arc::new(Slot { number, word, reply: Mutex::new(None) });
        state.slots.insert(number, slot.clone());
        (number, slot)
    }

    /// Waits for no reply to this call any more.
    pub(super) fn forget(&self, slot: &Slot) {
        let mut state = self.state();
        state.slots.remove(&slot.number);
        if slot.word.load(Ordering::Acquire) == READING_FREE && !state.reading {
            pass_reading(&state);
        }
    }

    /// Whether the stream has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Lets all calls know that no more replies will come.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.slots.values().for_each(|slot| slot.set(ENDED));
    }

    /// Blocks until the reply to a call has come.
    pub(super) fn wait(&self, slot: &Slot, socket: BorrowedFd<'_>) -> Result<Message, NoReply> {
        loop {
            match slot.word.load(Ordering::Acquire) {
                ANSWERED => {
                    let mut reply = slot.reply.lock().unwrap_or_else(PoisonError::into_inner);
                    return reply.take().ok_or(NoReply::Nonsense);
                }
                ENDED => return Err(NoReply::Ended(None)),
                _ => {}
            }
            if self.begin_reading() {
                let result = self.read_until(slot, socket);
                self.stop_reading(slot);
                result?;
                continue;
            }
            // Somebody else was quicker.
            let free = (READING_FREE, WAITING);
            let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
            if slot.word.compare_exchange(free.0, free.1, acquire, relaxed).is_ok() {
                continue;
            }
            match futex::wait(&slot.word, WAITING, slice_end(None)) {
                Err(FutexError::Interrupted) => return Err(NoReply::Interrupted),
                Err(FutexError::TimedOut) if must_leave() => return Err(NoReply::Interrupted),
                _ => {}
            }
        }
    }

    fn begin_reading(&self) -> bool {
        let mut state = self.state();
        let free = !state.reading && !state.ended;
        state.reading |= free;
        free
    }

    fn stop_reading(&self, own: &Slot) {
        let mut state = self.state();
        state.reading = false;
        // Not to itself: it is here because it has its reply, or will come again by itself.
        let other = state.slots.values().find(|slot| slot.number != own.number && is_waiting(slot));
        if let Some(slot) = other {
            slot.set(READING_FREE);
        }
    }

    /// Hands out what comes until this call has its reply.
    fn read_until(&self, slot: &Slot, socket: BorrowedFd<'_>) -> Result<(), NoReply> {
        // Nobody else has the lock while this thread reads.
        let mut inflow = self.inflow.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while slot.word.load(Ordering::Acquire) != ANSWERED {
                match inflow.next() {
                    Ok(Some(message)) => self.hand_out(message)?,
                    Ok(None) => break,
                    Err(_) => return Err(self.fail(NoReply::Nonsense)),
                }
            }
            if slot.word.load(Ordering::Acquire) == ANSWERED {
                return Ok(());
            }
            self.read_some(&mut inflow, socket)?;
        }
    }

    fn read_some(&self, inflow: &mut Inflow, socket: BorrowedFd<'_>) -> Result<(), NoReply> {
        let mut attempt = || match inflow.fill(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => Some(result),
        };
        let filled = attempt().or_else(|| self.eager.spin(&mut attempt));
        match filled {
            Some(Ok(0)) => Err(self.fail(NoReply::Ended(None))),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.fail(NoReply::Ended(Some(error)))),
            None => {
                let before = Instant::now();
                let poll = |until| fd::poll_readable(&[socket], until);
                let ready = poll_in_slices(None, |ready| ready.contains(&true), poll);
                self.eager.learn_from_sleep(before);
                match ready {
                    Ok(_) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                        Err(NoReply::Interrupted)
                    }
                    Err(error) => Err(self.fail(NoReply::Ended(Some(error)))),
                }
            }
        }
    }

    fn hand_out(&self, message: Message) -> Result<(), NoReply> {
        let Some((number, _)) = wire::word(&message) else {
            return Err(self.fail(NoReply::Nonsense));
        };
        // Nobody waits any more for a call that was given up.
        if let Some(slot) = self.state().slots.get(&number) {
            *slot.reply.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
            slot.set(ANSWERED);
        }
        Ok(())
    }

    fn fail(&self, why: NoReply) -> NoReply {
        self.end();
        why
    }
}

fn is_waiting(slot: &Slot) -> bool {
    slot.word.load(Ordering::Relaxed) == WAITING
}

fn pass_reading(state: &State) {
    if let Some(slot) = state.slots.values().find(|slot| is_waiting(slot)) {
        slot.set(READING_FREE);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::manager::inflow;
    use crate::slice::testing;
    use crate::sys::stream;

    #[test]
    fn who_waits_for_a_reply_sees_to_signals_and_goes_on() {
        let (here, there) = stream::stream_pair().unwrap();
        stream::set_blocking(here.as_fd(), false).unwrap();
        let inbox = Inbox::new();
        for another_reads in [false, true] {
            let (number, slot) = inbox.expect();
            inbox.state().reading = another_reads;
            testing::answer(true);
            let left = inbox.wait(&slot, here.as_fd());
            assert!(matches!(left, Err(NoReply::Interrupted)), "{left:?}");
            inbox.state().reading = false;
            let mut reply = Vec::new();
            inflow::append(&mut reply, &number.to_le_bytes());
            inflow::send(there.as_fd(), [&reply, &[]], || ()).unwrap();
            testing::answer(false);
            assert_eq!(*inbox.wait(&slot, here.as_fd()).unwrap(), number.to_le_bytes());
            inbox.forget(&slot);
        }
    }
}
