//! What the system tells of all processes, and of the threads of one.

use std::ffi::OsStr;
use std::fs;
use std::io;

use rustix::process::Signal;

use crate::sys::process::exit_now;

/// The ids of all processes that can be seen, those that have ended and are not reaped included.
///
/// A process that starts or ends meanwhile may or may not be among them. See
/// [`proc(5)`](https://man7.org/linux/man-pages/man5/proc.5.html).
///
/// # Errors
///
/// `EMFILE` and `ENFILE` when there are too many descriptors, `ENOENT` without a `/proc`.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    numbers_in("/proc")
}

/// Says whether no thread of the process `pid` can run before somebody lets it go on: all are
/// stopped or have ended.
///
/// Says it also of a process that there is not.
///
/// # Errors
///
/// `EMFILE` and `ENFILE` when there are too many descriptors.
pub(crate) fn is_stopped(pid: u32) -> io::Result<bool> {
    let threads = match numbers_in(&format!("/proc/{pid}/task")) {
        Err(error) if is_gone(&error) => return Ok(true),
        threads => threads?,
    };
    for thread in threads {
        match fs::read(format!("/proc/{pid}/task/{thread}/stat")) {
            Ok(line) if !matches!(state_in(&line), Some(b'T' | b't' | b'Z' | b'X')) => {
                return Ok(false);
            }
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(true)
}

/// Ends this process with `SIGKILL`.
pub(crate) fn kill_self() -> ! {
    // It does not return, except in the first process of a container, which the system protects
    // from its own signals.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    exit_now(128 + Signal::KILL.as_raw())
}

/// The state in a line of `/proc/PID/stat`: the letter after the name, which may hold anything.
fn state_in(line: &[u8]) -> Option<u8> {
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    line.get(name_end + 2).copied()
}

/// The names in a folder that are numbers.
fn numbers_in(folder: &str) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        numbers.extend(OsStr::to_str(&name).and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// Whether an error means that the process or thread has ended and been reaped.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::getpid;

    #[test]
    fn this_process_is_listed_and_runs() {
        assert!(pids().unwrap().contains(&getpid()));
        assert!(!is_stopped(getpid()).unwrap());
        assert!(is_stopped(i32::MAX as u32).unwrap(), "what there is not cannot run");
    }

    #[test]
    fn state_is_read_past_any_name() {
        assert_eq!(state_in(b"42 (sh) T 1 2"), Some(b'T'));
        assert_eq!(state_in(b"42 (a) R (b) S 1 2"), Some(b'S'));
        assert_eq!(state_in(b"42 (sh)"), None);
        assert_eq!(state_in(b""), None);
    }
}
