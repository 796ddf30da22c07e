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
//!
//! # Children of a fork server
//!
//! Their parent is the fork server, but they are to end with its client. The fork server is a daemonic
//! child of the client; so the client's death ends it, and that sends the signal on. The handler looks
//! at a pidfd of the client then. If the client lives, the fork server alone has died, and no signal
//! will tell of the client's end any more: the handler starts a timer, which was made beforehand, and
//! from then on looks every second.
//!
//! A program that closes descriptors it does not know, the pidfd among them, counts as one whose client
//! is gone as soon as its fork server is.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::sys::process::{self, SignalTimer};

/// Exit code of a child that found its parent gone. Nobody is left to read it.
const ORPHANED: i32 = 1;

// Read by a signal handler, so these are plain words.

/// The parent this process is to die with; 0 for a process that is not daemonic.
static PARENT: AtomicU32 = AtomicU32::new(0);

/// The pidfd of the client of the fork server that is the parent; `NO_CLIENT` without a fork server.
static CLIENT: AtomicI32 = AtomicI32::new(NO_CLIENT);

/// Runs when the parent is gone and the client is not.
static TIMER: SignalTimer = SignalTimer::none();

const NO_CLIENT: i32 = -1;

/// Makes this process exit when `parent` has ended, or at once if it has ended already.
pub(crate) fn die_with(parent: u32) -> io::Result<()> {
    live_on();
    PARENT.store(parent, Ordering::SeqCst);
    watch_parent()
}

/// Makes this process, a child of the fork server `parent`, exit when the process behind the pidfd
/// has ended, or at once if it has ended already.
pub(crate) fn die_with_client(parent: u32, client: &Arc<OwnedFd>) -> io::Result<()> {
    TIMER.create(process::death_signal())?;
    CLIENT.store(client.as_raw_fd(), Ordering::SeqCst);
    // The handler needs it until the end.
    std::mem::forget(client.clone());
    PARENT.store(parent, Ordering::SeqCst);
    watch_parent()
}

/// Forgets whom the parent of this process, which it is a copy of, was to die with.
pub(crate) fn live_on() {
    PARENT.store(0, Ordering::SeqCst);
    CLIENT.store(NO_CLIENT, Ordering::SeqCst);
    TIMER.forget();
}

fn watch_parent() -> io::Result<()> {
    let signal = process::death_signal();
    process::install_signal_handler(signal, parent_may_be_gone)?;
    // A forked child has its parent's signal mask.
    process::unblock_signal(signal)?;
    process::set_parent_death_signal(signal)?;
    exit_if_orphaned();
    Ok(())
}

/// Handles the signal; does only what a signal handler may do (system calls and loads).
extern "C" fn parent_may_be_gone(_signal: i32) {
    exit_if_orphaned();
}

fn exit_if_orphaned() {
    let parent = PARENT.load(Ordering::SeqCst);
    if parent == 0 || process::getppid() == parent {
        return;
    }
    let client = CLIENT.load(Ordering::SeqCst);
    if client == NO_CLIENT || process::has_ended(client) {
        process::exit_now(ORPHANED);
    }
    TIMER.run_every_second();
}
