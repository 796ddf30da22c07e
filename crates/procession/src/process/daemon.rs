//! Death with the parent, for daemonic children.
//!
//! A daemonic child asks the kernel for a signal when its parent ends (`PR_SET_PDEATHSIG`, see
//! [prctl(2)](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html)). That works
//! however the parent ends, `SIGKILL` included, and needs neither a pipe nor a helper thread.
//!
//! The kernel's "parent" is the *thread* that started the child, so the signal also comes when
//! only that thread ends. The handler therefore compares `getppid()` with the parent it was told
//! of: after the end of a thread it is the same, and nothing happens; after the end of the process
//! it is another one, and the child exits. The request stays in force, so the child hears of the
//! next thread that it is handed to as well.
//!
//! A parent that ended before the request was made sends nothing. The last step, looking at
//! `getppid()` once more, covers that.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::process;

/// Exit code of a child that found its parent gone. Nobody is left to read it.
const ORPHANED: i32 = 1;

/// The parent this process is to die with.
///
/// Read by a signal handler, so it is a plain word.
static PARENT: AtomicU32 = AtomicU32::new(0);

/// Makes this process exit when `parent` has ended, or at once if it has ended already.
pub(crate) fn die_with(parent: u32) -> io::Result<()> {
    PARENT.store(parent, Ordering::SeqCst);
    let signal = process::death_signal();
    process::install_signal_handler(signal, parent_may_be_gone)?;
    // A forked child has its parent's signal mask.
    process::unblock_signal(signal)?;
    process::set_parent_death_signal(signal)?;
    exit_if_orphaned();
    Ok(())
}

/// Handles the signal; does only what a signal handler may do (two system calls, one load).
extern "C" fn parent_may_be_gone(_signal: i32) {
    exit_if_orphaned();
}

fn exit_if_orphaned() {
    if process::getppid() != PARENT.load(Ordering::SeqCst) {
        process::exit_now(ORPHANED);
    }
}
