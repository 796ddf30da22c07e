//! Looking at, killing and waiting for processes by number.
//!
//! For processes the engine did not start, or that a test must treat as a stranger would.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, Resource, Signal, WaitOptions, getrlimit, setrlimit};

/// What `/proc/PID/stat` says of one process.
struct Stat {
    pid: u32,
    state: char,
    parent: u32,
}

/// The numbers of all processes whose parent is `pid`, zombies included.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    all().into_iter().filter(|stat| stat.parent == pid).map(|stat| stat.pid).collect()
}

/// The numbers of all processes below `pid` in the tree, parents before their children.
///
/// A process whose parent is gone has been handed to another one and is not among them.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let all = all();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// The numbers of all processes that neither come from this one nor run the same program.
///
/// The latter would be a child of a child whose parent is gone.
#[must_use]
pub fn strangers() -> Vec<u32> {
    let program = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let (own, below) = (program("self"), descendants(std::process::id()));
    let mut found: Vec<u32> = all().into_iter().map(|stat| stat.pid).collect();
    found.retain(|pid| !below.contains(pid) && program(&pid.to_string()) != own);
    found
}

/// Whether there is a process of this number that can still run: neither gone nor a zombie.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Lets this process have at least so many descriptors, as far as the system allows it.
///
/// # Errors
///
/// Those of `setrlimit(2)`: the hard limit is lower.
pub fn allow_descriptors(count: u64) -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        limit.current = Some(count);
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

/// Sends `SIGKILL`. A process that is gone already is no error.
///
/// # Panics
///
/// Panics if `pid` is 0 or too large to be a process number, or if the system refuses.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal. A process that is gone already is no error.
///
/// # Panics
///
/// Panics if `pid` is 0 or too large to be a process number, or if the system refuses.
pub fn signal(pid: u32, signal: Signal) {
    match rustix::process::kill_process(number(pid), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => panic!("cannot send signal {} to process {pid}: {errno}", signal.as_raw()),
    }
}

/// Sends `SIGSTOP` and waits until no thread of the process runs; until then they may do more.
///
/// # Panics
///
/// Panics as [`signal`] does.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    while tasks(pid).iter().any(|stat| !matches!(stat.state, 'T' | 'Z' | 'X')) {
        pause();
    }
}

/// Waits for a child of this process to end and takes its status away.
///
/// # Panics
///
/// Panics if the system refuses to wait; that somebody else took the status is no error.
pub fn reap(pid: u32) {
    let options = WaitOptions::empty();
    match rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(number(pid)), options)) {
        Ok(_) | Err(rustix::io::Errno::CHILD) => {}
        Err(errno) => panic!("cannot wait for process {pid}: {errno}"),
    }
}

/// Waits until `condition` holds and says whether it came to hold within `limit`.
///
/// For conditions of the system that nothing announces, such as a killed stranger being gone.
/// Not for anything that the engine can wait for.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        pause();
    }
}

/// A pause between two looks at the system.
#[allow(clippy::disallowed_methods, reason = "there is nothing to wait on")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

fn number(pid: u32) -> Pid {
    let raw = i32::try_from(pid).expect("process numbers fit 31 bits");
    Pid::from_raw(raw).expect("0 is no process")
}

fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| stat(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// The threads of a process; none if it is gone.
fn tasks(pid: u32) -> Vec<Stat> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    entries.filter_map(|entry| stat_in(&entry.ok()?.path())).collect()
}

/// `None` if there is no such process.
fn stat(pid: u32) -> Option<Stat> {
    stat_in(&Path::new("/proc").join(pid.to_string()))
}

fn stat_in(folder: &Path) -> Option<Stat> {
    let text = match fs::read(folder.join("stat")) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if is_gone(&error) => return None,
        Err(error) => panic!("cannot read {}/stat: {error}", folder.display()),
    };
    // The command name in parentheses may hold anything, parentheses and spaces included.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let pid = folder.file_name()?.to_str()?.parse().ok()?;
    Some(Stat { pid, state, parent: fields.next()?.parse().ok()? })
}

/// The process ended before the file was opened, or between opening and reading it.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}
