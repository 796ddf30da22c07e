//! Signals: what is done about them, which are held back, and timers that send them.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use crate::sys::process::{check, check_code};

/// Has `handler` called when `signal` arrives; a system call that it interrupts goes on if it can.
///
/// For all threads of the process, until the next call for the same signal or `exec`. See
/// [`sigaction(2)`](https://man7.org/linux/man-pages/man2/sigaction.2.html).
///
/// # Errors
///
/// `EINVAL` when there is no such signal, or it is one that cannot be caught.
pub(crate) fn install_signal_handler(signal: i32, handler: extern "C" fn(i32)) -> io::Result<()> {
    let action = libc::sigaction {
        sa_sigaction: handler as usize,
        sa_mask: empty_signal_set(),
        // A thread with a small stack may have a second one for signals, which is used then.
        sa_flags: libc::SA_RESTART | libc::SA_ONSTACK,
        sa_restorer: None,
    };
    // SAFETY: the action is complete and its handler has the signature that goes without
    // `SA_SIGINFO`. That it does only what may be done in a handler is up to its author; nothing
    // here depends on it.
    check(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) })?;
    Ok(())
}

/// What a process does about a signal, to be put back later.
#[derive(Clone, Copy)]
pub(crate) struct SignalAction {
    signal: i32,
    action: libc::sigaction,
}

impl fmt::Debug for SignalAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalAction").field("signal", &self.signal).finish_non_exhaustive()
    }
}

/// Has the system do its default about `signal`, and returns what was done about it before.
///
/// # Errors
///
/// `EINVAL` when there is no such signal.
pub(crate) fn default_signal(signal: i32) -> io::Result<SignalAction> {
    let action = libc::sigaction {
        sa_sigaction: libc::SIG_DFL,
        sa_mask: empty_signal_set(),
        sa_flags: 0,
        sa_restorer: None,
    };
    let mut before = action;
    // SAFETY: both are complete and borrowed for the call; the new one runs no code.
    check(unsafe { libc::sigaction(signal, &action, &mut before) })?;
    Ok(SignalAction { signal, action: before })
}

/// Puts back what was done about a signal.
pub(crate) fn restore_signal(before: SignalAction) {
    // SAFETY: the action was in force in this program before, and its code is still there.
    let result = unsafe { libc::sigaction(before.signal, &before.action, ptr::null_mut()) };
    debug_assert!(result == 0, "what was in force once can be so again");
}

/// Asks for `signal` when the thread that started this process ends; 0 takes the wish back.
///
/// The *thread*, not its process: see
/// [`PR_SET_PDEATHSIG(2const)`](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html).
/// A forked child does not inherit the wish. If the parent has ended before this call, no signal
/// comes.
///
/// # Errors
///
/// `EINVAL` when there is no such signal.
pub(crate) fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    let signal = libc::c_ulong::try_from(signal).map_err(|_| Errno::INVAL)?;
    // SAFETY: this option takes one number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    Ok(())
}

/// A timer that sends a signal to this process, or none.
#[derive(Debug)]
pub(crate) struct SignalTimer {
    /// One more than what the C library knows the timer by, which may be 0; 0 without a timer.
    raw: AtomicUsize,
}

impl SignalTimer {
    /// No timer.
    pub(crate) const fn none() -> Self {
        Self { raw: AtomicUsize::new(0) }
    }

    /// Makes a timer, which does not run yet. A forked child does not get a copy.
    ///
    /// See [`timer_create(2)`](https://man7.org/linux/man-pages/man2/timer_create.2.html).
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there are too many timers or pending signals.
    pub(crate) fn create(&self, signal: i32) -> io::Result<()> {
        // SAFETY: numbers and a pointer that is not used; all may be zero.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut timer = ptr::null_mut();
        // SAFETY: both are valid and borrowed for the call.
        check(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) })?;
        self.raw.store(timer.addr().wrapping_add(1), Ordering::SeqCst);
        Ok(())
    }

    /// Forgets the timer, which is another process's after a fork.
    pub(crate) fn forget(&self) {
        self.raw.store(0, Ordering::SeqCst);
    }

    /// Has the signal sent every second from now on. Does nothing if there is no timer.
    ///
    /// Safe in a signal handler.
    pub(crate) fn run_every_second(&self) {
        let Some(timer) = self.raw.load(Ordering::SeqCst).checked_sub(1) else { return };
        let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
        let times = libc::itimerspec { it_interval: second, it_value: second };
        let timer = ptr::without_provenance_mut(timer);
        // SAFETY: the times are borrowed for the call, and the old ones are not asked for. The timer
        // was made by this type; it is a number in the shape of a pointer, as always without
        // `SIGEV_THREAD`. One that was inherited through a fork is refused.
        unsafe { libc::timer_settime(timer, 0, &times, ptr::null_mut()) };
    }
}

/// The signal that this crate takes for the death of a parent; no other meaning is known for it.
pub(crate) fn death_signal() -> i32 {
    // Programs that want one for themselves tend to begin at either end of the range.
    libc::SIGRTMIN() + 12
}

/// Holds `signal` back from this thread, and says whether that was so before. Forked children have
/// it held back as well, and keep what arrives until they let it through.
///
/// # Errors
///
/// `EINVAL` when there is no such signal.
pub(crate) fn block_signal(signal: i32) -> io::Result<bool> {
    let (mut set, mut before) = (empty_signal_set(), empty_signal_set());
    // SAFETY: the set is initialised and borrowed for the call.
    check(unsafe { libc::sigaddset(&mut set, signal) })?;
    // SAFETY: both sets are initialised and borrowed for the call.
    check_code(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) })?;
    // SAFETY: the set is initialised and borrowed for the call.
    Ok(unsafe { libc::sigismember(&before, signal) } == 1)
}

/// Holds all signals back from this thread that can be held back.
pub(crate) fn block_all_signals() {
    let mut set = empty_signal_set();
    // SAFETY: the set is initialised and borrowed for the call, which cannot fail on a valid one.
    unsafe { libc::sigfillset(&mut set) };
    // SAFETY: the set is initialised and borrowed for the call; the old mask is not asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
    debug_assert!(result == 0, "the C library refused a valid set of signals");
}

/// Lets `signal` through to this thread.
///
/// # Errors
///
/// `EINVAL` when there is no such signal.
pub(crate) fn unblock_signal(signal: i32) -> io::Result<()> {
    let mut set = empty_signal_set();
    // SAFETY: the set is initialised and borrowed for the call.
    check(unsafe { libc::sigaddset(&mut set, signal) })?;
    // SAFETY: the set is initialised and borrowed for the call; the old mask is not asked for.
    check_code(unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut()) })
}

pub(super) fn empty_signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises what the pointer leads to, and cannot fail on a valid one.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the call above.
    unsafe { set.assume_init() }
}
