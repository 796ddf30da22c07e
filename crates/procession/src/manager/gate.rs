//! The sockets of a server: new clients, handshakes, requests as they come in.
//!
//! Only the thread on duty uses this. Nothing here blocks but [`Gate::next`], which waits for all
//! sockets at once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::channel::connection::entrance::{Entrance, Progress};
use crate::channel::connection::handshake::Side;
use crate::channel::connection::{Address, HandshakeError};
use crate::manager::eager::Eager;
use crate::manager::inflow::{Inflow, Message};
use crate::manager::peer::{Form, Peer};
use crate::manager::server::Shared;
use crate::sys::fd;
use crate::sys::stream::{self, Place};

/// The number of the listening socket.
pub(super) const DOOR: u64 = 0;
/// The number of the descriptor by which other threads wake the one on duty.
pub(super) const BELL: u64 = 1;
/// The number of the first client.
const FIRST_CLIENT: u64 = 2;

/// Clients taken in before somebody else has a turn.
const MOST_AT_ONCE: usize = 64;

/// Clients in a handshake at a time. One more takes the place of the one that came first.
const MOST_SHAKING: usize = 4096;

/// How long nobody is let in where there is no descriptor, unless a client goes.
const WHILE_FULL: Duration = Duration::from_secs(1);

/// What there is to do.
#[derive(Debug)]
pub(super) enum Event {
    /// A client has sent this.
    Message(Arc<Peer>, Message),
    /// A client is gone.
    Gone(Arc<Peer>),
    /// The server is to stop.
    Stop,
}

/// What other threads tell the one on duty.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Clients whose request was answered, so that the next one may be read.
    pub(super) resume: Vec<u64>,
    /// Clients to be parted with.
    pub(super) close: Vec<u64>,
}

/// A client that is connected.
#[derive(Debug)]
struct Entry {
    peer: Arc<Peer>,
    /// Until the client has shown the key.
    entrance: Option<Entrance>,
    inflow: Inflow,
    /// Whether a request of a client of the plain form is being answered: the next one waits.
    busy: bool,
}

impl Entry {
    /// Goes as far as what has come allows; true when the client has shown the key.
    fn enter(&mut self, shared: &Shared) -> Result<bool, HandshakeError> {
        let Some(entrance) = &mut self.entrance else { return Ok(true) };
        loop {
            match entrance.advance(self.peer.as_fd())? {
                Progress::Waiting => return Ok(false),
                Progress::Done => return Ok(true),
                Progress::Secured => {
                    let gone = |_| HandshakeError::Gone;
                    shared.epoll.remove(self.peer.as_fd()).map_err(gone)?;
                    // Nobody else has the client before it is let in.
                    let peer = Arc::get_mut(&mut self.peer).ok_or(HandshakeError::Gone)?;
                    entrance.exchange(peer.socket_mut())?;
                    stream::set_blocking(peer.as_fd(), false).map_err(gone)?;
                    shared.epoll.add(peer.as_fd(), peer.id).map_err(gone)?;
                }
            }
        }
    }
}

/// The clients of a server.
#[derive(Debug)]
pub(super) struct Gate {
    entries: HashMap<u64, Entry>,
    /// How many of them have been let in.
    clients: usize,
    next_id: u64,
    /// Clients of which whole messages may be there.
    ready: VecDeque<u64>,
    /// When clients in a handshake have been silent for too long, the first first.
    shaking: VecDeque<(Instant, u64)>,
    /// Where something has come to pass.
    events: Vec<u64>,
    eager: Eager,
    /// When to try again, if nobody is let in for lack of descriptors.
    full: Option<Instant>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            clients: 0,
            next_id: FIRST_CLIENT,
            ready: VecDeque::new(),
            shaking: VecDeque::new(),
            events: Vec::new(),
            eager: Eager::default(),
            full: None,
        }
    }

    /// Blocks until there is something to do.
    pub(super) fn next(&mut self, shared: &Shared) -> Event {
        loop {
            if shared.is_stopped() {
                return Event::Stop;
            }
            if let Some(event) = self.read_notes(shared) {
                return event;
            }
            if let Some(event) = self.take_message(shared) {
                return event;
            }
            if self.events.is_empty() {
                self.put_out_silent(shared);
                self.listen_again(shared);
                self.wait(shared);
                // A client may have been waited for only because of a note.
                continue;
            }
            if let Some(number) = self.events.pop()
                && let Some(event) = self.look_at(shared, number)
            {
                return event;
            }
        }
    }

    /// Lets go of all clients.
    pub(super) fn clear(&mut self, shared: &Shared) -> Vec<Arc<Peer>> {
        let ids: Vec<u64> = self.entries.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.remove(shared, id)).collect()
    }

    fn wait(&mut self, shared: &Shared) {
        let Self { events, eager, shaking, full, .. } = self;
        let mut look = || {
            // An error here is one below, too.
            shared.epoll.wait(events, Some(shared.began)).ok().filter(|()| !events.is_empty())
        };
        if look().is_some() || eager.spin(look).is_some() {
            return;
        }
        let deadline =
            shaking.front().map(|(deadline, _)| *deadline).into_iter().chain(*full).min();
        let before = Instant::now();
        if let Err(error) = shared.epoll.wait(events, deadline)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!("the manager cannot wait for its clients and stops: {error}");
            shared.stop();
        }
        eager.learn_from_sleep(before);
    }

    fn read_notes(&mut self, shared: &Shared) -> Option<Event> {
        let mut notes = shared.take_notes()?;
        for id in notes.resume.drain(..) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.busy = false;
                self.ready.push_back(id);
            }
        }
        let close = notes.close.pop();
        if !notes.close.is_empty() {
            shared.note(|all| all.close.append(&mut notes.close));
        }
        self.remove(shared, close?).map(Event::Gone)
    }

    /// Takes the next message of the client whose turn it is.
    fn take_message(&mut self, shared: &Shared) -> Option<Event> {
        while let Some(id) = self.ready.pop_front() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.busy {
                continue;
            }
            match entry.inflow.next() {
                Ok(None) => {}
                Ok(Some(message)) => {
                    entry.busy = entry.peer.form() != Form::Ours;
                    if entry.inflow.has_next() {
                        self.ready.push_back(id);
                    }
                    return Some(Event::Message(entry.peer.clone(), message));
                }
                Err(refused) => {
                    tracing::debug!("client {id} sent a message of {} bytes", refused.length);
                    return self.remove(shared, id).map(Event::Gone);
                }
            }
        }
        None
    }

    fn look_at(&mut self, shared: &Shared, number: u64) -> Option<Event> {
        match number {
            DOOR => self.let_in(shared),
            BELL => {
                // It was rung for what is looked at before each wait.
                let _ = fd::eventfd_drain(shared.bell.as_fd());
            }
            id => return self.read_from(shared, id),
        }
        None
    }

    fn read_from(&mut self, shared: &Shared, id: u64) -> Option<Event> {
        let entry = self.entries.get_mut(&id)?;
        if entry.busy {
            // Nothing is waited for at its socket but the end.
            return self.remove(shared, id).map(Event::Gone);
        }
        if entry.entrance.is_some() {
            match entry.enter(shared) {
                Ok(false) => {}
                Ok(true) => self.welcome(shared, id),
                Err(error) => {
                    tracing::debug!("client {id} was not let in: {error}");
                    self.remove(shared, id);
                }
            }
            return None;
        }
        match entry.inflow.fill(entry.peer.as_fd()) {
            Ok(0) => return self.remove(shared, id).map(Event::Gone),
            Ok(_) => self.ready.push_back(id),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                _ => return self.remove(shared, id).map(Event::Gone),
            },
        }
        None
    }

    /// Lets a client in that has shown the key, if there is room.
    fn welcome(&mut self, shared: &Shared, id: u64) {
        if self.clients >= shared.most_clients {
            tracing::warn!("client {id} was turned away: there are {} others", shared.most_clients);
            self.remove(shared, id);
            return;
        }
        self.shaking.retain(|(_, other)| *other != id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.entrance = None;
            self.clients += 1;
            shared.references().welcome(entry.peer.clone());
        }
    }

    fn let_in(&mut self, shared: &Shared) {
        for _ in 0..MOST_AT_ONCE {
            // Nothing else is done while the listener is locked.
            let accepted = shared.listener().as_ref().map(|door| stream::accept(door.as_fd()));
            match accepted {
                None => return,
                Some(Ok((socket, place))) => self.begin_handshake(shared, socket, &place),
                Some(Err(error)) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // The client gave up before it was its turn.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        tracing::warn!("the manager lets nobody in for now: {error}");
                        return self.stop_listening(shared);
                    }
                },
            }
        }
    }

    /// Lets nobody in for a while: there is no descriptor for another client.
    fn stop_listening(&mut self, shared: &Shared) {
        if let Some(door) = shared.listener().as_ref()
            && shared.epoll.remove(door.as_fd()).is_ok()
        {
            self.full = Instant::now().checked_add(WHILE_FULL);
        }
    }

    /// Lets clients in again, once it is time.
    fn listen_again(&mut self, shared: &Shared) {
        if self.full.take_if(|at| *at <= Instant::now()).is_some()
            && let Some(door) = shared.listener().as_ref()
            && let Err(error) = shared.epoll.add(door.as_fd(), DOOR)
        {
            tracing::error!("the manager lets nobody in any more: {error}");
        }
    }

    fn begin_handshake(&mut self, shared: &Shared, socket: OwnedFd, place: &Place) {
        if matches!(place, Place::Tcp(_)) {
            // Slower without, and no reason to turn the client away.
            let _ = stream::send_without_delay(&socket);
        }
        let id = self.next_id;
        self.next_id += 1;
        let begun = stream::set_blocking(socket.as_fd(), false)
            .and_then(|()| shared.epoll.add(socket.as_fd(), id))
            .map_err(|error| error.to_string())
            .and_then(|()| {
                let (tls, key) = (shared.tls.as_ref(), Some(&shared.key[..]));
                Entrance::start(Side::Listener, tls, key, &Address::Unnamed, socket.as_fd())
                    .map_err(|error| error.to_string())
            });
        let entrance = match begun {
            Ok(entrance) => Some(entrance),
            Err(error) => {
                tracing::debug!("client {id} was not let in: {error}");
                return;
            }
        };
        if self.shaking.len() >= MOST_SHAKING
            && let Some((_, first)) = self.shaking.pop_front()
        {
            self.remove(shared, first);
        }
        if let Some(deadline) = Instant::now().checked_add(shared.patience) {
            self.shaking.push_back((deadline, id));
        }
        let peer = Arc::new(Peer::new(id, socket));
        let inflow = Inflow::new(shared.limit);
        self.entries.insert(id, Entry { peer, entrance, inflow, busy: false });
    }

    /// Parts with the clients that have been silent in their handshake for too long.
    fn put_out_silent(&mut self, shared: &Shared) {
        while let Some((deadline, id)) = self.shaking.front().copied() {
            if deadline > Instant::now() {
                return;
            }
            self.shaking.pop_front();
            tracing::debug!("client {id} was silent for {:?}", shared.patience);
            if let Some(entry) = self.entries.get(&id)
                && let Some(entrance) = &entry.entrance
            {
                entrance.turn_away(entry.peer.as_fd());
            }
            self.remove(shared, id);
        }
    }

    /// Parts with a client, and returns it if it had been let in.
    fn remove(&mut self, shared: &Shared, id: u64) -> Option<Arc<Peer>> {
        let entry = self.entries.remove(&id)?;
        // A forked process may have a copy, which would keep it in the set.
        let _ = shared.epoll.remove(entry.peer.as_fd());
        entry.peer.shut_down();
        // There will be a descriptor for another one.
        self.full = self.full.map(|_| Instant::now());
        if entry.entrance.is_some() {
            self.shaking.retain(|(_, other)| *other != id);
            return None;
        }
        self.clients -= 1;
        Some(entry.peer)
    }
}
