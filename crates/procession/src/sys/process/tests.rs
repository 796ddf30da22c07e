//! Tests with real processes.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;

use super::signals::empty_signal_set;
use super::stat::{parse_stat, pidfds_have_inodes};
use super::*;
use crate::sys::fd::poll_readable;
use crate::sys::memory::memfd;

/// Only a deadlock takes this long.
const DEADLOCK: Duration = Duration::from_secs(30);

/// Forks; the child does `work`, which only makes system calls, and exits with its result.
fn fork_child(work: impl FnOnce() -> i32) -> (u32, OwnedFd) {
    // SAFETY: the test harness has other threads, so the child must not need what they may
    // hold locked: `work` only makes system calls, and the child ends with `exit_now`.
    match unsafe { fork() }.unwrap() {
        Fork::Child => exit_now(work()),
        Fork::Parent { pid } => (pid, pidfd_open(pid).unwrap()),
    }
}

fn await_end(pidfd: &OwnedFd) {
    let deadline = Some(Instant::now() + DEADLOCK);
    assert_eq!(poll_readable(&[pidfd.as_fd()], deadline).unwrap(), [true], "it does not end");
}

fn pause_for_ever() -> i32 {
    loop {
        // SAFETY: the call only waits for a signal.
        unsafe { libc::pause() };
    }
}

fn sh(script: &str, inherit: &[BorrowedFd<'_>]) -> RawStatus {
    let args = [c"sh", c"-c", &CString::new(script).unwrap()].map(CStr::to_owned);
    let env = [c"GREETING=hello".to_owned()];
    let pid = spawn(c"/bin/sh", &args, &env, inherit, &[]).unwrap();
    wait_pidfd(pidfd_open(pid).unwrap().as_fd(), true).unwrap().unwrap()
}

#[test]
fn exit_code_of_forked_child_is_reaped_once() {
    let (_, pidfd) = fork_child(|| 7);
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(7)));
    let again = wait_pidfd(pidfd.as_fd(), false).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(libc::ECHILD));
}

#[test]
fn killed_child_reports_its_signal() {
    let (_, pidfd) = fork_child(pause_for_ever);
    assert_eq!(wait_pidfd(pidfd.as_fd(), false).unwrap(), None, "it runs");
    pidfd_send_signal(pidfd.as_fd(), 0).unwrap();
    pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    let killed = RawStatus::Signaled { signal: libc::SIGKILL, core_dumped: false };
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(killed));
    let gone = pidfd_send_signal(pidfd.as_fd(), 0).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn start_time_is_known_exactly_while_the_process_runs() {
    let mine = start_time(getpid()).unwrap().expect("this process runs");
    let (pid, pidfd) = fork_child(pause_for_ever);
    assert!(start_time(pid).unwrap().expect("the child runs") >= mine);
    pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    await_end(&pidfd);
    assert_eq!(start_time(pid).unwrap(), None, "a zombie counts as running");
    wait_pidfd(pidfd.as_fd(), true).unwrap();
    assert_eq!(start_time(pid).unwrap(), None, "a reaped process counts as running");
    assert_eq!(start_time(i32::MAX as u32).unwrap(), None);
    assert_eq!(start_time(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn birth_mark_is_one_process_s_while_it_runs() {
    let mine = birth_mark(getpid()).unwrap();
    assert!(mine.is_some(), "this process runs");
    assert_eq!(birth_mark(getpid()).unwrap(), mine);
    let (pid, pidfd) = fork_child(pause_for_ever);
    let its = birth_mark(pid).unwrap().expect("the child runs");
    assert!(!pidfds_have_inodes() || Some(its) != mine);
    assert_eq!(birth_mark(pid).unwrap(), Some(its));
    pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    await_end(&pidfd);
    assert_eq!(birth_mark(pid).unwrap(), None, "a zombie counts as running");
    wait_pidfd(pidfd.as_fd(), true).unwrap();
    assert_eq!(birth_mark(pid).unwrap(), None, "a reaped process counts as running");
    assert_eq!(birth_mark(i32::MAX as u32).unwrap(), None);
    assert_eq!(birth_mark(0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn stat_lines_are_read_past_any_name() {
    let line = |name, state, threads| {
        let middle = "17 2 3 0 -1 4194560 10 20 0 0 1 2 3 4 20 0";
        parse_stat(format!("42 ({name}) {state} {middle} {threads} 0 98765 4096\n").as_bytes())
    };
    let runs = Some(Some(Stat { parent: 17, start: 98765 }));
    assert_eq!(line("sh", "R", 1), runs);
    assert_eq!(line("a) Z (b", "S", 3), runs);
    assert_eq!(line("sh", "Z", 1), Some(None));
    assert_eq!(line("sh", "X", 0), Some(None));
    assert_eq!(line("sh", "Z", 2), runs, "other threads of it run");
    assert_eq!(parse_stat(b""), None);
    assert_eq!(parse_stat(b"42 (sh) R 1 2"), None);
}

#[test]
fn spawned_program_has_chosen_descriptors_and_no_others() {
    let (kept, dropped) = (memfd("kept", 1).unwrap(), memfd("dropped", 1).unwrap());
    let script = format!(
        "[ -e /proc/self/fd/{} ] && [ ! -e /proc/self/fd/{} ] && [ $GREETING = hello ] && exit 9",
        kept.as_raw_fd(),
        dropped.as_raw_fd()
    );
    assert_eq!(sh(&script, &[kept.as_fd()]), RawStatus::Exited(9));
    let flags = rustix::io::fcntl_getfd(&kept).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "changed in the parent too");
}

#[test]
fn spawned_program_has_no_blocked_signal() {
    let mut set = empty_signal_set();
    // SAFETY: the set is initialised.
    unsafe { libc::sigaddset(&mut set, libc::SIGUSR1) };
    // SAFETY: the set is initialised. Other threads keep their masks.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
    let killed = RawStatus::Signaled { signal: libc::SIGUSR1, core_dumped: false };
    assert_eq!(sh("kill -USR1 $$; exit 3", &[]), killed);
}

#[test]
fn spawn_reports_what_exec_said() {
    let error = spawn(c"/nonexistent", &[c"x".to_owned()], &[], &[], &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn handler_of_forks_runs_in_the_child_only() {
    static FORKS: AtomicI32 = AtomicI32::new(0);
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::SeqCst);
    }
    on_fork_child(count);
    let (_, pidfd) = fork_child(|| FORKS.load(Ordering::SeqCst));
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(1)));
    assert_eq!(FORKS.load(Ordering::SeqCst), 0, "it ran in the parent");
}

#[test]
fn own_id_is_that_of_the_child_after_a_fork() {
    assert_eq!(own_id(), getpid());
    let (child, pidfd) = fork_child(|| i32::from(own_id() != getpid()));
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(0)));
    assert_ne!(own_id(), child);
    assert_eq!(own_id(), getpid());
}

#[test]
fn unblocked_signal_reaches_its_handler() {
    extern "C" fn leave(signal: i32) {
        exit_now(if signal == death_signal() { 5 } else { 6 });
    }
    let (_, pidfd) = fork_child(|| {
        let mut set = empty_signal_set();
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(&mut set, death_signal()) };
        // SAFETY: the set is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
        // SAFETY: the call touches no memory.
        unsafe { libc::raise(death_signal()) };
        let installed = install_signal_handler(death_signal(), leave);
        let unblocked = unblock_signal(death_signal());
        if installed.and(unblocked).is_ok() { pause_for_ever() } else { 7 }
    });
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(5)));
}

#[test]
fn blocked_signal_is_kept_until_it_is_let_through() {
    extern "C" fn leave(_: i32) {
        exit_now(8);
    }
    let (_, pidfd) = fork_child(|| {
        let blocked = [block_signal(libc::SIGUSR2), block_signal(libc::SIGUSR2)];
        if !matches!(blocked, [Ok(false), Ok(true)]) {
            return 1;
        }
        // SAFETY: the call touches no memory.
        unsafe { libc::raise(libc::SIGUSR2) };
        let installed = install_signal_handler(libc::SIGUSR2, leave);
        let unblocked = unblock_signal(libc::SIGUSR2);
        i32::from(installed.and(unblocked).is_err())
    });
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(8)));
}

#[test]
fn default_action_can_be_taken_back() {
    extern "C" fn leave(_: i32) {
        exit_now(8);
    }
    let (_, pidfd) = fork_child(|| {
        let installed = install_signal_handler(libc::SIGCHLD, leave);
        let Ok(before) = installed.and_then(|()| default_signal(libc::SIGCHLD)) else { return 1 };
        // SAFETY: the call touches no memory.
        unsafe { libc::raise(libc::SIGCHLD) };
        restore_signal(before);
        // SAFETY: the call touches no memory.
        unsafe { libc::raise(libc::SIGCHLD) };
        2
    });
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(8)));
}

#[test]
fn timer_sends_its_signal_once_it_runs() {
    extern "C" fn leave(_: i32) {
        exit_now(8);
    }
    let (_, pidfd) = fork_child(|| {
        let timer = SignalTimer::none();
        let installed = install_signal_handler(libc::SIGUSR2, leave);
        if installed.and_then(|()| timer.create(libc::SIGUSR2)).is_err() {
            return 1;
        }
        timer.run_every_second();
        pause_for_ever()
    });
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(8)));
    // There is none to run.
    SignalTimer::none().run_every_second();
}

#[test]
fn end_is_seen_by_the_number_of_a_pidfd() {
    let (_, pidfd) = fork_child(pause_for_ever);
    assert!(!has_ended(pidfd.as_raw_fd()));
    pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    await_end(&pidfd);
    assert!(has_ended(pidfd.as_raw_fd()));
    wait_pidfd(pidfd.as_fd(), true).unwrap();
    assert!(has_ended(1_000_000), "a descriptor that is not open counts as the end");
}

#[test]
fn grandchild_dies_with_its_parent() {
    let (alive, held_by_both) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (ready, say_ready) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (_, pidfd) = fork_child(|| {
        // SAFETY: this process has one thread, and its child only makes system calls.
        match unsafe { fork() } {
            Ok(Fork::Child) => {
                let wished = set_parent_death_signal(libc::SIGKILL);
                let told = rustix::io::write(&say_ready, b"!");
                if wished.is_ok() && told.is_ok() { pause_for_ever() } else { 1 }
            }
            Ok(Fork::Parent { .. }) => i32::from(rustix::io::read(&ready, &mut [0]).is_err()),
            Err(_) => 2,
        }
    });
    drop(held_by_both);
    assert_eq!(wait_pidfd(pidfd.as_fd(), true).unwrap(), Some(RawStatus::Exited(0)));
    // Readable is only its end: nobody writes, and the grandchild is the last to hold it.
    await_end(&alive);
    assert!(set_parent_death_signal(-1).is_err());
}

#[test]
fn threads_are_counted() {
    let (enter, leave) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || leave.recv().is_err());
    assert!(thread_count().unwrap() >= 2);
    drop(enter);
    assert!(thread.join().unwrap());
}

#[test]
fn long_name_is_cut_between_characters() {
    let thread = std::thread::spawn(|| {
        set_name("fourteen bytes\u{e9}");
        std::fs::read_to_string("/proc/thread-self/comm").unwrap()
    });
    assert_eq!(thread.join().unwrap(), "fourteen bytes\n");
}
