//! The threads of a server, and what they do with a request.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::manager::ClientId;
use crate::manager::gate::Event;
use crate::manager::peer::{Form, Peer};
use crate::manager::server::Shared;
use crate::manager::wire::{self, Sent};
use crate::sys::epoll::Interest;
use crate::sys::process;

/// Says what requests mean. Called by several threads at a time.
pub trait Handler: Send + Sync {
    /// Answers a request: appends the reply to `reply`, which is empty, and says what is next.
    ///
    /// Nobody else is served until it returns or calls
    /// [`Server::may_block`](super::Server::may_block).
    fn request(&self, call: &Call<'_>, request: &[u8], reply: &mut Vec<u8>) -> After;

    /// A client wants to refer to an object that nobody refers to. True if it exists all the same;
    /// the handler has counted the reference then.
    fn restore(&self, call: &Call<'_>, object: u64) -> bool;

    /// Nobody referred to these objects any more at the time. Somebody may do so again by now:
    /// look at [`Server::references`](super::Server::references) under the lock under which
    /// objects are made.
    fn released(&self, objects: &[u64]);

    /// A client has closed its connection or died. Its references have been taken back.
    ///
    /// `properly` says whether it had announced that. A client of Python's form cannot, so that
    /// nothing is known of how it ended.
    fn gone(&self, client: ClientId, properly: Properly);

    /// Starts a thread that calls [`Worker::run`].
    fn work(&self, worker: Worker);
}

/// How a client has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Properly {
    /// It had said goodbye.
    Yes,
    /// It had not: it was killed, or its connection broke.
    No,
    /// It speaks Python's form, in which nobody says goodbye.
    Unknown,
}

/// What is to happen after the reply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// More requests of the client are served.
    Serve,
    /// The connection with a client of Python's form is closed. One of a client of ours stays.
    Close,
    /// The server stops.
    Stop,
}

/// A request that is being answered.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    peer: &'a Peer,
    thread: u64,
}

impl Call<'_> {
    /// The client that it comes from.
    pub fn client(&self) -> ClientId {
        self.peer.id
    }

    /// Which of the client's threads made it.
    pub fn thread(&self) -> u64 {
        self.thread
    }

    /// Whether the client speaks the form of this crate, so that references are its own.
    pub fn is_ours(&self) -> bool {
        self.peer.form() == Form::Ours
    }

    /// Whether this is the first request of a client of Python's form.
    pub fn is_first(&self) -> bool {
        self.peer.form() == Form::Open
    }
}

/// The work of one thread of a server.
pub struct Worker {
    shared: Arc<Shared>,
    handler: Arc<dyn Handler>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// What the thread on duty has to do to leave it to another one.
struct OnDuty {
    shared: Arc<Shared>,
    handler: Arc<dyn Handler>,
    /// The client of Python's form whose request is being answered.
    peer: Option<Arc<Peer>>,
}

thread_local! {
    /// In the thread on duty.
    static ON_DUTY: RefCell<Option<OnDuty>> = const { RefCell::new(None) };
}

/// Has one more thread started.
pub(super) fn start(shared: &Arc<Shared>, handler: &Arc<dyn Handler>) {
    if shared.duty.expect_thread() {
        handler.work(Worker { shared: shared.clone(), handler: handler.clone() });
    }
}

/// Leaves the duty to another thread, if this one has it.
pub(super) fn leave_duty(shared: &Arc<Shared>) {
    let mine =
        ON_DUTY.with_borrow_mut(|duty| duty.take_if(|duty| Arc::ptr_eq(&duty.shared, shared)));
    let Some(duty) = mine else { return };
    if let Some(peer) = &duty.peer {
        // Its next request is not read before this one is answered. It fails only if the client
        // has been parted with.
        let _ = shared.epoll.change(peer.as_fd(), peer.id, Interest::End);
    }
    if shared.duty.give_up() {
        start(shared, &duty.handler);
    }
}

fn is_on_duty() -> bool {
    ON_DUTY.with_borrow(Option::is_some)
}

impl Worker {
    /// Serves until the server stops or has more threads than it needs.
    pub fn run(self) {
        while self.shared.duty.take() {
            let duty =
                OnDuty { shared: self.shared.clone(), handler: self.handler.clone(), peer: None };
            ON_DUTY.set(Some(duty));
            while is_on_duty() {
                self.serve();
            }
        }
    }

    fn serve(&self) {
        let event = self.shared.gate().next(&self.shared);
        match event {
            Event::Message(peer, message) => self.answer(&peer, &message),
            Event::Gone(peer) => self.part_with(&peer),
            Event::Stop => {
                let left = self.shared.gate().clear(&self.shared);
                leave_duty(&self.shared);
                left.iter().for_each(|peer| self.part_with(peer));
            }
        }
    }

    fn part_with(&self, peer: &Peer) {
        let released = self.shared.references().forget(peer.id);
        if !released.is_empty() {
            self.handler.released(&released);
        }
        if peer.form() != Form::Open {
            let properly = match peer.form() {
                Form::Ours if peer.is_leaving() => Properly::Yes,
                Form::Ours => Properly::No,
                _ => Properly::Unknown,
            };
            self.handler.gone(peer.id, properly);
        }
    }

    fn answer(&self, peer: &Arc<Peer>, message: &[u8]) {
        match peer.form() {
            Form::Open if message == wire::HELLO => {
                peer.set_form(Form::Ours);
                self.reply(peer, &[], &wire::welcome(process::getpid()));
                self.resume(peer);
            }
            Form::Open | Form::Plain => self.answer_plain(peer, message),
            Form::Ours => match wire::parse(message) {
                Some(sent) => self.answer_ours(peer, &sent),
                None => {
                    tracing::debug!("client {} sent what is no request", peer.id);
                    self.close(peer);
                }
            },
        }
    }

    fn answer_plain(&self, peer: &Arc<Peer>, request: &[u8]) {
        set_peer(Some(peer.clone()));
        let mut reply = Vec::new();
        let after = self.handler.request(&Call { peer, thread: 0 }, request, &mut reply);
        let sent = self.reply(peer, &[], &reply);
        set_peer(None);
        match after {
            After::Serve if sent => {
                peer.set_form(Form::Plain);
                self.resume(peer);
            }
            After::Stop => self.shared.stop(),
            After::Serve | After::Close => self.close(peer),
        }
    }

    fn answer_ours(&self, peer: &Arc<Peer>, sent: &Sent<'_>) {
        match sent {
            Sent::Call { number, thread, request } => {
                let mut reply = Vec::new();
                let call = Call { peer, thread: *thread };
                let after = self.handler.request(&call, request, &mut reply);
                self.reply(peer, &number.to_le_bytes(), &reply);
                if after == After::Stop {
                    self.shared.stop();
                }
            }
            Sent::Refer { number, objects } => {
                let missing = self.refer(peer, objects);
                let missing: Vec<u8> = missing.iter().flat_map(|one| one.to_le_bytes()).collect();
                self.reply(peer, &number.to_le_bytes(), &missing);
            }
            Sent::GiveUp { references } => self.give_up(peer, references),
            Sent::Goodbye => peer.leave(),
        }
    }

    /// Counts references of a client, and returns the objects that there are not.
    fn refer(&self, peer: &Peer, objects: &[u64]) -> Vec<u64> {
        let known = |object| self.shared.references().add_to_known(Some(peer.id), object);
        let call = Call { peer, thread: 0 };
        let missing = |object: &u64| !known(*object) && !self.handler.restore(&call, *object);
        objects.iter().copied().filter(missing).collect()
    }

    fn give_up(&self, peer: &Peer, references: &[(u64, u64)]) {
        let mut released = Vec::new();
        for (object, count) in references {
            if self.shared.references().remove(Some(peer.id), *object, *count) {
                released.push(*object);
            }
        }
        if !released.is_empty() {
            self.handler.released(&released);
        }
    }

    /// Sends a reply; false if the client is gone.
    fn reply(&self, peer: &Peer, head: &[u8], body: &[u8]) -> bool {
        let sent = peer.send(head, body, || leave_duty(&self.shared));
        if let Err(error) = &sent {
            // That the client is gone is found when its socket is looked at.
            tracing::debug!("client {} did not get a reply: {error}", peer.id);
        }
        sent.is_ok()
    }

    /// Lets the next request of a client be read.
    fn resume(&self, peer: &Peer) {
        if is_on_duty() {
            self.shared.note(|notes| notes.resume.push(peer.id));
            return;
        }
        self.shared.note(|notes| notes.resume.push(peer.id));
        let _ = self.shared.epoll.change(peer.as_fd(), peer.id, Interest::Readable);
        self.shared.ring();
    }

    /// Parts with a client.
    fn close(&self, peer: &Peer) {
        self.shared.note(|notes| notes.close.push(peer.id));
        if !is_on_duty() {
            self.shared.ring();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Only if a handler has panicked.
        leave_duty(&self.shared);
        self.shared.duty.forget_thread();
    }
}

fn set_peer(peer: Option<Arc<Peer>>) {
    ON_DUTY.with_borrow_mut(|duty| {
        if let Some(duty) = duty {
            duty.peer = peer;
        }
    });
}
