//! Names of processes, and the one that is running.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::sys::process;

/// Name of the process that no other one started.
const ROOT: &str = "main";

/// Who a process is within its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its name; empty for the root.
    pub(crate) name: String,
    /// Which child it is of its parent, and so on from the root; empty for the root.
    path: Vec<u32>,
    /// Whether it ends when its parent does.
    pub(crate) daemon: bool,
    /// Who has started it; nobody, for the root.
    parent: Option<(String, u32)>,
}

static IDENTITY: Mutex<Identity> =
    Mutex::new(Identity { name: String::new(), path: Vec::new(), daemon: false, parent: None });

/// Children that this process has named so far.
static NAMED: AtomicU32 = AtomicU32::new(0);

impl Identity {
    /// Who the next child of this process is. Without a name of its own it is called after its place
    /// in the tree: `process-1`, and its second child `process-1:2`.
    pub(crate) fn of_next_child(name: Option<String>, daemon: bool) -> Self {
        let Self { name: own_name, mut path, .. } = lock().clone();
        let parent = Some((shown(own_name), process::getpid()));
        path.push(NAMED.fetch_add(1, Ordering::Relaxed) + 1);
        let name = name.unwrap_or_else(|| {
            let numbers: Vec<String> = path.iter().map(u32::to_string).collect();
            format!("process-{}", numbers.join(":"))
        });
        Self { name, path, daemon, parent }
    }

    /// Makes this process the one described.
    pub(crate) fn assume(self) {
        *lock() = self;
        NAMED.store(0, Ordering::Relaxed);
    }
}

/// The name and process id of whoever started this process; `None` in the root.
pub(crate) fn parent() -> Option<(String, u32)> {
    lock().parent.clone()
}

fn shown(name: String) -> String {
    if name.is_empty() { ROOT.to_owned() } else { name }
}

fn lock() -> MutexGuard<'static, Identity> {
    // No change can panic half-way.
    IDENTITY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process that is running, as [`current`] describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentProcess {
    name: String,
    pid: u32,
    daemon: bool,
}

impl CurrentProcess {
    /// Returns its name: `"main"` unless it was started by this crate.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Says whether it ends when its parent does.
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }
}

/// Describes the process that is running.
///
/// # Examples
///
/// ```
/// let me = procession::process::current();
/// assert_eq!(me.name(), "main");
/// assert_eq!(me.pid(), std::process::id());
/// ```
pub fn current() -> CurrentProcess {
    let Identity { name, daemon, .. } = lock().clone();
    CurrentProcess { name: shown(name), pid: process::getpid(), daemon }
}
