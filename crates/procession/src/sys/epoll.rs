//! Waiting for many descriptors at once, each known by a number.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::sys::fd;

/// Events that one wait returns at most; more are there for the next.
const MOST_EVENTS: usize = 64;

/// What is waited for at a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Something to read, or the end.
    Readable,
    /// Room to write.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "for tunnels alone"))]
    Writable,
    /// Something to read, or the end, or room to write.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "for tunnels alone"))]
    Both,
    /// The end alone: that the peer has closed or died.
    End,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Readable => EventFlags::IN | EventFlags::RDHUP,
            Self::Writable => EventFlags::OUT,
            Self::Both => EventFlags::IN | EventFlags::RDHUP | EventFlags::OUT,
            Self::End => EventFlags::RDHUP,
        }
    }
}

/// A set of descriptors that are waited for together. See
/// [`epoll(7)`](https://man7.org/linux/man-pages/man7/epoll.7.html).
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// Makes an empty set; `exec` closes it.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Adds a descriptor, which is `number` from then on.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        self.add_for(fd, number, Interest::Readable)
    }

    /// Does what [`add`](Self::add) does, and says what is waited for.
    pub(crate) fn add_for(
        &self,
        fd: BorrowedFd<'_>,
        number: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, EventData::new_u64(number), interest.flags())?)
    }

    /// Changes what is waited for.
    pub(crate) fn change(
        &self,
        fd: BorrowedFd<'_>,
        number: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, EventData::new_u64(number), interest.flags())?)
    }

    /// Takes a descriptor out.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Blocks until something has come to pass at one of the descriptors, or `deadline`; `numbers`
    /// are those of these then. `None` waits for ever.
    pub(crate) fn wait(&self, numbers: &mut Vec<u64>, deadline: Option<Instant>) -> io::Result<()> {
        let mut space = [const { MaybeUninit::uninit() }; MOST_EVENTS];
        let timeout = deadline.map(fd::time_left);
        numbers.clear();
        let (events, _) = epoll::wait(&self.0, &mut space, timeout.as_ref())?;
        numbers.extend(events.iter().map(|event| event.data.u64()));
        Ok(())
    }
}
