//! Starting a fresh program.
#![allow(unsafe_code)] // Listed in SAFETY.md.

use std::ffi::{CStr, CString, c_char, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use crate::sys::process::check_code;
use crate::sys::process::signals::empty_signal_set;

/// Starts a fresh program and returns the id of its process.
///
/// `program` is a path, `args` begins with the name that the program sees itself under, and `env`
/// is its whole environment. The program gets each descriptor of `inherit` under the same number,
/// and else only those that are not closed by `exec`. No signal is blocked in it; ignored signals
/// stay ignored. Each descriptor of `placed` is given to it under the number beside it, one after
/// the other and before the inherited ones. See
/// [`posix_spawn(3)`](https://man7.org/linux/man-pages/man3/posix_spawn.3.html).
///
/// # Errors
///
/// What starting a process or `exec` reported, `ENOENT` for instance when there is no such file.
pub(crate) fn spawn(
    program: &CStr,
    args: &[CString],
    env: &[CString],
    inherit: &[BorrowedFd<'_>],
    placed: &[(BorrowedFd<'_>, RawFd)],
) -> io::Result<u32> {
    let attributes = SpawnAttributes::without_blocked_signals()?;
    let mut actions = SpawnActions::new()?;
    for (fd, place) in placed {
        actions.copy(*fd, *place)?;
    }
    for fd in inherit {
        // A copy of a descriptor onto itself means here: keep it over `exec`.
        actions.copy(*fd, fd.as_raw_fd())?;
    }
    let (args, env) = (pointers(args), pointers(env));
    let mut pid = 0;
    // SAFETY:
    // - `program`, the arguments and the environment are strings that end with a zero byte, both
    //   lists end with a null pointer, and all are borrowed until after the call. It only reads
    //   them, whatever the type of the pointers says.
    // - The actions and the attributes are initialised and not destroyed yet.
    // - The child runs no code of this process before `exec`, so other threads do no harm.
    let result = unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            &actions.0,
            &attributes.0,
            args.as_ptr(),
            env.as_ptr(),
        )
    };
    check_code(result)?;
    Ok(pid.unsigned_abs())
}

/// The strings as C wants a list of them: addresses, and a null at the end.
fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    let addresses = strings.iter().map(|string| string.as_ptr().cast_mut());
    addresses.chain([ptr::null_mut()]).collect()
}

struct SpawnAttributes(libc::posix_spawnattr_t);

impl SpawnAttributes {
    fn without_blocked_signals() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer leads to.
        check_code(unsafe { libc::posix_spawnattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        let mut attributes = Self(unsafe { raw.assume_init() });
        let none = empty_signal_set();
        // SAFETY: both are initialised and borrowed for the call.
        check_code(unsafe { libc::posix_spawnattr_setsigmask(&mut attributes.0, &none) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK as c_short;
        // SAFETY: the attributes are initialised and borrowed for the call.
        check_code(unsafe { libc::posix_spawnattr_setflags(&mut attributes.0, flags) })?;
        Ok(attributes)
    }
}

impl Drop for SpawnAttributes {
    fn drop(&mut self) {
        // SAFETY: a `SpawnAttributes` is initialised, and is not used after its drop.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

struct SpawnActions(libc::posix_spawn_file_actions_t);

impl SpawnActions {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer leads to.
        check_code(unsafe { libc::posix_spawn_file_actions_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        Ok(Self(unsafe { raw.assume_init() }))
    }

    fn copy(&mut self, fd: BorrowedFd<'_>, place: RawFd) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        // SAFETY: the actions are initialised and borrowed for the call.
        check_code(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, fd, place) })
    }
}

impl Drop for SpawnActions {
    fn drop(&mut self) {
        // SAFETY: a `SpawnActions` is initialised, and is not used after its drop.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}
