//! The words of the two forms.
//!
//! All of them are messages as of any connection. Those of Python's form are pickles, about which
//! the engine knows two: the first request of a client that speaks the form of this crate, and the
//! reply to it. The messages of that form, numbers in little-endian order:
//!
//! | from   | message                                                                   |
//! |--------|---------------------------------------------------------------------------|
//! | client | 0, number of the call, number of the thread, request of Python's form     |
//! | client | 1, number of the call, objects: the client refers to these from now on    |
//! | client | 2, pairs of an object and how many references to it the client gives up   |
//! | client | 3: the process ends as it should, and the connection with it               |
//! | server | number of the call, reply of Python's form                                |
//! | server | number of the call, those of the objects that there are not               |
//!
//! The first byte and all counts are as wide as written: one byte, else eight. There is no reply
//! to messages of kinds 2 and 3.

/// `(None, 'procession_hello', (1,), {})`, as a pickle. The 1 is the version of the form.
pub(super) const HELLO: &[u8] = b"\x80\x04(N\x8c\x10procession_helloK\x01\x85}t.";

/// `('#RETURN', pid)`, as a pickle: what comes before and after the number.
const WELCOME: (&[u8], &[u8]) = (b"\x80\x04\x8c\x07#RETURNJ", b"\x86.");

/// Bytes before the request in a message of kind [`CALL`].
pub(super) const CALL_HEAD: usize = 17;
/// Bytes before the reply in the server's messages.
pub(super) const REPLY_HEAD: usize = 8;

const CALL: u8 = 0;
const REFER: u8 = 1;
const GIVE_UP: u8 = 2;
const GOODBYE: u8 = 3;

/// The message of a client that is about to end.
pub(super) const FAREWELL: &[u8] = &[GOODBYE];

/// The reply to [`HELLO`] of the process `pid`.
pub(super) fn welcome(pid: u32) -> Vec<u8> {
    [WELCOME.0, &pid.to_le_bytes(), WELCOME.1].concat()
}

/// The process id in a reply to [`HELLO`]; `None` if the server does not speak our form.
pub(super) fn parse_welcome(reply: &[u8]) -> Option<u32> {
    let pid = reply.strip_prefix(WELCOME.0)?.strip_suffix(WELCOME.1)?;
    pid.try_into().ok().map(u32::from_le_bytes)
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent<'a> {
    Call { number: u64, thread: u64, request: &'a [u8] },
    Refer { number: u64, objects: Vec<u64> },
    GiveUp { references: Vec<(u64, u64)> },
    Goodbye,
}

/// Takes apart what a client has sent; `None` if it makes no sense.
pub(super) fn parse(message: &[u8]) -> Option<Sent<'_>> {
    let (kind, rest) = message.split_first()?;
    match *kind {
        CALL => {
            let (number, rest) = word(rest)?;
            let (thread, request) = word(rest)?;
            Some(Sent::Call { number, thread, request })
        }
        REFER => {
            let (number, rest) = word(rest)?;
            Some(Sent::Refer { number, objects: words(rest)? })
        }
        GIVE_UP => {
            let words = words(rest)?;
            let (pairs, []) = words.as_chunks::<2>() else { return None };
            let references = pairs.iter().map(|[object, count]| (*object, *count)).collect();
            Some(Sent::GiveUp { references })
        }
        GOODBYE if rest.is_empty() => Some(Sent::Goodbye),
        _ => None,
    }
}

/// What comes before the request in a message of kind [`CALL`].
pub(super) fn call_head(number: u64, thread: u64) -> [u8; CALL_HEAD] {
    let mut head = [CALL; CALL_HEAD];
    head[1..9].copy_from_slice(&number.to_le_bytes());
    head[9..].copy_from_slice(&thread.to_le_bytes());
    head
}

pub(super) fn refer(number: u64, objects: &[u64]) -> Vec<u8> {
    let mut message = vec![REFER];
    message.extend(number.to_le_bytes());
    message.extend(objects.iter().flat_map(|object| object.to_le_bytes()));
    message
}

pub(super) fn give_up(references: &[(u64, u64)]) -> Vec<u8> {
    let mut message = vec![GIVE_UP];
    for (object, count) in references {
        message.extend(object.to_le_bytes());
        message.extend(count.to_le_bytes());
    }
    message
}

/// The first number of some bytes, and what follows it.
pub(super) fn word(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*first), rest))
}

/// Bytes that are nothing but numbers.
pub(super) fn words(bytes: &[u8]) -> Option<Vec<u64>> {
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    Some(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_made() {
        let call = [&call_head(7, 9)[..], b"request"].concat();
        let expected = Sent::Call { number: 7, thread: 9, request: b"request" };
        assert_eq!(parse(&call), Some(expected));
        let expected = Sent::Refer { number: 3, objects: vec![1, u64::MAX] };
        assert_eq!(parse(&refer(3, &[1, u64::MAX])), Some(expected));
        assert_eq!(parse(FAREWELL), Some(Sent::Goodbye));
        let expected = Sent::GiveUp { references: vec![(5, 2), (6, 1)] };
        assert_eq!(parse(&give_up(&[(5, 2), (6, 1)])), Some(expected));
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in
            [&b""[..], b"\x04", b"\x03\0", b"\0short", b"\x01\0\0", b"\x02\0\0\0\0\0\0\0\0"]
        {
            assert_eq!(parse(garbage), None);
        }
    }

    #[test]
    fn welcome_tells_the_process_and_nothing_else_is_one() {
        assert_eq!(parse_welcome(&welcome(4711)), Some(4711));
        assert_eq!(parse_welcome(b"\x80\x04\x8c\x0a#TRACEBACK\x8c\x01x\x86."), None);
    }
}
