//! The thread that carries bytes between encrypted sockets and plain ones.
//!
//! There is one per process, from the first connection with TLS on. It holds back all signals and
//! waits for all sockets at once; none of them blocks, and each is served for a short time before it
//! is another one's turn. A tunnel holds at most what was read at one time, in each direction, so
//! that who sends waits for who receives as without it.
//!
//! | event                        | what becomes of the tunnels                                  |
//! |------------------------------|--------------------------------------------------------------|
//! | fork                         | the thread ends for that time; they are the parent's, which carries what the child sends by an end that it has inherited |
//! | the parent of that child ends | the child reads the end of the stream, and its sends fail   |
//! | the process ends by itself   | what was sent is sent on, for at most [`AT_EXIT`]            |
//! | the process is killed        | the system closes the sockets; what was not taken is lost, and the peer is told that the stream was cut |

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustls::Connection;

use crate::channel::connection::tls::Cause;
use crate::channel::connection::tls::tunnel::Tunnel;
use crate::sys::epoll::Epoll;
use crate::sys::per_process::PerProcess;
use crate::sys::{fd, process};

/// The number of the descriptor by which the thread is woken. Tunnels have even numbers for the
/// encrypted socket, and the odd one after it for the plain one.
const BELL: u64 = 0;

/// Bytes carried at a time.
const AT_ONCE: usize = 64 << 10;

/// How long a peer may take nothing of what is left when the program has closed its end.
const LINGER: Duration = Duration::from_secs(20);

/// How long the end of the process waits for peers that take nothing.
const AT_EXIT: Duration = Duration::from_secs(2);

static PUMP: PerProcess<Pump> = PerProcess::new();

#[derive(Default)]
struct Pump {
    hall: Mutex<Option<Hall>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What the thread works on, under its lock; it waits without the lock.
struct Hall {
    epoll: Arc<Epoll>,
    /// Readable when the thread is to look at `halt`.
    bell: OwnedFd,
    halt: bool,
    tunnels: HashMap<u64, Tunnel>,
    last: u64,
    /// When peers of tunnels that the program has closed have had time enough, the first first.
    closing: VecDeque<(Instant, u64)>,
    scratch: Vec<u8>,
}

/// Carries what goes through two sockets from now on; neither blocks.
pub(super) fn carry(tls: Box<Connection>, encrypted: OwnedFd, plain: OwnedFd) -> io::Result<Cause> {
    let pump = pump();
    let tunnel = Tunnel::new(tls, encrypted, plain);
    let cause = tunnel.cause();
    let mut hall = pump.hall();
    let open = match hall.as_mut() {
        Some(hall) => hall,
        None => hall.insert(Hall::new()?),
    };
    open.take_in(tunnel);
    drop(hall);
    pump.run()?;
    Ok(cause)
}

/// Ends the thread for a fork. It goes on when what this returns is dropped, but not in the child.
pub(in crate::channel::connection) fn pause() -> PausedPump {
    pump().halt();
    PausedPump { process: process::getpid() }
}

/// What [`pause`] returns.
#[derive(Debug)]
pub(in crate::channel::connection) struct PausedPump {
    process: u32,
}

impl Drop for PausedPump {
    fn drop(&mut self) {
        if self.process != process::getpid() {
            return;
        }
        let pump = pump();
        if pump.hall().is_some()
            && let Err(error) = pump.run()
        {
            // Without the thread nothing would come any more, and nobody would be told.
            tracing::error!("connections with TLS are lost: {error}");
            drop(pump.hall().take());
        }
    }
}

/// Closes the child's copies of the parent's sockets. To be called in the child of a fork.
pub(in crate::channel::connection) fn forget() {
    pump();
}

/// Sends on what was sent through connections with TLS before the call, and ends these connections.
/// Blocks until that is done, for at most `timeout`; says whether it is.
///
/// It is done by itself when the process returns from `main` or calls `exit`, for two seconds at
/// most. To be called before anything that ends the process without that.
pub fn finish_tunnels(timeout: Duration) -> bool {
    let pump = pump();
    pump.halt();
    let Some(mut hall) = pump.hall().take() else { return true };
    let deadline = Instant::now() + timeout;
    loop {
        let Hall { tunnels, scratch, .. } = &mut hall;
        tunnels.retain(|_, tunnel| tunnel.finish(scratch));
        let Some(tunnel) = tunnels.values().next() else { return true };
        // Whichever it is: the others are tried again with it.
        let slow = tunnel.sockets()[0];
        let until = deadline.min(Instant::now() + LINGER / 200);
        let _ = fd::poll_writable(slow, Some(until));
        if Instant::now() >= deadline {
            return false;
        }
    }
}

extern "C" fn finish_at_exit() {
    finish_at_end();
}

/// Does what [`finish_tunnels`] does, for a process that is about to end.
pub(crate) fn finish_at_end() {
    finish_tunnels(AT_EXIT);
}

fn pump() -> &'static Pump {
    PUMP.get(|inherited| {
        if let Ok(mut hall) = inherited.hall.try_lock() {
            drop(hall.take());
        }
    })
}

impl Pump {
    fn hall(&self) -> MutexGuard<'_, Option<Hall>> {
        // What panics under it leaves one tunnel as it was, at worst.
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, if it does not run.
    fn run(&'static self) -> io::Result<()> {
        static AT_EXIT: Once = Once::new();
        AT_EXIT.call_once(|| process::at_exit(finish_at_exit));
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return Ok(());
        }
        if let Some(hall) = self.hall().as_mut() {
            hall.halt = false;
            // It was rung for the last thread.
            let _ = fd::eventfd_drain(hall.bell.as_fd());
        }
        let work = || {
            process::block_all_signals();
            self.work();
        };
        *thread = Some(thread::Builder::new().name("procession-tls".to_owned()).spawn(work)?);
        Ok(())
    }

    /// Ends the thread.
    fn halt(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hall) = self.hall().as_mut() {
            hall.halt = true;
            // It fails for no descriptor that is open.
            let _ = fd::eventfd_signal(hall.bell.as_fd());
        }
        if let Some(thread) = thread.take() {
            // It panics for nothing that a peer can do; if it did, it has ended as well.
            let _ = thread.join();
        }
    }

    /// What the thread does.
    fn work(&self) {
        let mut events = Vec::new();
        loop {
            let (epoll, deadline) = match self.hall().as_mut() {
                Some(hall) if !hall.halt => (hall.epoll.clone(), hall.work(&events)),
                _ => return,
            };
            // What fails here fails again, and for a moment only.
            if epoll.wait(&mut events, deadline).is_err() {
                events.clear();
            }
        }
    }
}

impl Hall {
    fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let bell = fd::eventfd()?;
        epoll.add(bell.as_fd(), BELL)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            bell,
            halt: false,
            tunnels: HashMap::new(),
            last: BELL,
            closing: VecDeque::new(),
            scratch: vec![0; AT_ONCE],
        })
    }

    fn take_in(&mut self, tunnel: Tunnel) {
        self.last += 2;
        self.tunnels.insert(self.last, tunnel);
        self.serve(self.last);
    }

    /// Does all that can be done without waiting; returns until when to wait.
    fn work(&mut self, events: &[u64]) -> Option<Instant> {
        for number in events {
            match *number {
                BELL => {
                    let _ = fd::eventfd_drain(self.bell.as_fd());
                }
                number => self.serve(number & !1),
            }
        }
        self.put_out_slow();
        self.closing.front().map(|(deadline, _)| *deadline)
    }

    fn serve(&mut self, number: u64) {
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return };
        let was_closing = tunnel.is_closing();
        let goes_on = tunnel.carry(&mut self.scratch) && watch(&self.epoll, number, tunnel).is_ok();
        if !goes_on {
            return self.remove(number);
        }
        if !was_closing
            && tunnel.is_closing()
            && let Some(deadline) = Instant::now().checked_add(LINGER)
        {
            self.closing.push_back((deadline, number));
        }
    }

    fn put_out_slow(&mut self) {
        while let Some((deadline, number)) = self.closing.front().copied() {
            if deadline > Instant::now() {
                return;
            }
            self.closing.pop_front();
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(tunnel) = self.tunnels.remove(&number) else { return };
        for (socket, interest) in tunnel.sockets().into_iter().zip(tunnel.interests) {
            if interest.is_some() {
                // A forked process may have a copy, which would keep it in the set.
                let _ = self.epoll.remove(socket);
            }
        }
    }
}

/// Has a tunnel's sockets waited for. One of which nothing is wanted is taken out: its end would be
/// reported all the time.
fn watch(epoll: &Epoll, number: u64, tunnel: &mut Tunnel) -> io::Result<()> {
    let (wanted, before) = (tunnel.wanted(), tunnel.interests);
    for (index, socket) in tunnel.sockets().into_iter().enumerate() {
        let socket: BorrowedFd<'_> = socket;
        let number = number + index as u64;
        match (before[index], wanted[index]) {
            (None, None) => {}
            (None, Some(interest)) => epoll.add_for(socket, number, interest)?,
            (Some(_), None) => epoll.remove(socket)?,
            (Some(old), Some(new)) if old == new => {}
            (Some(_), Some(new)) => epoll.change(socket, number, new)?,
        }
    }
    tunnel.interests = wanted;
    Ok(())
}
