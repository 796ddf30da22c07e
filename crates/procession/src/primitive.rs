//! Atomics and the futex, each with a twin for loom.
//!
//! Every protocol of this crate in shared memory uses these and nothing else, so that its very
//! code can be run under the model checker (`make loom`). The twin of the futex keeps the
//! kernel's one promise: comparing the word and falling asleep are a single step with regard to
//! a wake-up.

/// Why [`futex::wait`] returned without having been woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FutexError {
    /// The word did not hold the expected value.
    Changed,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran in this thread.
    Interrupted,
}

#[cfg(not(loom))]
mod imp {
    pub(crate) use std::sync::atomic::{
        AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };

    /// Tells the processor that this is a spinning loop.
    pub(crate) fn spin_hint() {
        std::hint::spin_loop();
    }

    pub(crate) mod futex {
        use std::sync::atomic::AtomicU32;
        use std::time::Instant;

        use rustix::io::Errno;
        use rustix::thread::futex::{self, Flags};
        use rustix::time::Timespec;

        use crate::primitive::FutexError;

        /// Sleeps while `*word == expected`, until a wake-up or `deadline`.
        ///
        /// May return without a reason; callers look at their condition again.
        pub(crate) fn wait(
            word: &AtomicU32,
            expected: u32,
            deadline: Option<Instant>,
        ) -> Result<(), FutexError> {
            let timeout = match deadline {
                None => None,
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(FutexError::TimedOut);
                    }
                    // The kernel measures a relative timeout on the monotonic clock.
                    Some(Timespec {
                        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                        tv_nsec: i64::from(left.subsec_nanos()),
                    })
                }
            };
            // No `PRIVATE`: the other side may be another process.
            match futex::wait(word, Flags::empty(), expected, timeout.as_ref()) {
                Ok(()) => Ok(()),
                Err(Errno::AGAIN) => Err(FutexError::Changed),
                Err(Errno::TIMEDOUT) => Err(FutexError::TimedOut),
                Err(Errno::INTR) => Err(FutexError::Interrupted),
                // Only a bad address or an unaligned word is left, and a reference is neither.
                Err(other) => unreachable!("futex wait on a valid word failed: {other}"),
            }
        }

        /// Wakes at most `count` sleepers and returns how many there were.
        pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
            // Waking cannot fail on a valid word; `count` is kept in the kernel's signed range.
            futex::wake(word, Flags::empty(), count.min(i32::MAX as u32)).unwrap_or(0)
        }
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::sync::atomic::{
        AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };

    /// Lets loom run another thread: a spinning loop makes progress only through others.
    pub(crate) fn spin_hint() {
        loom::thread::yield_now();
    }

    pub(crate) mod futex {
        use std::collections::VecDeque;
        use std::sync::Arc;
        use std::time::Instant;

        use loom::sync::atomic::{AtomicU32, Ordering};
        use loom::sync::{Condvar, Mutex};

        use crate::primitive::FutexError;

        loom::lazy_static! {
            /// Who sleeps, first come first, with the address of its word.
            static ref SLEEPERS: Mutex<VecDeque<(usize, Arc<Condvar>)>> =
                Mutex::new(VecDeque::new());
        }

        fn key(word: &AtomicU32) -> usize {
            std::ptr::from_ref(word).addr()
        }

        pub(crate) fn wait(
            word: &AtomicU32,
            expected: u32,
            _deadline: Option<Instant>,
        ) -> Result<(), FutexError> {
            let mut sleepers = SLEEPERS.lock().unwrap();
            if word.load(Ordering::SeqCst) != expected {
                return Err(FutexError::Changed);
            }
            let woken = Arc::new(Condvar::new());
            sleepers.push_back((key(word), woken.clone()));
            // Only `wake` notifies, and only whom it has taken off the list.
            drop(woken.wait(sleepers).unwrap());
            Ok(())
        }

        pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
            let mut sleepers = SLEEPERS.lock().unwrap();
            let mut woken = 0;
            while woken < count as usize {
                let Some(at) = sleepers.iter().position(|(of, _)| *of == key(word)) else { break };
                if let Some((_, sleeper)) = sleepers.remove(at) {
                    sleeper.notify_one();
                }
                woken += 1;
            }
            woken
        }
    }
}

pub(crate) use imp::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence, futex, spin_hint,
};
