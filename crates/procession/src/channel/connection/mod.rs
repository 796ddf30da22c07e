//! Streams of messages over pipes and sockets, on the wire with CPython's `multiprocessing`.
//!
//! | file        | what is in it                                                        |
//! |-------------|----------------------------------------------------------------------|
//! | `bytes`     | messages of bytes over one descriptor; descriptors in between        |
//! | `typed`     | messages of values on top of them                                    |
//! | `codec`     | how values become bytes: for programs in Rust, or in Python          |
//! | `frame`     | the header of a message                                              |
//! | `arrival`   | waiting for a message to begin                                       |
//! | `turn`      | whose turn it is to send, and to receive                             |
//! | `listener`, `client` | the two ends of a connection by address                     |
//! | `entrance`  | what a new connection goes through first                             |
//! | `tls`       | encryption of what goes over TCP, with the feature `tls`             |
//! | `handshake` | how the two prove to each other that they have the same key          |
//! | `address`   | addresses                                                            |
//! | `wait`      | waiting for several at a time                                        |
//! | `asynchronous` | connections and listeners for async code, with the feature `tokio` |
//! | `sharer`    | descriptors for whoever asks for them later                          |
//! | `descriptor`| descriptors and connections inside messages                          |
//! | `carry`     | shared objects inside messages, and large messages                   |
//!
//! A message is a header with its length and that many bytes. What does not fit that is an error:
//! a stream that ends within a message says so, and is not taken for one that has ended.
//!
//! # When a process dies
//!
//! The kernel closes its ends. Whoever receives from it gets the messages that it had sent, whole,
//! and then [`RecvError::EndOfStream`]; or [`RecvError::Truncated`] if it was killed within one.
//! Whoever sends to it gets an error of the system, `EPIPE` or `ECONNRESET`.

mod address;
mod arrival;
#[cfg(feature = "tokio")]
mod asynchronous;
mod bytes;
mod carry;
mod client;
mod codec;
mod descriptor;
pub(crate) mod entrance;
mod error;
pub(crate) mod frame;
pub(crate) mod handshake;
mod listener;
mod sharer;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
pub(crate) mod tls;
mod turn;
mod typed;
mod wait;

pub use address::Address;
#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncConnection, AsyncListener};
pub use bytes::{ByteConnection, Incoming, Outgoing, byte_pipe, byte_pipe_one_way};
pub use carry::Mailbox;
pub use client::{Client, Connecting};
pub use codec::{Codec, Pickle, Postcard, PostcardError};
pub use descriptor::{Fd, adopt_number};
pub(crate) use descriptor::{noted, text_of_postcard};
pub use error::{EndpointError, HandshakeError, RecvError, SendError};
pub use handshake::{CHALLENGE, FAILURE, WELCOME, answer, challenge, verify};
pub use listener::{Listener, ListenerBuilder};
pub use sharer::{
    PausedSharing, ReadRequest, Redeem, RedeemError, forget_shared, pause_sharing, share,
    stop_sharing,
};
pub(crate) use sharer::{mark, withdraw};
pub(crate) use tls::finish_at_end;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError, finish_tunnels};
pub(crate) use typed::is_encoding;
pub use typed::{Connection, Nothing, Receiver, Sender, pipe, pipe_one_way};
pub use wait::{Signal, Waitable, wait, wait_raw};
