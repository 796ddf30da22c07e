//! A server of objects for many processes, on the wire with the managers of Python's
//! `multiprocessing`.
//!
//! A [`Manager`] holds objects, of the program's own types ([`shared`](macro@crate::shared)) or of
//! the kinds that Python's have, and any process that has its address and key calls their methods:
//! in Rust through a [`RemoteManager`] and its proxies, in Python as with a manager of Python.
//!
//! Below that are bytes, for other faces of the engine.
//!
//! The [`Server`] knows bytes: it listens, lets those in who have the key, cuts what they send into
//! requests, and counts who refers to which object. What a request means is for the [`Handler`] to
//! say. A [`Client`] is the one connection of a process with a server: its threads call through it
//! at the same time.
//!
//! | file         | what is in it                                                      |
//! |--------------|--------------------------------------------------------------------|
//! | `server`     | what users call: binding, starting, stopping                       |
//! | `worker`     | the threads of a server, and what they do with a request           |
//! | `duty`       | which of the threads looks after the sockets                       |
//! | `gate`       | the sockets: new clients, handshakes, requests as they come in     |
//! | `peer`       | one client, as the server sees it                                  |
//! | `references` | who refers to which object                                         |
//! | `host`       | managers: what users call who have one                             |
//! | `host_calls`, `host_table`, `host_threads` | what requests mean, the objects, the threads |
//! | `host_process` | a manager in a process of its own                                |
//! | `registry`   | what a manager can make                                            |
//! | `object`, `object_instance` | what is served: calls by name, types of the program  |
//! | `objects`    | what every manager makes                                           |
//! | `client`     | the connection of a process with a server                          |
//! | `inbox`      | replies on their way to the threads that wait for them             |
//! | `tally`      | what a client refers to                                            |
//! | `inflow`     | a stream of bytes cut into messages, and messages sent             |
//! | `eager`      | spinning before a sleep                                            |
//! | `wire`       | the words of the two forms                                         |
//! | `remote`     | what users call who connect with a manager                         |
//! | `remote_link`, `remote_plain` | the ways of a process to servers, of either form  |
//! | `proxy`      | what stands for an object in a manager                             |
//! | `proxy_form` | proxies as Python writes them                                      |
//! | [`proxies`]  | proxies for the kinds of objects that every manager has            |
//! | `failed`     | why a call gave no result                                          |
//!
//! # Two forms
//!
//! A client says in its first request that it speaks the form of this crate: one connection,
//! many calls in flight, each with a number, and references counted per client. To a server of
//! Python that request is an unknown one, which it refuses; a client of Python sends another one.
//! So either side knows whom it has before it, and uses Python's own form where it must: there, a
//! connection serves one thread, and each change of a reference count is a connection of its own.
//!
//! # Threads
//!
//! One thread at a time is on duty: it waits for all sockets and answers what comes in itself, so
//! that a quick request costs no hand-over. Before something that may block, the handler calls
//! [`Server::may_block`], and another thread takes over the duty. So there are as many threads as
//! there are blocked requests, and a few; idle clients need none. Nothing is done periodically.
//!
//! # When a process dies
//!
//! The kernel closes the connections of a client that dies. The server then drops the client's
//! references and tells the handler, which lets go of what the client had locked. When the server
//! dies, every call of every client fails at once, with its address and process id.

mod client;
mod duty;
mod eager;
mod error;
mod failed;
mod gate;
mod host;
mod host_calls;
mod host_process;
mod host_table;
mod host_threads;
mod inbox;
mod inflow;
mod object;
mod object_instance;
mod objects;
mod peer;
pub mod proxies;
mod proxy;
mod proxy_form;
mod references;
mod registry;
mod remote;
mod remote_link;
mod remote_plain;
mod server;
mod tally;
mod wire;
mod worker;

pub use client::{Client, Greeting, Pending, Reply, greet};
pub use error::CallError;
pub use failed::{CallFailed, ProxyError, RemoteException};
pub use host::{Manager, ManagerBuilder, ManagerError, ServingManager};
use host_calls::Host;
pub use object::{Answer, Bound, Invocation, Outcome, Raised, Served};
#[doc(hidden)]
pub use object_instance::argument;
pub use object_instance::{Instance, Shareable};
pub use objects::{Queue, QueueError};
pub use peer::ClientId;
pub use proxy::Proxy;
pub use registry::Registry;
pub use remote::RemoteManager;
pub use remote_link::use_key;
#[cfg(feature = "tls")]
pub use remote_link::use_tls;
/// For what [`shared`](macro@crate::shared) writes.
#[doc(hidden)]
pub use serde;
pub use server::{Server, ServerBuilder};
pub use worker::{After, Call, Handler, Properly, Worker};
