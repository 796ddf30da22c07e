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

mod error;
mod search;
mod system;

use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;

pub use self::error::TreeError;
use self::error::os;
use self::search::Tree;
use self::system::{Process, children_by_parent, open};
use crate::sys::{process, tree};

/// The parent of every orphan, which the system needs.
const FIRST_PROCESS: u32 = 1;

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
