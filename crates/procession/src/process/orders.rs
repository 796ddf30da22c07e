//! What a client and its fork server say to each other, over a socket that keeps messages whole.
//!
//! The client sends an [`Order`], with the descriptors that the child is to get, and waits for the
//! [`Answer`], which comes with a pidfd if there is a child. One order is under way at a time. Other
//! messages have no answer.
//!
//! # When a process dies
//!
//! - The client: the fork server finds the end of the stream, or dies with it.
//! - The fork server: the client, which looks at its pidfd while it waits, finds out what became of
//!   the order: see `fork_server.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::shm::{Handle, Member};

/// Descriptors that can be sent with one order. The system takes a few more.
pub(crate) const MOST_DESCRIPTORS: usize = 250;

/// Longer than any message in serialized form.
pub(crate) const MESSAGE_LEN: usize = 512;

/// The longest reason that is sent, in bytes.
const REASON_LEN: usize = 400;

/// What a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// Make a child.
    Make(Order),
    /// Kill a child of which the client did not get hold.
    Kill {
        /// Its place on the board of fates.
        place: u32,
    },
}

/// Which child to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    member: u32,
    payload: u64,
    /// The child's place on the board of fates.
    pub(crate) place: u32,
    /// Whether the child is to end when the client does.
    pub(crate) daemon: bool,
}

impl Order {
    pub(crate) fn new(member: Member, payload: Handle, place: u32, daemon: bool) -> Self {
        Self { member: member.raw(), payload: payload.raw(), place, daemon }
    }

    /// The member of the arena that the child is to be; `None` if the number has no meaning.
    pub(crate) fn member(&self) -> Option<Member> {
        Member::from_raw(self.member)
    }

    /// The block with the child's payload.
    pub(crate) fn payload(&self) -> Handle {
        Handle::from_raw(self.payload)
    }
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// There is a child; its pidfd comes along.
    Forked {
        /// Its process id.
        pid: u32,
    },
    /// There is none.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Answer {
    pub(crate) fn failed(reason: &dyn fmt::Display) -> Self {
        let mut reason = reason.to_string();
        let end = (0..=REASON_LEN).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or(0));
        Self::Failed { reason }
    }
}

/// Serializes a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; MESSAGE_LEN];
    let len = postcard::to_slice(message, &mut bytes).map_or(0, |used| used.len());
    debug_assert!(len > 0, "no message is longer than MESSAGE_LEN");
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_socket() {
        let member = Member::from_raw(0x1003).unwrap();
        let order = Order::new(member, Handle::from_raw(u64::MAX - 5), u32::MAX, true);
        let read: Message = postcard::from_bytes(&encode(&Message::Make(order))).unwrap();
        assert_eq!(read, Message::Make(order));
        assert_eq!(order.member(), Some(member));
        assert_eq!(order.payload(), Handle::from_raw(u64::MAX - 5));
    }

    #[test]
    fn long_reason_is_cut_between_characters() {
        let Answer::Failed { reason } = Answer::failed(&"é".repeat(1000)) else { unreachable!() };
        assert_eq!(reason.len(), REASON_LEN);
        let answer = Answer::failed(&format!("x{}", "é".repeat(1000)));
        assert!(encode(&answer).len() <= MESSAGE_LEN);
        assert_eq!(postcard::from_bytes::<Answer>(&encode(&answer)).unwrap(), answer);
    }
}
