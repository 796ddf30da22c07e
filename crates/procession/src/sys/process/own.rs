//! What a process does with itself: copies, what runs in them and at its end, and its name.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::ffi::c_int;
use std::io;

use crate::sys::process::check;

/// Which of the two processes this is, after a [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    /// The one that forked.
    Parent {
        /// The id of the child.
        pid: u32,
    },
    /// The new one.
    Child,
}

/// Makes a copy of this process. Handlers of `pthread_atfork` run.
///
/// See [`fork(2)`](https://man7.org/linux/man-pages/man2/fork.2.html).
///
/// # Errors
///
/// `EAGAIN` when there are too many processes, `ENOMEM` when there is too little memory.
///
/// # Safety
///
/// Only the calling thread exists in the child, and a lock that another thread held stays locked
/// there. So either this process has no other thread, or the child calls nothing but functions
/// that are safe in a signal handler, until it calls `exec` or [`exit_now`].
pub(crate) unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: promised by the caller.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent { pid: pid.unsigned_abs() }),
    }
}

/// Ends this process at once: no destructor, no `atexit` handler, no flush of a buffer.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ending the process is sound at any time.
    unsafe { libc::_exit(code) }
}

/// Has `handler` called in the child of each fork of this process, before `fork` returns there.
///
/// Cannot be undone, and a second call with the same handler makes it run twice. See
/// [`pthread_atfork(3)`](https://man7.org/linux/man-pages/man3/pthread_atfork.3.html).
///
/// # Panics
///
/// Panics when there is no memory left, the one thing that can fail.
pub(crate) fn on_fork_child(handler: extern "C" fn()) {
    let handler: unsafe extern "C" fn() = handler;
    // SAFETY: a safe function without arguments may be called at any time, by the signature.
    let result = unsafe { pthread_atfork(None, None, Some(handler)) };
    assert!(result == 0, "pthread_atfork failed: {}", io::Error::from_raw_os_error(result));
}

/// Has `handler` called when this process ends normally: by `exit` or a return from `main`.
///
/// Forked copies of this process call it too when they end that way. See
/// [`atexit(3)`](https://man7.org/linux/man-pages/man3/atexit.3.html).
///
/// # Panics
///
/// Panics when there is no memory left, the one thing that can fail.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: a safe function without arguments may be called at any time, by the signature.
    let result = unsafe { libc::atexit(handler) };
    assert!(result == 0, "atexit failed: no memory");
}

/// Gives this thread a name, of which the system keeps the first 15 bytes.
///
/// The name of the main thread is what tools such as `ps` and `top` show for the process.
pub(crate) fn set_name(name: &str) {
    let mut short = [0_u8; 16];
    let len = (0..=15).rev().find(|len| name.is_char_boundary(*len)).unwrap_or(0);
    short[..len].copy_from_slice(&name.as_bytes()[..len]);
    // SAFETY: the kernel reads up to the zero byte, of which the array has at least one.
    let result = unsafe { libc::prctl(libc::PR_SET_NAME, short.as_ptr()) };
    debug_assert!(result == 0, "the kernel refused a name that it can read");
}

unsafe extern "C" {
    /// Not among the declarations of the `libc` crate for Linux.
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> c_int;
}
