//! Processes: starting them, watching them, and what they know about themselves.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::ffi::{CStr, CString, c_char, c_int, c_short};
use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

use crate::sys::fd;

/// More than the longest line of `/proc/PID/stat`: 52 numbers and a name of 64 bytes.
const STAT_LENGTH: usize = 2048;

/// The id of this process.
pub(crate) fn getpid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

/// The id of this process, without a system call where that was asked before.
pub(crate) fn own_id() -> u32 {
    match OWN_ID.load(Ordering::Relaxed) {
        0 => find_own_id(),
        id => id,
    }
}

/// 0 where it has to be asked for.
static OWN_ID: AtomicU32 = AtomicU32::new(0);

#[cold]
fn find_own_id() -> u32 {
    const UNSEEN: u32 = 0;
    const BEGUN: u32 = 1;
    const SEEN: u32 = 2;
    /// Whether forks are seen. The child of a fork that came while another thread was about to see
    /// to that asks each time.
    static FORKS: AtomicU32 = AtomicU32::new(UNSEEN);

    let begun = FORKS.compare_exchange(UNSEEN, BEGUN, Ordering::AcqRel, Ordering::Acquire);
    if begun.is_ok() {
        on_fork_child(forget_own_id);
        FORKS.store(SEEN, Ordering::Release);
    }
    let id = getpid();
    if FORKS.load(Ordering::Acquire) == SEEN {
        OWN_ID.store(id, Ordering::Relaxed);
    }
    id
}

extern "C" fn forget_own_id() {
    OWN_ID.store(0, Ordering::Relaxed);
}

/// The id of the parent; the adopting process if the parent is gone, 0 if it is out of sight.
pub(crate) fn getppid() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

fn to_pid(pid: u32) -> Result<Pid, Errno> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)
}

/// What the system tells of a process that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The id of its parent; 0 if that is out of sight.
    pub(crate) parent: u32,
    /// When it started, in clock ticks since the machine did.
    pub(crate) start: u64,
}

/// When the process `pid` started, in clock ticks since the machine did; `None` if it has ended.
///
/// A pid is used again after its process was reaped; a pid together with a start time is not.
///
/// # Errors
///
/// As [`stat`].
pub(crate) fn start_time(pid: u32) -> io::Result<Option<u64>> {
    Ok(stat(pid)?.map(|stat| stat.start))
}

/// A number that tells the process `pid` from all that had or will have the same pid; `None` if it
/// has ended.
///
/// A process that has ended and is not reaped yet counts as ended. Where pidfds have inodes of their
/// own (Linux 6.9) it is that of the process, at a tenth of the price; elsewhere the start time.
///
/// # Errors
///
/// As [`stat`].
pub(crate) fn birth_mark(pid: u32) -> io::Result<Option<u64>> {
    if !pidfds_have_inodes() {
        return start_time(pid);
    }
    let pidfd = match rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // The number is free, or that of a thread by now.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    let ended = fd::poll_readable(&[pidfd.as_fd()], Some(Instant::now()))?;
    if ended.first() == Some(&true) {
        return Ok(None);
    }
    Ok(Some(rustix::fs::fstat(&pidfd)?.st_ino))
}

/// Whether the inode of a pidfd is that of its process alone; before, all shared one.
fn pidfds_have_inodes() -> bool {
    /// `PID_FS_MAGIC` in `linux/magic.h`.
    const PID_FS: u64 = 0x5049_4446;
    static HAVE: OnceLock<bool> = OnceLock::new();
    *HAVE.get_or_init(|| {
        let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
        own.and_then(rustix::fs::fstatfs).is_ok_and(|system| system.f_type as u64 == PID_FS)
    })
}

/// What the system tells of the process `pid`; `None` if it has ended.
///
/// A process that has ended and is not reaped yet counts as ended. See
/// [`proc_pid_stat(5)`](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
///
/// # Errors
///
/// Any error means that nothing is known, so the process has to be taken as alive: no descriptor
/// left to look with, or a `/proc` that does not show the process although it exists.
pub(crate) fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let id = to_pid(pid)?;
    let mut buffer = [0_u8; STAT_LENGTH];
    match read_stat(pid, &mut buffer) {
        Ok(line) => parse_stat(line).ok_or_else(|| Errno::IO.into()),
        // The process ended between the opening and the reading.
        Err(Errno::SRCH) => Ok(None),
        Err(Errno::NOENT) if rustix::process::test_kill_process(id) == Err(Errno::SRCH) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

fn read_stat(pid: u32, buffer: &mut [u8]) -> Result<&[u8], Errno> {
    let path = format!("/proc/{pid}/stat");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let len = rustix::io::read(file, &mut *buffer)?;
    Ok(&buffer[..len])
}

/// What a line of `/proc/PID/stat` says: outer `None` for a line that is no such line, inner `None`
/// for a process that has ended.
fn parse_stat(line: &[u8]) -> Option<Option<Stat>> {
    // The name, in parentheses, may hold anything, also spaces and parentheses.
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&line[name_end + 1..]).ok()?;
    // The first field here is the third of the line.
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent: u32 = fields.next()?.parse().ok()?;
    let threads: u64 = fields.nth(20 - 5)?.parse().ok()?;
    let start: u64 = fields.nth(22 - 21)?.parse().ok()?;
    let ended = match state {
        // While other threads run, only the main thread is a zombie and the process is not.
        "Z" => threads <= 1,
        "X" | "x" => true,
        _ => false,
    };
    Some((!ended).then_some(Stat { parent, start }))
}

/// A descriptor for the process `pid`: readable once it has ended, and closed by `exec`.
///
/// See [`pidfd_open(2)`](https://man7.org/linux/man-pages/man2/pidfd_open.2.html).
///
/// # Errors
///
/// `ESRCH` when there is no such process, `EINVAL` for 0.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty())?)
}

/// Sends `signal` to the process behind `fd`; 0 only looks whether that could be done.
///
/// See [`pidfd_send_signal(2)`](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html).
///
/// # Errors
///
/// `ESRCH` when the process has been reaped, `EPERM` when it belongs to another user.
pub(crate) fn pidfd_send_signal(fd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    let (call, fd, no_flags) = (libc::SYS_pidfd_send_signal, fd.as_raw_fd(), 0_u32);
    // SAFETY: the arguments have the types that the call expects, the descriptor is open, and
    // without an info of the caller's the kernel reads no memory.
    check(unsafe { libc::syscall(call, fd, signal, info, no_flags) })?;
    Ok(())
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RawStatus {
    /// It left with this code, 0 to 255.
    Exited(i32),
    /// It was killed.
    Signaled {
        /// The number of the signal.
        signal: i32,
        /// Whether its memory was written to a file.
        core_dumped: bool,
    },
}

/// Waits for the child behind `fd` to end and reaps it; `None` if it runs and `block` is false.
///
/// See [`waitid(2)`](https://man7.org/linux/man-pages/man2/waitid.2.html).
///
/// # Errors
///
/// `ECHILD` when it is not a child of this process or has been reaped by someone else, `EINTR`
/// when a signal handler ran in this thread.
pub(crate) fn wait_pidfd(fd: BorrowedFd<'_>, block: bool) -> io::Result<Option<RawStatus>> {
    let mut options = WaitIdOptions::EXITED;
    options.set(WaitIdOptions::NOHANG, !block);
    let status = rustix::process::waitid(WaitId::PidFd(fd), options)?;
    Ok(status.as_ref().and_then(raw_status))
}

fn raw_status(status: &WaitIdStatus) -> Option<RawStatus> {
    let exited = status.exit_status().map(RawStatus::Exited);
    exited.or_else(|| {
        let signal = status.terminating_signal()?;
        Some(RawStatus::Signaled { signal, core_dumped: status.dumped() })
    })
}

/// The number of threads of this process.
///
/// A thread that was joined a moment ago may still be counted: joining waits for the end of its
/// program, and the kernel takes it off its list a little later.
pub(crate) fn thread_count() -> io::Result<usize> {
    // As any folder it counts its subfolders as links, besides its own two: one per thread.
    let links = rustix::fs::stat(c"/proc/self/task")?.st_nlink;
    match usize::try_from(links) {
        Ok(links) if links > 2 => Ok(links - 2),
        _ => Ok(std::fs::read_dir("/proc/self/task")?.count()),
    }
}

/// Which of the two processes this is, after a [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    /// The one that forked.
    Parent {
        /// The id of the child.
        pid: u32,
    },
    /// The new one.
    Child,
}

/// Makes a copy of this process. Handlers of `pthread_atfork` run.
///
/// See [`fork(2)`](https://man7.org/linux/man-pages/man2/fork.2.html).
///
/// # Errors
///
/// `EAGAIN` when there are too many processes, `ENOMEM` when there is too little memory.
///
/// # Safety
///
/// Only the calling thread exists in the child, and a lock that another thread held stays locked
/// there. So either this process has no other thread, or the child calls nothing but functions
/// that are safe in a signal handler, until it calls `exec` or [`exit_now`].
pub(crate) unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: promised by the caller.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent { pid: pid.unsigned_abs() }),
    }
}

/// Ends this process at once: no destructor, no `atexit` handler, no flush of a buffer.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ending the process is sound at any time.
    unsafe { libc::_exit(code) }
}

/// Starts a fresh program and returns the id of its process.
///
/// `program` is a path, `args` begins with the name that the program sees itself under, and `env`
/// is its whole environment. The program gets each descriptor of `inherit` under the same number,
/// and else only those that are not closed by `exec`. No signal is blocked in it; ignored signals
/// stay ignored. Each descriptor of `placed` is given to it under the number beside it, one after
/// the other and before the inherited ones. See
/// [`posix_spawn(3)`](https://man7.org/linux/man-pages/man3/posix_spawn.3.html).
///
/// # Errors
///
/// What starting a process or `exec` reported, `ENOENT` for instance when there is no such file.
pub(crate) fn spawn(
    program: &CStr,
    args: &[CString],
    env: &[CString],
    inherit: &[BorrowedFd<'_>],
    placed: &[(BorrowedFd<'_>, RawFd)],
) -> io::Result<u32> {
    let attributes = SpawnAttributes::without_blocked_signals()?;
    let mut actions = SpawnActions::new()?;
    for (fd, place) in placed {
        actions.copy(*fd, *place)?;
    }
    for fd in inherit {
        // A copy of a descriptor onto itself means here: keep it over `exec`.
        actions.copy(*fd, fd.as_raw_fd())?;
    }
    let (args, env) = (pointers(args), pointers(env));
    let mut pid = 0;
    // SAFETY:
    // - `program`, the arguments and the environment are strings that end with a zero byte, both
    //   lists end with a null pointer, and all are borrowed until after the call. It only reads
    //   them, whatever the type of the pointers says.
    // - The actions and the attributes are initialised and not destroyed yet.
    // - The child runs no code of this process before `exec`, so other threads do no harm.
    let result = unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            &actions.0,
            &attributes.0,
            args.as_ptr(),
            env.as_ptr(),
        )
    };
    check_code(result)?;
    Ok(pid.unsigned_abs())
}

/// The strings as C wants a list of them: addresses, and a null at the end.
fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    let addresses = strings.iter().map(|string| string.as_ptr().cast_mut());
    addresses.chain([ptr::null_mut()]).collect()
}

struct SpawnAttributes(libc::posix_spawnattr_t);

impl SpawnAttributes {
    fn without_blocked_signals() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer leads to.
        check_code(unsafe { libc::posix_spawnattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        let mut attributes = Self(unsafe { raw.assume_init() });
        let none = empty_signal_set();
        // SAFETY: both are initialised and borrowed for the call.
        check_code(unsafe { libc::posix_spawnattr_setsigmask(&mut attributes.0, &none) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK as c_short;
        // SAFETY: the attributes are initialised and borrowed for the call.
        check_code(unsafe { libc::posix_spawnattr_setflags(&mut attributes.0, flags) })?;
        Ok(attributes)
    }
}

impl Drop for SpawnAttributes {
    fn drop(&mut self) {
        // SAFETY: a `SpawnAttributes` is initialised, and is not used after its drop.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

struct SpawnActions(libc::posix_spawn_file_actions_t);

impl SpawnActions {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer leads to.
        check_code(unsafe { libc::posix_spawn_file_actions_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        Ok(Self(unsafe { raw.assume_init() }))
    }

    fn copy(&mut self, fd: BorrowedFd<'_>, place: RawFd) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        // SAFETY: the actions are initialised and borrowed for the call.
        check_code(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, fd, place) })
    }
}

impl Drop for SpawnActions {
    fn drop(&mut self) {
        // SAFETY: a `SpawnActions` is initialised, and is not used after its drop.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
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

/// Has `handler` called in the child of each fork of this process, before `fork` returns there.
///
/// Cannot be undone, and a second call with the same handler makes it run twice. See
/// [`pthread_atfork(3)`](https://man7.org/linux/man-pages/man3/pthread_atfork.3.html).
///
/// # Panics
///
/// Panics when there is no memory left, the one thing that can fail.
pub(crate) fn on_fork_child(handler: extern "C" fn()) {
    let handler: unsafe extern "C" fn() = handler;
    // SAFETY: a safe function without arguments may be called at any time, by the signature.
    let result = unsafe { pthread_atfork(None, None, Some(handler)) };
    assert!(result == 0, "pthread_atfork failed: {}", io::Error::from_raw_os_error(result));
}

/// Has `handler` called when this process ends normally: by `exit` or a return from `main`.
///
/// Forked copies of this process call it too when they end that way. See
/// [`atexit(3)`](https://man7.org/linux/man-pages/man3/atexit.3.html).
///
/// # Panics
///
/// Panics when there is no memory left, the one thing that can fail.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: a safe function without arguments may be called at any time, by the signature.
    let result = unsafe { libc::atexit(handler) };
    assert!(result == 0, "atexit failed: no memory");
}

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

/// Whether the process behind the pidfd with this number has ended; true also when no such
/// descriptor is open.
///
/// Safe in a signal handler.
pub(crate) fn has_ended(pidfd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which is borrowed for the call. Any number may be asked about.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready > 0
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

/// Gives this thread a name, of which the system keeps the first 15 bytes.
///
/// The name of the main thread is what tools such as `ps` and `top` show for the process.
pub(crate) fn set_name(name: &str) {
    let mut short = [0_u8; 16];
    let len = (0..=15).rev().find(|len| name.is_char_boundary(*len)).unwrap_or(0);
    short[..len].copy_from_slice(&name.as_bytes()[..len]);
    // SAFETY: the kernel reads up to the zero byte, of which the array has at least one.
    let result = unsafe { libc::prctl(libc::PR_SET_NAME, short.as_ptr()) };
    debug_assert!(result == 0, "the kernel refused a name that it can read");
}

fn empty_signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call initialises what the pointer leads to, and cannot fail on a valid one.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the call above.
    unsafe { set.assume_init() }
}

/// What a call that returns -1 on failure and leaves the reason in `errno` came to.
fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What a call that returns the reason of its failure came to.
fn check_code(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

unsafe extern "C" {
    /// Not among the declarations of the `libc` crate for Linux.
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> c_int;
}

/// Kills and reaps a child that cannot be watched, because no descriptor was left for it.
pub(crate) fn kill_and_reap(pid: u32) {
    let Some(pid) = Pid::from_raw(pid as i32) else { return };
    // It fails only if the child has ended already.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    let no_options = rustix::process::WaitOptions::empty();
    while matches!(rustix::process::waitpid(Some(pid), no_options), Err(Errno::INTR)) {}
}

#[cfg(test)]
mod tests;
