//! Ends a test that hangs, and shows where.
//!
//! The alarm is a timer that sends a signal, and not a thread: a test that forks must be the only
//! thread of its process. The timer is not inherited by a forked child and is deleted by an exec.
//!
//! # When it goes off
//!
//! The signal's handler prints what the process and its descendants are doing, with the stack of
//! every thread of this process, then kills the descendants and aborts. Much of that is not allowed in
//! a signal handler: it allocates, and may find the allocator locked by the very thread that it
//! interrupted. The process is lost already, so it tries, with a second alarm set that kills the
//! process if the report hangs too.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::backtrace::Backtrace;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{io, mem, ptr};

use crate::process::{descendants, kill, wait_until};

/// How long the report may take before the process is killed without one, in seconds.
const REPORT: u32 = 20;

/// How many threads have printed their stack.
static STACKS: AtomicU32 = AtomicU32::new(0);

/// Aborts the process, after a report, if it lives longer than its time.
///
/// Several may be armed at once; each goes off by itself.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use procession_testing::Watchdog;
///
/// let watchdog = Watchdog::arm(Duration::from_secs(30));
/// // Something that may hang.
/// drop(watchdog);
/// ```
#[derive(Debug)]
#[must_use = "a watchdog that is dropped watches nothing"]
pub struct Watchdog {
    timer: libc::timer_t,
}

impl Watchdog {
    /// Sets the alarm. Dropping the watchdog calls it off.
    ///
    /// # Panics
    ///
    /// Panics if the system has no timer left, or if `limit` is zero.
    pub fn arm(limit: Duration) -> Self {
        assert!(!limit.is_zero(), "an alarm of no time at all never goes off");
        handle(alarm_signal(), on_alarm);
        handle(stack_signal(), on_stack_wanted);
        let timer = new_timer();
        // SAFETY: all fields are integers, for which zero is a value.
        let mut setting: libc::itimerspec = unsafe { mem::zeroed() };
        setting.it_value.tv_sec = limit.as_secs().try_into().unwrap_or(libc::time_t::MAX);
        setting.it_value.tv_nsec = limit.subsec_nanos().into();
        // SAFETY: `timer` was just made, `setting` is filled in, and the old setting is not wanted.
        let result = unsafe { libc::timer_settime(timer, 0, &raw const setting, ptr::null_mut()) };
        assert_eq!(result, 0, "timer_settime failed: {}", io::Error::last_os_error());
        Self { timer }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: made in `arm` and deleted nowhere else. In a forked child the number means
        // nothing; the call then fails, which does no harm.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// A timer that sends [`alarm_signal`] to this process.
fn new_timer() -> libc::timer_t {
    // SAFETY: all fields are integers or pointers, for which zero is a value.
    let mut event: libc::sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = alarm_signal();
    let mut timer = ptr::null_mut();
    // SAFETY: both pointers are to live variables, and `event` is filled in.
    let result =
        unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
    assert_eq!(result, 0, "timer_create failed: {}", io::Error::last_os_error());
    timer
}

/// Far from both ends of the range, so as not to meet a signal that the engine uses.
fn alarm_signal() -> libc::c_int {
    libc::SIGRTMIN() + 13
}

fn stack_signal() -> libc::c_int {
    libc::SIGRTMIN() + 14
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all fields are integers, pointers or an absent function, for which zero is a value;
    // it means an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is filled in, and without `SA_SIGINFO` a handler takes the number alone.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaction failed: {}", io::Error::last_os_error());
}

extern "C" fn on_alarm(_signal: libc::c_int) {
    // SAFETY: resets a signal to its default action, which is to end the process.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_DFL) };
    // SAFETY: sets a number in the kernel and touches no memory.
    unsafe { libc::alarm(REPORT) };
    let me = std::process::id();
    eprintln!("\nwatchdog: process {me} hangs; this is what it does");
    report_threads(me);
    print_stacks(me);
    for pid in descendants(me) {
        eprintln!("watchdog: process {me} has left {pid}: {}", command_line(pid));
        report_threads(pid);
        kill(pid);
    }
    std::process::abort();
}

extern "C" fn on_stack_wanted(_signal: libc::c_int) {
    eprintln!("thread {}:\n{}", rustix::thread::gettid(), Backtrace::force_capture());
    STACKS.fetch_add(1, Ordering::SeqCst);
}

/// Has every thread of this process print its stack, one after the other.
fn print_stacks(me: u32) {
    for id in thread_ids(me) {
        let before = STACKS.load(Ordering::SeqCst);
        // SAFETY: sends a signal that has a handler to a thread of this very process; a thread
        // that is gone meanwhile makes the call fail.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, me, id, stack_signal()) };
        if result == 0 {
            wait_until(Duration::from_secs(2), || STACKS.load(Ordering::SeqCst) != before);
        }
    }
}

/// Prints one line per thread: its name, its state and where in the kernel it waits.
fn report_threads(pid: u32) {
    for id in thread_ids(pid) {
        let read = |file: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/task/{id}/{file}"));
            text.unwrap_or_default().trim().to_owned()
        };
        let status = read("status");
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or_default();
        eprintln!(
            "  thread {id} ({}) {state}, in {}, call {}",
            read("comm"),
            read("wchan"),
            read("syscall")
        );
    }
}

fn thread_ids(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
