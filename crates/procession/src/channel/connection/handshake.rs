//! How two processes prove to each other that they have the same key, without showing it.
//!
//! The listener challenges first: it sends `#CHALLENGE#` and random bytes. The client answers with
//! their HMAC under the key, and hears `#WELCOME#` or `#FAILURE#`. Then the other way round. Each
//! of these is a message as any other, of at most 256 bytes. Our client sends its challenge along with
//! its answer, which saves both a turn: no peer looks for it before it has sent its verdict.
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
use std::time::Duration;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac, SimpleHmac};
use md5::Md5;
use sha2::{Sha256, Sha384};
use sha3::{Sha3_256, Sha3_384};

use crate::channel::connection::error::HandshakeError;
use crate::channel::connection::frame::{self, Header, Parsed};
use crate::primitive::{AtomicU32, Ordering};
use crate::sync::spin::SpinBudget;
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
/// So many bytes are read at once where that many may come; more than the messages of one turn have.
const AHEAD: usize = 256;
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

/// How long it pays to look for the peer's next message without sleeping.
///
/// A turn of a handshake takes less than a wake-up, if both ends have a processor. If not, the peer
/// comes only when this end sleeps, and soon: so that a sleep was short says nothing here, and each
/// that was needed makes the next spin shorter. Every so many handshakes it is tried anew.
#[derive(Debug)]
pub(super) struct Attempts {
    budget: SpinBudget,
    begun: AtomicU32,
}

impl Attempts {
    const TRIED_ANEW: u32 = 16;

    pub(super) fn new() -> Self {
        Self { budget: SpinBudget::new(), begun: AtomicU32::new(0) }
    }

    /// Says that a handshake is to begin.
    pub(super) fn begin(&self) {
        if self.begun.fetch_add(1, Ordering::Relaxed).is_multiple_of(Self::TRIED_ANEW) {
            self.budget.raise_to_start();
        }
    }

    /// Calls `look` for a short time until it finds something.
    pub(super) fn spin<R>(
        &self,
        limit: Option<Duration>,
        look: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        self.budget.spin(limit, look)
    }

    /// Says that a sleep was needed.
    pub(super) fn was_in_vain(&self) {
        self.budget.learn_from_sleep(None);
    }
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
    /// What is to be sent before the next look at what has come.
    outbox: Vec<u8>,
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
            outbox: Vec::new(),
            steps: 0,
        };
        if side == Side::Listener {
            handshake.post_challenge()?;
            handshake.due = Due::Answer;
            handshake.flush(socket)?;
        }
        Ok(handshake)
    }

    /// Goes as far as what has come allows; true when the handshake is done.
    pub(crate) fn advance(&mut self, socket: BorrowedFd<'_>) -> Result<bool, HandshakeError> {
        loop {
            while let Some(message) = self.inbox.take()? {
                self.steps += 1;
                match self.step(&message) {
                    Ok(false) => {}
                    Ok(true) => {
                        self.flush(socket)?;
                        return self.inbox.end().map(|()| true);
                    }
                    Err(error) => {
                        // The peer may be gone already; that the handshake failed is what matters.
                        let _ = self.flush(socket);
                        return Err(error);
                    }
                }
            }
            self.flush(socket)?;
            if !self.inbox.fill(socket, self.foreseen())? {
                return Ok(false);
            }
        }
    }

    /// A number that is another one whenever a whole message has come.
    pub(crate) fn progress(&self) -> usize {
        self.steps
    }

    /// So many bytes may be read at once: nothing that is not of the handshake is among them.
    fn foreseen(&self) -> usize {
        match (self.side, self.due) {
            // What follows is the peer's own.
            (Side::Listener, Due::Verdict) => frame::SHORT + WELCOME.len(),
            // Before it says anything else the peer waits for a message of this end.
            _ => AHEAD,
        }
    }

    fn step(&mut self, message: &[u8]) -> Result<bool, HandshakeError> {
        match self.due {
            Due::Challenge => {
                let challenge = message
                    .strip_prefix(CHALLENGE)
                    .ok_or_else(|| HandshakeError::Protocol { message: message.to_owned() })?;
                if challenge.len() < OLD_CHALLENGE {
                    return Err(HandshakeError::Unsupported { message: challenge.to_owned() });
                }
                let answer = answer(&self.key, challenge)?;
                self.post(&answer);
                if self.side == Side::Client {
                    self.post_challenge()?;
                }
                self.due = Due::Verdict;
            }
            Due::Answer => {
                if let Err(error) = verify(&self.key, &self.challenge, message) {
                    self.post(FAILURE);
                    return Err(error);
                }
                self.post(WELCOME);
                self.due = Due::Challenge;
                return Ok(self.side == Side::Client);
            }
            Due::Verdict => {
                if message != WELCOME {
                    return Err(HandshakeError::Rejected);
                }
                self.due = Due::Answer;
                return Ok(self.side == Side::Listener);
            }
        }
        Ok(false)
    }

    fn post_challenge(&mut self) -> Result<(), HandshakeError> {
        self.challenge = challenge().map_err(|_| HandshakeError::Gone)?;
        let message = [CHALLENGE, &self.challenge].concat();
        self.post(&message);
        Ok(())
    }

    fn post(&mut self, message: &[u8]) {
        self.outbox.extend_from_slice(Header::of(message.len()).bytes());
        self.outbox.extend_from_slice(message);
    }

    /// Sends what was posted. A peer that has read nothing of so little is as good as gone.
    fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), HandshakeError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        match stream::send_now(socket, &self.outbox) {
            Ok(count) if count == self.outbox.len() => {
                self.outbox.clear();
                Ok(())
            }
            _ => Err(HandshakeError::Gone),
        }
    }
}

/// What has come and was not taken yet: a part of a message with its header, or more than one.
#[derive(Debug, Default)]
pub(super) struct Inbox(Vec<u8>);

impl Inbox {
    /// The next message if all of it has come. Takes no byte of what follows it.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> Result<Option<Vec<u8>>, HandshakeError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if !self.fill(socket, 0)? {
                return Ok(None);
            }
        }
    }

    /// The next message if all of it has been read.
    fn take(&mut self) -> Result<Option<Vec<u8>>, HandshakeError> {
        let all = self.needed()?;
        if self.0.len() < all {
            return Ok(None);
        }
        let message = self.0[frame::length_of_header(&self.0)..all].to_vec();
        self.0.drain(..all);
        Ok(Some(message))
    }

    /// How many bytes the next message has with its header, or the header alone if it is not there.
    fn needed(&self) -> Result<usize, HandshakeError> {
        match frame::parse(&self.0) {
            Parsed::Needs(needed) => Ok(needed),
            Parsed::Length(length) if length <= LONGEST => {
                Ok(frame::length_of_header(&self.0) + length as usize)
            }
            Parsed::Length(_) | Parsed::Nonsense => Err(self.protocol()),
        }
    }

    /// Reads what is there, up to the end of the next message or `foreseen` bytes; false if nothing
    /// is.
    fn fill(&mut self, socket: BorrowedFd<'_>, foreseen: usize) -> Result<bool, HandshakeError> {
        let start = self.0.len();
        self.0.resize(self.needed()?.max(foreseen), 0);
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

    /// Fails if something is left that came before its turn.
    fn end(&self) -> Result<(), HandshakeError> {
        if self.0.is_empty() { Ok(()) } else { Err(self.protocol()) }
    }

    fn protocol(&self) -> HandshakeError {
        HandshakeError::Protocol { message: self.0.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

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
    #[test]
    fn client_challenges_along_with_its_answer() {
        let (here, there) = stream::stream_pair().unwrap();
        let mut listener = Handshake::start(Side::Listener, KEY, here.as_fd()).unwrap();
        let mut client = Handshake::start(Side::Client, KEY, there.as_fd()).unwrap();
        assert!(!client.advance(there.as_fd()).unwrap());
        assert!(!listener.advance(here.as_fd()).unwrap());
        assert_eq!(listener.due, Due::Verdict, "the listener has answered already");
        assert!(client.advance(there.as_fd()).unwrap());
        // What the client says next is not of the handshake.
        stream::send_now(there.as_fd(), b"hello").unwrap();
        assert!(listener.advance(here.as_fd()).unwrap());
        let mut rest = [0; 16];
        assert_eq!(stream::receive_now(here.as_fd(), &mut rest).unwrap(), 5);
    }

    #[test]
    fn peer_that_says_too_much_in_the_handshake_is_refused() {
        let (here, there) = stream::stream_pair().unwrap();
        let mut client = Handshake::start(Side::Client, KEY, there.as_fd()).unwrap();
        let mut listener = Handshake::start(Side::Listener, KEY, here.as_fd()).unwrap();
        assert!(!client.advance(there.as_fd()).unwrap());
        assert!(!listener.advance(here.as_fd()).unwrap());
        stream::send_now(here.as_fd(), b"more").unwrap();
        let refused = client.advance(there.as_fd());
        assert_eq!(refused, Err(HandshakeError::Protocol { message: b"more".to_vec() }));
    }

    #[test]
    fn client_with_another_key_is_told_so() {
        let (here, there) = stream::stream_pair().unwrap();
        let mut listener = Handshake::start(Side::Listener, KEY, here.as_fd()).unwrap();
        let mut client = Handshake::start(Side::Client, b"another", there.as_fd()).unwrap();
        assert!(!client.advance(there.as_fd()).unwrap());
        assert_eq!(listener.advance(here.as_fd()), Err(HandshakeError::WrongKey));
        drop(here);
        assert_eq!(client.advance(there.as_fd()), Err(HandshakeError::Rejected));
    }
}
