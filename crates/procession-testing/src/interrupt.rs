//! What an interrupt does to a test program.
#![allow(unsafe_code)] // Listed in SAFETY.md.

/// Has SIGINT end this process and those that it starts, also where whoever started it had that
/// ignored: shells do so for what runs in the background.
pub(crate) fn heed() {
    // SAFETY: the default action is one that every signal has, and no handler of Rust's is lost: the
    // standard library has none for this signal.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}
