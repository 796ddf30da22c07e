//! A child process, as the process that started it sees it.
//!
//! # Who reaps
//!
//! A child's end is seen through its pidfd, which any number of threads may poll. The status is
//! collected without blocking, under a lock, by whoever looks first, and kept for everybody. So it
//! is collected exactly once, and no process id is ever waited for or signalled by number: a number
//! may have been given to another process in the meantime, a pidfd cannot be.
//!
//! # When a process dies
//!
//! - The child: right after its status is collected its member is buried, which drops the
//!   references it held in the arena and frees its blocks.
//! - This process: the child goes on (or ends too, see `daemon.rs`), and the system's first process
//!   collects its status.
//!
//! # In a forked child
//!
//! A copy of a [`Child`] that was inherited through a fork speaks of a sibling. It can be looked at,
//! waited for and signalled, but its status can only be collected by the process that started it;
//! here it is [`ExitStatus::Unknown`] unless it was known before the fork. The lock may have been
//! held by a thread that does not exist here, so it is only ever tried.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::WaitError;
use crate::process::fate::Fate;
use crate::process::keepsake::Keepsake;
use crate::process::registry;
use crate::process::status::ExitStatus;
use crate::shm::{Arena, Member};
use crate::slice::poll_in_slices;
use crate::sys::{fd, process};

/// A child process.
///
/// Clones speak of the same process. Dropping the last one neither ends the process nor leaves a
/// zombie: children that have ended are collected whenever another one is started, and by
/// [`active_children`](crate::process::active_children).
#[derive(Clone)]
pub struct Child(Arc<Inner>);

struct Inner {
    arena: &'static Arena,
    member: Member,
    pid: u32,
    /// The process that started it, and that alone may collect its status.
    parent: u32,
    /// A pidfd; or, for a child that was gone before one could be opened, an eventfd that is always
    /// readable.
    sentinel: OwnedFd,
    status: Mutex<Option<ExitStatus>>,
    /// Where the status is found of a child that a fork server has made.
    fate: Option<Fate>,
    label: OnceLock<Label>,
    /// Dropped when the child has ended.
    kept: Mutex<Vec<Keepsake>>,
}

/// What is known of a child besides the process; set after its start, if at all.
struct Label {
    /// What it is called in events.
    name: String,
    /// Whether it works for this crate and not for the program.
    helper: bool,
}

impl Child {
    /// Takes charge of the child `pid` of this process, which is `member` of the arena.
    pub(crate) fn watch(arena: &'static Arena, member: Member, pid: u32) -> io::Result<Self> {
        let (sentinel, status) = match process::pidfd_open(pid) {
            Ok(sentinel) => (sentinel, None),
            // Somebody else waits for every child of this process, or `SIGCHLD` is ignored.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                let sentinel = ended_sentinel()?;
                arena.bury(member);
                (sentinel, Some(ExitStatus::Unknown))
            }
            Err(error) => return Err(error),
        };
        Ok(Self::new(arena, member, pid, sentinel, None, status))
    }

    /// Takes charge of the child `pid` that a fork server has made.
    pub(crate) fn of_fork_server(
        arena: &'static Arena,
        member: Member,
        pid: u32,
        sentinel: OwnedFd,
        fate: Fate,
    ) -> Self {
        Self::new(arena, member, pid, sentinel, Some(fate), None)
    }

    fn new(
        arena: &'static Arena,
        member: Member,
        pid: u32,
        sentinel: OwnedFd,
        fate: Option<Fate>,
        status: Option<ExitStatus>,
    ) -> Self {
        let parent = process::getpid();
        let (known, status, label) = (status.is_some(), Mutex::new(status), OnceLock::new());
        let kept = Mutex::default();
        let inner = Inner { arena, member, pid, parent, sentinel, status, fate, label, kept };
        let child = Self(Arc::new(inner));
        if !known {
            registry::add(child.clone());
        }
        child
    }

    /// Gives the child the name that events call it by.
    pub(crate) fn set_name(&self, name: &str) {
        self.0.label.get_or_init(|| Label { name: name.to_owned(), helper: false });
    }

    /// Keeps something until the child has ended.
    pub(crate) fn keep(&self, keepsakes: Vec<Keepsake>) {
        if !keepsakes.is_empty() && self.is_alive() {
            self.kept().extend(keepsakes);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Keepsake>> {
        // Nothing panics under the lock.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names a child that works for this crate, and that
    /// [`active_children`](crate::process::active_children) does not tell of.
    pub(crate) fn set_helper(&self, name: &str) {
        self.0.label.get_or_init(|| Label { name: name.to_owned(), helper: true });
    }

    pub(crate) fn is_helper(&self) -> bool {
        self.0.label.get().is_some_and(|label| label.helper)
    }

    fn name(&self) -> &str {
        self.0.label.get().map_or("", |label| &label.name)
    }

    /// Returns the process id. After the child was waited for, the system may give it to another.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Returns the child's number among the members of the arena.
    pub(crate) fn member(&self) -> Member {
        self.0.member
    }

    /// Returns a descriptor that becomes readable when the child has ended, for `poll` and the like.
    ///
    /// It is a pidfd, see [pidfd_open(2)](https://man7.org/linux/man-pages/man2/pidfd_open.2.html),
    /// and closed when the last clone of this value is dropped.
    pub fn sentinel(&self) -> BorrowedFd<'_> {
        self.0.sentinel.as_fd()
    }

    /// Says whether the child has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.try_wait().is_none()
    }

    /// Returns how the child ended, or `None` if it has not.
    ///
    /// Does not wait for the child. Once [`sentinel`](Self::sentinel) is readable the status is there;
    /// a fork server may take a moment to write it down, for which this waits. See
    /// [`ExitStatus::Unknown`] for when the status cannot be had.
    pub fn try_wait(&self) -> Option<ExitStatus> {
        if process::getpid() != self.0.parent {
            return self.look_from_elsewhere();
        }
        // A panic under this lock is not possible half-way through a change.
        let mut status = self.0.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_some() {
            return *status;
        }
        let collected = self.collect()?;
        self.0.arena.bury(self.0.member);
        *status = Some(collected);
        drop(status);
        registry::remove(self);
        let kept = std::mem::take(&mut *self.kept());
        drop(kept);
        self.tell_end(collected);
        Some(collected)
    }

    fn tell_end(&self, status: ExitStatus) {
        let (pid, name) = (self.0.pid, self.name());
        match status {
            ExitStatus::Signal { .. } => tracing::warn!(pid, name, %status, "process was killed"),
            _ => tracing::debug!(pid, name, %status, "process ended"),
        }
    }

    /// Returns how the child ended, or `None` if it has not. The same as [`try_wait`](Self::try_wait).
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.try_wait()
    }

    /// Blocks until the child has ended, and returns how.
    ///
    /// `None` waits for ever; a deadline in the past only looks. Several threads may wait for the same
    /// child; each gets its status.
    ///
    /// # Errors
    ///
    /// - [`WaitError::TimedOut`] when `deadline` passes first.
    /// - [`WaitError::Interrupted`] when a signal handler ran in this thread. Nothing has changed.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<ExitStatus, WaitError> {
        loop {
            if let Some(status) = self.try_wait() {
                return Ok(status);
            }
            let poll = |until| fd::poll_readable(&[self.sentinel()], until);
            match poll_in_slices(deadline, |ended| ended.contains(&true), poll) {
                Ok(ready) if ready.first() == Some(&true) => {
                    if let Some(status) = self.try_wait() {
                        return Ok(status);
                    }
                    // Has ended, but its status is still withheld, as it is by a debugger.
                    pause();
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    return Err(WaitError::Interrupted);
                }
                // `poll` refuses to work when the limit on descriptors was set to nothing.
                Err(_) => pause(),
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return self.try_wait().ok_or(WaitError::TimedOut);
            }
        }
    }

    /// Sends a signal to the child. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// What [pidfd_send_signal(2)](https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html)
    /// reports, such as `EINVAL` for a number that is no signal.
    pub fn send_signal(&self, signal: i32) -> io::Result<()> {
        if self.try_wait().is_some() {
            return Ok(());
        }
        match process::pidfd_send_signal(self.sentinel(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Interrupts the child as Ctrl-C does, with `SIGINT`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    pub fn interrupt(&self) -> io::Result<()> {
        self.send_signal(libc::SIGINT)
    }

    /// Asks the child to end, with `SIGTERM`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    pub fn terminate(&self) -> io::Result<()> {
        self.send_signal(libc::SIGTERM)
    }

    /// Ends the child at once, with `SIGKILL`. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    pub fn kill(&self) -> io::Result<()> {
        self.send_signal(libc::SIGKILL)
    }

    /// Takes the status from the system, if the child has ended.
    fn collect(&self) -> Option<ExitStatus> {
        if let Some(fate) = &self.0.fate {
            return fate.recorded().or_else(|| self.has_ended().then(|| fate.status()));
        }
        match process::wait_pidfd(self.sentinel(), false) {
            Ok(status) => status.map(ExitStatus::from),
            // `ECHILD`: collected by somebody else. To bury a living member would free what it
            // uses, so only the pidfd's word is taken for its death.
            Err(_) => self.has_ended().then_some(ExitStatus::Unknown),
        }
    }

    /// What a process other than the one that started the child can tell.
    fn look_from_elsewhere(&self) -> Option<ExitStatus> {
        let known = self.0.status.try_lock().ok().and_then(|status| *status);
        known.or_else(|| self.has_ended().then_some(ExitStatus::Unknown))
    }

    fn has_ended(&self) -> bool {
        let now = Some(Instant::now());
        fd::poll_readable(&[self.sentinel()], now).is_ok_and(|ready| ready.first() == Some(&true))
    }
}

/// A descriptor that is readable, as a pidfd is of a process that has ended.
pub(crate) fn ended_sentinel() -> io::Result<OwnedFd> {
    let sentinel = fd::eventfd()?;
    fd::eventfd_signal(sentinel.as_fd())?;
    Ok(sentinel)
}

/// A pause between two looks at something that the system does not announce.
#[allow(clippy::disallowed_methods, reason = "there is nothing to wait on")]
pub(crate) fn pause() {
    thread::sleep(Duration::from_millis(1));
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("pid", &self.0.pid)
            .field("name", &self.name())
            .field("member", &self.0.member)
            .finish_non_exhaustive()
    }
}
