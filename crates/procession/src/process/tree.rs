//! Ending a process together with all that it started.
//!
//! # Steps
//!
//! 1. The process is stopped (`SIGSTOP`), and nothing that is stopped can start another one.
//! 2. All processes of the system are listed, again and again. Each that turns up below one that
//!    was found is stopped too. That ends with a look that began when all were stopped and found
//!    nothing new.
//! 3. All are killed (`SIGKILL`), children before their parents: a parent's death makes the system
//!    wake some stopped children up (those of a session's last process), and these must have their
//!    signal by then.
//! 4. Their ends are waited for.
//!
//! # Whom a signal reaches
//!
//! A number may have been given to another process since it was read. So a pidfd is opened first,
//! then it is checked that the number belongs to the process that is meant (its start time, and,
//! when it is found, its parent), and then the signal is sent through the pidfd. That works only
//! while the process behind it has not been reaped, and so while nobody else can have its number.
//! One descriptor is open at a time, however large the tree.
//!
//! # When a process dies
//!
//! - One of the tree, before it is stopped: its children are handed to another process, as those of
//!   every process that ends, and are not below the tree any more.
//! - The caller: what it has stopped stays stopped, where it was. Another call, by any process,
//!   finds the rest and ends it.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::process::child::pause;
use crate::process::registry;
use crate::sys::process::Stat;
use crate::sys::{fd, process, tree};

/// The parent of every orphan, which the system needs.
const FIRST_PROCESS: u32 = 1;

/// Most looks at the system. Each finds what the processes of the look before had started; only
/// below one that cannot be stopped is there ever more to find.
const MOST_LOOKS: u32 = 100;

/// How often it is looked whether all have stopped that were told to. Some may not for long: they are
/// in a system call that cannot be interrupted, such as waiting for a disk, or in `vfork` for a child
/// that is stopped itself.
const STOP_LOOKS: u32 = 100;

/// Longest time in which the ends of killed processes are waited for.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// Ends a process and everything below it, however deep, with `SIGKILL`.
///
/// Returns the ids of the processes that were killed, parents before their children. All of them have
/// ended by then; those that are in a system call that cannot be interrupted, such as waiting for a
/// disk, get five seconds for that. The calling process collects the children that it started with
/// this crate; their handles tell how they ended.
///
/// Processes that start others while they are being killed do not get away: all are stopped before
/// the first is killed. A process whose parent had ended before the call is not below it any more
/// and goes on; daemons do so on purpose.
///
/// With `including_parent` false the process `pid` itself lives on, and is not even stopped. With
/// the id of the calling process that ends everything which it has started, the typical thing to
/// do before it leaves. With `including_parent` true the calling process kills itself last, and the
/// call does not return.
///
/// # Errors
///
/// - [`TreeError::NotFound`] when there is no such process, or it has ended already.
/// - [`TreeError::Refused`] for 0, for 1, and for an ancestor of the calling process. Nothing was done.
/// - [`TreeError::Os`] when a process belongs to another user, or no descriptor was left. All others
///   that were found have been killed; call again for the rest.
///
/// # Examples
///
/// ```
/// use procession::process::kill_process_tree;
///
/// let mut shell = procession::command("sh").args(["-c", "sleep 1000 & wait"]).start()?;
/// let killed = kill_process_tree(shell.pid(), true)?;
/// assert_eq!(killed[0], shell.pid());
/// assert_eq!(shell.wait().signal(), Some(9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn kill_process_tree(pid: u32, including_parent: bool) -> Result<Vec<u32>, TreeError> {
    refuse(pid)?;
    // A thread's number has a file in `/proc` like a process's; a pidfd it has not.
    let pidfd = open(pid).map_err(|source| os("pidfd_open", pid, source))?;
    pidfd.ok_or(TreeError::NotFound { pid })?;
    let root = Process::with_id(pid)?.ok_or(TreeError::NotFound { pid })?;
    if !including_parent {
        return Tree::below(root).end();
    }
    if pid != process::getpid() {
        return Tree::with(root)?.end();
    }
    // What could not be killed is no reason to live on: nobody would be told.
    let _ = Tree::below(root).end();
    tree::kill_self()
}

/// Ends the process behind the pidfd `sentinel`, whose id is or was `pid`, and everything below it.
///
/// Nothing happens if it has ended, even if another process has its number now.
pub(crate) fn kill_tree_behind(pid: u32, sentinel: BorrowedFd<'_>) -> Result<Vec<u32>, TreeError> {
    let Some(root) = Process::with_id(pid)? else { return Ok(Vec::new()) };
    match process::pidfd_send_signal(sentinel, 0) {
        // It has not been reaped, so its number was its own when it was looked up.
        Ok(()) => match Tree::with(root) {
            Ok(tree) => tree.end(),
            // It has ended just now.
            Err(TreeError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(os("pidfd_send_signal", pid, error))
        }
        Err(_) => Ok(Vec::new()),
    }
}

/// Ends, when it is dropped, what this process has started since the guard was made.
///
/// That is: every child that this process has then and had not when the guard was made, and
/// everything below these, as by [`kill_process_tree`]. Children that were there before are left
/// alone with all that is below them. Children that other threads start meanwhile count as well.
///
/// Dropping blocks until they have ended. What could not be killed is ignored then; use
/// [`kill`](Self::kill) to hear of it. If this process is killed the guard does nothing; daemonic
/// children end with their parent also then.
///
/// In a forked child the copy of a guard does nothing.
///
/// # Examples
///
/// ```
/// use procession::process::TreeGuard;
///
/// let mut shell;
/// {
///     let _guard = TreeGuard::new()?;
///     shell = procession::command("sh").args(["-c", "sleep 1000 & wait"]).start()?;
/// }
/// assert_eq!(shell.wait().signal(), Some(9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a guard that is not kept ends things at once"]
pub struct TreeGuard {
    /// The process that made it; its forked children have copies.
    owner: u32,
    /// The children that are none of its business; `None` when it was called off.
    before: Option<HashSet<Process>>,
}

impl TreeGuard {
    /// Notes which children this process has.
    ///
    /// # Errors
    ///
    /// [`TreeError::Os`] when no descriptor was left to look with.
    pub fn new() -> Result<Self, TreeError> {
        let owner = process::getpid();
        let children = children_by_parent()?.remove(&owner).unwrap_or_default();
        Ok(Self { owner, before: Some(children.into_iter().collect()) })
    }

    /// Ends what was started since, and returns the ids of the processes that were killed.
    ///
    /// # Errors
    ///
    /// [`TreeError::Os`] as with [`kill_process_tree`].
    pub fn kill(mut self) -> Result<Vec<u32>, TreeError> {
        self.end()
    }

    /// Calls the guard off: nothing is ended.
    pub fn disarm(mut self) {
        self.before = None;
    }

    fn end(&mut self) -> Result<Vec<u32>, TreeError> {
        match self.before.take() {
            Some(before) if process::getpid() == self.owner => {
                let me = Process::with_id(self.owner)?;
                me.map_or(Ok(Vec::new()), |me| Tree::below(me).except(before).end())
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl Drop for TreeGuard {
    fn drop(&mut self) {
        // Nobody can be told; `kill` is for those who want to know.
        let _ = self.end();
    }
}

/// Why a tree of processes was not ended, or not all of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum TreeError {
    /// There is no such process, or it has ended already.
    NotFound {
        /// The process id.
        pid: u32,
    },
    /// That process must not be killed. Nothing was done.
    Refused {
        /// The process id.
        pid: u32,
        /// Why not.
        reason: &'static str,
    },
    /// The operating system refused. All others that were found have been killed.
    Os {
        /// The system call that failed, e.g. `"pidfd_send_signal"`.
        call: &'static str,
        /// The process that it was about.
        pid: u32,
        /// What it reported: `EPERM` when the process belongs to another user, `EMFILE` when no
        /// descriptor was left.
        source: io::Error,
    },
}

impl TreeError {
    /// Returns the system's number for this failure, such as `ESRCH` or `EPERM`; `None` if the system
    /// had no part.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NotFound { .. } => Some(libc::ESRCH),
            Self::Refused { .. } => None,
            Self::Os { source, .. } => source.raw_os_error(),
        }
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { pid } => write!(f, "there is no process {pid}, or it has ended"),
            Self::Refused { pid, reason } => {
                write!(f, "the tree of process {pid} is not killed: {reason}")
            }
            Self::Os { call, pid, .. } => {
                write!(f, "process {pid} could not be ended with its tree: {call} failed")
            }
        }
    }
}

impl Error for TreeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn os(call: &'static str, pid: u32, source: io::Error) -> TreeError {
    TreeError::Os { call, pid, source }
}

/// Refuses what nobody can mean: processes that the caller, or everybody, needs.
fn refuse(pid: u32) -> Result<(), TreeError> {
    let refused = |reason| Err(TreeError::Refused { pid, reason });
    // The first process of a container may well end what it has started.
    if pid == process::getpid() {
        return Ok(());
    }
    match pid {
        0 => refused("0 stands for no process"),
        FIRST_PROCESS => refused("it is the first process, which everything is below"),
        _ if is_ancestor(pid)? => {
            refused("the calling process is below it; call from outside of that tree")
        }
        _ => Ok(()),
    }
}

/// Whether this process is below `pid`.
fn is_ancestor(pid: u32) -> Result<bool, TreeError> {
    let mut ancestor = process::getppid();
    while ancestor > FIRST_PROCESS {
        if ancestor == pid {
            return Ok(true);
        }
        let stat = process::stat(ancestor).map_err(|source| os("read", ancestor, source))?;
        // It has ended just now; what it was below cannot be told any more, and does not matter:
        // this process is below another one by now.
        let Some(stat) = stat else { return Ok(false) };
        ancestor = stat.parent;
    }
    Ok(false)
}

/// A process, as against a number that several processes have one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    pid: u32,
    start: u64,
}

impl Process {
    /// The process that has the number now, unless it has ended.
    fn with_id(pid: u32) -> Result<Option<Self>, TreeError> {
        let stat = process::stat(pid).map_err(|source| os("read", pid, source))?;
        Ok(stat.map(|stat| Self { pid, start: stat.start }))
    }

    /// Whether it has not ended.
    fn is_there(self) -> io::Result<bool> {
        Ok(process::start_time(self.pid)? == Some(self.start))
    }

    /// Sends it a signal, and says whether it was there to get it.
    fn signal(self, signal: i32) -> io::Result<bool> {
        let Some(pidfd) = open(self.pid)? else { return Ok(false) };
        Ok(self.is_there()? && send(pidfd.as_fd(), signal)?)
    }

    /// Stops it if it is a child of `parent` still, and says whether it was.
    fn stop_as_child_of(self, parent: Self) -> io::Result<bool> {
        let Some(pidfd) = open(self.pid)? else { return Ok(false) };
        let expected = Stat { parent: parent.pid, start: self.start };
        Ok(process::stat(self.pid)? == Some(expected)
            && parent.is_there()?
            && send(pidfd.as_fd(), libc::SIGSTOP)?)
    }

    /// Blocks until it has ended, or `deadline`.
    fn await_end(self, deadline: Instant) {
        let Ok(Some(pidfd)) = open(self.pid) else { return };
        while self.is_there().unwrap_or(false) && Instant::now() < deadline {
            // A signal handler is no reason to stop waiting. Should `poll` refuse for good, this
            // loop still ends.
            if fd::poll_readable(&[pidfd.as_fd()], Some(deadline)).is_err() {
                pause();
            }
        }
    }
}

/// A pidfd; `None` when no process has this number.
fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    match process::pidfd_open(pid) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(error) => match error.raw_os_error() {
            // The last two are for numbers of threads, depending on the kernel.
            Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Sends a signal, and says whether the process had not been reaped.
fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<bool> {
    match process::pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All processes that run, by their parent's number.
fn children_by_parent() -> Result<HashMap<u32, Vec<Process>>, TreeError> {
    let failed = |source| os("read /proc", process::getpid(), source);
    let mut children: HashMap<_, Vec<_>> = HashMap::new();
    for pid in tree::pids().map_err(failed)? {
        match process::stat(pid) {
            Ok(Some(Stat { parent, start })) => {
                children.entry(parent).or_default().push(Process { pid, start });
            }
            Ok(None) => {}
            // Another user's, in a system that hides these.
            Err(error) if is_hidden(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(children)
}

fn is_hidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// What is done with a process of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing: it is to live, and only what is below it is to end.
    Spared,
    /// It was told to stop.
    Stopping,
    /// It can start no others, as far as can be told.
    Stopped,
    /// It cannot be stopped, so it cannot be killed either.
    OutOfReach,
}

/// The processes that are to end, as far as they are known.
#[derive(Debug)]
struct Tree {
    /// Parents before their children.
    found: Vec<(Process, State)>,
    /// Those that were found, and those that are to be left alone.
    known: HashSet<Process>,
    /// The first that could not be ended.
    failure: Option<TreeError>,
}

impl Tree {
    /// Everything below `root`.
    fn below(root: Process) -> Self {
        Self { found: vec![(root, State::Spared)], known: HashSet::from([root]), failure: None }
    }

    /// `root`, which is stopped at once, and everything below it.
    fn with(root: Process) -> Result<Self, TreeError> {
        let pid = root.pid;
        match root.signal(libc::SIGSTOP) {
            Ok(true) => {
                let mut tree = Self::below(root);
                tree.found[0].1 = State::Stopping;
                Ok(tree)
            }
            Ok(false) => Err(TreeError::NotFound { pid }),
            Err(source) => Err(os("pidfd_send_signal", pid, source)),
        }
    }

    /// Leaves these alone, and what is below them.
    fn except(mut self, spared: HashSet<Process>) -> Self {
        self.known.extend(spared);
        self
    }

    /// Finds all and ends them. An error of one keeps no other alive.
    fn end(mut self) -> Result<Vec<u32>, TreeError> {
        if let Err(error) = self.find_all() {
            self.failure.get_or_insert(error);
        }
        let killed = self.kill();
        let deadline = Instant::now() + LAST_MOMENTS;
        killed.iter().for_each(|process| process.await_end(deadline));
        registry::collect_ended();
        tracing::debug!(?killed, failure = ?self.failure, "ended a tree of processes");
        match self.failure {
            Some(error) => Err(error),
            None => Ok(killed.iter().map(|process| process.pid).collect()),
        }
    }

    fn find_all(&mut self) -> Result<(), TreeError> {
        for _ in 0..MOST_LOOKS {
            self.await_stops()?;
            if !self.look()? {
                break;
            }
        }
        Ok(())
    }

    /// Blocks until all that were told to stop have stopped, but not for ever.
    fn await_stops(&mut self) -> Result<(), TreeError> {
        for _ in 0..STOP_LOOKS {
            let mut waiting = false;
            for (process, state) in &mut self.found {
                if *state == State::Stopping {
                    let stopped = tree::is_stopped(process.pid);
                    if stopped.map_err(|source| os("read", process.pid, source))? {
                        *state = State::Stopped;
                    }
                    waiting |= *state == State::Stopping;
                }
            }
            if !waiting {
                break;
            }
            pause();
        }
        for (_, state) in self.found.iter_mut().filter(|(_, state)| *state == State::Stopping) {
            *state = State::Stopped;
        }
        Ok(())
    }

    /// Stops what is below the tree and not known yet; says whether there was any.
    fn look(&mut self) -> Result<bool, TreeError> {
        let children = children_by_parent()?;
        let before = self.found.len();
        let mut next = 0;
        while next < self.found.len() {
            let parent = self.found[next].0;
            next += 1;
            for child in children.get(&parent.pid).into_iter().flatten() {
                self.add(*child, parent)?;
            }
        }
        Ok(self.found[before..].iter().any(|(_, state)| *state == State::Stopping))
    }

    fn add(&mut self, child: Process, parent: Process) -> Result<(), TreeError> {
        // This process can come to be below one of the tree when its parent ends.
        if self.known.contains(&child) || child.pid == process::getpid() {
            return Ok(());
        }
        let state = match child.stop_as_child_of(parent) {
            Ok(true) => State::Stopping,
            Ok(false) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.failure.get_or_insert(os("pidfd_send_signal", child.pid, error));
                State::OutOfReach
            }
            Err(error) => return Err(os("pidfd_send_signal", child.pid, error)),
        };
        self.known.insert(child);
        self.found.push((child, state));
        Ok(())
    }

    /// Kills what was found and returns it, parents before their children.
    fn kill(&mut self) -> Vec<Process> {
        let mut killed = Vec::new();
        for (process, state) in self.found.iter().rev() {
            if matches!(state, State::Spared | State::OutOfReach) {
                continue;
            }
            match process.signal(libc::SIGKILL) {
                Ok(true) => killed.push(*process),
                Ok(false) => {}
                Err(source) => {
                    let error = os("pidfd_send_signal", process.pid, source);
                    self.failure.get_or_insert(error);
                }
            }
        }
        killed.reverse();
        killed
    }
}
