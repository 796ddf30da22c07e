//! An exclusive lock in shared memory that survives the death of its holder.
//!
//! The whole state is one 32-bit word:
//!
//! | value                   | meaning                                              |
//! |-------------------------|------------------------------------------------------|
//! | 0                       | free                                                 |
//! | member                  | held by that process, nobody sleeps                  |
//! | member + `CONTENDED`    | held by that process, somebody may sleep on the word |
//!
//! - Taking a free lock is one compare-and-swap from 0.
//! - A waiter spins for a short time, sets `CONTENDED` and sleeps in slices. After each slice it
//!   looks whether the holder still lives. If not, it swaps the dead holder's word for its own:
//!   only one waiter can succeed, since the word then names another process.
//! - Releasing swaps in 0 and wakes one sleeper if `CONTENDED` was set. A holder killed between
//!   the swap and the wake-up delays a sleeper until its slice ends.
//! - Whoever has slept takes the lock with `CONTENDED` set, as others may sleep behind it.
//!
//! What the lock protects must be valid between any two stores, or be repaired by the one who
//! is told that the holder died.

use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::primitive::{AtomicU32, FutexError, Ordering, futex, spin_hint};
use crate::shm::word::Member;
use crate::slice;

const CONTENDED: u32 = 1 << 31;
/// Holders work for well under a microsecond, so a waiter seldom gets through this many rounds.
const SPINS: u32 = if cfg!(loom) { 1 } else { 200 };
const FIRST_SLICE: Duration = Duration::from_millis(10);
const LONGEST_SLICE: Duration = Duration::from_millis(200);

/// What a lock has to know about processes.
pub(crate) trait Liveness {
    /// The process that asks.
    fn me(&self) -> Member;
    /// Whether `member` can still do anything.
    fn is_alive(&self, member: Member) -> bool;
}

/// The lock's word. Zeroed memory is a free lock.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct RobustLock {
    word: AtomicU32,
}

/// Proof that the lock is held; releases it when dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    lock: &'a RobustLock,
    /// The holder that died with the lock, when this is its successor: what the lock protects
    /// may need repair.
    pub(crate) owner_died: Option<Member>,
}

impl RobustLock {
    #[cfg(any(test, loom))]
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Blocks until the lock is held; signals do not end the wait.
    pub(crate) fn lock(&self, who: &impl Liveness) -> Taken<'_> {
        loop {
            match self.lock_until(who, None) {
                Ok(taken) => return taken,
                Err(WaitError::Interrupted | WaitError::TimedOut) => {}
            }
        }
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn lock_now(&self, who: &impl Liveness) -> Option<Taken<'_>> {
        // Not `then_some`: that would make the guard, and so release the lock, in any case.
        self.take_free(who.me().raw(), 0).then(|| Taken { lock: self, owner_died: None })
    }

    /// Blocks until the lock is held, `deadline` passes or a signal handler has run.
    pub(crate) fn lock_until(
        &self,
        who: &impl Liveness,
        deadline: Option<Instant>,
    ) -> Result<Taken<'_>, WaitError> {
        let me = who.me().raw();
        if self.take_free(me, 0) || self.spin(me) {
            return Ok(Taken { lock: self, owner_died: None });
        }
        let owner_died = self.sleep(who, deadline)?;
        Ok(Taken { lock: self, owner_died })
    }

    fn take_free(&self, me: u32, flag: u32) -> bool {
        self.word.compare_exchange(0, me | flag, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn spin(&self, me: u32) -> bool {
        for _ in 0..SPINS {
            spin_hint();
            if self.word.load(Ordering::Relaxed) == 0 && self.take_free(me, 0) {
                return true;
            }
        }
        false
    }

    fn sleep(
        &self,
        who: &impl Liveness,
        deadline: Option<Instant>,
    ) -> Result<Option<Member>, WaitError> {
        let me = who.me().raw();
        let mut longest = FIRST_SLICE;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word == 0 {
                if self.take_free(me, CONTENDED) {
                    return Ok(None);
                }
                continue;
            }
            if !self.announce(word) {
                continue;
            }
            let slice_end = Instant::now() + longest;
            let until = deadline.map_or(slice_end, |at| at.min(slice_end));
            match futex::wait(&self.word, word | CONTENDED, Some(until)) {
                Ok(()) | Err(FutexError::Changed) => {}
                Err(FutexError::Interrupted) => return Err(WaitError::Interrupted),
                Err(FutexError::TimedOut) => {
                    if let Some(dead) = self.take_over(who, word | CONTENDED) {
                        return Ok(Some(dead));
                    }
                    if deadline.is_some_and(|at| at <= Instant::now()) {
                        return Err(WaitError::TimedOut);
                    }
                    if slice::must_leave() {
                        return Err(WaitError::Interrupted);
                    }
                    longest = (longest * 2).min(LONGEST_SLICE);
                }
            }
        }
    }

    /// Makes sure that the holder seen in `word` will wake a sleeper.
    fn announce(&self, word: u32) -> bool {
        word & CONTENDED != 0
            || self
                .word
                .compare_exchange(word, word | CONTENDED, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Takes the lock from the holder seen in `word` if that process is dead.
    fn take_over(&self, who: &impl Liveness, word: u32) -> Option<Member> {
        let holder = Member::from_raw(word & !CONTENDED)?;
        if who.is_alive(holder) {
            return None;
        }
        let mine = who.me().raw() | CONTENDED;
        self.word
            .compare_exchange(word, mine, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
            .then_some(holder)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // SeqCst: callers rely on the release being ordered before what they look at next.
        if self.lock.word.swap(0, Ordering::SeqCst) & CONTENDED != 0 {
            futex::wake(&self.lock.word, 1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Pair {
        me: Member,
        other_alive: AtomicBool,
    }

    impl Liveness for Pair {
        fn me(&self) -> Member {
            self.me
        }
        fn is_alive(&self, member: Member) -> bool {
            member == self.me || self.other_alive.load(Ordering::SeqCst)
        }
    }

    fn pair() -> (Pair, Pair) {
        let make = |slot| Pair { me: Member::new(slot, 1), other_alive: AtomicBool::new(true) };
        (make(1), make(2))
    }

    #[test]
    fn holder_keeps_others_out_until_it_drops() {
        let (a, b) = pair();
        let lock = RobustLock::new();
        let held = lock.lock(&a);
        let soon = Some(Instant::now() + Duration::from_millis(1));
        assert_eq!(lock.lock_until(&b, soon).unwrap_err(), WaitError::TimedOut);
        assert!(lock.lock_now(&b).is_none());
        assert!(lock.lock_now(&b).is_none(), "a failed try does not release");
        drop(held);
        assert!(lock.lock_now(&b).is_some());
    }

    #[test]
    fn dead_holder_is_succeeded_and_named() {
        let (a, b) = pair();
        let lock = RobustLock::new();
        std::mem::forget(lock.lock(&a));
        b.other_alive.store(false, Ordering::SeqCst);
        assert_eq!(lock.lock(&b).owner_died, Some(a.me));
        assert_eq!(lock.lock(&a).owner_died, None, "the death is told once");
    }

    #[test]
    fn threads_exclude_each_other() {
        let (a, _) = pair();
        let lock = RobustLock::new();
        let count = std::cell::Cell::new(0u64);
        struct Unsync<'a>(&'a std::cell::Cell<u64>);
        // The lock is what makes this sound; that it does is the thing under test.
        #[expect(unsafe_code, reason = "shares a cell between threads on purpose")]
        // SAFETY: every access happens with the lock held.
        unsafe impl Sync for Unsync<'_> {}
        let shared = Unsync(&count);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let shared = &shared;
                    for _ in 0..20_000 {
                        let _held = lock.lock(&a);
                        shared.0.set(shared.0.get() + 1);
                    }
                });
            }
        });
        assert_eq!(count.get(), 80_000);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    struct Alive(Member);

    impl Liveness for Alive {
        fn me(&self) -> Member {
            self.0
        }
        fn is_alive(&self, _member: Member) -> bool {
            true
        }
    }

    #[test]
    fn loom_two_processes_exclude_each_other() {
        loom::model(|| {
            let shared = Arc::new((RobustLock::new(), UnsafeCell::new(0u32)));
            let run = |slot, shared: Arc<(RobustLock, UnsafeCell<u32>)>| {
                let held = shared.0.lock(&Alive(Member::new(slot, 1)));
                #[allow(unsafe_code)]
                // SAFETY: the lock is held; loom reports it if that does not exclude the other.
                shared.1.with_mut(|value| unsafe { *value += 1 });
                drop(held);
            };
            let other = shared.clone();
            let peer = thread::spawn(move || run(1, other));
            run(2, shared.clone());
            peer.join().unwrap();
            #[allow(unsafe_code)]
            // SAFETY: the other thread has ended.
            shared.1.with(|value| assert_eq!(unsafe { *value }, 2));
        });
    }
}
