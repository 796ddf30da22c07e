//! Death with the parent, for programs that know nothing of this crate.
//!
//! The kernel is asked for `SIGKILL` when the thread that starts the program ends; the wish outlives
//! `exec`. See
//! [`PR_SET_PDEATHSIG(2const)`](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html).
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::io;
use std::os::unix::process::CommandExt;

use crate::sys::process;

/// Has the program killed when this process ends.
pub(super) fn die_with_this_process(command: &mut std::process::Command) {
    let parent = process::getpid();
    let prepare = move || {
        process::set_parent_death_signal(libc::SIGKILL)?;
        // A parent that ended before that call sends nothing.
        if process::getppid() == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: in the child of a fork the closure makes two system calls and compares two numbers. It
    // neither takes a lock nor asks for memory, also in its errors, which are plain numbers.
    unsafe { command.pre_exec(prepare) };
}
