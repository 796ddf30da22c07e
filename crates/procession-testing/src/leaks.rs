//! Counts what a test left behind.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::process::{children, strangers, wait_until};

/// The arena lives as long as the process and is made on first use, so within some test.
const KEPT: &[&str] = &["/memfd:procession-arena"];

/// What there was at one moment: children, threads and descriptors of this process, and names in
/// `/dev/shm`.
#[derive(Debug)]
struct Snapshot {
    children: BTreeSet<u32>,
    threads: BTreeSet<String>,
    descriptors: BTreeSet<String>,
    shared_memory: BTreeSet<String>,
}

/// Remembers what there was, to find what is there in addition later.
///
/// # Examples
///
/// ```
/// use procession_testing::LeakCheck;
///
/// let check = LeakCheck::begin();
/// drop(std::fs::File::open("/dev/null")?); // a `std::mem::forget` here would be found
/// check.finish(std::time::Duration::from_secs(10))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "call `finish` to look"]
pub struct LeakCheck {
    before: Snapshot,
}

/// What was there at the end of a [`LeakCheck`] and not at its beginning.
#[derive(Debug)]
pub struct Leaks {
    /// Numbers of child processes, zombies included.
    pub children: Vec<u32>,
    /// Numbers and names of threads.
    pub threads: Vec<String>,
    /// Numbers of descriptors and what they are open on.
    pub descriptors: Vec<String>,
    /// Names in `/dev/shm`, but for those that a process of another program has open.
    pub shared_memory: Vec<String>,
}

impl LeakCheck {
    /// Remembers what there is now.
    pub fn begin() -> Self {
        Self { before: Snapshot::take() }
    }

    /// The children that came since, zombies included.
    #[must_use]
    pub fn new_children(&self) -> Vec<u32> {
        difference(&Snapshot::take().children, &self.before.children)
    }

    /// Looks whether anything came and did not go.
    ///
    /// What is about to vanish by itself gets the time `settle` to do so: a thread that was joined is
    /// still listed for a moment, and a name in `/dev/shm` may belong to an unrelated program that
    /// is about to remove it. Returns as soon as nothing is left.
    ///
    /// # Errors
    ///
    /// [`Leaks`] with all that is left.
    pub fn finish(&self, settle: Duration) -> Result<(), Leaks> {
        let mut leaks = None;
        wait_until(settle, || {
            leaks = Some(Snapshot::take().since(&self.before)).filter(|leaks| !leaks.is_empty());
            leaks.is_none()
        });
        let Some(mut leaks) = leaks else { return Ok(()) };
        if !leaks.shared_memory.is_empty() {
            let others = open_in_other_programs();
            leaks.shared_memory.retain(|name| !others.contains(name));
        }
        if leaks.is_empty() { Ok(()) } else { Err(leaks) }
    }
}

impl Snapshot {
    fn take() -> Self {
        Self {
            children: children(std::process::id()).into_iter().collect(),
            threads: threads(),
            descriptors: descriptors(),
            shared_memory: shared_memory(),
        }
    }

    fn since(&self, before: &Self) -> Leaks {
        Leaks {
            children: difference(&self.children, &before.children),
            threads: difference(&self.threads, &before.threads),
            descriptors: difference(&self.descriptors, &before.descriptors),
            shared_memory: difference(&self.shared_memory, &before.shared_memory),
        }
    }
}

impl Leaks {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.threads.is_empty()
            && self.descriptors.is_empty()
            && self.shared_memory.is_empty()
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left behind:")?;
        if !self.children.is_empty() {
            write!(f, " child processes {:?}", self.children)?;
        }
        let texts = [
            ("threads", &self.threads),
            ("descriptors", &self.descriptors),
            ("names in /dev/shm", &self.shared_memory),
        ];
        for (what, left) in texts {
            if !left.is_empty() {
                write!(f, " {what} {left:?}")?;
            }
        }
        Ok(())
    }
}

impl Error for Leaks {}

fn difference<T: Clone + Ord>(now: &BTreeSet<T>, before: &BTreeSet<T>) -> Vec<T> {
    now.difference(before).cloned().collect()
}

fn threads() -> BTreeSet<String> {
    names("/proc/self/task")
        .into_iter()
        .filter_map(|id| {
            let name = fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
            Some(format!("{id} ({})", name.trim_end()))
        })
        .collect()
}

fn descriptors() -> BTreeSet<String> {
    names("/proc/self/fd")
        .into_iter()
        .filter_map(|number| {
            // The descriptor that listed the folder is gone by now, and with it its link.
            let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            let target = target.to_string_lossy();
            let kept = KEPT.iter().any(|name| target.starts_with(name));
            (!kept).then(|| format!("{number} ({target})"))
        })
        .collect()
}

/// The names in `/dev/shm`. Those of semaphores are left out: only C libraries make them, for
/// `sem_open`, which nothing here calls, so they are some other program's.
fn shared_memory() -> BTreeSet<String> {
    let mut found = names("/dev/shm");
    found.retain(|name| !name.starts_with("sem."));
    found
}

/// The names in `/dev/shm` that processes of other programs have open or mapped.
fn open_in_other_programs() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in strangers() {
        for folder in ["fd", "map_files"] {
            let folder = format!("/proc/{pid}/{folder}");
            let targets = names(&folder).into_iter();
            let targets =
                targets.filter_map(|name| fs::read_link(Path::new(&folder).join(name)).ok());
            found.extend(targets.filter_map(|target| {
                Some(target.strip_prefix("/dev/shm").ok()?.to_string_lossy().into_owned())
            }));
        }
    }
    found
}

/// The names in a folder; none if there is no such folder.
fn names(folder: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect()
}
