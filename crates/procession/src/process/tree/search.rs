//! Finding all that is below a process, and ending it.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use crate::process::child::pause;
use crate::process::registry;
use crate::process::tree::error::{TreeError, os};
use crate::process::tree::system::{Process, children_by_parent};
use crate::sys::{process, tree};

/// Most looks at the system. Each finds what the processes of the look before had started; only
/// below one that cannot be stopped is there ever more to find.
const MOST_LOOKS: u32 = 100;

/// How often it is looked whether all have stopped that were told to. Some may not for long: they are
/// in a system call that cannot be interrupted, such as waiting for a disk, or in `vfork` for a child
/// that is stopped itself.
const STOP_LOOKS: u32 = 100;

/// Longest time in which the ends of killed processes are waited for.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

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
pub(super) struct Tree {
    /// Parents before their children.
    found: Vec<(Process, State)>,
    /// Those that were found, and those that are to be left alone.
    known: HashSet<Process>,
    /// The first that could not be ended.
    failure: Option<TreeError>,
}

impl Tree {
    /// Everything below `root`.
    pub(super) fn below(root: Process) -> Self {
        Self { found: vec![(root, State::Spared)], known: HashSet::from([root]), failure: None }
    }

    /// `root`, which is stopped at once, and everything below it.
    pub(super) fn with(root: Process) -> Result<Self, TreeError> {
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
    pub(super) fn except(mut self, spared: HashSet<Process>) -> Self {
        self.known.extend(spared);
        self
    }

    /// Finds all and ends them. An error of one keeps no other alive.
    pub(super) fn end(mut self) -> Result<Vec<u32>, TreeError> {
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
