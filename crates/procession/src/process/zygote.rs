//! A fork server: a process with one thread that forks children for another, its *client*.
//!
//! The client starts it as a fresh image, and then sends an order for each child: see `orders.rs`. A
//! fork of a small process that has done nothing yet is quick, whatever the client has grown to.
//!
//! # Steps of a start
//!
//! | step | who | what | if the fork server dies right after |
//! |------|-----|------|-------------------------------------|
//! | 1 | client | reserves a member, a payload and a place on the board of fates, sends the order | the client takes them back |
//! | 2 | fork server | copies its references to the member | as 1; they go with the member |
//! | 3 | fork server | forks | as 4, or as 1 if the child is too slow: then it finds its member gone, and exits |
//! | 4 | child | becomes the member | the client finds its process id in the arena, and has its child |
//! | 5 | fork server | opens the child's pidfd, answers | the client has the answer |
//! | 6 | fork server | reaps the child when it ends, writes its fate | the client has the status |
//!
//! # When a process dies
//!
//! - The client: the fork server is a daemonic child of it, and ends.
//! - The client lets go of the fork server, on purpose: it reaps the children that it has, and then
//!   finds nothing more to do.
//! - A child: its pidfd says so, and the fork server reaps it once, so that there is never a zombie.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::error::WaitError;
use crate::process::boot::{Boot, Line};
use crate::process::child::pause;
use crate::process::error::{BootError, SpawnError};
use crate::process::fate::{self, Board};
use crate::process::fork::PreparedFork;
use crate::process::orders::{self, Answer, MESSAGE_LEN, MOST_DESCRIPTORS, Message, Order};
use crate::process::parent;
use crate::process::seat::Seat;
use crate::process::status::ExitStatus;
use crate::shm::{ArenaError, Shared};
use crate::sys::process::SignalAction;
use crate::sys::{fd, process};

/// What the socket is called among the things to wait for; children are called by their places.
const SOCKET: u64 = u64::MAX;

/// How many events are taken at once.
const EVENTS: usize = 64;

/// A fork server, seen from inside.
///
/// The process must stay single-threaded. It must not wait for "any child", which would take the status
/// of one that was asked for.
#[derive(Debug)]
pub struct Zygote {
    socket: OwnedFd,
    /// Watches the socket, until that has ended, and the pidfds of the children.
    epoll: OwnedFd,
    board: Shared<Board>,
    client: Client,
    /// The pidfds of children that have not been reaped, by their places.
    children: HashMap<u32, OwnedFd>,
    /// No more orders will come.
    ended: bool,
    /// An order was handed out and not answered.
    unanswered: bool,
    /// What children are to have again: whether `SIGINT` was held back, what was done about `SIGCHLD`.
    signals: (bool, SignalAction),
}

/// The process that sends the orders.
#[derive(Debug, Clone)]
struct Client {
    pid: u32,
    pidfd: Arc<OwnedFd>,
}

/// An order for a child.
#[derive(Debug)]
#[must_use = "the client waits for the answer"]
pub struct Request {
    order: Order,
    descriptors: Vec<OwnedFd>,
    client: Client,
}

impl Zygote {
    /// Makes this process the fork server that [`ForkServer::start`](crate::process::ForkServer::start)
    /// started it as.
    ///
    /// From now on it holds back `SIGINT`, which a terminal sends to all processes of a program at once,
    /// and has `SIGCHLD` at its default. Its children have both as they were before.
    ///
    /// # Errors
    ///
    /// - [`BootError::NoForkServer`] when it was not started as one, or is one already.
    /// - [`BootError::Arena`] when the client is gone.
    /// - [`BootError::Os`] when the system gives no descriptor.
    pub fn from_boot(boot: &Boot) -> Result<Self, BootError> {
        let Line { socket, board } = boot.take_line().ok_or(BootError::NoForkServer)?;
        let board = Shared::open(board).map_err(BootError::Arena)?;
        let pid = boot.parent_pid();
        // The number is still the client's: this process ends with it.
        let pidfd = process::pidfd_open(pid).map_err(os("pidfd_open"))?;
        let client = Client { pid, pidfd: Arc::new(pidfd) };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(os("epoll_create1"))?;
        epoll::add(&epoll, &socket, EventData::new_u64(SOCKET), EventFlags::IN)
            .map_err(os("epoll_ctl"))?;
        let signals = (
            // If it were ignored, one that comes to a child right after the fork would be lost.
            process::block_signal(libc::SIGINT).map_err(os("pthread_sigmask"))?,
            // A system that ignores it reaps children by itself, and keeps their status.
            process::default_signal(libc::SIGCHLD).map_err(os("sigaction"))?,
        );
        Ok(Self {
            socket,
            epoll,
            board,
            client,
            children: HashMap::new(),
            ended: false,
            unanswered: false,
            signals,
        })
    }

    /// Blocks until a child is asked for, and returns the order. Meanwhile reaps children that end.
    ///
    /// `None` means that no more orders will come, and all children have ended: the process may exit.
    /// Uses no processor time while nothing happens.
    ///
    /// # Errors
    ///
    /// [`WaitError::Interrupted`] when a signal handler ran. Nothing has changed.
    pub fn next_request(&mut self) -> Result<Option<Request>, WaitError> {
        if self.unanswered {
            self.answer_failure(&"the fork server forgot about it");
        }
        while !(self.ended && self.children.is_empty()) {
            if self.wait()?
                && let Some(request) = self.receive()
            {
                self.unanswered = true;
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    /// Waits for something to happen; reaps children that have ended, and says whether there is
    /// something to be read.
    fn wait(&mut self) -> Result<bool, WaitError> {
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Err(WaitError::Interrupted),
            // Only bad arguments are left, which these are not.
            Err(_) => pause(),
        }
        let mut readable = false;
        for Event { data, .. } in events {
            match u32::try_from(data.u64()) {
                Ok(place) => self.reap(place),
                Err(_) => readable = true,
            }
        }
        Ok(readable)
    }

    fn reap(&mut self, place: u32) {
        let Some(pidfd) = self.children.get(&place) else { return };
        let status = match process::wait_pidfd(pidfd.as_fd(), false) {
            Ok(Some(status)) => ExitStatus::from(status),
            // Its status is still withheld, as it is by a debugger.
            Ok(None) => return pause(),
            // `ECHILD`: somebody else in this process has reaped it.
            Err(_) => ExitStatus::Unknown,
        };
        self.forget(place);
        self.board.record(place, status);
    }

    fn forget(&mut self, place: u32) {
        if let Some(pidfd) = self.children.remove(&place) {
            // By closing alone it would go on being watched while a forked child has a copy. It fails
            // if it was not watched.
            let _ = epoll::delete(&self.epoll, &pidfd);
        }
    }

    /// Reads an order; `None` if there is none after all.
    fn receive(&mut self) -> Option<Request> {
        let mut bytes = [0; MESSAGE_LEN];
        match fd::recv_fds(self.socket.as_fd(), &mut bytes, MOST_DESCRIPTORS) {
            Ok((0, _)) => self.hang_up(),
            Ok((len, descriptors)) => match postcard::from_bytes(&bytes[..len]) {
                Ok(Message::Make(order)) => {
                    let client = self.client.clone();
                    return Some(Request { order, descriptors, client });
                }
                Ok(Message::Kill { place }) => self.kill(place),
                Err(error) => self.answer_failure(&error),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.answer_failure(&"it has no room for the descriptors that came along");
            }
            Err(_) => self.hang_up(),
        }
        None
    }

    fn kill(&self, place: u32) {
        if let Some(pidfd) = self.children.get(&place) {
            // It fails only if the child has ended already.
            let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// The client is gone, or wants no more.
    fn hang_up(&mut self) {
        self.ended = true;
        // Fails only if it was done before.
        let _ = epoll::delete(&self.epoll, &self.socket);
    }

    /// Takes charge of the child that was forked for `request`, and tells the client. To be called in
    /// the fork server.
    ///
    /// If the child cannot be watched it is killed, and the client gets an error.
    pub fn forked(&mut self, request: Request, pid: u32) {
        let place = request.order.place;
        // A descriptor that was sent might be a pipe whose reader waits for its end.
        drop(request);
        match self.watch(place, pid) {
            Ok(()) => {
                let pidfd = self.children.get(&place).map(AsFd::as_fd);
                let pidfd: Vec<BorrowedFd<'_>> = pidfd.into_iter().collect();
                let sent = self.answer(&Answer::Forked { pid }, &pidfd);
                self.answered(sent);
            }
            Err(error) => {
                self.forget(place);
                process::kill_and_reap(pid);
                self.answer_failure(&format!("the child cannot be watched: {error}"));
            }
        }
    }

    fn watch(&mut self, place: u32, pid: u32) -> io::Result<()> {
        let pidfd = process::pidfd_open(pid)?;
        epoll::add(&self.epoll, &pidfd, EventData::new_u64(place.into()), EventFlags::IN)?;
        self.children.insert(place, pidfd);
        Ok(())
    }

    /// Tells the client that there is no child for `request`. To be called when nothing was forked.
    pub fn failed(&mut self, request: Request, reason: &str) {
        drop(request);
        self.answer_failure(&reason);
    }

    fn answer_failure(&mut self, reason: &dyn fmt::Display) {
        let sent = self.answer(&Answer::failed(reason), &[]);
        self.answered(sent);
    }

    fn answer(&self, answer: &Answer, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = orders::encode(answer);
        loop {
            match fd::send_fds(self.socket.as_fd(), &bytes, descriptors) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    fn answered(&mut self, sent: io::Result<()>) {
        self.unanswered = false;
        // A client that cannot be told must not wait: it sees the end of the stream.
        if sent.is_err() {
            fd::shut_down(self.socket.as_fd());
            self.hang_up();
        }
    }
}

impl Request {
    /// Says whether the child is to end when the client ends.
    pub fn is_daemon(&self) -> bool {
        self.order.daemon
    }

    /// Prepares the fork: gives the child references to all shared objects of this process.
    ///
    /// Then fork; in the child, call [`PreparedFork::in_child`] with
    /// [`is_daemon`](Self::is_daemon), and then [`into_child`](Self::into_child). In the fork server
    /// call [`Zygote::forked`], or [`Zygote::failed`] if nothing was forked; the prepared fork can be
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Arena`] when there is no room for the references. Pass it to [`Zygote::failed`].
    pub fn prepare(&self) -> Result<PreparedFork, SpawnError> {
        let member = self.order.member();
        let member = member.ok_or(SpawnError::Arena(ArenaError::NotAnArena))?;
        let seat = Seat::reserved_by(self.client.pid, member)?;
        PreparedFork::for_client(seat, &self.client.pidfd)
    }

    /// Makes the forked child what was asked for, and returns what it was given: the payload, and the
    /// descriptors in their order. Closes all that was the fork server's.
    ///
    /// # Errors
    ///
    /// [`BootError::Payload`] and [`BootError::Arena`] when the client has taken its order back, or is
    /// gone. The child must exit then.
    pub fn into_child(self, zygote: Zygote) -> Result<(Boot, Vec<OwnedFd>), BootError> {
        let Self { order, descriptors, client } = self;
        let Zygote { board, signals, .. } = zygote;
        let (interrupts_blocked, child_action) = signals;
        process::restore_signal(child_action);
        if !interrupts_blocked {
            process::unblock_signal(libc::SIGINT).map_err(os("pthread_sigmask"))?;
        }
        fate::come_to_life(board, order.place);
        let boot = Boot::of_fork(order.payload(), client.pid, order.daemon)?;
        parent::note(client.pid, client.pidfd);
        Ok((boot, descriptors))
    }
}

fn os<E: Into<io::Error>>(call: &'static str) -> impl Fn(E) -> BootError {
    move |error| BootError::Os { call, source: error.into() }
}
