//! How two processes prove to each other that they have the same key, without showing it.
//!
//! The listener challenges first: it sends `#CHALLENGE#` and random bytes. The client answers with
//! their HMAC under the key, and hears `#WELCOME#` or `#FAILURE#`. Then the other way round. Each
//! of these is a message as any other, of at most 256 bytes.
//!
//! | who asks                  | random bytes               | answer                              |
//! |---------------------------|----------------------------|-------------------------------------|
//! | CPython up to 3.11        | 20                         | HMAC-MD5, 16 bytes                  |
//! | CPython from 3.12 on, and we | `{sha256}` and 40       | `{sha256}` and the HMAC, which is of the prefix too |
//!
//! A peer of the old kind answers the new challenge with HMAC-MD5 of the whole of it, and is
//! accepted. So both sides understand either. A peer may name `md5`, `sha384`, `sha3_256` or
//! `sha3_384` in the place of `sha256`, as CPython's do when they are told to. Answers are compared in constant time.

use std::io;
use std::os::fd::BorrowedFd;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac, SimpleHmac};
use md5::Md5;
use sha2::{Sha256, Sha384};
use sha3::{Sha3_256, Sha3_384};

use crate::channel::connection::error::HandshakeError;
use crate::channel::connection::frame::{self, Header, Parsed};
use crate::sys::stream;

/// What a challenge begins with.
pub const CHALLENGE: &[u8] = b"#CHALLENGE#";
/// Says that the answer was right.
pub const WELCOME: &[u8] = b"#WELCOME#";
/// Says that the answer was wrong.
pub const FAILURE: &[u8] = b"#FAILURE#";

/// The longest message of a handshake, in bytes.
const LONGEST: u64 = 256;
const RANDOM_BYTES: usize = 40;
/// Bytes of a challenge of an old peer.
const OLD_CHALLENGE: usize = 20;
/// Bytes of an answer of an old peer.
const OLD_ANSWER: usize = 16;

/// The hash functions that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    Md5,
    Sha256,
    Sha384,
    Sha3_256,
    Sha3_384,
}

impl Digest {
    const ALL: [(Self, &'static [u8]); 5] = [
        (Self::Md5, b"{md5}"),
        (Self::Sha256, b"{sha256}"),
        (Self::Sha384, b"{sha384}"),
        (Self::Sha3_256, b"{sha3_256}"),
        (Self::Sha3_384, b"{sha3_384}"),
    ];

    fn mac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => mac::<Hmac<Md5>>(key, message),
            Self::Sha256 => mac::<Hmac<Sha256>>(key, message),
            Self::Sha384 => mac::<Hmac<Sha384>>(key, message),
            Self::Sha3_256 => mac::<SimpleHmac<Sha3_256>>(key, message),
            Self::Sha3_384 => mac::<SimpleHmac<Sha3_384>>(key, message),
        }
    }

    /// Compares in constant time.
    fn verify(self, key: &[u8], message: &[u8], answer: &[u8]) -> bool {
        match self {
            Self::Md5 => verifies::<Hmac<Md5>>(key, message, answer),
            Self::Sha256 => verifies::<Hmac<Sha256>>(key, message, answer),
            Self::Sha384 => verifies::<Hmac<Sha384>>(key, message, answer),
            Self::Sha3_256 => verifies::<SimpleHmac<Sha3_256>>(key, message, answer),
            Self::Sha3_384 => verifies::<SimpleHmac<Sha3_384>>(key, message, answer),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    keyed::<M>(key).chain_update(message).finalize().into_bytes().to_vec()
}

fn verifies<M: Mac + KeyInit>(key: &[u8], message: &[u8], answer: &[u8]) -> bool {
    keyed::<M>(key).chain_update(message).verify_slice(answer).is_ok()
}

fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Takes a message apart into the prefix that names a hash function, if it has one, and the rest.
fn split(message: &[u8]) -> Result<(Digest, &[u8], &[u8]), HandshakeError> {
    if matches!(message.len(), OLD_CHALLENGE | OLD_ANSWER) {
        return Ok((Digest::Md5, b"", message));
    }
    Digest::ALL
        .iter()
        .find_map(|(digest, prefix)| Some((*digest, *prefix, message.strip_prefix(*prefix)?)))
        .ok_or_else(|| HandshakeError::Unsupported { message: message.to_owned() })
}

/// Makes a challenge, without the word that it begins with.
///
/// # Errors
///
/// Those of `getrandom(2)`.
pub fn challenge() -> io::Result<Vec<u8>> {
    let mut message = b"{sha256}".to_vec();
    let start = message.len();
    message.resize(start + RANDOM_BYTES, 0);
    stream::random_bytes(&mut message[start..])?;
    Ok(message)
}

/// The answer to a challenge, given without the word that it begins with.
///
/// # Errors
///
/// [`HandshakeError::Unsupported`] when it wants a hash function that is not known here, or is so
/// short that its answer could be used elsewhere.
pub fn answer(key: &[u8], challenge: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let (digest, prefix, _) = split(challenge)?;
    let mut answer = prefix.to_vec();
    answer.extend(digest.mac(key, challenge));
    Ok(answer)
}

/// Checks the answer to a challenge.
///
/// # Errors
///
/// [`HandshakeError::WrongKey`], [`HandshakeError::Unsupported`].
pub fn verify(key: &[u8], challenge: &[u8], answer: &[u8]) -> Result<(), HandshakeError> {
    let (digest, _, mac) = split(answer)?;
    if digest.verify(key, challenge, mac) { Ok(()) } else { Err(HandshakeError::WrongKey) }
}

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Listener,
    Client,
}

/// What is due next from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Challenge,
    Answer,
    Verdict,
}

/// One end's part in a handshake. It never blocks: it does what it can and says when it is done.
#[derive(Debug)]
pub(crate) struct Handshake {
    side: Side,
    key: Vec<u8>,
    due: Due,
    /// The challenge that was sent.
    challenge: Vec<u8>,
    inbox: Inbox,
    /// How many messages have come.
    steps: usize,
}

impl Handshake {
    /// Begins; the listener sends its challenge.
    pub(crate) fn start(
        side: Side,
        key: &[u8],
        socket: BorrowedFd<'_>,
    ) -> Result<Self, HandshakeError> {
        let mut handshake = Self {
            side,
            key: key.to_owned(),
            due: Due::Challenge,
            challenge: Vec::new(),
            inbox: Inbox::default(),
            steps: 0,
        };
        if side == Side::Listener {
            handshake.send_challenge(socket)?;
        }
        Ok(handshake)
    }

    /// Goes as far as what has come allows; true when the handshake is done.
    pub(crate) fn advance(&mut self, socket: BorrowedFd<'_>) -> Result<bool, HandshakeError> {
        while let Some(message) = self.inbox.receive(socket)? {
            self.steps += 1;
            if self.step(socket, &message)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A number that is another one whenever a whole message has come.
    pub(crate) fn progress(&self) -> usize {
        self.steps
    }

    fn step(&mut self, socket: BorrowedFd<'_>, message: &[u8]) -> Result<bool, HandshakeError> {
        match self.due {
            Due::Challenge => {
                let challenge = message
                    .strip_prefix(CHALLENGE)
                    .ok_or_else(|| HandshakeError::Protocol { message: message.to_owned() })?;
                if challenge.len() < OLD_CHALLENGE {
                    return Err(HandshakeError::Unsupported { message: challenge.to_owned() });
                }
                send(socket, &answer(&self.key, challenge)?)?;
                self.due = Due::Verdict;
            }
            Due::Answer => {
                if let Err(error) = verify(&self.key, &self.challenge, message) {
                    // The peer may be gone already; that the handshake failed is what matters.
                    let _ = send(socket, FAILURE);
                    return Err(error);
                }
                send(socket, WELCOME)?;
                self.due = Due::Challenge;
                return Ok(self.side == Side::Client);
            }
            Due::Verdict => {
                if message != WELCOME {
                    return Err(HandshakeError::Rejected);
                }
                if self.side == Side::Listener {
                    return Ok(true);
                }
                self.send_challenge(socket)?;
            }
        }
        Ok(false)
    }

    fn send_challenge(&mut self, socket: BorrowedFd<'_>) -> Result<(), HandshakeError> {
        self.challenge = challenge().map_err(|_| HandshakeError::Gone)?;
        self.due = Due::Answer;
        send(socket, &[CHALLENGE, &self.challenge].concat())
    }
}

/// The part of the next message that has come, with its header.
#[derive(Debug, Default)]
pub(super) struct Inbox(Vec<u8>);

impl Inbox {
    /// The next message if all of it has come. Takes no byte of what follows it.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> Result<Option<Vec<u8>>, HandshakeError> {
        loop {
            let needed = match frame::parse(&self.0) {
                Parsed::Needs(needed) => needed,
                Parsed::Length(length) if length <= LONGEST => {
                    let all = frame::length_of_header(&self.0) + length as usize;
                    if self.0.len() == all {
                        let message = self.0.split_off(frame::length_of_header(&self.0));
                        self.0.clear();
                        return Ok(Some(message));
                    }
                    all
                }
                Parsed::Length(_) | Parsed::Nonsense => {
                    return Err(HandshakeError::Protocol { message: self.0.clone() });
                }
            };
            if !self.receive_up_to(socket, needed)? {
                return Ok(None);
            }
        }
    }

    fn receive_up_to(
        &mut self,
        socket: BorrowedFd<'_>,
        needed: usize,
    ) -> Result<bool, HandshakeError> {
        let start = self.0.len();
        self.0.resize(needed, 0);
        let result = stream::receive_now(socket, &mut self.0[start..]);
        self.0.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Err(HandshakeError::Gone),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(_) => Err(HandshakeError::Gone),
        }
    }
}

/// Sends one message. A peer that has read nothing of so little is as good as gone.
fn send(socket: BorrowedFd<'_>, message: &[u8]) -> Result<(), HandshakeError> {
    let bytes = [Header::of(message.len()).bytes(), message].concat();
    match stream::send_now(socket, &bytes) {
        Ok(count) if count == bytes.len() => Ok(()),
        _ => Err(HandshakeError::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"supadupasecretkey";

    #[test]
    fn digests_are_those_of_the_standards() {
        // RFC 2202 and RFC 4231, test case 2.
        let (key, data) = (b"Jefe", b"what do ya want for nothing?");
        let hex =
            |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(Digest::Md5.mac(key, data)), "750c783e6ab0b503eaa86e310a5db738");
        assert_eq!(
            hex(Digest::Sha256.mac(key, data)),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(Digest::Sha384.mac(key, data).len(), 48);
        // No RFC has this one; it is what OpenSSL makes of the same.
        assert_eq!(
            hex(Digest::Sha3_256.mac(key, data)),
            "c7d4072e788877ae3596bbb0da73b887c9171f93095b294ae857fbe2645e1ba5"
        );
        assert_eq!(Digest::Sha3_384.mac(key, data).len(), 48);
    }

    #[test]
    fn answer_has_the_form_that_was_asked_for() {
        assert_eq!(answer(KEY, &[7; OLD_CHALLENGE]).unwrap().len(), OLD_ANSWER);
        for (_, prefix) in Digest::ALL {
            let challenge = [prefix, &[7; RANDOM_BYTES]].concat();
            let answer = answer(KEY, &challenge).unwrap();
            assert!(answer.starts_with(prefix));
            verify(KEY, &challenge, &answer).unwrap();
            assert_eq!(verify(b"another", &challenge, &answer), Err(HandshakeError::WrongKey));
        }
    }

    #[test]
    fn old_peer_may_answer_a_new_challenge() {
        let challenge = challenge().unwrap();
        verify(KEY, &challenge, &Digest::Md5.mac(KEY, &challenge)).unwrap();
        assert_ne!(challenge, super::challenge().unwrap());
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in [&b""[..], b"{sha1}01234567890", b"{sha256", b"0123456789abcdef0"] {
            let refused = HandshakeError::Unsupported { message: garbage.to_owned() };
            assert_eq!(answer(KEY, garbage), Err(refused.clone()));
            assert_eq!(verify(KEY, b"challenge", garbage), Err(refused));
        }
        for wrong in [&[0; OLD_ANSWER][..], b"{sha256}", b"{md5}short"] {
            assert_eq!(verify(KEY, b"challenge", wrong), Err(HandshakeError::WrongKey));
        }
    }
}
