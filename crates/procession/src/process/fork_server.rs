//! A fork server, seen by the process that it works for. See `zygote.rs` for the protocol.
//!
//! # When the fork server dies over an order
//!
//! The client waits for an answer and for the fork server's end at once. Without an answer it first
//! has the fork server buried, which completes what that was changing in the arena, and then takes
//! the member back. Either that is in time: then the child, if there is one, cannot become a member
//! any more and exits, and the order has failed. Or the child was faster: then it runs, and the
//! arena says which process it is. So an order that has failed has never run, and may be repeated.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::process::child::{Child, ended_sentinel};
use crate::process::error::SpawnError;
use crate::process::exec::{Exec, open_descriptors, refuse_unless_booted};
use crate::process::fate::{Fate, Fates, PLACES};
use crate::process::orders::{self, Answer, MESSAGE_LEN, MOST_DESCRIPTORS, Message, Order};
use crate::process::registry;
use crate::process::seat::Seat;
use crate::process::status::ExitStatus;
use crate::shm::{ArenaError, Owner, Parcel};
use crate::sys::{fd, process};

/// How long a fork server that has closed its socket may take to end before it is killed.
const LEAVING: Duration = Duration::from_secs(1);

/// A process of its own that makes children for this one by forking itself.
///
/// A start takes a fraction of what a fresh image takes, and what this process holds, threads
/// included, does not matter to it. Use it from as many threads as you like; their starts wait for
/// each other.
///
/// It works for the process that started it. Dropping it lets it end once its children have ended;
/// they go on.
///
/// # When it dies
///
/// Its children go on. Those that are daemonic still end with this process. Their exit status is
/// [`ExitStatus::Unknown`], except for those that called
/// [`announce_exit`](crate::process::announce_exit).
pub struct ForkServer {
    child: Child,
    socket: Mutex<OwnedFd>,
    fates: Arc<Fates>,
    owner: u32,
}

/// What came back for an order.
enum Reply {
    Forked {
        pid: u32,
        pidfd: OwnedFd,
    },
    Failed {
        reason: String,
    },
    /// There is a child, but no descriptor for it.
    Unwatchable(io::Error),
    /// The fork server is gone.
    Gone,
}

impl ForkServer {
    /// Starts `exec` as a fork server, which is daemonic whatever `exec` says.
    ///
    /// The program must call [`take_boot`](crate::process::take_boot), and then serve with a
    /// [`Zygote`](crate::process::Zygote). Returns as soon as the system has loaded it.
    ///
    /// # Errors
    ///
    /// As [`Exec::start`].
    pub fn start(exec: Exec) -> Result<Self, SpawnError> {
        let os = |call| move |source| SpawnError::Os { call, source };
        let (here, there) = fd::message_pair().map_err(os("socketpair"))?;
        let there = above_standard(there).map_err(os("fcntl"))?;
        let fates = Fates::new()?;
        let child = exec.daemon(true).start_fork_server(there.as_fd(), fates.handle())?;
        child.set_helper("fork server");
        tracing::debug!(pid = child.pid(), "fork server started");
        let (socket, fates, owner) = (Mutex::new(here), Arc::new(fates), process::getpid());
        Ok(Self { child, socket, fates, owner })
    }

    /// As [`spawn`](Self::spawn), with descriptors by their numbers, which must stay open until it
    /// has returned.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn), and [`SpawnError::Os`] for a descriptor that is not open.
    pub fn spawn_raw(
        &self,
        payload: &Parcel,
        descriptors: &[RawFd],
        daemon: bool,
    ) -> Result<Child, SpawnError> {
        self.spawn(payload, &open_descriptors(descriptors)?, daemon)
    }

    /// Has a child made, and blocks until it is there; the first time until the fork server has
    /// started.
    ///
    /// `payload` is what the child finds in [`Boot::payload`](crate::process::Boot::payload);
    /// `descriptors`, at most 250, are sent to it, and it gets them in this order. A daemonic child
    /// ends when this process ends. Signal handlers run meanwhile, and do not end the wait.
    ///
    /// # Errors
    ///
    /// After any of these there is no child, and none has begun to run.
    ///
    /// - [`SpawnError::ForkServerDied`] when the fork server has ended. Start another.
    /// - [`SpawnError::ForkServer`] when it could not fork.
    /// - [`SpawnError::ForeignForkServer`] in a forked copy of the process that it works for.
    /// - [`SpawnError::TooManyDescriptors`].
    /// - [`SpawnError::Arena`] when there is no room for the child or its payload.
    /// - [`SpawnError::Os`] when the descriptors cannot be sent, or none is left for the child: it is
    ///   killed then, and may have begun.
    pub fn spawn(
        &self,
        payload: &Parcel,
        descriptors: &[BorrowedFd<'_>],
        daemon: bool,
    ) -> Result<Child, SpawnError> {
        refuse_unless_booted()?;
        self.check(descriptors.len())?;
        registry::collect_ended();
        let seat = Seat::reserve()?;
        let arena = seat.arena();
        let owner = Owner::Member(seat.member());
        let payload = arena.store_parcel(&[payload.bytes()], payload.pins(), owner)?;
        let full = ArenaError::TooManyProcesses { limit: PLACES };
        let fate = self.fates.reserve(&self.child).ok_or(SpawnError::Arena(full))?;
        let order = Order::new(seat.member(), payload, fate.place(), daemon);
        match self.place(order, descriptors)? {
            Reply::Forked { pid, pidfd } => Ok(take_over(seat, pid, pidfd, fate)),
            Reply::Failed { reason } => {
                Err(SpawnError::ForkServer { pid: self.child.pid(), reason })
            }
            Reply::Unwatchable(source) => {
                // The fork server kills the child, and says so, or dies.
                fate.status();
                Err(SpawnError::Os { call: "recvmsg", source })
            }
            Reply::Gone => self.after_death(seat, fate),
        }
    }

    fn check(&self, descriptors: usize) -> Result<(), SpawnError> {
        if process::getpid() != self.owner {
            return Err(SpawnError::ForeignForkServer { owner: self.owner });
        }
        if descriptors > MOST_DESCRIPTORS {
            let limit = MOST_DESCRIPTORS;
            return Err(SpawnError::TooManyDescriptors { count: descriptors, limit });
        }
        Ok(())
    }

    /// Sends the order and waits for what comes of it. An error means that nothing was sent.
    fn place(&self, order: Order, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, SpawnError> {
        // Nothing panics under the lock.
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let message = orders::encode(&Message::Make(order));
        match send(socket.as_fd(), &message, descriptors) {
            Ok(()) => {}
            Err(error) if is_end(&error) => return Ok(Reply::Gone),
            Err(source) => return Err(SpawnError::Os { call: "sendmsg", source }),
        }
        let reply = self.receive(socket.as_fd());
        if let Reply::Unwatchable(_) = reply {
            let message = orders::encode(&Message::Kill { place: order.place });
            // A fork server that cannot be told is gone, and has taken the child's fate with it.
            let _ = send(socket.as_fd(), &message, &[]);
        }
        Ok(reply)
    }

    fn receive(&self, socket: BorrowedFd<'_>) -> Reply {
        loop {
            // A forked child may have a copy of the other end, so its end alone may not be seen.
            match fd::poll_readable(&[socket, self.child.sentinel()], None) {
                Ok(ready) if ready.first() == Some(&true) => return read_reply(socket),
                // An answer may have come after the one and before the other was looked at.
                Ok(ready) if ready.get(1) == Some(&true) => {
                    let now = Some(Instant::now());
                    return match fd::poll_readable(&[socket], now) {
                        Ok(ready) if ready.first() == Some(&true) => read_reply(socket),
                        _ => Reply::Gone,
                    };
                }
                // A signal handler ran; or the limit on descriptors forbids to poll, for now.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Finds out what became of an order that was not answered.
    fn after_death(&self, mut seat: Seat, fate: Fate) -> Result<Child, SpawnError> {
        let status = self.await_end();
        let arena = seat.arena();
        let member = seat.member();
        let Some(pid) = seat.withdraw().or_else(|| fate.born()) else {
            return Err(SpawnError::ForkServerDied { pid: self.child.pid(), status });
        };
        let pidfd = match process::pidfd_open(pid) {
            // A living member shows that the pidfd is of that process and no later one.
            Ok(pidfd) if arena.is_alive(member) => Ok(pidfd),
            Ok(_) => ended_sentinel(),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => ended_sentinel(),
            Err(error) => Err(error),
        };
        let pidfd = pidfd.map_err(|source| SpawnError::Os { call: "pidfd_open", source })?;
        Ok(Child::of_fork_server(arena, member, pid, pidfd, fate))
    }

    /// Blocks until the fork server, which does not answer any more, has ended.
    fn await_end(&self) -> ExitStatus {
        loop {
            if let Ok(status) = self.child.wait(Some(Instant::now() + LEAVING)) {
                return status;
            }
            // It fails only if it has ended by now.
            let _ = self.child.kill();
        }
    }

    /// Says whether it can still make children: it has not ended, and belongs to this process.
    pub fn is_alive(&self) -> bool {
        process::getpid() == self.owner && self.child.is_alive()
    }

    /// Returns the process itself.
    pub fn child(&self) -> &Child {
        &self.child
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        // A forked child may have a copy of the socket, which does not keep it open then. A copy of
        // this value in such a child must not do that to its parent.
        if process::getpid() == self.owner {
            let socket = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner);
            fd::shut_down(socket.as_fd());
        }
    }
}

impl fmt::Debug for ForkServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForkServer").field("pid", &self.child.pid()).finish_non_exhaustive()
    }
}

fn take_over(seat: Seat, pid: u32, pidfd: OwnedFd, fate: Fate) -> Child {
    let (arena, member) = seat.taken();
    Child::of_fork_server(arena, member, pid, pidfd, fate)
}

/// A descriptor that stands in for one of the standard three would be taken for that in a program.
fn above_standard(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(descriptor);
    }
    fd::copy_above_standard(descriptor.as_fd())
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        match fd::send_fds(socket, bytes, fds) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// Whether the other side of the socket is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn read_reply(socket: BorrowedFd<'_>) -> Reply {
    let mut bytes = [0; MESSAGE_LEN];
    loop {
        let (len, descriptors) = match fd::recv_fds(socket, &mut bytes, 1) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                return Reply::Unwatchable(io::Error::from_raw_os_error(libc::EMFILE));
            }
            Err(_) => return Reply::Gone,
        };
        return match (postcard::from_bytes(&bytes[..len]), descriptors.into_iter().next()) {
            (Ok(Answer::Forked { pid }), Some(pidfd)) => Reply::Forked { pid, pidfd },
            (Ok(Answer::Failed { reason }), _) => Reply::Failed { reason },
            // The end, or nothing that a fork server would say.
            _ => Reply::Gone,
        };
    }
}
