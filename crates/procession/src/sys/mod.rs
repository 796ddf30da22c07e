//! The operating system, one thin function per call.
//!
//! Everything that is particular to Linux, to the C library or to a processor is here, and only
//! here: the layers above name no system call and no `cfg` of a platform. A function here makes
//! its call, turns the answer into Rust types and returns; it keeps no state of its own, tries
//! nothing again and takes no decision. `EINTR` comes out as
//! [`ErrorKind::Interrupted`](std::io::ErrorKind::Interrupted), except where a call cannot block.

pub(crate) mod clock;
pub(crate) mod command;
pub(crate) mod cpu;
pub(crate) mod epoll;
pub(crate) mod fd;
pub(crate) mod image;
pub(crate) mod memory;
pub(crate) mod named;
pub(crate) mod per_process;
pub(crate) mod process;
pub(crate) mod signal_pipe;
pub(crate) mod stream;
pub(crate) mod tree;
